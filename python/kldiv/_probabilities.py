"""Numbers that are not what their `space` says, and the warnings of them: one each a process."""

from __future__ import annotations

import sys
import warnings

import numpy as np

from kldiv._arrays import Array, Rows

# How far the sum of a row of probabilities may be from 1; bfloat16 rounds each of them by 2⁻⁹.
SUM_TOLERANCE, SUM_TOLERANCE_HALF = 1e-3, 2**-9
ROWS_LOOKED_AT = 4


class ProbabilitiesAsLogitsWarning(UserWarning):
    """Where logits are expected the rows hold numbers from 0 to 1 that sum to 1.

    Shown once a process. Pass ``space="probs"`` if they are probabilities.
    """


class NegativeProbabilityWarning(UserWarning):
    """With ``space="probs"`` a row holds a negative number, and its result is NaN.

    Shown once a process.
    """


_shown: set[type[Warning]] = set()


def warn_once(category: type[Warning], message: str) -> None:
    """Warn of a line of the caller of this package, unless that was done before."""
    if category in _shown:
        return
    _shown.add(category)
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("kldiv"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def was_shown(category: type[Warning]) -> bool:
    """Whether this process has warned of it."""
    return category in _shown


def check_logits(arguments: dict[str, Rows], spaces: tuple[str, ...]) -> None:
    """Warn where logits look like probabilities.

    The first number tells most logits apart, in 0.1 µs.
    """
    if ProbabilitiesAsLogitsWarning in _shown:
        return
    for rows, space in zip(arguments.values(), spaces, strict=True):
        logits = rows.memory
        if space != "logits" or not logits.size or not 0.0 <= logits.item(0) <= 1.0:
            continue
        if look_like_probabilities(logits):
            warn_once(
                ProbabilitiesAsLogitsWarning,
                f"{rows.name} is taken for logits, but holds numbers from 0 to 1 that sum to 1 in "
                'a row: pass space="probs" if these are probabilities',
            )
            return


def look_like_probabilities(rows: Array) -> bool:
    """Whether the first of some rows, the classes last, hold numbers from 0 to 1 that sum to 1."""
    classes = rows.shape[-1]
    if classes < 2 or not rows.size:
        return False
    # The first numbers tell most rows apart, at 0.1 µs each; an operation on arrays takes 1 µs.
    for position in range(min(classes, 8)):
        if not 0.0 <= rows.item(position) <= 1.0:
            return False
    tolerance = SUM_TOLERANCE_HALF if rows.itemsize == 2 else SUM_TOLERANCE
    batch = np.ndindex(rows.shape[:-1])
    # Of bfloat16 a comparison with NaN warns.
    with np.errstate(all="ignore"):
        for index, _ in zip(batch, range(ROWS_LOOKED_AT), strict=False):
            row = rows[index]
            # Few numbers tell most rows apart; a vocabulary of them takes 50 µs.
            for part in (row[:64], row):
                if not ((part >= 0) & (part <= 1)).all():
                    return False
            if abs(float(row.sum(dtype=np.float64)) - 1) > tolerance:
                return False
    return True


def negative_probability(rows: Array, kept: Array | None) -> tuple[tuple[int, ...], float] | None:
    """Index of the first row kept that holds a negative number, and that number."""
    if not rows.size:
        return None
    with np.errstate(all="ignore"):
        smallest = np.fmin.reduce(rows, axis=-1)
        negative = smallest < 0
    if kept is not None:
        negative = negative & kept.reshape(negative.shape)
    if not negative.any():
        return None
    index = np.unravel_index(int(np.argmax(negative)), negative.shape)
    return tuple(map(int, index)), float(smallest[index])
