"""Statistics over the rows of a comparison: `Statistic`, and the `Summary` that is a table."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from kldiv._arrays import Array

if TYPE_CHECKING:
    from kldiv.comparison import Comparison

PERCENTILES = (0.1, 1.0, 5.0, 10.0, 50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class Statistic:
    """A mean over rows, with its standard error."""

    mean: float
    standard_error: float
    rows: int
    """The rows it is over."""

    def __float__(self) -> float:
        """The mean."""
        return self.mean

    def __str__(self) -> str:
        """The mean with its error, 0.0123457 ± 0.00012."""
        if math.isnan(self.standard_error):
            return f"{self.mean:.6g}"
        return f"{self.mean:.6g} ± {self.standard_error:.2g}"

    @classmethod
    def of(cls, values: Array) -> Statistic:
        """Mean and standard error of independent rows, over those that are finite.

        0 rows: NaN; 1 row: no error.
        """
        values = np.asarray(values, np.float64)
        values = values[np.isfinite(values)]
        count = values.size
        if count == 0:
            return cls(math.nan, math.nan, 0)
        # By a power of two, which rounds nothing, so that no sum of squares leaves float64.
        _, exponent = math.frexp(float(np.abs(values).max()))
        with np.errstate(all="ignore"):
            values = np.ldexp(values, -exponent)
            error = math.nan if count == 1 else values.std(ddof=1) / math.sqrt(count)
            mean, error = np.ldexp([values.mean(), error], exponent).tolist()
        return cls(mean, error, count)


@dataclass(frozen=True)
class Summary:
    """A comparison in a table: `print` it, or leave it at the end of a notebook cell.

    Each mean runs over the rows compared whose own value is finite, and says over how many
    (`Statistic.rows`); the table does so where these are not all. Minimum, maximum and
    percentiles of KL are over all rows but those of `rows_nan`, infinite ones the largest.
    """

    rows: int
    """Rows compared."""
    rows_nan: int
    """Rows with NaN or +inf among their logits, or without a class: left out of everything."""
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
    rows_labelled: int | None = None
    """Rows with a label, but those of `rows_nan`; `None` without labels."""
    nll_p: Statistic | None = None
    nll_q: Statistic | None = None
    delta_p: Statistic | None = None
    nll_difference: Statistic | None = None
    """−ln q less −ln p of the label, row by row: the error is that of the pairs."""
    extra: dict[str, Statistic] = field(default_factory=dict)
    """Of the divergences that were asked for beside these."""

    @classmethod
    def of(cls, comparisons: list[Comparison]) -> Summary:
        """Summarise comparisons of consecutive batches as one."""

        def column(name: str) -> Array:
            parts = [getattr(one, name)[one.where].reshape(-1) for one in comparisons]
            return np.concatenate(parts) if parts else np.empty(0)

        labelled = bool(comparisons) and all(one.nll_p is not None for one in comparisons)
        every = column("kl").astype(np.float64)
        comparable = ~np.isnan(every)
        kl = np.sort(every[comparable])
        infinite = np.isinf(every) | np.isinf(column("reverse_kl"))
        has_label = None
        if labelled:
            nll_p, nll_q = column("nll_p"), column("nll_q")
            has_label = comparable & ~np.isnan(nll_p)
            infinite |= np.isinf(nll_p) | np.isinf(nll_q)

        def statistic(name: str) -> Statistic:
            return Statistic.of(column(name)[comparable])

        def extra(name: str) -> Statistic:
            parts = [one.extra[name][one.where].reshape(-1) for one in comparisons]
            return Statistic.of(np.concatenate(parts)[comparable])

        more = comparisons[0].extra if comparisons else {}
        of_all = [name for name in more if all(name in one.extra for one in comparisons)]

        return cls(
            rows=every.size,
            rows_nan=int((~comparable).sum()),
            rows_infinite=int((infinite & comparable).sum()),
            kl=statistic("kl"),
            reverse_kl=statistic("reverse_kl"),
            jensen_shannon=statistic("jensen_shannon"),
            total_variation=statistic("total_variation"),
            entropy_p=statistic("entropy_p"),
            entropy_q=statistic("entropy_q"),
            same_top=statistic("same_top"),
            kl_percentiles={percent: _percentile(kl, percent) for percent in PERCENTILES},
            kl_minimum=_percentile(kl, 0),
            kl_maximum=_percentile(kl, 100),
            rows_labelled=None if has_label is None else int(has_label.sum()),
            nll_p=statistic("nll_p") if labelled else None,
            nll_q=statistic("nll_q") if labelled else None,
            delta_p=statistic("delta_p") if labelled else None,
            nll_difference=statistic("nll_difference") if labelled else None,
            extra={name: extra(name) for name in of_all},
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
        comparable = self.rows - self.rows_nan
        lines = [("rows compared", f"{self.rows:,}")]
        if self.rows_nan:
            lines.append(("rows with NaN (left out)", f"{self.rows_nan:,}"))
        if self.rows_infinite:
            lines.append(("rows with infinite values", f"{self.rows_infinite:,}"))
        if self.rows_labelled is not None and self.rows_labelled != comparable:
            lines.append(("rows with a label", f"{self.rows_labelled:,}"))

        def show(statistic: Statistic, rows: int = comparable, *, percent: bool = False) -> str:
            return _show(statistic, rows, percent=percent)

        lines += [
            ("mean KL(p‖q)", show(self.kl)),
            ("mean KL(q‖p)", show(self.reverse_kl)),
            ("mean Jensen–Shannon", show(self.jensen_shannon)),
            ("mean total variation", show(self.total_variation)),
            *((f"mean {name}", show(statistic)) for name, statistic in self.extra.items()),
            ("mean entropy of p", show(self.entropy_p)),
            ("mean entropy of q", show(self.entropy_q)),
            ("KL(p‖q), minimum", f"{self.kl_minimum:.6g}"),
        ]
        for percent, value in self.kl_percentiles.items():
            name = "median" if percent == 50 else f"{percent:g} %"
            lines.append((f"KL(p‖q), {name}", f"{value:.6g}"))
        lines.append(("KL(p‖q), maximum", f"{self.kl_maximum:.6g}"))
        lines.append(("same top-1", show(self.same_top, percent=True)))
        if self.rows_labelled is not None:
            labelled = self.rows_labelled
            for name, perplexity in (("p", self.perplexity_p), ("q", self.perplexity_q)):
                if perplexity is not None:
                    lines.append((f"perplexity of {name}", show(perplexity, labelled)))
            if self.delta_p is not None:
                change = show(self.delta_p, labelled, percent=True)
                lines.append(("mean Δp of the label", change))
            if self.nll_difference is not None:
                lines.append(("mean change of −ln p", show(self.nll_difference, labelled)))
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON, which has neither NaN nor infinity.

        NaN, of statistics over no row, is None; infinity is the string "Infinity", which
        `float`, and ``Number`` of JavaScript, make a number again.
        """
        result: dict[str, Any] = {}
        for one in fields(self):
            result[one.name] = _plain(getattr(self, one.name))
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


