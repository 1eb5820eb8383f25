"""What rows of the most probable classes may hold: one rule, for every reader and every bound."""

from __future__ import annotations

import numpy as np

from kldiv._arrays import Array

EXCESS = 0.01
"""By how much probabilities may add up to more than 1: servers compute in bfloat16, too."""


def fault(
    ids: Array, log_probs: Array, present: Array, *, sums: bool = False
) -> tuple[int, str] | None:
    """The first row that is wrong, and why; None where all are right.

    Ids are at least 0, log-probabilities at most 0 but for rounding, and never NaN; with `sums`,
    probabilities of a row add up to at most 1 but for rounding, and no id is there twice.
    """
    for wrong, reason in (
        (present & np.isnan(log_probs), "a log-probability is NaN"),
        (present & (log_probs > EXCESS), "{value:.9g} is no log-probability, which is at most 0"),
        (present & (ids < 0), "a token has the id {id}"),
    ):
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            return row, reason.format(value=log_probs[row, column], id=ids[row, column])
    if not sums:
        return None
    total = masses(np.where(present, log_probs, -np.inf))
    if (wrong := total > 1.0 + EXCESS).any():
        row = int(np.flatnonzero(wrong)[0])
        return row, f"probabilities add up to {total[row]:.6g}, more than 1"
    ordered = np.sort(np.where(present, ids, -1), axis=1)
    if (wrong := (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        return row, f"id {ordered[row, column]} is there twice"
    return None


def masses(log_probs: Array) -> Array:
    """Sums of the probabilities of rows, in order: the same bits with any number of −∞ behind."""
    return sums(np.exp(log_probs))


def sums(values: Array) -> Array:
    """Sums of rows, in order: the same bits with any number of zeros behind."""
    if not values.shape[1]:
        return np.zeros(len(values))
    total: Array = np.cumsum(values, axis=1)[:, -1]
    return total
