"""Hidden states through an output layer: logits, and everything `kldiv.compare` says of them.

Logits are summed in float64, in the order of the hidden states, by fused multiply-adds: half the
speed of float32. With 1,024 numbers a state and logits of about 10, a KL of 1e-11 and what else
is small with it is right to 3e-9 of itself, entropies and −ln p to 1e-13. Products in float32 are
off by 1e-5 in all of it, also where near-equal states are subtracted before they are multiplied:
what is little, as −ln p of a token that is nearly certain or KL with one likely class, is
relative to absolute errors of logits. A logit depends on its two vectors alone, so that a model
has exactly 0.0 from itself, and numbers have the same bits in blocks of any size, on any number
of threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import ArrayLike

import kldiv
from kldiv import _kldiv
from kldiv._arrays import Array, Operand, Rows, as_rows
from kldiv._side_inputs import as_class_index, as_labels, as_mask, check_beyond
from kldiv.comparison import Comparison
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.stored_arrays import StoredArray
from kldiv.evaluation.head_files import KEYS, stored_head

LOGIT_BYTES = 1 << 28
"""Of logits, of both sides, held at a time."""
ROWS = 24
"""Rows that the extension takes as fast as one; a multiple of it loses nothing."""
MOST_ROWS = 384
"""From here on more rows are no faster."""
SAME_BYTES = 16 << 20  # of two heads compared at a time

DEPLOYED, TRUNK = "deployed KLD", "trunk KLD"
EXCHANGED = "KLD with a head that is not its own"
NEITHER = "KLD with a head of neither"

_loaded: WeakValueDictionary[tuple[Any, ...], Head] = WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class Head:
    """An output layer: logits are its product with hidden states, after the final norm."""

    weight: Array
    """``[classes, size]``, in the dtype stored; bfloat16 as that of ml_dtypes."""
    name: str = "head"
    """How messages call it."""
    dtype_name: str = "float32"

    @classmethod
    def load(cls, given: Any, classes: int | None = None, *, name: str = "head") -> Head:
        """An array, or one from a file, which is read once.

        Parameters
        ----------
        given : path, array_like or Head
            ``[classes, size]`` in float64, float32, float16 or bfloat16. Of a path what
            `kldiv.evaluation.head_files.stored_head` finds.
        classes : int, optional
            How many classes are real; later ones are padding.
        name
            How messages call an array.

        Raises
        ------
        DumpError, OSError
            For a file without a head, or that cannot be read.
        TypeError, ValueError
            For an array of another dtype or shape, and for more classes than there are.

        Examples
        --------
        >>> import numpy as np
        >>> from kldiv.evaluation.head import Head
        >>> head = Head.load(np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
        >>> head.logits([[0.5, 0.25]])
        array([[0.5 , 0.5 , 0.75]])
        """
        if isinstance(given, Head):
            head = given
        elif isinstance(given, (str, os.PathLike)):
            head = cls._of_file(stored_head(os.fspath(given)))
        else:
            head = cls._of_rows(as_rows(name, given, -1))
        return head if classes is None else head.first(classes)

    @classmethod
    def _of_file(cls, stored: StoredArray) -> Head:
        # As many candidates share one head in memory as are compared at a time.
        state = stored.path.stat()
        key = (stored.name, state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size)
        head = _loaded.get(key)
        if head is None:
            rows = as_rows(stored.name, stored.all(), -1)
            head = _loaded[key] = cls(rows.memory, stored.name, rows.dtype_name)
        return head

    @classmethod
    def _of_rows(cls, rows: Rows) -> Head:
        if len(rows.shape) != 2 or 0 in rows.shape:
            raise ValueError(f"{rows.name} has shape {rows.shape}; expected [classes, size]")
        return cls(rows.memory, rows.name, rows.dtype_name)

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.weight)

    @property
    def size(self) -> int:
        """Numbers of a hidden state."""
        return int(self.weight.shape[1])

    def first(self, classes: int) -> Head:
        """The same head without the classes from `classes` on."""
        if not 1 <= classes <= self.classes:
            raise ValueError(
                f"{self.name} has {self.classes:,} classes, expected at least {classes:,} to score"
                if classes > 0
                else f"classes must be at least 1, got {classes}"
            )
        return self if classes == self.classes else replace(self, weight=self.weight[:classes])

    def is_same(self, other: Head | StoredArray) -> bool:
        """Whether another head, in memory or a file, has the same numbers."""
        weight = other.weight if isinstance(other, Head) else None
        if weight is self.weight:
            return True
        shape = other.shape if weight is None else weight.shape  # type: ignore[union-attr]
        if shape != self.weight.shape:
            return False
        step = max(1, SAME_BYTES // (self.size * 8))
        blocks: Iterator[Array]
        if isinstance(other, Head):
            blocks = (other.weight[start : start + step] for start in range(0, len(self), step))
        else:
            blocks = other.blocks(range(len(self)), step)
        start = 0
        for block in blocks:
            own = self.weight[start : start + step]
            start += step
            if own.dtype == block.dtype:
                own, block = (np.ascontiguousarray(one).view(np.uint8) for one in (own, block))
            else:
                own, block = own.astype(np.float64), block.astype(np.float64)
            if not np.array_equal(own, block):
                return False
        return True

    def __len__(self) -> int:
        return self.classes

    def logits(self, hidden: ArrayLike, out: Array | None = None) -> Array:
        """Logits of hidden states ``[..., size]``, float64 ``[..., classes]``.

        Raises
        ------
        ValueError
            For states of another size.
        """
        rows = self._states("hidden", hidden)
        states = rows.memory.reshape(-1, self.size)
        if out is None:
            out = np.empty((len(states), self.classes))
        self._product(Operand(states, rows.dtype_name), out)
        return out.reshape(*rows.batch_shape, self.classes)

    def _states(self, name: str, hidden: ArrayLike) -> Rows:
        rows = as_rows(name, hidden, -1)
        if rows.shape[-1] != self.size:
            raise ValueError(
                f"{name} has shape {rows.shape}, but {self.name} has shape {self.weight.shape}: "
                f"expected hidden states of {self.size}"
            )
        return rows

    def _product(self, states: Operand, out: Array) -> None:
        weight = Operand(self.weight, self.dtype_name)
        _kldiv.linear(states, weight, Operand(out, "float64"))


@dataclass(frozen=True)
class HeadPair:
    """The output layers of a reference and of a candidate."""

    p: Head
    q: Head | None = None
    """The candidate's own; without it the candidate's hidden states go through the reference's."""
    named: str | None = None
    """What KL is called, where more is known of the heads than that they are two or one."""

    @property
    def measure(self) -> str:
        """What KL is called: trunk KLD leaves the candidate's own head out, deployed KLD has it."""
        return self.named or (TRUNK if self.q is None else DEPLOYED)

    @property
    def own(self) -> Head:
        """The head that the candidate's hidden states go through."""
        return self.p if self.q is None else self.q

    @property
    def rows(self) -> int:
        """How many rows have their logits in memory at a time; no number depends on it."""
        fitting = LOGIT_BYTES // (8 * (self.p.classes + self.own.classes))
        return max(1, fitting if fitting < ROWS else min(fitting // ROWS * ROWS, MOST_ROWS))

    def compare_blocks(
        self,
        hidden_p: ArrayLike,
        hidden_q: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        ignore_index: int | None = -100,
        temperature: float = 1.0,
        where: ArrayLike | None = None,
    ) -> Comparison:
        r"""What `kldiv.compare` says of the logits, without all of them in memory.

        Logits z = W h are summed in float64, and so are all fields: those of
        ``kldiv.compare(hidden_p @ W.T, hidden_q @ W.T)`` in float64, but for the order of sums.
        Equal states have exactly 0.0 of every divergence. The time is that of the products,
        2 · rows · classes · size multiply-adds, and a tenth of it; beside the heads there are
        256 MiB of logits at most, or two rows.

        Parameters
        ----------
        hidden_p, hidden_q : array_like
            Hidden states after the final norm, ``[..., size]``, of any floating dtype.
        labels, ignore_index, temperature, where
            As for `kldiv.compare`, over the batch shape. Rows that `where` leaves out are not
            multiplied.

        Returns
        -------
        Comparison
            Float64 fields of the batch shape. Rows with NaN or infinite states hold NaN.

        Raises
        ------
        TypeError, ValueError, IndexError
            As for `kldiv.compare`, and for states of another size than the head's.

        Examples
        --------
        >>> import numpy as np
        >>> from kldiv.evaluation.head import Head, HeadPair
        >>> rng = np.random.default_rng(0)
        >>> pair = HeadPair(Head.load(rng.normal(size=(1000, 64))))
        >>> states = rng.normal(size=(3, 64))
        >>> float(pair.compare_blocks(states, states).kl.max())
        0.0
        >>> found = pair.compare_blocks(states, states + 1e-6)
        >>> bool((found.kl > 0).all() and (found.kl < 1e-9).all())
        True
        """
        p = self.p._states("hidden_p", hidden_p)
        q = self.own._states("hidden_q", hidden_q)
        if self.p.classes != self.own.classes:
            raise ValueError(
                f"{self.p.name} has shape {self.p.weight.shape} but {self.own.name} has shape "
                f"{self.own.weight.shape}: expected as many classes"
            )
        if p.batch_shape != q.batch_shape:
            raise ValueError(f"hidden_p has shape {p.shape} but hidden_q has shape {q.shape}")
        mask = as_mask("where", where, p)
        ignore_index = as_class_index("ignore_index", ignore_index)
        flat = self._labels(labels, p, ignore_index, mask)
        kept = None if mask is None else np.flatnonzero(mask)
        parts = []
        for part, z_p, z_q in self._logits(p, q, kept):
            known = None if flat is None else flat[part]
            parts.append(
                kldiv.compare(z_p, z_q, known, ignore_index=ignore_index, temperature=temperature)
            )
        return _joined(parts, p.batch_shape, mask, labels)

    def _labels(
        self, labels: ArrayLike | None, rows: Rows, ignore_index: int | None, mask: Array | None
    ) -> Array | None:
        """Labels, of which those in use are in range."""
        if labels is None:
            return None
        flat, _, beyond = as_labels("labels", labels, rows, ignore_index)
        given = flat if beyond is None else beyond
        # As the extension would, with the number of the row in this block.
        logits = replace(rows, memory=np.empty((0, self.p.classes)))
        check_beyond(given, logits, ignore_index, mask)
        return given

    def _logits(
        self, p: Rows, q: Rows, kept: Array | None
    ) -> Iterator[tuple[Array | slice, Array, Array]]:
        """Some rows at a time, and their logits, which last until the next are asked for."""
        sides = [rows.memory.reshape(-1, rows.shape[-1]) for rows in (p, q)]
        count = len(sides[0]) if kept is None else len(kept)
        step = min(self.rows, max(1, count))
        shared = self.own.weight is self.p.weight
        memory = np.empty((2 * step, self.p.classes))
        states = np.empty((2 * step, self.p.size)) if shared else None
        # Once without rows where there are none, for the fields and the checks.
        for start in range(0, max(1, count), step):
            stop = min(start + step, count)
            part = slice(start, stop) if kept is None else kept[start:stop]
            rows = stop - start
            z_p, z_q = memory[:rows], memory[rows : 2 * rows]
            if states is not None:
                # Weights are converted once for both.
                states[:rows], states[rows : 2 * rows] = sides[0][part], sides[1][part]
                self.p._product(Operand(states[: 2 * rows], "float64"), memory[: 2 * rows])
            else:
                self.p._product(Operand(sides[0][part], p.dtype_name), z_p)
                self.own._product(Operand(sides[1][part], q.dtype_name), z_q)
            yield part, z_p, z_q


def check_heads(
    head: Any = None,
    candidate_head: Any = None,
    *,
    found_p: str | os.PathLike[str] | None = None,
    found_q: str | os.PathLike[str] | None = None,
    names: tuple[str, str] = ("the reference", "the candidate"),
) -> HeadPair:
    """The heads of two dumps of hidden states: those given, else those found beside the dumps.

    A candidate of which no head is known goes through the reference's, which is its trunk KLD.
    Where both are given they are taken, whatever lies beside the dumps, and the measure says what
    that makes of them: each with its own is the deployed KLD; both with that of one is the trunk
    KLD; anything else is named after what it is. With one given, a dump whose own head is another
    is refused, the reference too.

    Parameters
    ----------
    head, candidate_head : path, array_like or Head, optional
        What was given.
    found_p, found_q : path, optional
        What lies beside the dumps.
    names
        How messages call the dumps.

    Raises
    ------
    DumpError
        For a reference without a head, and for heads that differ where not both are given.
    """
    if head is None and found_p is None:
        raise DumpError(
            f"{names[0]} holds hidden states, and no output layer lies beside it; give its "
            "weight as the head (--head, head=)"
        )
    p = Head.load(found_p if head is None else head)
    if candidate_head is None and head is not None and found_p is not None:
        _refuse_another(p, found_p)
    own = found_q if candidate_head is None else candidate_head
    pair = _pair(p, head, own)
    if candidate_head is None:
        if pair.q is not None and pair.q.weight is not p.weight:
            raise _differing(p.name, pair.q.name)
        return pair
    if head is None and pair.q is not None and pair.q.weight is not p.weight:
        raise _differing(p.name, pair.q.name)
    return replace(pair, named=_named(pair, found_p, found_q))


def check_one_head(
    head: Any, found: str | os.PathLike[str] | None, names: tuple[str, str]
) -> HeadPair:
    """The head of hidden states that are compared with rows of all classes.

    Those rows are through their own; hidden states are, unless another head is given than the one
    that lies beside them, which the measure then says.
    """
    if head is None or found is None:
        return replace(check_heads(head, found_p=found, names=names), named=DEPLOYED)
    p = Head.load(head)
    own = p.is_same(stored_head(os.fspath(found)))
    return HeadPair(p, named=DEPLOYED if own else EXCHANGED)


def _pair(p: Head, head: Any, own: Any) -> HeadPair:
    """The reference's head and what the candidate goes through; equal ones share their memory."""
    if own is None:
        return HeadPair(p)
    if not isinstance(own, (str, os.PathLike)):
        q = p if own is head else Head.load(own, name="candidate_head")
        return HeadPair(p, None if q is p else replace(p, name=q.name) if p.is_same(q) else q)
    stored = stored_head(os.fspath(own))
    if p.is_same(stored):
        return HeadPair(p, replace(p, name=stored.name))
    return HeadPair(p, Head.load(own))


def _named(pair: HeadPair, found_p: Any, found_q: Any) -> str | None:
    """What KL is of two heads that were given, by those that lie beside the dumps."""
    # None where no head lies beside a dump: it may be its own.
    mine, its = (
        None if found is None else one.is_same(stored_head(os.fspath(found)))
        for one, found in ((pair.p, found_p), (pair.own, found_q))
    )
    if mine is not False and its is not False:
        same = pair.own.weight is pair.p.weight
        return TRUNK if same and pair.own.name == pair.p.name and not its else None
    if pair.own.weight is not pair.p.weight:
        return EXCHANGED
    return NEITHER if mine is False and its is False else TRUNK


def _refuse_another(p: Head, found: str | os.PathLike[str]) -> None:
    """Raise `DumpError` where the head that lies beside the reference is not the one given."""
    stored = stored_head(os.fspath(found))
    # A head of another size fits the hidden states no better, which is what is said then.
    if stored.shape[1] == p.size and not p.is_same(stored):
        raise _differing(stored.name, p.name)


def _differing(reference: str, candidate: str) -> DumpError:
    first, second = (name.removesuffix(f":{KEYS[0]}") for name in (reference, candidate))
    return DumpError(
        f"the heads {reference} and {candidate} differ; give both (head=, candidate_heads=): "
        f"--head {first} --candidate-head {second} is the deployed KLD, "
        f"--head {first} --candidate-head {first} the trunk KLD; of several candidates each has "
        "its --candidate-head"
    )


NOT_TEXT = 0.75
"""Share of ln(classes), which guessing at random has, that is beyond any model of the text.

SmolLM2, of 49,152 classes, has 3.0 nats a token of Python's documentation: 27 %. Of its states
before the final norm it is 328, and of labels one token off 10.7, which is 99 %.
"""


def pre_norm_warning(nll: ArrayLike, classes: int, name: str) -> str | None:
    """A sentence, where the labels are so improbable that hidden states cannot be right.

    Those before the final norm have the same shape and give plausible divergences; what they
    give the true tokens is no better than chance.

    Parameters
    ----------
    nll : array_like
        −ln p of the labels; NaN and infinite ones are left out.
    classes : int
        How many there are.
    name
        The dump.

    Examples
    --------
    >>> from kldiv.evaluation.head import pre_norm_warning
    >>> pre_norm_warning([2.0, 3.5], 49_152, "states")
    >>> pre_norm_warning([9.0, 14.0], 49_152, "states")[:47]
    'the mean −ln p of the labels is 11.5 in states,'
    """
    known = np.asarray(nll, np.float64)
    known = known[np.isfinite(known)]
    if not known.size or (mean := float(known.mean())) <= NOT_TEXT * np.log(classes):
        return None
    return (
        f"the mean −ln p of the labels is {mean:.1f} in {name}, where guessing among {classes:,} "
        f"classes has {np.log(classes):.1f}: are these hidden states before the final norm, of "
        "another head, or labels one token off?"
    )


def _joined(
    parts: list[Comparison], shape: tuple[int, ...], mask: Array | None, labels: ArrayLike | None
) -> Comparison:
    """One comparison of consecutive rows, with those that the mask left out between them."""
    columns: dict[str, Any] = {}
    for field in fields(Comparison):
        if field.name in ("where", "labels", "extra") or getattr(parts[0], field.name) is None:
            continue
        values = np.concatenate([getattr(part, field.name) for part in parts])
        if mask is not None:
            filled = np.full(len(mask), -1 if values.dtype.kind == "i" else 0, values.dtype)
            filled[mask] = values
            values = filled
        columns[field.name] = values.reshape(shape)
    if labels is not None and "labels" in {field.name for field in fields(Comparison)}:
        columns["labels"] = np.asarray(labels)
    kept = np.ones(shape, np.bool_) if mask is None else mask.reshape(shape)
    return Comparison(where=kept, **columns)