def _percentile(ascending: Array, percent: float) -> float:
    """Linear between neighbours; infinite as soon as the upper one has a share in it."""
    if not ascending.size:
        return math.nan
    position = percent / 100 * (ascending.size - 1)
    lower = math.floor(position)
    share = position - lower
    below = float(ascending[lower])
    if share == 0 or math.isinf(below):
        return below
    return below + share * (float(ascending[lower + 1]) - below)


def _perplexity(nll: Statistic | None) -> Statistic | None:
    if nll is None:
        return None
    # A mean loss beyond 709 nats has no finite perplexity.
    value = math.exp(nll.mean) if not nll.mean >= 709 else math.inf
    return Statistic(value, value * nll.standard_error, nll.rows)


def _show(statistic: Statistic, rows: int, *, percent: bool) -> str:
    """Mean and error, and over how many of `rows` rows where these are not all."""
    if statistic.rows == 0 < rows:
        return f"infinite in all {rows:,} rows"
    factor, unit = (100.0, " %") if percent else (1.0, "")
    text = str(Statistic(statistic.mean * factor, statistic.standard_error * factor, 0))
    others = rows - statistic.rows
    over = f" over {statistic.rows:,} rows, infinite in {others:,}" if others else ""
    return f"{text}{unit}{over}"


def _plain(value: Any) -> Any:
    if isinstance(value, Statistic):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else f"{key:g}": _plain(item) for key, item in value.items()
        }
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
