"""The definitions of tests/oracle in MPFR arithmetic, where gmpy2 is installed.

The functions are those of the oracle, run with MPFR numbers of 200 bits in place of mpmath's:
the same digits, ten times as fast. What is found wrong here is computed again by the oracle itself
before it is reported.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import sys
from types import ModuleType
from typing import Any

import numpy as np

import oracle

try:
    import gmpy2
except ModuleNotFoundError:
    gmpy2 = None

BITS = 200
# Exponents of gmpy2 end at ±2^30, and e^x at 7e8; the rest is for quotients and powers.
WIDEST = 1e8


CACHED = ("row_of", "probabilities", "log_softmax", "logsumexp")


def _oracle_copy(name: str) -> ModuleType:
    """The package again, under another name, with a cache for what is asked again and again."""
    spec = importlib.util.spec_from_file_location(name, oracle.__file__)
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    # Its modules look it up, and dataclasses theirs.
    sys.modules[name] = package
    spec.loader.exec_module(package)
    _replace(package, {one: functools.lru_cache(256)(getattr(package, one)) for one in CACHED})
    return package


def _replace(package: ModuleType, names: dict[str, Any]) -> None:
    """Give names of a package other meanings, in all modules of it that have them."""
    for path, module in list(sys.modules.items()):
        if path == package.__name__ or path.startswith(f"{package.__name__}."):
            for name in names.keys() & vars(module).keys():
                setattr(module, name, names[name])


class _Mpfr:
    """What the oracle uses of an mpmath context."""

    def __init__(self) -> None:
        self.inf, self.nan = gmpy2.inf(), gmpy2.nan()
        self.zero, self.one = gmpy2.mpfr(0), gmpy2.mpfr(1)
        self.exp, self.log, self.tanh, self.sqrt = gmpy2.exp, gmpy2.log, gmpy2.tanh, gmpy2.sqrt
        self.isnan, self.mpf = gmpy2.is_nan, gmpy2.mpfr

    def fsum(self, terms: Any) -> Any:
        return gmpy2.fsum(list(terms))

    def sign(self, x: Any) -> Any:
        return gmpy2.mpfr(gmpy2.sign(x))


def _fast_oracle() -> ModuleType:
    package = _oracle_copy("oracle_in_mpfr")
    mp: Any = _Mpfr()
    _replace(package, {"mp": mp, "INF": mp.inf, "NAN": mp.nan})
    return package


SLOW = _oracle_copy("oracle_with_a_cache")
FAST = SLOW if gmpy2 is None else _fast_oracle()
_caches = [
    getattr(module, name) for module in {id(m): m for m in (SLOW, FAST)}.values() for name in CACHED
]


def oracle_for(spread: float, *, arbiter: bool = False) -> ModuleType:
    """The oracle for numbers whose exponents are at most `spread`, with digits enough for them."""
    digits = 60 + max(0, math.ceil(math.log10(max(spread, 1.0))))
    if gmpy2 is None or arbiter or not spread < WIDEST:
        if SLOW.mp.dps != digits:
            SLOW.mp.dps = digits
            clear()
        return SLOW
    context = gmpy2.get_context()
    bits = BITS + math.ceil(3.33 * (digits - 60))
    if context.precision != bits:
        context.precision = bits
        clear()
    return FAST


def clear() -> None:
    """Forget what was computed with another precision."""
    for cache in _caches:
        cache.cache_clear()


def wide(numbers: Any) -> np.ndarray:
    """Numbers of the oracle as longdoubles, their first 106 bits added up."""
    high = [_double(x) for x in numbers]
    low = [_double(x - h) if math.isfinite(h) else 0.0 for x, h in zip(numbers, high, strict=True)]
    return np.array(high, np.longdouble) + np.array(low, np.longdouble)


def _double(x: Any) -> float:
    try:
        return float(x)
    except OverflowError:
        return math.inf if x > 0 else -math.inf
