"""Comparison of two batches of rows: `compare`, and its `Comparison`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from kldiv import _kldiv, _optional
from kldiv._arrays import (
    Array,
    Operand,
    Rows,
    as_rows,
    check_same_shape,
    first_classes,
    result_dtype,
)
from kldiv._kldiv import DIVERGENCES
from kldiv._probabilities import check_logits, negative_probability
from kldiv._requests import sides_of
from kldiv._side_inputs import as_class_index, as_labels, as_mask, check_beyond
from kldiv.functional.kind_of import kind_of
from kldiv.summary import Summary

if TYPE_CHECKING:
    import altair as alt
    import polars as pl


class NegativeProbabilityError(ValueError):
    """A probability below 0 in a row that is compared."""

    def __init__(self, argument: str, row: tuple[int, ...], value: float) -> None:
        where = f" in row {row[0] if len(row) == 1 else row}" if row else ""
        super().__init__(f"{argument} holds the negative probability {value:g}{where}")
        self.argument, self.row, self.value = argument, row, value


def _charts() -> Any:
    return _optional.module("kldiv.evaluation.charts")


@dataclass(frozen=True, eq=False)
class Comparison:
    """What each row of two batches has to do with its partner, in nats.

    Every field has the batch shape. Rows that `where` left out hold 0, and −1 as their top class;
    rows with NaN or +inf hold NaN, and −1. Rows without a label hold NaN in `nll_p`, `nll_q` and
    `delta_p`.
    """

    kl: Array
    """KL(p‖q)."""
    reverse_kl: Array
    """KL(q‖p)."""
    jensen_shannon: Array
    """Jensen–Shannon divergence, β = ½."""
    total_variation: Array
    r"""½ Σ \|p − q\|."""
    entropy_p: Array
    """Entropy of p."""
    entropy_q: Array
    """Entropy of q."""
    top1_p: Array
    """p's most probable class, the first of several."""
    top1_q: Array
    """q's most probable class, the first of several."""
    confidence_p: Array
    """Probability of p's most probable class, under p."""
    confidence_q: Array
    """Probability of q's most probable class, under q."""
    where: Array
    """The rows compared."""
    nll_p: Array | None = None
    """−ln p of the label, with labels."""
    nll_q: Array | None = None
    """−ln q of the label, with labels."""
    labels: Array | None = None
    """The labels, as they were given."""
    extra: dict[str, Array] = field(default_factory=dict)
    """The divergences that were asked for beside these, by their names: ``"renyi(alpha=2)"``."""

    @property
    def same_top(self) -> Array:
        """Whether both have the same most probable class."""
        same: Array = (self.top1_p == self.top1_q) & (self.top1_p >= 0)
        return same

    @property
    def delta_p(self) -> Array | None:
        """Probability of the label under q minus under p, with labels, in float64."""
        if self.nll_p is None or self.nll_q is None:
            return None
        with np.errstate(all="ignore"):
            p, q = (np.exp(-nll, dtype=np.float64) for nll in (self.nll_p, self.nll_q))
            delta: Array = q - p
        return delta

    @property
    def nll_difference(self) -> Array | None:
        """−ln q of the label less −ln p, with labels, in float64."""
        if self.nll_p is None or self.nll_q is None:
            return None
        with np.errstate(all="ignore"):
            difference: Array = np.subtract(self.nll_q, self.nll_p, dtype=np.float64)
        return difference

    def __len__(self) -> int:
        """The length of the first axis of the batch shape."""
        if not self.kl.ndim:
            raise TypeError("a comparison of two rows has no length")
        return len(self.kl)

    def __getitem__(self, index: Any) -> Comparison:
        """The part of the batch that NumPy's indexing takes."""
        columns: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        extra = {name: np.asarray(values[index]) for name, values in columns.pop("extra").items()}
        for name, values in columns.items():
            if values is not None:
                columns[name] = np.asarray(values[index])
        return Comparison(**columns, extra=extra)

    def __repr__(self) -> str:
        summary = self.summary()
        return (
            f"<Comparison of {summary.rows:,} rows: KL {summary.kl}, "
            f"same top-1 {summary.same_top.mean:.4g}>"
        )

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def to_frame(self) -> pl.DataFrame:
        """A table for Polars: the rows compared, with their batch indices and what follows.

        The columns are the fields that are known, `same_top`, with labels `delta_p` and
        `nll_difference`, and those of `extra`; before them stands `row`, or of a batch shape of
        several axes `index_0`, `index_1`, …. Its methods `to_pandas` and `to_arrow` give those
        tables.

        Raises
        ------
        ModuleNotFoundError
            Without Polars: ``pip install 'kldiv[eval]'``.
        """
        polars = _optional.module("polars")
        shape = self.kl.shape
        names = ["row"] if len(shape) < 2 else [f"index_{axis}" for axis in range(len(shape))]
        where = self.where.reshape(-1)
        places = np.indices(shape or (1,)).reshape(len(names), -1)
        columns = dict(zip(names, places, strict=True))
        followed = ("same_top", "delta_p", "nll_difference")
        known = (one.name for one in fields(self) if one.name not in ("where", "extra"))
        for name in (*known, *followed):
            if (values := getattr(self, name)) is not None:
                columns[name] = values
        columns |= self.extra
        frame: pl.DataFrame = polars.DataFrame(
            {name: np.asarray(values).reshape(-1)[where] for name, values in columns.items()}
        )
        return frame

    def worst(self, n: int = 10) -> pl.DataFrame:
        """The `n` rows of the largest KL as a table, NaN left out, ties in their order."""
        if n < 0:
            raise ValueError(f"n must be at least 0, got {n}")
        frame = self.to_frame()
        kl = frame["kl"].to_numpy()
        order = np.argsort(-kl, kind="stable")
        worst: pl.DataFrame = frame[order[~np.isnan(kl[order])][:n]]
        return worst

    def plot_kl(self) -> alt.Chart:
        """Histogram of KL on a logarithmic axis; needs Altair."""
        chart: alt.Chart = _charts().kl_histogram(self.to_frame())
        return chart

    def plot_kl_by_position(self) -> alt.Chart:
        """KL along the last axis of the batch shape; needs Altair."""
        frame = self.to_frame()
        last = frame.columns[max(1, self.kl.ndim) - 1]
        chart: alt.Chart = _charts().kl_by_position(frame.rename({last: "position"}))
        return chart

    def plot_kl_by_confidence(self) -> alt.Chart:
        """KL against the probability of p's most probable class; needs Altair."""
        chart: alt.Chart = _charts().kl_by_confidence(self.to_frame())
        return chart

    def summary(self) -> Summary:
        """Means with standard errors, and percentiles; each over the rows where it is finite."""
        return Summary.of([self])


