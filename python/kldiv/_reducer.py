"""Masks, weights and reductions of a batch, checked: what the extension is told of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kldiv._arrays import Array, Rows, as_float
from kldiv._side_inputs import as_mask, as_real, as_weights

Value = Array | np.floating[Any]
REDUCTIONS = ("none", "sum", "mean", "batchmean")


@dataclass(slots=True)
class Reducer:
    """Masks, weights and the reduction, over the batch of `rows`.

    ``_kldiv.pyi`` says what the extension reads of it.
    """

    rows: Rows
    where: Array | None
    weights: Array | None
    reduction: str
    denominator: float | None
    dtype: np.dtype[Any]
    """That of the values."""
    dtype_name: str

    @classmethod
    def parse(
        cls,
        rows: Rows,
        dtype: np.dtype[Any],
        where: Any,
        weights: Any,
        reduction: str,
        denominator: Any,
    ) -> Reducer:
        """Check what can be checked without reading a row."""
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        if reduction == "batchmean" and not rows.batch_shape:
            raise ValueError(
                f"reduction='batchmean' divides by the first batch axis, and {rows.name} of shape "
                f"{rows.shape} has none"
            )
        if denominator is not None:
            denominator = as_float("denominator", denominator)
        return cls(
            rows,
            None if where is None else as_mask("where", where, rows),
            None if weights is None else as_weights("weights", weights, rows),
            reduction,
            denominator,
            dtype,
            "float64" if dtype.itemsize == 8 else "float32",
        )

    def upstream(self, grad_output: Any) -> Array | None:
        """The upstream gradient, one number or one a row."""
        if grad_output is None:
            return None
        if self.reduction == "none":
            return as_weights("grad_output", grad_output, self.rows)
        array = as_real("grad_output", grad_output)
        if array.ndim != 0:
            raise ValueError(
                f"grad_output has shape {array.shape}, but the result of "
                f"reduction={self.reduction!r} has shape ()"
            )
        return np.array([array])

    def kept(self) -> Array | None:
        """Which rows of the batch count, in one dimension; `None` for all."""
        if self.weights is None:
            return self.where
        positive: Array = self.weights != 0
        return positive if self.where is None else positive & self.where
