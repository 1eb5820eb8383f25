"""Kept sets of a row of logits: which classes a sampler keeps, and what is computed of them."""

from .numbers import INF, NAN, mp, row_of
from .rows import probabilities, rel_entr


def kept_classes(z, *, temperature=1, top_k=None, top_p=None, min_p=None):
    """The classes that the rules of vLLM keep, in its order; None of a row that has no meaning."""
    p = probabilities(tuple(z), temperature=temperature)
    if any(mp.isnan(x) for x in p):
        return None
    z = row_of(z)
    kept = [i for i, x in enumerate(z) if x > -INF]
    if min_p is not None:
        # Of logarithms: probabilities that differ by less than 60 digits are not the same.
        least = mp.log(mp.mpf(min_p)) * mp.mpf(temperature)
        kept = [i for i in kept if z[i] - max(z) >= least]
    if top_k is not None:
        least = sorted(z, reverse=True)[top_k - 1]
        kept = [i for i in kept if z[i] >= least]
    if top_p is not None and top_p < 1:
        share, before, found = mp.mpf(top_p) * mp.fsum(p[i] for i in kept), mp.zero, []
        for level in sorted({z[i] for i in kept}, reverse=True):
            if before >= share:
                break
            same = [i for i in kept if z[i] == level]
            before += mp.fsum(p[i] for i in same)
            found += same
        kept = found
    return sorted(kept)


def kept_mass(z, kept, *, temperature=1):
    """Σ p over the classes kept."""
    p = probabilities(tuple(z), temperature=temperature)
    return NAN if any(mp.isnan(x) for x in p) else mp.fsum(p[i] for i in kept)


def kept_mass_gradient(z, kept, *, temperature=1):
    """∂S/∂z, the set being a constant: p (1 − S) on it, −p S elsewhere, over T."""
    p = probabilities(tuple(z), temperature=temperature)
    if any(mp.isnan(x) for x in p):
        return [NAN] * len(z)
    inside = mp.fsum(p[i] for i in kept)
    outside = mp.fsum(x for i, x in enumerate(p) if i not in set(kept))
    return [
        x * (outside if i in set(kept) else -inside) / mp.mpf(temperature) for i, x in enumerate(p)
    ]


def _of_kept(z, kept, temperature):
    """The probabilities p̂ of the classes kept, of nothing else."""
    return probabilities(tuple(z[i] for i in kept), temperature=temperature)


def kept_log_prob(z, kept, label, *, temperature=1):
    """The logarithm of p̂ of one class, −∞ of one that is not kept."""
    p = _of_kept(z, kept, temperature)
    if any(mp.isnan(x) for x in p):
        return NAN
    return mp.log(p[kept.index(label)]) if label in kept else -INF


def kept_log_prob_gradient(z, kept, label, *, temperature=1):
    """1[label] − p̂ on the classes kept, over T; 0 elsewhere, and without the label."""
    p = _of_kept(z, kept, temperature)
    found = [mp.zero] * len(z)
    for i, x in zip(kept, p, strict=True):
        found[i] = ((i == label) - x) / mp.mpf(temperature)
    return found


def kept_entropy(z, kept, *, temperature=1):
    """−Σ p̂ ln p̂."""
    return -mp.fsum(rel_entr(x, 1) for x in _of_kept(z, kept, temperature))


def kept_entropy_gradient(z, kept, *, temperature=1):
    """−p̂ (ln p̂ + H)/T on the classes kept, 0 elsewhere."""
    p = _of_kept(z, kept, temperature)
    value = -mp.fsum(rel_entr(x, 1) for x in p)
    found = [mp.zero] * len(z)
    for i, x in zip(kept, p, strict=True):
        found[i] = -(rel_entr(x, 1) + x * value) / mp.mpf(temperature)
    return found
