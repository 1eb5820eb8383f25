"""A call with its expected numbers: the oracle's, row by row, and the rules around rows.

`Corner.expected` states what masks, weights and reductions make of the rows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

import oracle
from oracle import mp

LABELS = {"cross_entropy": "targets", "gather_log_probs": "labels"}


class Expected(NamedTuple):
    """What a call gives: the numbers of the oracle, rounded to float64 once."""

    value: np.ndarray
    gradients: dict[str, np.ndarray]
    left_out: np.ndarray
    """Which rows do not count."""


@dataclass(frozen=True)
class Corner:
    """A call with one row for each name."""

    name: str
    function: str
    arrays: dict[str, np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)
    rows: tuple[str, ...] = ()
    wrt: tuple[str, ...] = ("p", "q")

    @property
    def labels(self) -> np.ndarray | None:
        """Class indices, if it has any."""
        given = self.arrays.get(LABELS.get(self.function, ""))
        return given if given is not None and given.dtype.kind in "iu" else None

    @functools.cached_property
    def expected(self) -> Expected:
        """The value and the gradients of the sum of its entries."""
        first = next(iter(self.arrays.values()))
        count, classes = first.shape
        options = dict(self.options)
        where = np.broadcast_to(options.pop("where", True), count) != 0
        weights = np.broadcast_to(options.pop("weights", 1.0), count).astype(np.float64)
        reduction, denominator = options.pop("reduction", "none"), options.pop("denominator", None)
        ignore_index = options.pop("ignore_index", -100)
        kept = where & (weights != 0)
        shares = [mp.one] * count
        if self.labels is not None:
            kept &= np.array([int(label) != ignore_index for label in self.labels], bool)
            if options.get("class_weights") is not None:
                per_class = options["class_weights"]
                shares = [
                    mp.mpf(float(per_class[label])) if keep else mp.zero
                    for label, keep in zip(self.labels, kept, strict=True)
                ]
        weights = [mp.mpf(w) if keep else mp.zero for w, keep in zip(weights, kept, strict=True)]
        divisor = mp.one
        if reduction == "batchmean":
            divisor = mp.mpf(count)
        elif reduction == "mean":
            divisor = mp.fsum(w * s for w, s in zip(weights, shares, strict=True))
            divisor = divisor if denominator is None else mp.mpf(denominator)
        values, gradients = [], {name: [] for name in self.wrt}
        for row in range(count):
            if not kept[row] or divisor == 0:
                values.append(mp.zero)
                for rows in gradients.values():
                    rows.append([mp.zero] * classes)
                continue
            scale = weights[row] / divisor
            value = _value(self, row, options)
            values.append([scale * x for x in value] if isinstance(value, list) else scale * value)
            for name, rows in gradients.items():
                rows.append([scale * x for x in _gradient(self, row, name, options)])
        if reduction != "none":
            value = np.float64(mp.fsum(values))
        else:
            value = _array(values, (count, classes) if self.function == "log_softmax" else (count,))
        shaped = {name: _array(rows, (count, classes)) for name, rows in gradients.items()}
        return Expected(np.asarray(value), shaped, ~kept | (divisor == 0))


def _array(values, shape):
    return np.array(values, dtype=object).reshape(shape).astype(np.float64)


def _target(corner, row):
    targets = corner.arrays[LABELS[corner.function]][row]
    return int(targets) if corner.labels is not None else targets


def _value(corner, row, options):
    first, *others = corner.arrays.values()
    match corner.function:
        case "cross_entropy":
            return oracle.cross_entropy(first[row], _target(corner, row), **options)
        case "gather_log_probs":
            return -oracle.cross_entropy(first[row], _target(corner, row), **options)
        case "entropy" | "logsumexp" | "log_softmax":
            return getattr(oracle, corner.function)(first[row], **options)
    return oracle.divergence(corner.function, first[row], others[0][row], **options)


def _gradient(corner, row, wrt, options):
    first, *others = corner.arrays.values()
    match corner.function:
        case "cross_entropy":
            return oracle.cross_entropy_gradient(first[row], _target(corner, row), wrt, **options)
        case "gather_log_probs":
            target = _target(corner, row)
            return [-x for x in oracle.cross_entropy_gradient(first[row], target, **options)]
        case "entropy" | "logsumexp":
            return getattr(oracle, f"{corner.function}_gradient")(first[row], **options)
        case "log_softmax":
            # Of the sum of a row: Σⱼ ∂ ln pⱼ/∂zᵢ = (1 − V pᵢ)/T.
            p = oracle.probabilities(first[row], **options)
            return [(1 - len(p) * x) / mp.mpf(options.get("temperature", 1)) for x in p]
    space = oracle.pair_of(options.get("space", "logits"))["pq".index(wrt)]
    powers = corner.function in ("alpha_divergence", "chi_squared")
    powers = powers and options.get("alpha") not in (0, 1) and space == "logits"
    if powers and _value(corner, row, options) > np.finfo(np.float64).max:
        # As of a value that a class makes infinite.
        return [mp.nan] * len(first[row])
    # Slopes of 1e200 leave little of a gradient.
    with mp.workdps(60 if corner.function not in ("alpha_divergence", "chi_squared") else 500):
        return oracle.gradient(corner.function, first[row], others[0][row], wrt, **options)
