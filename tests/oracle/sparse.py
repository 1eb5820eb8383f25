"""Losses from the classes that a teacher keeps, by the definitions of the rules."""

from .divergence import divergence
from .numbers import INF, mp
from .rows import probabilities


def sparse_loss(
    loss,
    ids,
    log_probs,
    z,
    rule,
    *,
    floor=-100,
    temperature=(1, 1),
    temper_after=False,
    weights=None,
    **parameters,
):
    """The value of one row: dense rows wherever a rule speaks of all classes."""
    of_p, of_q = temperature
    q = probabilities(tuple(z), temperature=of_q)
    p = [mp.exp(mp.mpf(one) / of_p) for one in log_probs]
    only = rule in ("renormalize", "renormalize_p") or temper_after
    if only or (of_p != 1 and len(ids) == len(z)):
        p = [one / mp.fsum(p) for one in p]
    others = [index for index in range(len(z)) if index not in ids]
    kept = [q[index] for index in ids]
    tail = mp.mpf(0) if only or not others else max(mp.mpf(0), 1 - mp.fsum(p))
    if rule == "sampled":
        own = 0 if loss == "cross_entropy" else 1
        pairs = zip(weights, log_probs, kept, strict=True)
        return mp.fsum(w * (own * mp.mpf(lp) - mp.log(one)) for w, lp, one in pairs if w)
    if rule == "truncate":
        return _of(loss, p, kept, parameters)
    if rule == "renormalize":
        # Of the others nothing is looked at.
        own = probabilities(tuple(z[index] for index in ids), temperature=of_q)
        return _of(loss, p, own, parameters)
    if rule == "tail":
        p = [*p, tail] if others else p
        whole = mp.fsum(p)
        kept = [*kept, mp.fsum(q[index] for index in others)] if others else kept
        return _of(loss, [one / whole for one in p], kept, parameters)
    if rule == "uniform_tail":
        # Rounded numbers may add up to more than 1, and those of all classes to less.
        p = [one / (mp.fsum(p) + tail) for one in p]
    elsewhere = {
        "renormalize_p": lambda: mp.mpf(0),
        "floor": lambda: mp.exp(mp.mpf(floor)),
        "uniform_tail": lambda: tail / max(1, len(others)),
    }[rule]()
    dense = [elsewhere] * len(z)
    for index, one in zip(ids, p, strict=True):
        dense[index] = one
    return _of(loss, dense, q, parameters)


def sparse_gradient(loss, ids, log_probs, z, rule, **options):
    """The gradient with respect to the student's logits: a difference, at 60 digits."""
    step = mp.mpf(10) ** -20 * options.get("temperature", (1, 1))[1]

    def at(index, by):
        moved = [mp.mpf(one) for one in z]
        moved[index] += by
        return sparse_loss(loss, ids, log_probs, moved, rule, **options)

    return [
        mp.mpf(0) if z[index] == -INF else (at(index, step) - at(index, -step)) / (2 * step)
        for index in range(len(z))
    ]


def _of(loss, p, q, parameters):
    if loss == "cross_entropy":
        return -mp.fsum(one * mp.log(other) for one, other in zip(p, q, strict=True) if one)
    return divergence(loss, tuple(p), tuple(q), space="probs", **parameters)
