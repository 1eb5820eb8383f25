"""Which classes are scored where two dumps have vocabularies of different widths, or padding."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

import kldiv
from kldiv._arrays import Array
from kldiv.comparison import Comparison

VocabularyRule = Literal["error", "truncate", "renormalize"]
RULES: tuple[VocabularyRule, ...] = get_args(VocabularyRule)


@dataclass(frozen=True)
class ClassRule:
    """What becomes of classes that only one side has, and of padding.

    With `error` both sides must have the same width. The others score the classes that both
    have: `renormalize` divides both rows by their mass there; `truncate` takes the probabilities
    as they are, so that rows sum to less than one and KL may be negative. Classes from `classes`
    on, the padding of a vocabulary, belong to no model and are left out before anything else.
    """

    rule: VocabularyRule = "error"
    classes: int | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"vocab must be one of {', '.join(RULES)}, got {self.rule!r}")
        if self.classes is not None and self.classes < 1:
            raise ValueError(f"classes must be at least 1, got {self.classes}")

    def width(self, name: str, width: int) -> int:
        """How many of the classes of one side are real."""
        if self.classes is None:
            return width
        if self.classes > width:
            raise ValueError(
                f"{name} has {width:,} classes, fewer than the {self.classes:,} to score"
            )
        return self.classes

    def shared(self, names: tuple[str, str], widths: tuple[int, int]) -> int:
        """How many classes are scored of two sides that have so many real ones."""
        if self.rule == "error" and widths[0] != widths[1]:
            raise ValueError(
                f"{names[0]} has {widths[0]:,} classes and {names[1]} {widths[1]:,}: vocabularies "
                "that differ are compared on the classes both have by the rule renormalize or "
                "truncate (--vocab, vocab=), or up to a number of classes (--vocab-size, classes=)"
            )
        return min(widths)


def compare_shared(
    p: Array,
    q: Array,
    labels: Array | None,
    where: Array | None,
    *,
    rule: VocabularyRule,
    spaces: tuple[str, str],
    temperature: float,
    ignore_index: int | None,
) -> tuple[Comparison, Array, Array]:
    """Compare rows of different widths, and give the mass that each side loses.

    `p` and `q` hold their real classes.
    """
    classes = min(p.shape[1], q.shape[1])
    lost_p = _lost(p, classes, spaces[0], temperature)
    lost_q = _lost(q, classes, spaces[1], temperature)
    if rule == "renormalize":
        comparison = kldiv.compare(
            p[:, :classes],
            q[:, :classes],
            labels,
            ignore_index=ignore_index,
            space=spaces,
            temperature=temperature,
            where=where,
        )
        return comparison, lost_p, lost_q
    ln_p = _normalized(p, spaces[0], temperature)[:, :classes]
    ln_q = _normalized(q, spaces[1], temperature)[:, :classes]
    # Of the rows scaled to one: top classes and what is invalid, and by field what follows.
    scaled = kldiv.compare(
        ln_p, ln_q, labels, ignore_index=ignore_index, space="log_probs", where=where
    )
    given: dict[str, Any] = {"space": "log_probs", "where": where}
    valid = ~np.isnan(scaled.kl)
    columns = {field.name: getattr(scaled, field.name) for field in fields(scaled)}
    for name in ("kl", "reverse_kl", "jensen_shannon", "total_variation"):
        columns[name] = np.where(valid, getattr(kldiv, name)(ln_p, ln_q, **given), np.nan)
    for side, ln, lost in (("p", ln_p, lost_p), ("q", ln_q, lost_q)):
        columns[f"entropy_{side}"] = np.where(valid, kldiv.entropy(ln, **given), np.nan)
        columns[f"confidence_{side}"] = columns[f"confidence_{side}"] * (1 - lost)
        if columns[f"nll_{side}"] is not None:
            columns[f"nll_{side}"] = columns[f"nll_{side}"] - np.log1p(-lost)
    return Comparison(**columns), lost_p, lost_q


def _lost(rows: Array, classes: int, space: str, temperature: float) -> Array:
    """Mass of a row on the classes from `classes` on."""
    if rows.shape[1] == classes:
        return np.zeros(len(rows))
    ln = _normalized(rows, space, temperature)
    with np.errstate(all="ignore"):
        lost: Array = np.exp(np.logaddexp.reduce(ln[:, classes:], axis=1))
    return lost


def _normalized(rows: Array, space: str, temperature: float) -> Array:
    """Float64 log-probabilities of all classes of a row."""
    with np.errstate(all="ignore"):
        ln = np.log(rows, dtype=np.float64) if space == "probs" else rows.astype(np.float64)
    if space != "logits":
        temperature = 1.0
    normalized: Array = kldiv.log_softmax(ln, temperature=temperature)
    return normalized
