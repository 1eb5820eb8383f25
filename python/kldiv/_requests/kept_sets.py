"""Kept sets: which classes of every row count, named or by the rules of a sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from kldiv import _kldiv
from kldiv._arrays import Array, Operand, Rows, as_array, as_float, as_integer
from kldiv._reducer import Reducer
from kldiv._top_k.container import TopK

_LARGEST = 2**63 - 1


@dataclass(slots=True)
class KeptSets:
    """Kept sets of a batch; ``_kldiv.pyi`` says what the extension reads of it."""

    ids: Array | None
    offsets: Array | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    return_mass: bool


def as_kept_sets(
    rows: Rows, support: Any, top_k: Any, top_p: Any, min_p: Any, return_mass: Any
) -> KeptSets | None:
    """The kept sets that options ask for; None where all classes count."""
    classes = rows.memory.shape[-1]
    kept = as_rules(classes, support, top_k, top_p, min_p, return_mass)
    if kept is not None and support is not None:
        kept.ids, kept.offsets = ids_of(rows.name, rows.batch_shape, classes, support)
    return kept


def as_rules(
    classes: int, support: Any, top_k: Any, top_p: Any, min_p: Any, return_mass: Any
) -> KeptSets | None:
    """The rules of kept sets, checked, without the classes that `support` names."""
    if not isinstance(return_mass, (bool, np.bool_)):
        raise TypeError(f"return_mass must be True or False, got {return_mass!r}")
    if support is None and top_k is None and top_p is None and min_p is None:
        if return_mass:
            raise ValueError(
                "return_mass is the mass of a kept set, and goes with support, top_k, top_p or "
                "min_p; top_p=1.0 keeps every class"
            )
        return None
    given = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    others = [name for name, value in given.items() if value is not None]
    if support is not None and others:
        raise ValueError(
            f"support names the classes kept, and {' and '.join(others)} would choose others; "
            "pass one or the other"
        )
    if top_k is not None:
        top_k = as_integer("top_k", top_k)
        if not 1 <= top_k <= classes:
            raise ValueError(
                f"top_k must be from 1 to {classes}, the number of classes, got {top_k}"
            )
    top_p = None if top_p is None else as_float("top_p", top_p)
    min_p = None if min_p is None else as_float("min_p", min_p)
    # Here too, for what traces a call without the extension.
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"min_p must be from 0 to 1, got {min_p}")
    return KeptSets(None, None, top_k, top_p, min_p, bool(return_mass))


def ids_of(
    name: str, batch_shape: tuple[int, ...], classes: int, support: Any
) -> tuple[Array, Array]:
    """The classes named for each row, one row after the other, and where each begins."""
    count = int(np.prod(batch_shape, dtype=np.int64))
    if isinstance(support, TopK):
        if support.classes != classes:
            raise ValueError(f"support is of {support.classes} classes, but {name} of {classes}")
        shape = support.batch_shape
        if shape != batch_shape and not (support.offsets is not None and shape == (count,)):
            raise ValueError(f"support has the batch shape {shape}, but {name} {batch_shape}")
        flat = support.flat()
        return flat.ids, flat.offsets
    if isinstance(support, Sequence) and not isinstance(support, (str, bytes)):
        parts = _ragged(support, batch_shape, count)
        if parts is not None:
            offsets = np.zeros(count + 1, np.int64)
            np.cumsum([len(part) for part in parts], out=offsets[1:])
            return np.concatenate([np.empty(0, np.int64), *parts]), offsets
    ids = _integers(as_array("support", support))
    check_shape(name, batch_shape, ids.shape)
    return np.ascontiguousarray(ids.reshape(-1)), np.arange(count + 1) * ids.shape[-1]


def check_shape(name: str, batch_shape: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise `ValueError` for an array that has not the ids of every row."""
    if not shape or shape[:-1] != batch_shape:
        raise ValueError(
            f"support has shape {shape}; expected the batch shape {batch_shape} of {name} and an "
            f"axis of ids, or a list of as many arrays of ids"
        )


def _ragged(support: Sequence[Any], batch: tuple[int, ...], count: int) -> list[Array] | None:
    """An array of ids a row, of a list of as many; None where it is an array in itself."""
    if not batch or len(support) != count:
        return None
    try:
        parts = [as_array("support", part) for part in support]
    except ValueError:
        return None
    if any(part.ndim != 1 for part in parts):
        return None
    return [part.astype(np.int64) if not part.size else _integers(part) for part in parts]


def _integers(ids: Array) -> Array:
    if ids.dtype.kind not in "iu":
        raise TypeError(f"support has dtype {ids.dtype}; expected integers")
    if ids.dtype.kind == "u" and ids.dtype.itemsize == 8:
        # Beyond int64 is out of range too.
        ids = np.minimum(ids, _LARGEST)
    return ids.astype(np.int64, copy=False)


@dataclass(slots=True)
class KeptEntropyRequest:
    """Entropy of the classes kept of rows of logits; with its mass where that is asked for."""

    rows: dict[str, Rows]
    kept: KeptSets
    temperature: float
    reducer: Reducer
    default_wrt: ClassVar[str] = "p"
    gradients_at_once: ClassVar[bool] = True
    side_inputs: ClassVar[tuple[str, ...]] = ("ids", "offsets")
    spaces: ClassVar[tuple[str, ...]] = ("logits",)

    @property
    def ids(self) -> Array | None:
        """The classes named."""
        return self.kept.ids

    @ids.setter
    def ids(self, ids: Array | None) -> None:
        self.kept.ids = ids

    @property
    def offsets(self) -> Array | None:
        """Where those of each row begin."""
        return self.kept.offsets

    @offsets.setter
    def offsets(self, offsets: Array | None) -> None:
        self.kept.offsets = offsets

    def call(self, grad_output: Array | None, outputs: Mapping[str, Operand]) -> Any:
        """Compute the value, and write the gradient asked for."""
        rows = self.rows["p"]
        value, masses = _kldiv.kept_entropy(
            rows, self.kept, self.temperature, self.reducer, grad_output, outputs.get("p")
        )
        return with_mass(value, masses, self.kept, rows)


def with_mass(value: Any, masses: Array, kept: KeptSets, rows: Rows) -> Any:
    """A value, and the mass of the classes kept where that is asked for."""
    return (value, masses.reshape(rows.batch_shape)[()]) if kept.return_mass else value
