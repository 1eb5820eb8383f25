"""One row in 60 digits: its probabilities, and what is made of two of them."""

from __future__ import annotations

from .numbers import INF, NAN, mp, row_of


def _capped(z, softcap):
    return z if softcap is None or z == -INF else softcap * mp.tanh(z / softcap)


def logsumexp(z, *, temperature=1, softcap=None):
    """Log-sum-exp ln Σ exp(z/T), after the cap c·tanh(z/c)."""
    z = row_of(z)
    if any(mp.isnan(x) or x == INF for x in z):
        return NAN
    return mp.log(mp.fsum(mp.exp(_capped(x, softcap) / mp.mpf(temperature)) for x in z))


def log_softmax(z, *, temperature=1, softcap=None):
    """z/T − logsumexp(z)."""
    lse = logsumexp(z, temperature=temperature, softcap=softcap)
    if mp.isnan(lse) or lse == -INF:
        return [NAN] * len(z)
    return [_capped(x, softcap) / mp.mpf(temperature) - lse for x in row_of(z)]


def probabilities(row, *, space="logits", temperature=1, softcap=None):
    """Probabilities that the numbers of a row stand for."""
    if space == "logits":
        return [mp.exp(x) for x in log_softmax(row, temperature=temperature, softcap=softcap)]
    row = row_of(row)
    p = row if space == "probs" else [mp.exp(x) for x in row]
    return p if all(0 <= x < INF for x in p) else [NAN] * len(p)


def rel_entr(p, q):
    """Relative entropy of one class, p ln(p/q), as `scipy.special.rel_entr` has it."""
    if p == 0:
        return mp.zero
    return INF if q == 0 else p * mp.log(p / q)


def mixture(p, q, beta):
    return mp.mpf(beta) * p + (1 - mp.mpf(beta)) * q


def power(p, q, alpha):
    """p^α q^(1−α)."""
    if p == q == 0 or (p == 0 and alpha >= 0) or (q == 0 and alpha < 1):
        return mp.zero
    return INF if 0 in (p, q) else p * (p / q) ** (mp.mpf(alpha) - 1)
