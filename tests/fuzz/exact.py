"""The definitions of tests/oracle.py in MPFR arithmetic, where gmpy2 is installed.

The functions are those of the oracle, run with MPFR numbers of 200 bits in place of mpmath's:
the same digits, ten times as fast. What is found wrong here is computed again by the oracle itself
before it is reported.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import sys
from types import ModuleType, SimpleNamespace
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


def _oracle_copy(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, oracle.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    module._row = functools.lru_cache(256)(module._row)
    module.probabilities = functools.lru_cache(256)(module.probabilities)
    module.log_softmax = functools.lru_cache(256)(module.log_softmax)
    module.logsumexp = functools.lru_cache(256)(module.logsumexp)
    return module


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
    module = _oracle_copy("oracle_in_mpfr")
    mp: Any = _Mpfr()
    module.mp, module.INF, module.NAN = mp, mp.inf, mp.nan
    module.mpmath = SimpleNamespace(mpf=type(mp.one))
    return module


SLOW = _oracle_copy("oracle_with_a_cache")
FAST = SLOW if gmpy2 is None else _fast_oracle()
_caches = [
    getattr(module, name)
    for module in {id(m): m for m in (SLOW, FAST)}.values()
    for name in ("_row", "probabilities", "log_softmax", "logsumexp")
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
