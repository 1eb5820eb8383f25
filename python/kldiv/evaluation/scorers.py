"""Which way the blocks of a pair of dumps are scored, by what their numbers are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from kldiv._arrays import Array
from kldiv.evaluation.assumed_kinds import shape_of
from kldiv.evaluation.bounds import DenseSpace, bounds
from kldiv.evaluation.clipped_kl import clipped_kl
from kldiv.evaluation.dumps.dense import ASSUMED
from kldiv.evaluation.dumps.llama_cpp import LlamaCppDump
from kldiv.evaluation.dumps.part import innermost
from kldiv.evaluation.dumps.protocol import DENSE, Block, Dump, DumpError, TopKBlock
from kldiv.evaluation.positions import Part, Scorer, Scoring, dense_scorer

TOP_K_ROWS = 1024
"""Rows of which the most probable classes are known, scored at a time."""


@dataclass(frozen=True)
class Heads:
    """The output layers of hidden states, as they were given."""

    reference: Any = None
    candidates: tuple[Any, ...] = ()
    """None, or one for each candidate."""

    @classmethod
    def given(cls, head: Any, candidate_heads: Any, candidates: int) -> Heads:
        """Of the arguments of `evaluate`.

        Raises
        ------
        ValueError
            For another number of heads than of candidates.
        """
        if candidate_heads is None:
            return cls(head)
        several = (
            candidate_heads if isinstance(candidate_heads, (list, tuple)) else [candidate_heads]
        )
        if len(several) != candidates:
            raise ValueError(f"{len(several)} heads are given for {candidates} candidates")
        return cls(head, tuple(several))

    def of(self, place: int) -> tuple[Any, Any]:
        """The reference's, and that of a candidate."""
        return self.reference, self.candidates[place] if self.candidates else None


def top_k_scorer(reference: Dump, candidate: Dump, scoring: Scoring) -> Scorer:
    """Of rows of which one side or both know only the most probable classes: bounds."""
    if scoring.temperature != 1.0:
        raise DumpError("top-k rows are of temperature 1, and cannot be given another")
    dense = [dump for dump in (reference, candidate) if dump.kind in DENSE]
    if len({reference.kind, candidate.kind} - DENSE) > 1:
        raise DumpError(
            f"{reference.name} holds {reference.kind.replace('_', ' ')} and {candidate.name} "
            f"{candidate.kind.replace('_', ' ')}; top-k rows are compared with each other, or with "
            "rows of all classes"
        )
    rows, classes, space = TOP_K_ROWS, None, "logits"
    if dense:
        [dump] = dense
        classes = scoring.class_rule.width(dump.name, dump.width or 0)
        space = scoring.spaces[0 if dump is reference else 1] or dump.kind
        rows = max(1, dump.block_bytes // (classes * 8))
    _check_vocabularies((reference, candidate), scoring)

    def score(p: Block, q: Block, labels: Array | None, where: Array | None) -> Part:
        p, q = (block if isinstance(block, TopKBlock) else block[:, :classes] for block in (p, q))
        return bounds(p, q, labels, space=cast(DenseSpace, space))

    return Scorer(score, rows, classes)


def _check_vocabularies(dumps: tuple[Dump, Dump], scoring: Scoring) -> None:
    """Raise `DumpError` where both sides say how many classes there are, and differ."""
    known = [
        (dump, scoring.class_rule.width(dump.name, width))
        for dump in dumps
        if (width := getattr(innermost(dump), "classes", dump.width)) is not None
    ]
    if len(known) == 2 and known[0][1] != known[1][1]:
        first, second = (f"{dump.name} is of {width:,} classes" for dump, width in known)
        raise DumpError(f"{first}, {second}; top-k rows are compared of one vocabulary")


def scorer_of(reference: Dump, candidate: Dump, scoring: Scoring, heads: tuple[Any, Any]) -> Scorer:
    """The scorer of two dumps.

    Raises
    ------
    DumpError
        For kinds that cannot be compared with each other, or a head that is missing or of no use.
    """
    kinds = {reference.kind, candidate.kind}
    if "top_k" in kinds:
        return top_k_scorer(reference, candidate, scoring)
    if "hidden_states" in kinds:
        from kldiv.evaluation.head_scorer import head_scorer

        return head_scorer(reference, candidate, scoring, heads)
    if heads != (None, None):
        raise _of_no_use(reference, heads)
    scorer = dense_scorer(reference, candidate, scoring)
    if isinstance(reference, LlamaCppDump) and candidate.kind in ("logits", "log_probs"):
        return _with_llama_cpp(scorer, scoring, candidate)
    return scorer


def _of_no_use(dump: Dump, heads: tuple[Any, Any]) -> DumpError:
    """What is wrong with a head beside rows of classes."""
    by = dump.details().get("kind from")
    if by == ASSUMED:
        # Nothing but its width says that it is no hidden states: that of the head's classes.
        shape = next(shape_of(head) for head in heads if head is not None)
        return DumpError(
            f"a head of shape {shape} is given, and {dump.name} has rows of {dump.width:,}, as "
            "many as its classes; a head is [classes, size] of hidden states of that size: is it "
            "transposed?"
        )
    said = f" by {by}" if by else ""
    return DumpError(
        f"a head is given, but {dump.name} is taken for {dump.kind.replace('_', ' ')}{said}; "
        "hidden states are known by a key, file or directory whose name begins with hidden"
    )


def _with_llama_cpp(scorer: Scorer, scoring: Scoring, candidate: Dump) -> Scorer:
    """The same, and what llama.cpp finds of its base file, for its table."""
    if scoring.temperature != 1.0 or candidate.width != scorer.classes:
        return scorer

    def score(p: Block, q: Block, labels: Array | None, where: Array | None) -> Part:
        assert not isinstance(p, TopKBlock)
        assert not isinstance(q, TopKBlock)
        found = dict(scorer.score(p, q, labels, where))
        return found | clipped_kl(p, q, labels)

    return replace(scorer, score=score)