def compare(
    p: ArrayLike,
    q: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    ignore_index: int | None = -100,
    space: str | tuple[str, str] = "logits",
    temperature: float = 1.0,
    axis: int = -1,
    classes: int | None = None,
    where: ArrayLike | None = None,
    extra: Sequence[Callable[..., Any]] = (),
) -> Comparison:
    r"""Everything about pairs of rows, each read from memory once.

    For every row: KL(p‖q) and KL(q‖p), the Jensen–Shannon divergence (β = ½), total variation,
    both entropies, both most probable classes and their probabilities, and with labels −ln p and
    −ln q of the label. The conventions are those of `kl`.

    Parameters
    ----------
    p, q : array_like
        The reference and the candidate, shape ``[..., classes]``.
    labels : array_like of integers, optional
        The true classes, over the batch shape.
    ignore_index : int or None
        Rows with this label are compared, but have no label: what is said of labels is NaN
        there, and left out of its statistics.
    space : {"logits", "log_probs", "probs"} or a pair of them
        What the numbers are. Unlike in `kl`, log-probabilities and probabilities are normalised:
        a row is what it is divided by its sum. Probabilities are converted to float64 logarithms
        first, a copy of the array.
    temperature : float
        T from 1e-30 to 1e30 with p = softmax(z / T), for those of both that are logits.
    axis : int
        The class axis.
    classes : int, optional
        The real classes, as for `kl`.
    where : array_like of bool or of 0 and 1, optional
        The rows to compare, over the batch shape.
    extra : sequence of callables
        More divergences, while the rows are in cache: functions of `kldiv`, or a
        `functools.partial` of one with its parameter. They are found in `Comparison.extra`, in a
        column of their own in tables, and in the summary.

    Returns
    -------
    Comparison
        Batch-shaped fields, float64 if p or q is, else float32.

    Raises
    ------
    TypeError, ValueError
        As for `kl`, for a negative probability in a row compared, and for an extra that is no
        divergence of `kldiv`, or is given twice.
    IndexError
        For a label out of range in a row compared; the first one is named.

    Examples
    --------
    >>> import numpy as np
    >>> import kldiv
    >>> teacher = np.array([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]])
    >>> student = np.array([[0.9, 2.1, 0.5], [-1.0, 0.5, 2.0]])
    >>> comparison = kldiv.compare(teacher, student, labels=[1, -100])
    >>> comparison.kl.round(6)
    array([0.003424, 0.088361])
    >>> comparison.same_top
    array([ True,  True])
    >>> comparison.nll_p.round(6)
    array([0.464369,      nan])

    More divergences of the same pairs, from one reading of them:

    >>> import functools
    >>> extra = [kldiv.squared_hellinger, functools.partial(kldiv.renyi, alpha=2)]
    >>> for name, values in kldiv.compare(teacher, student, extra=extra).extra.items():
    ...     print(name, values.round(6))
    squared_hellinger [0.000845 0.026093]
    renyi(alpha=2) [0.007015 0.127233]
    """
    p_rows, q_rows = as_rows("p", p, axis), as_rows("q", q, axis)
    if classes is not None:
        p_rows, q_rows = first_classes(p_rows, classes), first_classes(q_rows, classes)
    check_same_shape(p_rows, q_rows)
    spaces, temperatures = sides_of(space, temperature)
    if isinstance(temperature, (tuple, list)):
        raise ValueError(f"temperature is one number for both, got {temperature!r}")
    scale = max(temperatures, key=lambda one: one != 1.0)
    ignore_index = as_class_index("ignore_index", ignore_index)
    indices = ignored = beyond = None
    if labels is not None:
        indices, ignored, beyond = as_labels("labels", labels, p_rows, ignore_index)
    mask = as_mask("where", where, p_rows)
    check_beyond(beyond, p_rows, ignore_index, mask)
    check_logits({"p": p_rows, "q": q_rows}, spaces)
    p_logits = _as_logits(p_rows, spaces[0], scale, mask)
    q_logits = _as_logits(q_rows, spaces[1], scale, mask)
    more = _kinds_of(extra)
    found = _kldiv.compare(p_logits, q_logits, indices, list(more.values()), scale, mask, ignored)
    shape = p_rows.batch_shape
    dtype = result_dtype(p_rows, q_rows)

    def shaped(values: Array) -> Array:
        # Of probabilities they are float64, as the logits made of them.
        cast = values.astype(dtype, copy=False) if values.dtype.kind == "f" else values
        return cast.reshape(shape)

    kept = np.ones(shape, np.bool_) if mask is None else mask.reshape(shape)
    with np.errstate(all="ignore"):
        of_extra = map(shaped, found.pop("extra"))
        columns: dict[str, Any] = {name: shaped(values) for name, values in found.items()}
    given = None if indices is None else np.array(indices).reshape(shape)
    beside = dict(zip(more, of_extra, strict=True))
    return Comparison(where=kept, labels=given, **columns, extra=beside)


