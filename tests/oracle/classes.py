"""Classes of a row as data: the most probable ones, and those that uniform numbers draw."""

from .numbers import INF, mp, row_of
from .rows import logsumexp


def most_probable(z, k):
    """The k classes with the largest finite logits, of equal ones those of lower ids."""
    return sorted((i for i, x in enumerate(z) if x > -INF), key=lambda i: (-z[i], i))[:k]


def cumulative(z, *, power=1, temperature=1):
    """Sums of π ∝ p^power over the classes up to each, the last of which is 1."""
    z = row_of(z)
    rate, largest = mp.mpf(power) / mp.mpf(temperature), max(z)
    chances = [mp.exp(rate * (x - largest)) if x > -INF else mp.zero for x in z]
    total, reached, found = mp.fsum(chances), mp.zero, []
    for chance in chances:
        reached += chance
        found.append(reached / total)
    return found


def drawn(z, uniforms, *, power=1, temperature=1):
    """How often each class is drawn, and the weights (n/k) p/π, of those that are."""
    sums = cumulative(z, power=power, temperature=temperature)
    lse = logsumexp(tuple(z), temperature=temperature)
    counts = {}
    for uniform in uniforms:
        at = next(i for i, reached in enumerate(sums) if uniform < reached)
        counts[at] = counts.get(at, 0) + 1
    weights = {}
    for i, count in counts.items():
        chance = sums[i] - (sums[i - 1] if i else 0)
        p = mp.exp(mp.mpf(float(z[i])) / mp.mpf(temperature) - lse)
        weights[i] = mp.mpf(count) / len(uniforms) * (1 if power == 1 else p / chance)
    return counts, weights
