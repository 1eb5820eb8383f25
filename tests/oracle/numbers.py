"""Numbers of 60 digits."""

from __future__ import annotations

import mpmath

mp = mpmath.MPContext()
mp.dps = 60
INF, NAN = mp.inf, mp.nan


def pair_of(value):
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def row_of(row):
    return [x if isinstance(x, mp.mpf) else mp.mpf(float(x)) for x in row]
