"""Comparison of two batches of logits: `compare`, its `Comparison`, and the `Summary` of it."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kldiv import _kldiv
from kldiv._arrays import (
    Array,
    as_float,
    as_labels,
    as_rows,
    check_same_shape,
    over_batch,
    result_dtype,
)

PERCENTILES = (0.1, 1.0, 5.0, 10.0, 50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What each row of two batches of logits has to do with its partner, in nats.

    Every field has the batch shape. Rows that `where` left out hold 0, and −1 as their top class;
    rows with NaN or +inf hold NaN, and −1.
    """

    kl: Array
    """KL(p‖q)."""
    reverse_kl: Array
    """KL(q‖p)."""
    jensen_shannon: Array
    """Jensen–Shannon divergence, β = ½."""
    total_variation: Array
    """½ Σ |p − q|."""
    entropy_p: Array
    """Entropy of p."""
    entropy_q: Array
    """Entropy of q."""
    top1_p: Array
    """p's most probable class, the first of several."""
    top1_q: Array
    """q's most probable class, the first of several."""
    where: Array
    """The rows compared."""
    nll_p: Array | None = None
    """−ln p of the label, with labels."""
    nll_q: Array | None = None
    """−ln q of the label, with labels."""

    @property
    def same_top(self) -> Array:
        """Whether both have the same most probable class."""
        same: Array = (self.top1_p == self.top1_q) & (self.top1_p >= 0)
        return same

    @property
    def delta_p(self) -> Array | None:
        """Probability of the label under q minus under p, with labels."""
        if self.nll_p is None or self.nll_q is None:
            return None
        delta: Array = np.exp(-self.nll_q) - np.exp(-self.nll_p)
        return delta

    def summary(self) -> Summary:
        """Means with standard errors, and percentiles, over the rows with finite values."""
        return Summary.of([self])


