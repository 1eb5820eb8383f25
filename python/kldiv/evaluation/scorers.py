"""Which way the blocks of a pair of dumps are scored, by what their numbers are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kldiv.evaluation.dumps.protocol import DENSE, Dump, DumpError
from kldiv.evaluation.positions import Scorer, Scoring, dense_scorer


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


def scorer_of(reference: Dump, candidate: Dump, scoring: Scoring, heads: tuple[Any, Any]) -> Scorer:
    """The scorer of two dumps.

    Raises
    ------
    DumpError
        For kinds that cannot be compared with each other, or a head that is missing or of no use.
    """
    kinds = {reference.kind, candidate.kind}
    if "top_k" in kinds:
        from kldiv.evaluation.bounds import top_k_scorer

        return top_k_scorer(reference, candidate, scoring)
    if "hidden_states" in kinds:
        from kldiv.evaluation.head import head_scorer

        return head_scorer(reference, candidate, scoring, heads)
    assert kinds <= DENSE
    if heads != (None, None):
        raise DumpError(
            f"a head is given, but {reference.name} holds {reference.kind.replace('_', ' ')}, "
            "not hidden states"
        )
    return dense_scorer(reference, candidate, scoring)
