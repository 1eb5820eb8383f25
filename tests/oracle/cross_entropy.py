"""Cross-entropy."""

from __future__ import annotations

import numpy as np

from .numbers import INF, NAN, mp, row_of
from .rows import logsumexp, probabilities
from .wide_rows import wide_log_softmax


def masses(classes, target, label_smoothing=0, class_weights=None):
    """Masses w ((1 − ε) t + ε/C); `target` is a class index or a distribution."""
    if isinstance(target, int | np.integer):
        t = [mp.mpf(int(i == target)) for i in range(classes)]
    else:
        t = row_of(target)
    w = [mp.one] * classes if class_weights is None else row_of(class_weights)
    epsilon = mp.mpf(label_smoothing)
    return [w * ((1 - epsilon) * t + epsilon / classes) for w, t in zip(w, t, strict=True)]


def cross_entropy(
    logits,
    target,
    *,
    space="logits",
    temperature=1,
    label_smoothing=0,
    class_weights=None,
    z_loss=0,
    softcap=None,
):
    """−Σ m ln q + ζ lse², the masses m from `masses`, lse of the scaled and capped logits."""
    q = probabilities(logits, space=space, temperature=temperature, softcap=softcap)
    m = masses(len(q), target, label_smoothing, class_weights)
    if any(mp.isnan(x) for x in q + m):
        return NAN
    surprise = [-mp.log(x) for x in q]
    loss = mp.fsum(m * s for m, s in zip(m, surprise, strict=True) if m != 0)
    if z_loss == 0:
        return loss
    return loss + mp.mpf(z_loss) * logsumexp(logits, temperature=temperature, softcap=softcap) ** 2


def cross_entropy_gradient(
    logits,
    target,
    wrt="logits",
    *,
    space="logits",
    temperature=1,
    label_smoothing=0,
    class_weights=None,
    z_loss=0,
    softcap=None,
):
    """∂cross_entropy/∂(numbers of `logits`), or ∂/∂(target distribution) for wrt="targets"."""
    q = probabilities(logits, space=space, temperature=temperature, softcap=softcap)
    m = masses(len(q), target, label_smoothing, class_weights)
    if any(mp.isnan(x) for x in q + m):
        return [NAN] * len(q)
    if wrt == "targets":
        w = [mp.one] * len(q) if class_weights is None else row_of(class_weights)
        factors = [(1 - mp.mpf(label_smoothing)) * w for w in w]
        return [-f * mp.log(x) if f != 0 else f for f, x in zip(factors, q, strict=True)]
    if space == "log_probs":
        return [-m for m in m]
    if space == "probs":
        return [mp.zero if m == 0 else -m / x if x > 0 else -INF for m, x in zip(m, q, strict=True)]
    lse = logsumexp(logits, temperature=temperature, softcap=softcap)
    pull = mp.fsum(m) + 2 * mp.mpf(z_loss) * lse
    if softcap is None:
        slopes = [mp.one] * len(q)
    else:
        slopes = [1 - mp.tanh(z / softcap) ** 2 if z > -INF else mp.zero for z in row_of(logits)]
    return [
        slope * (x * pull - m) / mp.mpf(temperature)
        for slope, x, m in zip(slopes, q, m, strict=True)
    ]


def wide_cross_entropy(logits, labels, *, temperature=1):
    """−ln q[label], for class indices."""
    ln_q = wide_log_softmax(logits, temperature=temperature)
    return -np.take_along_axis(ln_q, np.asarray(labels)[:, None], -1)[:, 0]


def wide_cross_entropy_gradient(logits, labels, *, temperature=1):
    """(q − one-hot)/T, for class indices."""
    ln_q = wide_log_softmax(logits, temperature=temperature)
    gradient, at = np.exp(ln_q), np.asarray(labels)[:, None]
    np.put_along_axis(gradient, at, np.expm1(np.take_along_axis(ln_q, at, -1)), -1)
    return gradient / np.longdouble(temperature)