def compare(
    p: ArrayLike,
    q: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> Comparison:
    r"""Everything about pairs of rows of logits, each read from memory once.

    For every row: KL(p‖q) and KL(q‖p), the Jensen–Shannon divergence (β = ½), total variation,
    both entropies, both most probable classes, and with labels −ln p and −ln q of the label. The
    conventions are those of `kl`.

    Parameters
    ----------
    p, q : array_like
        Logits of the reference and of the candidate, shape ``[..., classes]``.
    labels : array_like of integers, optional
        The true classes, over the batch shape.
    temperature : float
        T > 0 with p = softmax(z / T), for both.
    axis : int
        The class axis.
    where : array_like of bool, optional
        The rows to compare, over the batch shape.

    Returns
    -------
    Comparison
        Batch-shaped fields, float64 if p or q is, else float32.

    Raises
    ------
    TypeError, ValueError
        As for `kl`.
    IndexError
        For a label out of range in a row compared; the first one is named.

    Examples
    --------
    >>> import numpy as np
    >>> import kldiv
    >>> teacher = np.array([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]])
    >>> student = np.array([[0.9, 2.1, 0.5], [-1.0, 0.5, 2.0]])
    >>> comparison = kldiv.compare(teacher, student, labels=[1, 2])
    >>> comparison.kl.round(6)
    array([0.003424, 0.088361])
    >>> comparison.same_top
    array([ True,  True])
    """
    p_rows, q_rows = as_rows("p", p, axis), as_rows("q", q, axis)
    check_same_shape(p_rows, q_rows)
    indices = None if labels is None else as_labels("labels", labels, p_rows)
    mask = over_batch("where", where, p_rows, np.bool_)
    scale = as_float("temperature", temperature)
    raw = _kldiv.compare(p_rows.operand, q_rows.operand, indices, scale, mask)
    dtype = result_dtype(p_rows, q_rows)
    shape = p_rows.batch_shape

    def shaped(values: Array) -> Array:
        cast = values.astype(dtype, copy=False) if values.dtype.kind == "f" else values
        return cast.reshape(shape)

    kept = np.ones(shape, np.bool_) if mask is None else mask.reshape(shape)
    return Comparison(where=kept, **{name: shaped(values) for name, values in raw.items()})


@dataclass(frozen=True)
class Statistic:
    """A mean over rows, with its standard error."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Array) -> Statistic:
        """Mean and standard error (0 rows: NaN; 1 row: no error) of independent rows."""
        count = values.size
        if count == 0:
            return cls(math.nan, math.nan)
        mean = float(values.mean(dtype=np.float64))
        if count == 1:
            return cls(mean, math.nan)
        return cls(mean, float(values.std(dtype=np.float64, ddof=1)) / math.sqrt(count))


@dataclass(frozen=True)
class Summary:
    """A comparison in a table: `print` it, or leave it at the end of a notebook cell.

    Means run over the rows compared whose values are finite; the others are counted in
    `rows_nan` and `rows_infinite`.
    """

    rows: int
    """Rows compared."""
    rows_nan: int
    """Rows with NaN or +inf among their logits, or without a class."""
    rows_infinite: int
    """Rows with infinite KL in either direction, or an infinite loss."""
    kl: Statistic
    reverse_kl: Statistic
    jensen_shannon: Statistic
    total_variation: Statistic
    entropy_p: Statistic
    entropy_q: Statistic
    same_top: Statistic
    kl_percentiles: dict[float, float]
    """KL by percentile, linear between neighbours."""
    kl_minimum: float
    kl_maximum: float
    nll_p: Statistic | None = None
    nll_q: Statistic | None = None
    delta_p: Statistic | None = None

    @classmethod
    def of(cls, comparisons: list[Comparison]) -> Summary:
        """Summarise comparisons of consecutive batches as one."""

        def column(name: str) -> Array:
            parts = [getattr(one, name)[one.where].reshape(-1) for one in comparisons]
            return np.concatenate(parts) if parts else np.empty(0)

        labelled = bool(comparisons) and all(one.nll_p is not None for one in comparisons)
        kl, reverse_kl = column("kl"), column("reverse_kl")
        nan = np.isnan(kl)
        infinite = np.isinf(kl) | np.isinf(reverse_kl)
        if labelled:
            infinite |= np.isinf(column("nll_p")) | np.isinf(column("nll_q"))
        infinite &= ~nan
        finite = ~(nan | infinite)
        kl = kl[finite].astype(np.float64)
        percentiles = np.percentile(kl, PERCENTILES) if kl.size else [math.nan] * len(PERCENTILES)

        def statistic(name: str) -> Statistic:
            return Statistic.of(column(name)[finite])

        return cls(
            rows=int(nan.size),
            rows_nan=int(nan.sum()),
            rows_infinite=int(infinite.sum()),
            kl=Statistic.of(kl),
            reverse_kl=Statistic.of(reverse_kl[finite]),
            jensen_shannon=statistic("jensen_shannon"),
            total_variation=statistic("total_variation"),
            entropy_p=statistic("entropy_p"),
            entropy_q=statistic("entropy_q"),
            same_top=statistic("same_top"),
            kl_percentiles=dict(zip(PERCENTILES, map(float, percentiles), strict=True)),
            kl_minimum=float(kl.min()) if kl.size else math.nan,
            kl_maximum=float(kl.max()) if kl.size else math.nan,
            nll_p=statistic("nll_p") if labelled else None,
            nll_q=statistic("nll_q") if labelled else None,
            delta_p=statistic("delta_p") if labelled else None,
        )

    @property
    def perplexity_p(self) -> Statistic | None:
        """Exp of the mean −ln p of the labels; the error to first order."""
        return _perplexity(self.nll_p)

    @property
    def perplexity_q(self) -> Statistic | None:
        """Exp of the mean −ln q of the labels; the error to first order."""
        return _perplexity(self.nll_q)

    def lines(self) -> list[tuple[str, str]]:
        """Label and value of every line of the table."""
        lines = [("rows compared", f"{self.rows:,}")]
        if self.rows_nan:
            lines.append(("rows with NaN (left out)", f"{self.rows_nan:,}"))
        if self.rows_infinite:
            lines.append(("rows with infinite values (left out)", f"{self.rows_infinite:,}"))
        lines += [
            ("mean KL(p‖q)", _show(self.kl)),
            ("mean KL(q‖p)", _show(self.reverse_kl)),
            ("mean Jensen–Shannon", _show(self.jensen_shannon)),
            ("mean total variation", _show(self.total_variation)),
            ("mean entropy of p", _show(self.entropy_p)),
            ("mean entropy of q", _show(self.entropy_q)),
            ("KL(p‖q), minimum", f"{self.kl_minimum:.6g}"),
        ]
        for percent, value in self.kl_percentiles.items():
            name = "median" if percent == 50 else f"{percent:g} %"
            lines.append((f"KL(p‖q), {name}", f"{value:.6g}"))
        lines.append(("KL(p‖q), maximum", f"{self.kl_maximum:.6g}"))
        lines.append(("same top-1", _show(self.same_top, percent=True)))
        if self.perplexity_p is not None and self.perplexity_q is not None:
            lines.append(("perplexity of p", _show(self.perplexity_p)))
            lines.append(("perplexity of q", _show(self.perplexity_q)))
        if self.delta_p is not None:
            lines.append(("mean Δp of the label", _show(self.delta_p, percent=True)))
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON: NaN as None."""
        result: dict[str, Any] = {}
        for field in fields(self):
            result[field.name] = _plain(getattr(self, field.name))
        result["perplexity_p"] = _plain(self.perplexity_p)
        result["perplexity_q"] = _plain(self.perplexity_q)
        return result

    def __str__(self) -> str:
        lines = self.lines()
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td style='text-align:left'>{html.escape(name)}</td>"
            f"<td style='text-align:right'>{html.escape(value)}</td></tr>"
            for name, value in self.lines()
        )
        return f"<table>{cells}</table>"


def _perplexity(nll: Statistic | None) -> Statistic | None:
    if nll is None:
        return None
    # A mean loss beyond 709 nats has no finite perplexity.
    value = math.exp(nll.mean) if nll.mean < 709 else math.inf
    return Statistic(value, value * nll.standard_error)


def _show(statistic: Statistic, *, percent: bool = False) -> str:
    factor, unit = (100.0, " %") if percent else (1.0, "")
    mean = f"{statistic.mean * factor:.6g}"
    if math.isnan(statistic.standard_error):
        return f"{mean}{unit}"
    return f"{mean} ± {statistic.standard_error * factor:.2g}{unit}"


def _plain(value: Any) -> Any:
    if isinstance(value, Statistic):
        return {"mean": _plain(value.mean), "standard_error": _plain(value.standard_error)}
    if isinstance(value, dict):
        return {f"{key:g}": _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
