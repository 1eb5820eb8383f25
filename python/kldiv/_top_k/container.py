"""`TopK`: the most probable classes of every row, or classes drawn from it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from kldiv import _arrays, _optional
from kldiv._arrays import Array
from kldiv._top_k import arguments, checks, padded, rows
from kldiv._top_k.flat import Flat, begins_of, flattened, masses


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
        kind, values = arguments.values(log_probs, logits, normalizer)
        self._adopt(
            arguments.owned(arguments.integers("ids", ids)),
            arguments.owned(arguments.floating(kind, values)),
            kind,
            classes=arguments.as_classes(classes),
            normalizer=None
            if normalizer is None
            else arguments.owned(arguments.floating("normalizer", normalizer)),
            offsets=None
            if offsets is None
            else arguments.integers("offsets", offsets).astype(np.int64, order="C"),
            weights=None
            if weights is None
            else arguments.owned(arguments.floating("weights", weights)),
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
            arguments.check_shapes(ids, values, kind, offsets, weights)
        batch_shape = ids.shape[:-1] if offsets is None else (len(offsets) - 1,)
        if not checked:
            arguments.check_normalizer(normalizer, batch_shape)
            width = ids.shape[-1] if offsets is None else None
            begins = begins_of(ids, offsets)
            checks.check(
                checks.Kept(
                    ids.reshape(-1),
                    values.reshape(-1),
                    kind,
                    classes,
                    batch_shape,
                    width,
                    begins,
                    None if normalizer is None else normalizer.reshape(-1),
                    None if weights is None else weights.reshape(-1),
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
    def rows(self) -> int:
        """How many rows: of a batch of shape (2, 3), six."""
        return math.prod(self.batch_shape)

    @property
    def begins(self) -> Array:
        """Where rows begin, and the last ends, among all kept classes: int64."""
        return begins_of(self.ids, self.offsets)

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
        return masses(self)[()]

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
        return flattened(self)

    @classmethod
    def from_padded(
        cls,
        ids: ArrayLike,
        log_probs: ArrayLike | None = None,
        *,
        logits: ArrayLike | None = None,
        normalizer: ArrayLike | None = None,
        classes: int,
        mask: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        outside: str = "refuse",
    ) -> TopK:
        r"""Of arrays with padding: only what a mask names is kept, and looked at.

        The result has ragged rows, those of the batch in C order, also where none lacks a class.

        Parameters
        ----------
        ids, log_probs, logits, normalizer, classes, weights
            As of `TopK`, rectangular.
        mask : array_like of bool or of 0 and 1, shape of ids, or (...)
            Which elements are classes of their row, or which rows have any. Without it all.
        outside : {"refuse", "drop"}
            What is done about ids of `classes` and above.

        Returns
        -------
        TopK
            Of batch shape ``(rows,)``.

        Raises
        ------
        ValueError, TypeError
            As `TopK`, and for a mask of another shape or with other numbers.

        Examples
        --------
        >>> import kldiv
        >>> ids, log_probs = [[5, 1], [9, 0]], [[-0.5, -1.5], [-0.25, 0.0]]
        >>> kldiv.TopK.from_padded(ids, log_probs, classes=10, mask=[[1, 1], [1, 0]])
        TopK(batch_shape=(2,), k=1..2, classes=10, log_probs of float64)
        """
        kind, given = arguments.values(log_probs, logits, normalizer)
        whole, values = arguments.integers("ids", ids), arguments.floating(kind, given)
        count = arguments.as_classes(classes)
        of_ids = None if weights is None else arguments.floating("weights", weights)
        arguments.check_shapes(whole, values, kind, None, of_ids)
        if normalizer is not None:
            normalizer = arguments.floating("normalizer", normalizer)
            arguments.check_normalizer(normalizer, whole.shape[:-1])
            normalizer = arguments.owned(normalizer.reshape(-1))
        kept = padded.kept_elements(whole, count, mask, outside)
        return cls._of(
            arguments.owned(whole[kept]),
            arguments.owned(values[kept]),
            kind,
            classes=count,
            normalizer=normalizer,
            offsets=padded.offsets_of(kept),
            weights=None if of_ids is None else arguments.owned(of_ids[kept]),
        )

    @classmethod
    def concatenate(cls, parts: Iterable[TopK]) -> TopK:
        """The rows of several, one after the other along the first axis of the batch.

        Parameters
        ----------
        parts : iterable of TopK
            Of one vocabulary and one kind, all with a normaliser and weights, or none. Where they
            keep different numbers of classes, or are ragged, so is the result; their batches have
            one axis then.

        Raises
        ------
        ValueError
            For parts that do not fit, the number of which is named, and for none.

        Examples
        --------
        >>> import kldiv
        >>> one = kldiv.TopK([[5, 1]], [[-0.5, -1.5]], classes=10)
        >>> kldiv.TopK.concatenate([one, one])
        TopK(batch_shape=(2,), k=2, classes=10, log_probs of float64)
        """
        return cls._of(**rows.joined(list(parts)), checked=True)

    def thin(self, k: int) -> TopK:
        """The `k` most probable classes of every row, of equally probable ones those of lower ids.

        They come in that order. A row that keeps fewer keeps them all.

        Parameters
        ----------
        k : int
            At least 1, and at most `classes`.

        Raises
        ------
        ValueError
            For samples, of which the most probable are no sample, and another `k`.

        Examples
        --------
        >>> import kldiv
        >>> kldiv.TopK([4, 1, 7], logits=[0.0, 2.0, 2.0], classes=8).thin(2).ids
        array([1, 7])
        """
        if self.weights is not None:
            raise ValueError(
                "these are samples; the most probable of them stand for the row no more"
            )
        count = _arrays.as_integer("k", k)
        if not 1 <= count <= self.classes:
            raise ValueError(f"k is {count}; expected 1 to {self.classes}, the number of classes")
        return self._of(**rows.most_probable(self, count), checked=True)

    def to_dense(self, *, fill: float, dtype: DTypeLike | None = None) -> Array:
        """Rows of all classes, with `fill` in place of those that are not kept.

        Parameters
        ----------
        fill : float
            The log-probability, or the logit, of the others: −inf where they have none.
        dtype : dtype, optional
            float64, float32, float16 or bfloat16; by itself that of the values.

        Returns
        -------
        numpy.ndarray, shape (..., classes)
            Log-probabilities or logits, as they are kept; what samples stand for is not in them.

        Examples
        --------
        >>> import kldiv
        >>> kldiv.TopK([2, 0], [-1.0, -2.0], classes=4).to_dense(fill=-100)
        array([  -2., -100.,   -1., -100.])
        """
        chosen = self.values.dtype if dtype is None else np.dtype(dtype)
        if _arrays.floating_name(chosen) is None:
            raise TypeError(f"dtype is {chosen}; expected float64, float32, float16 or bfloat16")
        return rows.dense(self, _arrays.as_float("fill", fill), chosen)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write these rows, and all that is needed to use them, to a file.

        ``.safetensors`` holds the tensors ``ids``, ``log_probs`` or ``logits``, and where there
        are any ``normalizer``, ``weights`` and ``offsets``; ``.parquet`` a row a position with
        the same as columns, without bfloat16. Ids have the smallest integer dtype for the number
        of classes, values their own. The metadata has under ``kldiv``, as JSON, ``format``
        (``"TopK"``), ``version`` (1), ``kind``, ``classes``, ``batch_shape`` and ``ragged``.
        `kldiv compare`, `kldiv convert` and `kldiv info` take such files as dumps.

        The file has its name once it is whole.

        Parameters
        ----------
        path : str or path-like
            Its end says the format.
        overwrite : bool
            Whether to replace a file that is there.

        Raises
        ------
        ValueError
            For another end, and for bfloat16 in Parquet.
        FileExistsError, OSError
            For a file that is there, or cannot be written.
        ModuleNotFoundError
            Without the extra ``eval``, or ``formats`` for Parquet.

        Examples
        --------
        >>> import tempfile
        >>> import kldiv
        >>> kept = kldiv.TopK([[5, 1]], [[-0.5, -1.5]], classes=10)
        >>> path = tempfile.mkdtemp() + "/teacher.safetensors"
        >>> kept.save(path)
        >>> kldiv.TopK.load(path) == kept
        True
        """
        _optional.module("kldiv.evaluation.top_k_files").save(self, path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TopK:
        """Read what `save` or `kldiv convert` wrote, and check it.

        Parameters
        ----------
        path : str or path-like
            A ``.safetensors`` or ``.parquet`` of top-k rows.

        Raises
        ------
        ValueError
            For a file that holds none, is cut off or of another version, or whose rows `TopK`
            refuses; the message names the file, and the first such row and id.
        OSError
            For a file that cannot be read.
        """
        found: TopK = _optional.module("kldiv.evaluation.top_k_files").load(path)
        return found

    def __getitem__(self, index: Any) -> TopK:
        """Some rows, by an index of the batch as NumPy takes it."""
        return self._of(**rows.chosen(self, index), checked=True)

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("len() of a TopK of one row, without a batch")
        return self.batch_shape[0]

    def __eq__(self, other: object) -> bool:
        """Whether the same classes are kept with the same numbers, of whatever dtype."""
        if not isinstance(other, TopK):
            return NotImplemented
        return rows.equal(self, other)

    # Equal ones would need equal hashes: all of their numbers would be read.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self.offsets is None:
            k = f"{self.ids.shape[-1]}"
        else:
            counts = self.counts
            low, high = counts.min(initial=self.classes), counts.max(initial=0)
            k = f"{low}..{high}" if low < high else f"{high}"
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
