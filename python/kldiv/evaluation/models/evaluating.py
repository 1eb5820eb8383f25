"""`evaluate_models`: models side by side over a text, window by window, without a disk."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import polars as pl

from kldiv import _optional
from kldiv._arrays import Array
from kldiv.evaluation.arguments import as_floor, with_sequence_labels
from kldiv.evaluation.class_rules import VocabularyRule
from kldiv.evaluation.evaluate_dumps import evaluate
from kldiv.evaluation.evaluation import Evaluation
from kldiv.evaluation.models.dump import ModelDump
from kldiv.evaluation.models.kept_states import KeptStates
from kldiv.evaluation.models.language_model import LanguageModel
from kldiv.evaluation.models.manifest import versions
from kldiv.evaluation.models.reading import CONTEXT, Given, Models, Reading, Text
from kldiv.evaluation.models.windows import Window


def evaluate_models(
    reference: Given,
    *candidates: Given,
    text: Text,
    context: int = CONTEXT,
    stride: int | None = None,
    chunks: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    sequential: bool = False,
    temperature: float = 1.0,
    classes: int | None = None,
    vocab: VocabularyRule = "error",
    clusters: Any = None,
    strata: Any = None,
    floor: Any = None,
    work: str | os.PathLike[str] | None = None,
    block_positions: int | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Evaluation:
    r"""Run language models over a text, and score candidates against a reference.

    All models read the same windows one after the other, the reference once; of each model the
    logits of one window are in memory, and none are written anywhere. A model has exactly 0.0
    from itself on the CPU.

    A window has `context` tokens; every next token of the text is scored once, in the first
    window that reaches it (see `kldiv.evaluation.models.windows.windows_of`). Where the tokenizer
    begins a text with a token (BOS) every window begins with it; what it would put behind a text
    (EOS) is left out.

    Parameters
    ----------
    reference, *candidates : path, str or LanguageModel
        What transformers loads: a directory, a GGUF file, or a name on the hub; or
        `kldiv.evaluation.models.LanguageModel` around a model that is loaded.
    text : path or iterable of str
        Plain files, JSONL, Parquet, or a directory of them, see
        `kldiv.evaluation.models.texts.read_documents`; or texts. Windows do not reach from one
        document into the next.
    context, stride : int
        Tokens of a window, and from one to the next; a window's own length without `stride`.
        With less, rows have the more context, and take the more time.
    chunks : int, optional
        Only so many windows, the first ones.
    device : str
        ``auto`` (the first GPU, or else the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    dtype : {"auto", "float64", "float32", "bfloat16", "float16"}
        Of the weights and of the logits; auto is what a model is stored in, float32 for GGUF.
    sequential : bool
        One model in memory at a time: of the reference hidden states are kept (in memory, or in a
        temporary file beyond 1 GiB), and its output layer is applied to them beside each candidate.
    temperature, vocab, strata, floor
        As of `kldiv.evaluate`.
    classes : int, optional
        How many classes are scored; without it, those that are tokens: rows of the output layer
        beyond the vocabulary are padding.
    clusters : optional
        As of `kldiv.evaluate`; without it a document is a cluster, where there are several.
    work, block_positions
        As of `kldiv.evaluate`: a directory that keeps blocks of windows that are scored, so that a
        run that was killed goes on. One of other weights, another text, device, number of threads
        or version of torch is refused. Not with `sequential`, whose states of the reference are
        not kept.
    progress : callable
        Called with the number of positions just done; with `sequential` also for those that the
        reference has read.

    Returns
    -------
    Evaluation
        Its sequences are the windows, its `about` also has the models, the text and the windows.

    Raises
    ------
    DumpError, ValueError, OSError
        For models, texts and devices that are not there or cannot be read, tokenizers that
        differ, a text shorter than a window, a model without a language-model head, a context
        longer than a model reads, and options out of range.
    ModuleNotFoundError
        Without torch and transformers: ``pip install 'kldiv[models]'``.

    Examples
    --------
    >>> import kldiv
    >>> result = kldiv.evaluate_models(
    ...     "SmolLM2-135M", "SmolLM2-135M-int4", text="wiki.txt", chunks=20
    ... )  # doctest: +SKIP
    >>> result.summary().kl  # doctest: +SKIP
    """
    if not candidates:
        raise ValueError("expected at least one candidate")
    if chunks is not None and chunks < 1:
        raise ValueError(f"chunks must be at least 1, got {chunks}")
    given = (reference, *candidates)
    reading = Reading.of(
        given, text, context=context, stride=stride, chunks=chunks, device=device, dtype=dtype
    )
    return run(
        reading,
        sequential=sequential,
        progress=progress,
        classes=classes,
        temperature=temperature,
        vocab=vocab,
        clusters=clusters,
        strata=strata,
        floor=floor,
        work=work,
        block_positions=block_positions,
    )


def run(
    reading: Reading,
    *,
    sequential: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
    classes: int | None = None,
    clusters: Any = None,
    **options: Any,
) -> Evaluation:
    """`evaluate_models` of what has been read; `options` are those of `evaluate`."""
    if sequential and options.get("work") is not None:
        raise ValueError(
            "work keeps what all models said of a window, and sequential runs one model at a time; "
            "leave one of them out (--work, work=; --sequential, sequential=)"
        )
    windows = reading.windows
    documents = [window.document for window in windows]
    if clusters is None and len(set(documents)) > 1:
        clusters = documents
    _check_beside(reading, clusters, options)

    def score(*dumps: ModelDump) -> Evaluation:
        scored = _classes(classes, reading.models.tokenizer.classes, dumps)
        return evaluate(*dumps, classes=scored, clusters=clusters, progress=progress, **options)

    way = _sequential if sequential else _side_by_side
    found, described = way(reading.models, windows, score, progress)
    about = reading.describe() | {
        "models": described,
        "sequential": sequential,
        "versions": versions(),
    }
    return replace(found, about=found.about | about)


Score = Callable[..., Evaluation]
Progress = Callable[[int], None]


def _side_by_side(
    models: Models, windows: list[Window], score: Score, progress: Progress
) -> tuple[Evaluation, list[dict[str, Any]]]:
    """All models in memory; one that is named twice is there once, and runs twice."""
    loaded: dict[Any, LanguageModel] = {}
    for place, one in enumerate(models.given):
        if one not in loaded:
            loaded[one] = models.load(place)
    several = [loaded[one] for one in models.given]
    found = score(*(ModelDump(one, windows) for one in several))
    return found, [one.describe() for one in several]


def _sequential(
    models: Models, windows: list[Window], score: Score, progress: Progress
) -> tuple[Evaluation, list[dict[str, Any]]]:
    """One model in memory at a time, and the reference's output layer."""
    reference = models.load(0)
    described = [reference.describe()]
    reference.check_states(windows[0])
    begin = time.perf_counter()
    with KeptStates(reference) as kept:
        kept.keep(windows, progress)
        seconds = time.perf_counter() - begin
        if not isinstance(models.given[0], LanguageModel):
            reference.drop_the_trunk()
        found: list[Evaluation] = []
        for place in range(1, len(models.given)):
            candidate = models.load(place)
            described.append(candidate.describe())
            candidate.check_states(windows[0])
            # As the reference's: in one product of equally many rows.
            again = partial(_logits_in_two_steps, candidate)
            found.append(
                score(
                    ModelDump(reference, windows, rows_of=kept.logits),
                    ModelDump(candidate, windows, rows_of=again),
                )
            )
            del candidate, again
            gc.collect()
            _optional.module("torch").cuda.empty_cache()
    return _joined(found, seconds), described


def _logits_in_two_steps(model: LanguageModel, window: Window) -> Array:
    return model.logits_of(model.states(window))


def _joined(found: list[Evaluation], seconds: float) -> Evaluation:
    """Evaluations of one candidate each as one; the reference has taken `seconds`."""
    first = found[0].about
    seconds += sum(one.about["seconds"] for one in found)
    about = first | {
        "candidates": [dump for one in found for dump in one.about["candidates"]],
        "seconds": seconds,
        "positions_per_second": len(found[0].positions) / seconds,
        "gigabytes_per_second": None,
    }
    return Evaluation(pl.concat(one.positions for one in found), about)


def _check_beside(reading: Reading, clusters: Any, options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for what does not fit the windows; the models have not run then."""
    names = [window.name for window in reading.windows]
    number = pl.Series("sequence", range(len(names)), pl.UInt32)
    frame = pl.DataFrame([number, pl.Series("name", names, pl.String)])
    for column, given in (("cluster", clusters), ("stratum", options.get("strata"))):
        if given is not None:
            with_sequence_labels(frame, column, given)
    floor = as_floor(options.get("floor"))
    if floor is not None and len(floor) != reading.positions:
        raise ValueError(
            f"floor has {len(floor):,} numbers for {reading.positions:,} positions; expected one "
            "for every position"
        )


def _classes(given: int | None, tokens: int, dumps: tuple[ModelDump, ...]) -> int | None:
    """How many classes are scored: those that are tokens, where all models have them."""
    if given is not None or any(dump.width < tokens for dump in dumps):
        return given
    return tokens
