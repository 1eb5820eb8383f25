"""A checked call of an estimator on NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from kldiv import _kldiv
from kldiv._arrays import (
    Array,
    Operand,
    Rows,
    as_array,
    as_float,
    as_rows,
    check_same_shape,
    result_dtype,
)
from kldiv._reducer import Reducer, Value
from kldiv.estimators.formulas import log_ratio
from kldiv.estimators.table import ESTIMATORS, STRAIGHT_THROUGH, Estimator


def estimator(
    name: str,
    p: Any,
    q: Any,
    straight_through: Any,
    clamp_log_ratio: Any,
    clamp: Any,
    where: Any,
    weights: Any,
    reduction: str,
    denominator: Any,
) -> EstimatorRequest:
    """The estimator of a name, of the log-probabilities of sampled tokens."""
    rows = {"p": _log_probs("p", p), "q": _log_probs("q", q)}
    check_same_shape(rows["p"], rows["q"])
    if not isinstance(straight_through, (bool, np.bool_)):
        raise TypeError(f"straight_through must be True or False, got {straight_through!r}")
    reducer = Reducer.parse(
        rows["p"], result_dtype(*rows.values()), where, weights, reduction, denominator
    )
    bounds = {
        option: None if bound is None else checked_bound(option, as_float(option, bound))
        for option, bound in (("clamp_log_ratio", clamp_log_ratio), ("clamp", clamp))
    }
    return EstimatorRequest(ESTIMATORS[name], rows, bool(straight_through), bounds, reducer)


def checked_bound(name: str, bound: float) -> float:
    """A bound that numbers can be cut to."""
    if not 0.0 < bound < np.inf:
        raise ValueError(f"{name} must be positive and finite, or None, got {bound:g}")
    return bound


def _log_probs(name: str, value: Any) -> Rows:
    """Numbers without a class axis: their shape is the batch shape."""
    array = as_array(name, value)
    if array.dtype.kind in "iu" and isinstance(value, (list, tuple)):
        array = array.astype(np.float64)
    rows = as_rows(name, array[..., np.newaxis], -1)
    memory = rows.memory[..., 0]
    return Rows(
        memory, rows.dtype_name, name, array, array.shape, array.ndim - 1, batch_shape=array.shape
    )


@dataclass(slots=True)
class EstimatorRequest:
    """See `estimator`."""

    estimator: Estimator
    rows: dict[str, Rows]
    straight_through: bool
    bounds: dict[str, float | None]
    reducer: Reducer
    default_wrt: ClassVar[str] = "q"
    gradients_at_once: ClassVar[bool] = True
    side_inputs: ClassVar[tuple[str, ...]] = ()
    spaces: ClassVar[tuple[str, ...]] = ("log_probs", "log_probs")

    def call(self, grad_output: Array | None, outputs: Mapping[str, Operand]) -> Value:
        """Compute the value, and write the gradients asked for."""
        with np.errstate(all="ignore"):
            p, q = (one.memory.astype(np.float64) for one in self.rows.values())
            kept = self.reducer.kept()
            if kept is not None:
                p, q = (np.where(kept.reshape(p.shape), one, 0.0) for one in (p, q))
            r = log_ratio(np, p, q)
            values = self.estimator.estimate(np, r, **self.bounds)
            scale = np.empty(values.shape) if outputs else None
            reduced = self._reduced(values, grad_output, scale)
            if scale is not None:
                if self.straight_through:
                    slope = STRAIGHT_THROUGH.differentiate(np, r)
                else:
                    slope = self.estimator.differentiate(np, r, **self.bounds)
                for name, sign in (("q", 1.0), ("p", -1.0)):
                    if name in outputs:
                        outputs[name].memory[...] = sign * scale * slope + 0.0
        return reduced

    def _reduced(self, values: Array, grad_output: Array | None, scale: Array | None) -> Value:
        """The values reduced, and in `scale` the gradient with respect to each of them.

        The log-sum-exp of a row of one class is the number itself: the extension reduces these
        values as those of any function. A row of +∞ would be NaN to it; what is not finite is added
        afterwards, which no weight changes.
        """
        finite = np.isfinite(values)
        reduced: Value = _kldiv.logsumexp(
            _one_class(np.where(finite, values, 0.0)),
            1.0,
            self.reducer,
            grad_output,
            None if scale is None else _one_class(scale),
        )
        if finite.all():
            return reduced
        beyond = np.where(finite, 0.0, values)
        added = reduced + (beyond if self.reducer.reduction == "none" else beyond.sum())
        return added.astype(self.reducer.dtype)


def _one_class(numbers: Array) -> Operand:
    return Operand(numbers[..., np.newaxis], "float64")
