"""`kldiv.compare` on dask arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import dask
import dask.array as da
import numpy as np

import kldiv
from kldiv._signatures import adopt, adopted
from kldiv.comparison import Comparison
from kldiv.dask.blocks import as_given, call_of, plain
from kldiv.dask.functional import TYPES


class LazyComparison:
    """A `kldiv.Comparison` of dask arrays: its fields are attributes, of the batch shape.

    `compute` makes a `kldiv.Comparison` of them, all in one pass over the rows.
    """

    def __init__(self, columns: dict[str, da.Array], extra: dict[str, da.Array]) -> None:
        self.columns, self.extra = columns, extra
        """The fields that are known, by name, and the divergences asked for beside them."""

    def __getattr__(self, name: str) -> da.Array:
        columns = self.__dict__.get("columns", {})
        if name not in columns:
            raise AttributeError(f"no field {name!r}; there are {', '.join(columns)}")
        found: da.Array = columns[name]
        return found

    def __repr__(self) -> str:
        shape = next(iter(self.columns.values())).shape
        return f"<LazyComparison of the batch shape {shape}: {', '.join(self.columns)}>"

    def compute(self, **options: Any) -> Comparison:
        """The comparison in memory; options are those of `dask.compute`."""
        found, extra = dask.compute(self.columns, self.extra, **options)
        return Comparison(**found, extra=extra)


def _compare(*args: Any, **kwargs: Any) -> LazyComparison:
    bound = _SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    options = dict(bound.arguments)
    rows = {name: options.pop(name) for name in ("p", "q", "labels")}
    if rows["labels"] is None:
        del rows["labels"]
    where = options.pop("where")
    call = call_of(kldiv.compare, rows, options)
    if isinstance(options["temperature"], (tuple, list)):
        raise ValueError(f"temperature is one number for both, got {options['temperature']!r}")
    seen = call.stand_in(**({} if where is None else {"where": np.zeros((), np.bool_)}))
    if where is not None:
        call = call.with_operands(call.over_batch("where", where))
    found = call.blocks(_kernel, object)
    columns = {
        name: as_given(found, place, values.dtype)
        for place, (name, values) in enumerate(_columns(seen).items())
    }
    return LazyComparison(
        {name: values for name, values in columns.items() if name not in seen.extra},
        {name: columns[name] for name in seen.extra},
    )


def _columns(comparison: Comparison) -> dict[str, Any]:
    """The fields that are known, and the divergences beside them."""
    columns: dict[str, Any] = {
        one.name: getattr(comparison, one.name) for one in fields(Comparison) if one.name != "extra"
    }
    known = {name: values for name, values in columns.items() if values is not None}
    return known | comparison.extra


def _kernel(
    function: Callable[..., Any], names: tuple[str, ...], options: dict[str, Any], *blocks: Any
) -> tuple[Any, ...]:
    given = dict(zip(names, map(plain, blocks), strict=True))
    found = function(**given, **options)
    return tuple(map(np.asarray, _columns(found).values()))


_SIGNATURE = adopted(kldiv.compare, TYPES, "LazyComparison")
compare = adopt(_compare, kldiv.compare, "kldiv.dask", _SIGNATURE)
compare.__doc__ = inspect.cleandoc("""
    Everything about pairs of rows, each read once; `kldiv.compare` on dask arrays.

    Parameters, conventions and exceptions are those of `kldiv.compare`, arrays and chunks as for
    `kl`. The fields have the bits of `kldiv.compare`.

    Returns
    -------
    LazyComparison
        The fields of a `kldiv.Comparison` as dask arrays; its `compute` makes one of them.

    Examples
    --------
    >>> import dask.array
    >>> import kldiv.dask
    >>> p = dask.array.asarray([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]]).rechunk((1, 3))
    >>> q = dask.array.asarray([[0.9, 2.1, 0.5], [-1.0, 0.5, 2.0]])
    >>> found = kldiv.dask.compare(p, q, labels=[1, -100])
    >>> found.kl.compute().round(6)
    array([0.003424, 0.088361])
    >>> found.compute().nll_p.round(6)
    array([0.464369,      nan])
    """)
