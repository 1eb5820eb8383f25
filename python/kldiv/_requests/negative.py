"""Looking for negative probabilities in what a request was given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kldiv._arrays import Array, Operand
from kldiv._outputs import overlap
from kldiv._probabilities import (
    NegativeProbabilityWarning,
    negative_probability,
    warn_once,
    was_shown,
)
from kldiv._reducer import Value
from kldiv._requests.request import Request

PROBABILITIES = frozenset({"probs", "unnormalized"})
"""What the extension calls spaces of numbers that are no logarithms."""


def check_probabilities(
    request: Request,
    values: Value,
    outputs: Mapping[str, Operand],
    ignored: Array | None = None,
) -> None:
    """Warn of the first negative probability, if any made a value NaN.

    Rows that a gradient has overwritten are not looked at.
    """
    if was_shown(NegativeProbabilityWarning):
        return
    if not (np.isnan(values).any() if isinstance(values, np.ndarray) else values != values):
        return
    kept = request.reducer.kept()
    if ignored is not None:
        kept = ~ignored if kept is None else kept & ~ignored
    for (name, rows), space in zip(request.rows.items(), request.spaces, strict=True):
        memory, others = rows.memory, outputs.values()
        if space not in PROBABILITIES or any(overlap(memory, out.memory) for out in others):
            continue
        if warn_of_negative(name, memory, kept):
            return


def warn_of_negative(name: str, operand: Array, kept: Array | None) -> bool:
    """Warn of the first negative probability of the rows kept; whether there is one."""
    if (found := negative_probability(operand, kept)) is None:
        return False
    row, number = found
    where = f" in row {row[0] if len(row) == 1 else row}" if row else ""
    warn_once(
        NegativeProbabilityWarning,
        f"{name} holds the negative probability {number:g}{where}, whose result is NaN: "
        'pass space="logits" or "log_probs" if these are such',
    )
    return True