def _kinds_of(extra: Sequence[Callable[..., Any]]) -> dict[str, tuple[str, float]]:
    """Divergences as the extension has them, by what they are called in a comparison."""
    if callable(extra) or isinstance(extra, str):
        raise TypeError(f"extra is a list of divergences of kldiv, got {extra!r}")
    kinds: dict[str, tuple[str, float]] = {}
    for given in extra:
        function, options = given, {}
        if isinstance(given, functools.partial):
            if given.args:
                raise TypeError(f"compare takes a partial with keywords only, got {given!r}")
            function, options = given.func, given.keywords
        kind = kind_of("compare", function, options)
        described = DIVERGENCES[kind[0]].parameter
        of = "" if described is None else f"({described.name}={kind[1]:g})"
        if (name := f"{function.__name__}{of}") in kinds:
            raise ValueError(f"extra has {name} twice")
        kinds[name] = kind
    return kinds


def _as_logits(rows: Rows, space: str, temperature: float, mask: Array | None) -> Operand:
    """Logits whose softmax at the temperature is the row, divided by its sum."""
    array = rows.memory
    if space == "logits" or (space == "log_probs" and temperature == 1.0):
        return rows
    if space == "probs" and (found := negative_probability(array, mask)) is not None:
        raise NegativeProbabilityError(rows.name, *found)
    with np.errstate(all="ignore"):
        ln = np.log(array, dtype=np.float64) if space == "probs" else array.astype(np.float64)
        if temperature != 1.0:
            # It is divided by the temperature again.
            ln *= temperature
    return Operand(ln, "float64")
