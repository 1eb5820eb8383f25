"""The functions of one batch of rows: entropy, and gradients."""

from __future__ import annotations

import numpy as np

from .numbers import mp
from .rows import probabilities, rel_entr
from .wide_rows import balanced, wide_log_softmax


def entropy(p, *, space="logits", temperature=1):
    """−Σ p ln p."""
    return -mp.fsum(rel_entr(x, 1) for x in probabilities(p, space=space, temperature=temperature))


def entropy_gradient(p, *, space="logits", temperature=1):
    """∂entropy/∂(numbers of p)."""
    p = probabilities(p, space=space, temperature=temperature)
    if space == "log_probs":
        return [-rel_entr(x, 1) - x for x in p]
    if space == "probs":
        return [-mp.log(x) - 1 for x in p]
    value = -mp.fsum(rel_entr(x, 1) for x in p)
    return [-(rel_entr(x, 1) + x * value) / mp.mpf(temperature) for x in p]


def logsumexp_gradient(z, *, temperature=1):
    """softmax(z/T) / T."""
    return [x / mp.mpf(temperature) for x in probabilities(z, temperature=temperature)]


def wide_entropy(p, *, temperature=1):
    """−Σ p ln p of logits."""
    ln_p = wide_log_softmax(p, temperature=temperature)
    return -_p_ln_p(ln_p).sum(-1)


def wide_entropy_gradient(p, *, temperature=1):
    """−p (ln p + H)/T, for logits."""
    ln_p = wide_log_softmax(p, temperature=temperature)
    terms = _p_ln_p(ln_p)
    p = np.exp(ln_p)
    return -balanced(terms - p * terms.sum(-1, keepdims=True), p) / np.longdouble(temperature)


def _p_ln_p(ln_p):
    return np.exp(ln_p) * np.where(np.isfinite(ln_p), ln_p, 0)
