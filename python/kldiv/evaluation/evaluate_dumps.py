"""`evaluate`: dumps to a table of positions."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import polars as pl

import kldiv
from kldiv.evaluation.arguments import (
    as_dump,
    as_floor,
    as_labels,
    as_mask,
    in_sequences,
    named_dumps,
)
from kldiv.evaluation.assumed_kinds import is_assumed, with_kinds
from kldiv.evaluation.class_rules import ClassRule, VocabularyRule
from kldiv.evaluation.digests import digest_of
from kldiv.evaluation.dumps.dense import DenseDump, check_same_numbers
from kldiv.evaluation.dumps.part import innermost, total_rows
from kldiv.evaluation.dumps.protocol import Dump, Kind
from kldiv.evaluation.engines import run as engines
from kldiv.evaluation.engines.job import Job, Run
from kldiv.evaluation.evaluation import Evaluation, in_order
from kldiv.evaluation.head import pre_norm_warning
from kldiv.evaluation.positions import NO_TOKEN, Interrupted, Marks, Scorer, Scoring
from kldiv.evaluation.scorers import Heads, scorer_of


class EvaluationInterrupted(KeyboardInterrupt):
    """Ctrl-C while `evaluate` scores positions. `result` is the `Evaluation` of what is done."""

    def __init__(self, result: Evaluation) -> None:
        super().__init__()
        self.result = result


class ImprobableTextWarning(UserWarning):
    """Hidden states whose logits give the true tokens no more than guessing does."""


def evaluate(
    reference: Any,
    *candidates: Any,
    head: Any = None,
    candidate_heads: Any = None,
    labels: Any = None,
    where: Any = None,
    ignore_index: int | None = NO_TOKEN,
    space: str | tuple[str, str] | None = None,
    temperature: float = 1.0,
    classes: int | None = None,
    vocab: VocabularyRule = "error",
    sequences: Any = None,
    chunks: int | None = None,
    clusters: Any = None,
    strata: Any = None,
    floor: Any = None,
    work: str | os.PathLike[str] | None = None,
    client: Any = None,
    block_positions: int | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Evaluation:
    r"""Score candidates against a reference, position by position.

    Parameters
    ----------
    reference, *candidates : path, array_like, iterable of array_like, or Dump
        Outputs of the models on the same text: logits, log-probabilities, hidden states with
        `head`, or top-k log-probabilities. A path is opened by
        `kldiv.evaluation.dumps.formats.open_dump`; of an iterable each array is a sequence.
    head, candidate_heads : path, array_like or a list of them, optional
        Output layers ``[classes, size]`` of hidden states; `candidate_heads` where those of the
        candidates differ.
    labels : array_like of integers or path, optional
        The true next token of every position, of all sequences in order. Without it those that
        the dumps know.
    where : array_like of bool or path, optional
        The positions to score. Integers are 0 and 1.
    ignore_index : int or None
        The label of positions that have none.
    space : {"logits", "log_probs", "probs"} or a pair of them, optional
        What the numbers are; without it what the dumps say.
    temperature : float
        T with p = softmax(z / T), for those that are logits.
    classes : int, optional
        How many classes are real; later ones are padding, and not scored.
    vocab : {"error", "truncate", "renormalize"}
        What becomes of classes that only one side has, see
        `kldiv.evaluation.class_rules.ClassRule`.
    sequences : path or list of integers, optional
        Lengths of the sequences, where files or keys are not they.
    chunks : int, optional
        Only so many sequences, the first ones.
    clusters, strata : list, mapping of names of sequences, or path, optional
        What each sequence belongs to: errors treat sequences of one cluster as one; statistics
        are given by stratum, too.
    floor : array_like or path, optional
        KL of two runs of the reference, one number for every position. Files here and above are
        those that the command line takes.
    work : path, optional
        A directory that keeps blocks of sequences that are scored. The same call goes on from
        there if it is interrupted or killed, and gives the same bits; a directory of other
        inputs or options is refused.
    client : distributed.Client or str, optional
        A cluster of Dask, whose workers read the files by themselves: a client, a cluster, the
        address of its scheduler, or ``"local:N"`` for N processes of this machine. What lies in
        memory is sent.
    block_positions : int, optional
        About how many positions a block has, for `work` and `client`; it is of whole sequences.
        The numbers are the same for any.
    progress : callable
        Called with the number of positions just done; and its attribute ``found``, if it has one,
        with the number of those that were in `work`.

    Returns
    -------
    Evaluation
        The table of positions, and all that follows from it.

    Raises
    ------
    DumpError, ValueError, OSError
        For dumps that cannot be read or do not fit together, and options out of range.
    EngineError
        For a work directory or a cluster that cannot be used, and a block that failed on it.
    EvaluationInterrupted
        For Ctrl-C; it has the evaluation of what is done.

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv.evaluation import evaluate
    >>> rng = np.random.default_rng(0)
    >>> reference = rng.normal(0, 2, (3, 50, 1000)).astype(np.float32)
    >>> candidate = reference + rng.normal(0, 0.1, reference.shape).astype(np.float32)
    >>> result = evaluate(reference, candidate)
    >>> result
    <Evaluation of candidate: 150 positions of 3 sequences>
    >>> result.positions["kl"].mean() < 0.01
    True
    """
    if not candidates:
        raise ValueError("expected at least one candidate")
    if chunks is not None and chunks < 1:
        raise ValueError(f"chunks must be at least 1, got {chunks}")
    kind: Kind = "logits" if head is None else "hidden_states"
    dumps = [as_dump(reference, "reference", kind), *named_dumps(candidates, kind)]
    heads = Heads.given(head, candidate_heads, len(candidates))
    dumps = in_sequences(with_kinds(dumps, [heads.reference, *heads.candidates]), sequences)
    spaces = (space, space) if space is None or isinstance(space, str) else (space[0], space[1])
    scoring = Scoring(spaces, temperature, ClassRule(vocab, classes), chunks)
    scorers = [
        scorer_of(dumps[0], dump, scoring, heads.of(place)) for place, dump in enumerate(dumps[1:])
    ]
    marks = Marks(
        labels=as_labels(labels, ignore_index),
        where=as_mask(where),
        floor=as_floor(floor),
    )
    if marks.where is not None and len(marks.where) and not marks.where.any():
        raise ValueError(
            f"where leaves out all of {len(marks.where):,} positions: there is no position to score"
        )
    check_same_numbers(dumps)
    job = Job(dumps, scorers, scoring, heads, marks, block_positions, progress)
    interrupted = False
    try:
        run = engines.run(job, work, client)
    except Interrupted as error:
        interrupted = True
        run = Run(error.tables, kldiv.isa(), kldiv.get_num_threads())
    tables = run.tables
    # Of a run that went on with the work of another the rate is that of what it did itself.
    scored = len(tables[0]) * job.scored / max(1, job.scored + job.kept)
    # Classes that one side lacks are a column of the candidates that have such.
    frame = pl.concat(
        [
            table.insert_column(0, pl.Series("candidate", [dump.name] * len(table), pl.String))
            for dump, table in zip(dumps[1:], tables, strict=True)
        ],
        how="diagonal",
    )
    _warn_of_states(dumps, tables, scorers)
    about = {
        "kldiv": kldiv.__version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "direction": "KL(reference || candidate)",
        "reference": describe_short(dumps[0], spaces[0]),
        "candidates": [
            describe_short(dump, spaces[1]) | dict(scorer.about)
            for dump, scorer in zip(dumps[1:], scorers, strict=True)
        ],
        "kld_vocab_size": scorers[0].classes,
        "vocab": vocab,
        "space": list(spaces),
        "temperature": temperature,
        "arithmetic": {"isa": run.isa, "threads": run.threads, "sums": "float64"},
        "seconds": job.seconds,
        "positions_per_second": scored / job.seconds,
        "gigabytes_per_second": scored * sum(d.row_bytes for d in dumps) / job.seconds / 1e9,
    }
    if job.kept:
        about["kept_positions"] = job.kept
    if interrupted:
        about["interrupted"] = {"positions": len(tables[0]), "of": total_rows(dumps[0], chunks)}
    result = Evaluation(in_order(frame), about).including(clusters, strata)
    if interrupted:
        raise EvaluationInterrupted(result)
    return result


def _warn_of_states(dumps: list[Dump], tables: list[pl.DataFrame], scorers: list[Scorer]) -> None:
    """Say that hidden states may be those before the final norm, where the text is improbable."""
    sides = [("nll_p", dumps[0], 0), *(("nll_q", dump, i) for i, dump in enumerate(dumps[1:]))]
    for column, dump, place in sides:
        classes = scorers[place].classes
        if dump.kind == "hidden_states" and classes and column in tables[place].columns:
            nll = tables[place][column].drop_nulls().to_numpy()
            if (said := pre_norm_warning(nll, classes, dump.name)) is not None:
                warnings.warn(said, ImprobableTextWarning, stacklevel=3)


def describe_short(dump: Dump, space: str | None = None) -> dict[str, Any]:
    """What a dump is, in a line of JSON; `space` is what its numbers are said to be."""
    shape = [total_rows(dump), dump.width]
    if isinstance(dump, DenseDump) and len(dump.parts) == 1:
        shape = list(dump.parts[0].array.shape)
    described: dict[str, Any] = {
        "file": dump.name,
        "format": dump.format,
        "kind": dump.kind,
        "dtype": dump.dtype.name,
        "shape": shape,
    }
    if space is None and is_assumed(innermost(dump)):
        described["kind_assumed"] = True
    digest = None if dump.format.startswith("memory") else digest_of(dump.name)
    return described if digest is None else described | {"digest": digest}
