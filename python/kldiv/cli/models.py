"""`kldiv evaluate` and `kldiv capture`: language models over a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kldiv
from kldiv.cli.compare import check_nan, how_far, warnings_in_a_line
from kldiv.cli.errors import CommandError, warn
from kldiv.cli.output import progress, show_table
from kldiv.evaluation.class_rules import RULES
from kldiv.evaluation.dumps.describe import size
from kldiv.evaluation.evaluate_dumps import EvaluationInterrupted
from kldiv.evaluation.evaluation import Evaluation
from kldiv.evaluation.models.capture import Layout, check_layout, check_target, write
from kldiv.evaluation.models.evaluating import run
from kldiv.evaluation.models.reading import Reading
from kldiv.evaluation.side_files import read_floor, read_sequence_labels


@dataclass(frozen=True)
class Run:
    """How models read a text, as typed."""

    text: str
    context: int
    stride: int | None = None
    chunks: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None

    def read(self, models: tuple[str, ...], *, llama_cpp: bool = False) -> Reading:
        """Look models up, and cut the text."""
        if self.threads is not None:
            kldiv.set_num_threads(self.threads)
        reading = Reading.of(
            models,
            self.text,
            context=self.context,
            stride=self.stride,
            chunks=self.chunks,
            device=self.device,
            dtype=self.dtype,
            llama_cpp=llama_cpp,
        )
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        return reading


def evaluate(
    models: tuple[str, ...],
    how: Run,
    *,
    sequential: bool,
    vocab: str,
    clusters: str | None,
    strata: str | None,
    floor: str | None,
    **options: Any,
) -> Evaluation:
    """Run a reference and candidates, with a progress bar.

    Raises
    ------
    CommandError, DumpError, OSError
        For models and texts that do not fit or cannot be read, and options out of range.
    """
    if vocab not in RULES:
        raise CommandError(f"--vocab is {vocab!r}; expected one of {', '.join(RULES)}")
    beside: dict[str, Any] = {
        "clusters": clusters and read_sequence_labels(clusters),
        "strata": strata and read_sequence_labels(strata),
        "floor": None if floor is None else read_floor(floor),
    }
    try:
        reading = how.read(models)
        passes = len(models) if sequential else 1
        total, long = passes * reading.positions, options.get("work") is not None
        with warnings_in_a_line(), progress("evaluating", total, long=long) as advance:
            found = run(
                reading,
                sequential=sequential,
                progress=advance,
                vocab=vocab,
                **beside,
                **options,
            )
    except EvaluationInterrupted as error:
        found = error.result
        warn(how_far(found))
    except (ValueError, ModuleNotFoundError) as error:
        raise _said(error) from None
    check_nan(found)
    return found


def capture(
    model: str, how: Run, out: str, layout: Layout, k: int | None, *, overwrite: bool
) -> None:
    """Keep what a model says of a text, with a progress bar, and show what was written."""
    try:
        check_layout(layout, k, how.stride)
        target = check_target(out, overwrite=overwrite)
        reading = how.read((model,), llama_cpp=layout == "kld")
        with progress("capturing", reading.positions) as advance:
            done = write(reading, target, layout, k, advance)
    except (ValueError, ModuleNotFoundError) as error:
        raise _said(error) from None
    described, windows = done.manifest["model"], done.manifest["windows"]
    bytes_written = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    kept = Path(out) / done.path.relative_to(target)
    show_table(
        [
            ("written", str(kept)),
            ("model", f"{model}  {described['architecture']}, {described['dtype']}"),
            ("device", described["device_name"]),
            ("windows", f"{windows['windows']:,} of {windows['context']:,} tokens"),
            ("positions", f"{windows['positions']:,}"),
            ("classes", f"{described['classes']:,}"),
            ("size", size(bytes_written)),
        ]
    )


def layout_of(*, hidden: bool, logits: bool, kld: bool, top_k: int | None) -> Layout:
    """The one that the options name; hidden states without any."""
    given: dict[Layout, bool] = {
        "hidden": hidden,
        "logits": logits,
        "kld": kld,
        "top_k": top_k is not None,
    }
    chosen = [name for name, wanted in given.items() if wanted]
    if len(chosen) > 1:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise CommandError(f"{names} are two layouts; expected one")
    return chosen[0] if chosen else "hidden"


def _said(error: ValueError | ModuleNotFoundError) -> Exception:
    """What a command says in one line; a module that is no library of ours is a defect."""
    if isinstance(error, ModuleNotFoundError) and "pip install" not in str(error):
        return error
    return CommandError(str(error))
