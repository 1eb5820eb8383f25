"""Universal logit distillation, by its definition."""

from .divergence import divergence
from .numbers import INF, mp, pair_of
from .rows import probabilities


def uld(p, q, *, ids=None, weights=None, beta=0.5, space="logits", temperature=1):
    """The value of one row; `weights` are those of the shared classes and of all others."""
    spaces, temperatures = pair_of(space), pair_of(temperature)
    p, q = (
        probabilities(row, space=one, temperature=t if one == "logits" else 1)
        for row, one, t in zip((p, q), spaces, temperatures, strict=True)
    )
    p_ids, q_ids = ids or ((), ())
    matched, unmatched = weights or ((len(p_ids) / mp.mpf(len(p)),) * 2 if ids else (0, 1))
    if ids and not weights:
        unmatched = 1 - matched
    value = mp.zero
    if len(p_ids) and matched:
        of = [p[i] for i in p_ids], [q[i] for i in q_ids]
        kind = {0: "kl", 1: "reverse_kl"}.get(beta)
        if kind:
            value += matched * divergence(kind, *of, space="probs")
        else:
            value += matched * divergence("jensen_shannon", *of, space="probs", beta=beta)
    if not unmatched:
        return value
    first = sorted((x for i, x in enumerate(p) if i not in p_ids), reverse=True)
    second = sorted((x for i, x in enumerate(q) if i not in q_ids), reverse=True)
    width = max(len(first), len(second))
    first += [mp.zero] * (width - len(first))
    second += [mp.zero] * (width - len(second))
    pairs = zip(first, second, strict=True)
    return value + unmatched * mp.fsum(abs(x - y) for x, y in pairs)


def uld_gradient(p, q, wrt, **options):
    """The gradient where nothing ties: a difference, at 60 digits."""
    step = mp.mpf(10) ** -20
    rows = {"p": [mp.mpf(float(x)) for x in p], "q": [mp.mpf(float(x)) for x in q]}

    def at(index, by):
        moved = {**rows, wrt: list(rows[wrt])}
        moved[wrt][index] += by
        return uld(moved["p"], moved["q"], **options)

    return [
        mp.zero if x == -INF else (at(index, step) - at(index, -step)) / (2 * step)
        for index, x in enumerate(rows[wrt])
    ]
