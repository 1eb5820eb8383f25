"""A language model, its int8 and int4 forms and a text, as `kldiv evaluate` takes them.

    python examples/make_models.py --output DIR

writes DIR/smollm2, DIR/int8 and DIR/int4, which transformers loads: SmolLM2-135M-Instruct with its
weights in float32, and the same model with its weight matrices rounded to so many bits, the
embedding that it shares with its output layer among them. DIR/text has topics of Python's
documentation, a file each (``pydoc_data.topics`` of the standard library, PSF-2.0).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import models
import texts
from quantisation import rounded_forms

TOPICS = ("assignment", "formatstrings", "with")


def make(output: Path) -> None:
    """Write everything, half a gigabyte a model."""
    output.mkdir(parents=True, exist_ok=True)
    models.smollm2(output)
    model, tokenizer = models.smollm2(output)  # as it was kept: one of GGUF cannot be saved
    for name in rounded_forms(model):
        model.save_pretrained(output / name)
        tokenizer.save_pretrained(output / name)
    (output / models.SMOLLM2_FOLDER).rename(output / "smollm2")
    (output / "text").mkdir(exist_ok=True)
    for topic in TOPICS:
        path = output / "text" / f"{topic}.rst"
        path.write_text(texts.python_documentation()[topic], encoding="utf-8")
    print(f"wrote smollm2, int8, int4 and text to {output}")


def main() -> None:
    """Write to a folder."""
    parser = argparse.ArgumentParser(description="Make models to compare, and a text.")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write to")
    make(parser.parse_args().output)


if __name__ == "__main__":
    main()
