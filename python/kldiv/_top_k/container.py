"""`TopK`: the most probable classes of every row, or classes drawn from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kldiv import _arrays
from kldiv._arrays import Array
from kldiv._top_k import checks


@dataclass(slots=True)
class Flat:
    """Kept classes as the extension takes them: row after row."""

    ids: Array
    """int64, C-contiguous."""
    log_probs: Array
    """float64: log-probabilities, where they are normalised; logits otherwise."""
    offsets: Array
    """int64: where each row begins, and where the last ends."""
    weights: Array | None
    """float64: what sampled classes stand for."""
    normalized: bool
    classes: int


@dataclass(init=False, eq=False, repr=False, frozen=True, slots=True)
class TopK:
    r"""The most probable classes of every row, or classes drawn from it.

    A row of V classes is kept as k of their ids with their log-probabilities ln pᵢ, or with their
    logits zᵢ, of which ln pᵢ = zᵢ − N with the normaliser N = ln Σⱼ exp(zⱼ) over *all* V classes.
    Without N only the ratios of the kept classes are known. Of sampled classes, weights wᵢ say
    what each stands for: Σᵢ wᵢ f(i) is an estimate of Σⱼ pⱼ f(j).

    Natural logarithms throughout, at temperature 1. Arrays are copied, and cannot be written to.

    Parameters
    ----------
    ids : array_like of int, shape (..., k), or (n,) with `offsets`
        Kept classes, in any order, none twice in a row.
    log_probs : array_like, shape of ids
        Log-probabilities, normalised over all classes. −inf is a probability of 0.
    logits : array_like, shape of ids
        Logits, which a row may have moved by any number. Exactly one of `log_probs` and `logits`
        is given: float64, float32, float16 or bfloat16.
    normalizer : array_like, shape (...), optional
        Log-sum-exp over all classes of each row of logits, by which they are normalised.
    classes : int
        V, the number of classes of a whole row.
    offsets : array_like of int, shape (rows + 1,), optional
        Of rows that keep different numbers of classes: row i has ``ids[offsets[i]:offsets[i+1]]``.
    weights : array_like, shape of ids, optional
        What each sampled class stands for. They need not add up to 1.

    Attributes
    ----------
    ids, normalizer, weights, offsets : numpy.ndarray
        As given, None where not given.
    values : numpy.ndarray
        The log-probabilities or logits, as given.
    kind : str
        What the values are, ``"log_probs"`` or ``"logits"``.
    classes : int
    batch_shape : tuple of int
        The shape without the axis of classes; ``(rows,)`` with `offsets`.

    Raises
    ------
    ValueError
        If shapes or offsets do not fit, a row has more than `classes` ids, an id twice, or one
        that is not of 0 to classes − 1; if a value is NaN or +inf, a log-probability above
        0.001, a normaliser not finite, or a weight negative or not finite; if the probabilities of
        a row add up to more than 1.001, and what rounding to float16 or bfloat16 adds. The
        message names the first such row, and the id.
    TypeError
        If ids are not integers or values not floating-point numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import kldiv
    >>> kept = kldiv.TopK([[7, 2], [0, 7]], np.log([[0.5, 0.25], [0.75, 0.125]]), classes=8)
    >>> kept
    TopK(batch_shape=(2,), k=2, classes=8, log_probs of float64)
    >>> kept.coverage()
    array([0.75 , 0.875])
    """

    ids: Array
    values: Array
    kind: str
    normalizer: Array | None
    weights: Array | None
    offsets: Array | None
    classes: int
    batch_shape: tuple[int, ...]

    def __init__(
        self,
        ids: ArrayLike,
        log_probs: ArrayLike | None = None,
        *,
        logits: ArrayLike | None = None,
        normalizer: ArrayLike | None = None,
        classes: int,
        offsets: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> None:
        if (log_probs is None) == (logits is None):
            given = "neither" if logits is None else "both"
            raise ValueError(f"expected either log_probs or logits, got {given}")
        kind = "log_probs" if logits is None else "logits"
        if normalizer is not None and logits is None:
            raise ValueError("normalizer goes with logits; log_probs are normalised as they are")
        self._adopt(
            _owned(_integers("ids", ids)),
            _owned(_floating(kind, log_probs if logits is None else logits)),
            kind,
            classes=_as_classes(classes),
            normalizer=None if normalizer is None else _owned(_floating("normalizer", normalizer)),
            offsets=None
            if offsets is None
            else _integers("offsets", offsets).astype(np.int64, order="C"),
            weights=None if weights is None else _owned(_floating("weights", weights)),
        )

    def _adopt(
        self,
        ids: Array,
        values: Array,
        kind: str,
        *,
        classes: int,
        normalizer: Array | None = None,
        offsets: Array | None = None,
        weights: Array | None = None,
        checked: bool = False,
    ) -> None:
        """Take arrays that are contiguous, of native dtypes and nobody else's."""
        if not checked:
            _check_shapes(ids, values, kind, offsets, weights)
        batch_shape = ids.shape[:-1] if offsets is None else (len(offsets) - 1,)
        if not checked:
            _check_normalizer(normalizer, batch_shape)
            width = ids.shape[-1] if offsets is None else None
            begins = _begins(ids, offsets)
            flat_of = tuple(
                None if array is None else array.reshape(-1) for array in (normalizer, weights)
            )
            checks.check(
                checks.Kept(
                    ids.reshape(-1),
                    values.reshape(-1),
                    kind,
                    classes,
                    batch_shape,
                    width,
                    begins,
                    *flat_of,
                )
            )
        for array in (ids, values, normalizer, offsets, weights):
            if array is not None:
                array.flags.writeable = False
        for name, value in (
            ("ids", ids),
            ("values", values),
            ("kind", kind),
            ("normalizer", normalizer),
            ("weights", weights),
            ("offsets", offsets),
            ("classes", classes),
            ("batch_shape", batch_shape),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def _of(cls, ids: Array, values: Array, kind: str, **rest: Any) -> TopK:
        """Of arrays that were just made: contiguous, of native dtypes, and nobody else's."""
        made = cls.__new__(cls)
        made._adopt(ids, values, kind, **rest)
        return made

    @property
    def is_normalized(self) -> bool:
        """Whether probabilities are known: of log-probabilities, or logits with a normaliser."""
        return self.kind == "log_probs" or self.normalizer is not None

    @property
    def counts(self) -> Array:
        """Kept classes of each row: int64, of the batch's shape."""
        if self.offsets is not None:
            return np.diff(self.offsets)
        return np.full(self.batch_shape, self.ids.shape[-1], np.int64)

    def coverage(self) -> Any:
        r"""The mass that each row keeps, Σᵢ pᵢ over its kept classes.

        Returns
        -------
        float64, of the batch's shape
            At most 1, but for rounding of what is kept.

        Raises
        ------
        ValueError
            If these are logits without their normaliser.

        Examples
        --------
        >>> import kldiv
        >>> kldiv.TopK([4, 1], logits=[0.0, 0.0], normalizer=1.0, classes=8).coverage().round(6)
        np.float64(0.735759)
        """
        if not self.is_normalized:
            raise ValueError(
                "these are logits without a normalizer, the log-sum-exp over all classes, so "
                "their probabilities are not known"
            )
        begins = _begins(self.ids, self.offsets)
        width = self.ids.shape[-1] if self.offsets is None else None
        total = np.empty(len(begins) - 1)
        for start, stop in checks.chunks(begins):
            masses = np.exp(self._log_probs(start, stop))
            total[start:stop] = checks.row_sums(masses, begins[start : stop + 1], width)
        return total.reshape(self.batch_shape)[()]

    def tail_mass(self) -> Any:
        r"""The mass of the classes that each row leaves out, 1 − Σᵢ pᵢ, and at least 0.

        Returns and exceptions are those of `coverage`.

        Examples
        --------
        >>> import numpy as np
        >>> import kldiv
        >>> kldiv.TopK([4, 1], np.log([0.5, 0.25]), classes=8).tail_mass()
        np.float64(0.25)
        """
        return np.maximum(1.0 - self.coverage(), 0.0)[()]

    def flat(self) -> Flat:
        """The rows one after the other, as the extension takes them."""
        begins = _begins(self.ids, self.offsets)
        return Flat(
            np.ascontiguousarray(self.ids.reshape(-1), np.int64),
            self._log_probs(0, len(begins) - 1),
            begins,
            None if self.weights is None else self.weights.reshape(-1).astype(np.float64),
            self.is_normalized,
            self.classes,
        )

    def _log_probs(self, start: int, stop: int) -> Array:
        """Flat log-probabilities of rows, where they are normalised, in float64."""
        begins = _begins(self.ids, self.offsets)
        values = self.values.reshape(-1)[begins[start] : begins[stop]].astype(np.float64)
        if self.normalizer is not None:
            normalizer = self.normalizer.reshape(-1)[start:stop].astype(np.float64)
            values -= np.repeat(normalizer, np.diff(begins[start : stop + 1]))
        return values

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("len() of a TopK of one row, without a batch")
        return self.batch_shape[0]

    def __eq__(self, other: object) -> bool:
        """Whether the same classes are kept with the same numbers, of whatever dtype."""
        if not isinstance(other, TopK):
            return NotImplemented
        if (self.kind, self.classes, self.batch_shape) != (
            other.kind,
            other.classes,
            other.batch_shape,
        ):
            return False
        pairs = (
            (_begins(self.ids, self.offsets), _begins(other.ids, other.offsets)),
            (self.ids, other.ids),
            (self.values, other.values),
            (self.normalizer, other.normalizer),
            (self.weights, other.weights),
        )
        return all(
            (mine is None and theirs is None)
            if mine is None or theirs is None
            else np.array_equal(mine.reshape(-1), theirs.reshape(-1))
            for mine, theirs in pairs
        )

    # Equal ones would need equal hashes: all of their numbers would be read.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self.offsets is None:
            k = f"{self.ids.shape[-1]}"
        else:
            counts = self.counts
            k = f"{counts.min()}..{counts.max()}" if len(counts) else "0"
        normalizer = " with normalizer" if self.normalizer is not None else ""
        sampled = "" if self.weights is None else ", sampled"
        return (
            f"TopK(batch_shape={self.batch_shape}, k={k}, classes={self.classes}, "
            f"{self.kind} of {self.values.dtype.name}{normalizer}{sampled})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        rest = (self.classes, self.normalizer, self.offsets, self.weights)
        return _unpickled, (self.ids, self.values, self.kind, *rest)


def _unpickled(ids: Array, values: Array, kind: str, *rest: Any) -> TopK:
    classes, normalizer, offsets, weights = rest
    return TopK._of(
        ids,
        values,
        kind,
        classes=classes,
        normalizer=normalizer,
        offsets=offsets,
        weights=weights,
        checked=True,
    )


def _begins(ids: Array, offsets: Array | None) -> Array:
    """Where rows begin, and where the last ends, in the flat arrays."""
    if offsets is not None:
        return offsets
    width = ids.shape[-1]
    rows = math.prod(ids.shape[:-1])
    begins: Array = np.arange(rows + 1, dtype=np.int64) * width
    return begins


def _owned(array: Array) -> Array:
    native = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
    owned: Array = np.array(array, native, order="C", copy=True)
    return owned


def _integers(name: str, value: Any) -> Array:
    array = _arrays.as_array(name, value)
    if not array.size and isinstance(value, (list, tuple)):
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {array.dtype}; expected integers")
    return array


def _floating(name: str, value: Any) -> Array:
    array = _arrays.as_array(name, value)
    if array.dtype.kind in "iu" and isinstance(value, (list, tuple, int)):
        # Python's integers are numbers like its floats.
        return array.astype(np.float64)
    if _arrays.floating_name(array.dtype) is None:
        raise TypeError(
            f"{name} has dtype {array.dtype}; expected float64, float32, float16 or bfloat16"
        )
    return array


def _as_classes(classes: Any) -> int:
    if isinstance(classes, (bool, np.bool_)):
        raise TypeError(f"classes must be an integer, got {classes!r}")
    count = _arrays.as_integer("classes", classes)
    if not 1 <= count < 1 << 62:
        raise ValueError(f"classes is {count}; expected at least 1")
    return count


def _check_shapes(
    ids: Array, values: Array, kind: str, offsets: Array | None, weights: Array | None
) -> None:
    if offsets is None and not ids.ndim:
        raise ValueError("ids has shape (), without an axis of classes")
    if offsets is not None:
        for name, array in (("ids", ids), ("offsets", offsets)):
            if array.ndim != 1:
                raise ValueError(f"{name} has shape {array.shape}; with offsets, expected one axis")
        checks.check_offsets(offsets, len(ids))
    for name, other in ((kind, values), ("weights", weights)):
        if other is not None and other.shape != ids.shape:
            raise ValueError(f"{name} has shape {other.shape} but ids has shape {ids.shape}")


def _check_normalizer(normalizer: Array | None, batch_shape: tuple[int, ...]) -> None:
    if normalizer is None:
        return
    if normalizer.shape != batch_shape:
        raise ValueError(f"normalizer has shape {normalizer.shape}; expected {batch_shape}")
    if (wrong := ~np.isfinite(normalizer)).any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        row = index[0] if len(index) == 1 else index
        raise ValueError(
            f"normalizer is {float(normalizer[index]):g} at row {row}; expected finite numbers"
        )
