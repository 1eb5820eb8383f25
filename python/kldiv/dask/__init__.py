"""kldiv on `dask.array`: the divergences and `compare`, by blocks of rows, on any scheduler.

A block is one call of `kldiv` on NumPy arrays. Rows may be in any chunks; their classes are in one,
or brought together (`rechunk`) where they are not. Every number is the same for any chunks.
"""

from kldiv.dask.comparison import LazyComparison as LazyComparison
from kldiv.dask.comparison import compare as compare
from kldiv.dask.functional import FUNCTIONS
from kldiv.dask.gradients import value_and_grad as value_and_grad

globals().update(FUNCTIONS)
__all__ = [*FUNCTIONS, "LazyComparison", "compare", "value_and_grad"]
