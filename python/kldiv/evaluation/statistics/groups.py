"""Positions by groups: what is said of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from kldiv._arrays import Array
from kldiv.evaluation.statistics.estimate import Estimate, mean_of, scaled
from kldiv.evaluation.statistics.rows import clusters_of, column, has, main_column


@dataclass(frozen=True)
class Group:
    """Some of the positions."""

    label: str
    rows: int
    """All of them, with NaN or not."""
    rows_nan: int
    kl: Estimate
    """Its lower bound in a table of top-k rows."""
    share_of_kl: float
    """What part of the total KL they have; NaN where the total is 0."""
    top1_agreement: Estimate | None
    confidence_p: float | None
    """Mean probability of p's most probable class: how hard the group is."""


def groups(positions: pl.DataFrame, of: Array, labels: list[str]) -> tuple[Group, ...]:
    """One `Group` for each label; `of` has the number of each row's, −1 where it has none."""
    kl = column(positions, main_column(positions))
    clusters = clusters_of(positions)
    same = column(positions, "same_top") if has(positions, "same_top") else None
    confidence = column(positions, "confidence_p") if has(positions, "confidence_p") else None
    finite, _ = scaled(np.where(np.isfinite(kl), kl, 0.0))
    total = float(finite.sum())
    found = []
    for number, label in enumerate(labels):
        there = of == number
        agreement = mean = None
        if same is not None:
            agreement = mean_of(same[there], clusters[there])
        if confidence is not None:
            mean = mean_of(confidence[there], None).mean
        share = float(finite[there].sum()) / total if total > 0 else math.nan
        found.append(
            Group(
                label,
                int(there.sum()),
                int(np.isnan(kl[there]).sum()),
                mean_of(kl[there], clusters[there]),
                share,
                agreement,
                mean,
            )
        )
    return tuple(found)
