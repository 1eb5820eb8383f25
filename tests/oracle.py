r"""The oracle: what kldiv computes, written down from the definitions.

Two references, and nothing else in the project states expected numbers:

* `divergence`, `gradient`, `cross_entropy`, … take one row (a sequence of floats or mpf) and
  compute with 60 decimal digits. At that precision the textbook formula is accurate as it stands.
* `wide` and the other ``wide_…`` functions take ``[rows, classes]`` arrays and compute in
  `numpy.longdouble` (`WIDE_IS_EXTENDED` says whether that has more than 53 bits). There the
  formulas are rearranged so that close rows lose nothing; `test_accuracy` measures them against
  the first reference, to 1e-16 or better.

Conventions: 0·ln(0/q) = 0; p·ln(p/0) = +inf; logits of −inf have probability 0; a row with NaN,
+inf or a negative probability, or without any class, gives NaN throughout. Probabilities and
log-probabilities are taken as given. Gradients are with respect to the numbers passed, in their
space, and at probability 0 the one-sided limit.

Both take the keywords of the public functions: ``space`` and ``temperature`` (one or a pair, p
first), and parameters by their names in the table.

>>> mp.nprint(divergence("kl", [0.5, 0.5], [0.75, 0.25], space="probs"), 20)
0.14384103622589046372
>>> mp.nprint(gradient("kl", [0.5, 0.5], [0.75, 0.25], "q", space="probs"), 12)
[-0.666666666667, -2.0]
"""

from __future__ import annotations

from dataclasses import dataclass

import mpmath
import numpy as np

mp = mpmath.MPContext()
mp.dps = 60
INF, NAN = mp.inf, mp.nan


# --- One row, 60 digits ---------------------------------------------------------------------------


def _pair(value):
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def _row(row):
    return [x if isinstance(x, mp.mpf) else mp.mpf(float(x)) for x in row]


def _capped(z, softcap):
    return z if softcap is None or z == -INF else softcap * mp.tanh(z / softcap)


def logsumexp(z, *, temperature=1, softcap=None):
    """Log-sum-exp ln Σ exp(z/T), after the cap c·tanh(z/c)."""
    z = _row(z)
    if any(mp.isnan(x) or x == INF for x in z):
        return NAN
    return mp.log(mp.fsum(mp.exp(_capped(x, softcap) / mp.mpf(temperature)) for x in z))


def log_softmax(z, *, temperature=1, softcap=None):
    """z/T − logsumexp(z)."""
    lse = logsumexp(z, temperature=temperature, softcap=softcap)
    if mp.isnan(lse) or lse == -INF:
        return [NAN] * len(z)
    return [_capped(x, softcap) / mp.mpf(temperature) - lse for x in _row(z)]


def probabilities(row, *, space="logits", temperature=1, softcap=None):
    """Probabilities that the numbers of a row stand for."""
    if space == "logits":
        return [mp.exp(x) for x in log_softmax(row, temperature=temperature, softcap=softcap)]
    row = _row(row)
    p = row if space == "probs" else [mp.exp(x) for x in row]
    return p if all(0 <= x < INF for x in p) else [NAN] * len(p)


def rel_entr(p, q):
    """Relative entropy of one class, p ln(p/q), as `scipy.special.rel_entr` has it."""
    if p == 0:
        return mp.zero
    return INF if q == 0 else p * mp.log(p / q)


def _mixture(p, q, beta):
    return mp.mpf(beta) * p + (1 - mp.mpf(beta)) * q


def _power(p, q, alpha):
    """p^α q^(1−α)."""
    if p == q == 0 or (p == 0 and alpha >= 0) or (q == 0 and alpha < 1):
        return mp.zero
    return INF if 0 in (p, q) else p * (p / q) ** (mp.mpf(alpha) - 1)


class Entry:
    """A divergence: its definition, and the same for wide rows.

    `pairs` are (p, q) of every class, `pair` is a `WidePair`.
    """

    def value(self, pairs):
        """D of one row."""
        raise NotImplementedError

    def slopes(self, pairs):
        """(∂D/∂ln p, ∂D/∂ln q), class by class."""
        raise NotImplementedError

    def slope_at_zero(self, wrt):
        """∂D/∂p for p → 0 < q, or ∂D/∂q for q → 0 < p."""
        return -INF

    def slope_at_zero_of(self, pairs, wrt):
        """The same, where it depends on the row."""
        return self.slope_at_zero(wrt)

    def wide_value(self, pair):
        """D of every row."""
        raise NotImplementedError

    def wide_slopes(self, pair):
        """The slopes of both sides, each less a multiple of the probability, which comes second."""
        raise NotImplementedError


class Kl(Entry):
    def value(self, pairs):
        return mp.fsum(rel_entr(p, q) for p, q in pairs)

    def slopes(self, pairs):
        return [(rel_entr(p, q) + p, -p) for p, q in pairs]

    def wide_value(self, pair):
        return _kl_terms(pair.p, pair.d, pair.gap).sum(-1) - pair.sum_of_gaps()

    def wide_slopes(self, pair):
        p = np.where(pair.p > 0, pair.p, 0)
        return (p * np.where(pair.p > 0, pair.d, 0), 1), (pair.gap, -1)


class ReverseKl(Entry):
    def value(self, pairs):
        return mp.fsum(rel_entr(q, p) for p, q in pairs)

    def slopes(self, pairs):
        return [(-q, rel_entr(q, p) + q) for p, q in pairs]

    def wide_value(self, pair):
        return _kl_terms(pair.q, -pair.d, -pair.gap).sum(-1) + pair.sum_of_gaps()

    def wide_slopes(self, pair):
        q = np.where(pair.q > 0, pair.q, 0)
        return (-pair.gap, -1), (-q * np.where(pair.q > 0, pair.d, 0), 1)


class Jeffreys(Entry):
    def value(self, pairs):
        return mp.fsum(rel_entr(p, q) + rel_entr(q, p) for p, q in pairs)

    def slopes(self, pairs):
        both = zip(Kl().slopes(pairs), ReverseKl().slopes(pairs), strict=True)
        return [(kl[0] + reverse[0], kl[1] + reverse[1]) for kl, reverse in both]

    def wide_value(self, pair):
        return Kl().wide_value(pair) + ReverseKl().wide_value(pair)

    def wide_slopes(self, pair):
        (to_p, _), (gap, _) = Kl().wide_slopes(pair)
        _, (to_q, _) = ReverseKl().wide_slopes(pair)
        return (to_p - gap, 0), (to_q + gap, 0)


@dataclass(frozen=True)
class JensenShannon(Entry):
    beta: float

    def value(self, pairs):
        if self.beta in (0, 1):
            return mp.zero
        to_p = mp.fsum(rel_entr(p, _mixture(p, q, self.beta)) for p, q in pairs)
        to_q = mp.fsum(rel_entr(q, _mixture(p, q, self.beta)) for p, q in pairs)
        return _mixture(to_p, to_q, self.beta)

    def slopes(self, pairs):
        if self.beta in (0, 1):
            return [(mp.zero, mp.zero)] * len(pairs)
        mixed = [(p, q, _mixture(p, q, self.beta)) for p, q in pairs]
        beta = mp.mpf(self.beta)
        return [(beta * rel_entr(p, m), (1 - beta) * rel_entr(q, m)) for p, q, m in mixed]

    def slope_at_zero(self, wrt):
        return mp.zero if self.beta in (0, 1) else -INF

    def wide_value(self, pair):
        # m − p = (1−β)·gap and m − q = −β·gap.
        beta = np.longdouble(self.beta)
        to_p, to_q = self._log_mixture_ratios(pair)
        near_p = _kl_terms(pair.p, to_p, (1 - beta) * pair.gap).sum(-1)
        near_q = _kl_terms(pair.q, to_q, -beta * pair.gap).sum(-1)
        return beta * near_p + (1 - beta) * near_q

    def wide_slopes(self, pair):
        beta = np.longdouble(self.beta)
        to_p, to_q = self._log_mixture_ratios(pair)
        to_p, to_q = np.where(pair.p > 0, to_p, 0), np.where(pair.q > 0, to_q, 0)
        return (beta * pair.p * to_p, 0), ((1 - beta) * pair.q * to_q, 0)

    def _log_mixture_ratios(self, pair):
        """ln(p/m) and ln(q/m) for m = βp + (1−β)q."""
        beta = np.longdouble(self.beta)
        with np.errstate(divide="ignore", invalid="ignore"):
            to_p = -np.log1p((1 - beta) * pair.gap / pair.p)
            to_q = -np.log1p(-beta * pair.gap / pair.q)
        return np.where(np.isnan(to_p), 0, to_p), np.where(np.isnan(to_q), 0, to_q)


@dataclass(frozen=True)
class SkewKl(Entry):
    alpha: float

    def value(self, pairs):
        return mp.fsum(rel_entr(p, _mixture(p, q, self.alpha)) for p, q in pairs)

    def slopes(self, pairs):
        alpha = mp.mpf(self.alpha)
        mixed = [(p, q, _mixture(p, q, alpha)) for p, q in pairs]
        # Of p = q = 0, 0; −(1 − α)pq/m, which α = 0 leaves −p for q = 0, too.
        products = [(1 - alpha) * (p if m == 0 else p * q / m) for p, q, m in mixed]
        return [
            (rel_entr(p, m) + one, -one) for (p, _, m), one in zip(mixed, products, strict=True)
        ]

    def slope_at_zero(self, wrt):
        alpha = mp.mpf(self.alpha)
        if alpha == 1:
            return mp.zero
        return -INF if wrt == "p" or alpha == 0 else (alpha - 1) / alpha

    def wide_value(self, pair):
        # m − p = (1−α)·gap.
        gap = (1 - np.longdouble(self.alpha)) * pair.gap
        terms = _kl_terms(pair.p, self._log_ratio(pair), gap).sum(-1)
        return terms if pair.normalized else terms - gap.sum(-1)

    def wide_slopes(self, pair):
        # p·L(w) − b and b = (1−α)·(m − p)·q/m, less multiples 1 − α of p and of −q.
        alpha = np.longdouble(self.alpha)
        rest = 1 - alpha
        m = pair.p + rest * pair.gap
        b = rest * rest * pair.gap * np.where(m > 0, pair.q / np.where(m > 0, m, 1), 0)
        log_ratio = self._log_ratio(pair)
        terms = _kl_terms(pair.p, log_ratio, rest * pair.gap)
        # Of m ≫ p both are about m: p·(ln(p/m) + (1−α)·α·(q − p)/m).
        far = m > 2 * pair.p
        beyond = log_ratio + rest * alpha * pair.gap / np.where(far, m, 1)
        slopes = np.where(far, pair.p * beyond, terms - b)
        if not 0 < self.alpha < 1:
            return (slopes, rest), (b, -rest)
        # Where most of p is improbable in q, less −ln α, the slope of a class that q lacks.
        lone = (np.where(pair.p > 4 * pair.q, pair.p, 0).sum(-1) > 0.5)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            left = np.where(pair.p > 0, -pair.p * np.log1p(rest / alpha * pair.q / pair.p), 0)
        product = rest * np.where(m > 0, pair.p * pair.q / np.where(m > 0, m, 1), 0)
        to_p = np.where(lone, left + product, slopes)
        # Of q the other way round: nothing is left of the slope of a class that p lacks.
        lone_q = (np.where(pair.q > 4 * pair.p, pair.q, 0).sum(-1) > 0.5)[:, None]
        of_q = np.where(lone_q, -product, b), np.where(lone_q, 0, -rest)
        return (to_p, np.where(lone, -np.log(alpha), rest)), of_q

    def _log_ratio(self, pair):
        """ln(p/m) for m = αp + (1−α)q."""
        rest = 1 - np.longdouble(self.alpha)
        with np.errstate(divide="ignore", invalid="ignore"):
            to_p = -np.log1p(rest * pair.gap / pair.p)
        return np.where(np.isnan(to_p), 0, to_p)


@dataclass(frozen=True)
class SkewReverseKl(Entry):
    alpha: float

    def value(self, pairs):
        return SkewKl(self.alpha).value([(q, p) for p, q in pairs])

    def slopes(self, pairs):
        return [(of_p, of_q) for of_q, of_p in SkewKl(self.alpha).slopes([x[::-1] for x in pairs])]

    def slope_at_zero(self, wrt):
        return SkewKl(self.alpha).slope_at_zero("q" if wrt == "p" else "p")

    def wide_value(self, pair):
        return SkewKl(self.alpha).wide_value(pair.exchanged())

    def wide_slopes(self, pair):
        return SkewKl(self.alpha).wide_slopes(pair.exchanged())[::-1]


class TotalVariation(Entry):
    def value(self, pairs):
        return mp.fsum(abs(p - q) for p, q in pairs) / 2

    def slopes(self, pairs):
        return [(mp.sign(p - q) * p / 2, mp.sign(q - p) * q / 2) for p, q in pairs]

    def slope_at_zero(self, wrt):
        return mp.mpf(-0.5)

    def wide_value(self, pair):
        return np.abs(pair.gap).sum(-1) / 2

    def wide_slopes(self, pair):
        half = np.sign(pair.gap) / 2
        return (-half * pair.p, 0), (half * pair.q, 0)


class NegLogAcceptance(Entry):
    def value(self, pairs):
        share = mp.fsum(min(p, q) for p, q in pairs)
        return -mp.log(share) if share else INF

    def slopes(self, pairs):
        share = mp.fsum(min(p, q) for p, q in pairs)
        if share == 0:
            return [(NAN, NAN)] * len(pairs)
        return [
            (-p * (1 + mp.sign(q - p)) / 2 / share, -q * (1 + mp.sign(p - q)) / 2 / share)
            for p, q in pairs
        ]

    def slope_at_zero_of(self, pairs, wrt):
        return -1 / mp.fsum(min(p, q) for p, q in pairs)

    def wide_value(self, pair):
        # 1 − Σ min(p, q).
        rest = np.abs(pair.gap).sum(-1) / 2
        if not pair.normalized:
            rest = rest - (pair.p.sum(-1) - 1 + pair.gap.sum(-1) / 2)
        with np.errstate(divide="ignore"):
            direct = -np.log(np.minimum(pair.p, pair.q).sum(-1))
        return np.where(rest < 0.5, -np.log1p(-np.minimum(rest, 0.5)), direct)

    def wide_slopes(self, pair):
        share = np.minimum(pair.p, pair.q).sum(-1)[:, None]
        sign = np.sign(pair.gap)
        # Of classes that are alike −½; where little is shared 0, what the larger of p and q has.
        multiple = np.where(share < 0.5, 0, -0.5)
        to_p = (-(1 + sign) / 2 - multiple) * pair.p / share
        to_q = (-(1 - sign) / 2 - multiple) * pair.q / share
        return (to_p, multiple / share), (to_q, multiple / share)


class Mixed(Entry):
    """A mixture of two divergences, with a weight for the first that the rows give.

    Slopes are those for a weight that stays as it is.
    """

    first: Entry
    second: Entry

    def weight(self, pairs):
        """The weight of `first` in one row."""
        raise NotImplementedError

    def wide_weight(self, pair):
        """That of every row."""
        raise NotImplementedError

    def value(self, pairs):
        weight = self.weight(pairs)
        parts = ((weight, self.first), (1 - weight, self.second))
        return mp.fsum(share * one.value(pairs) for share, one in parts if share)

    def slopes(self, pairs):
        weight = self.weight(pairs)
        parts = ((weight, self.first), (1 - weight, self.second))
        found = [(share, one.slopes(pairs)) for share, one in parts if share]
        return [
            tuple(mp.fsum(share * slopes[at][side] for share, slopes in found) for side in (0, 1))
            for at in range(len(pairs))
        ]

    def wide_value(self, pair):
        weight = self.wide_weight(pair)
        return weight * self.first.wide_value(pair) + (1 - weight) * self.second.wide_value(pair)

    def wide_slopes(self, pair):
        weight = self.wide_weight(pair)[:, None]
        both = zip(self.first.wide_slopes(pair), self.second.wide_slopes(pair), strict=True)
        return tuple(
            tuple(weight * one + (1 - weight) * other for one, other in zip(*parts, strict=True))
            for parts in both
        )


@dataclass(frozen=True)
class LkHybrid(Mixed):
    eta: float
    first, second = Kl(), TotalVariation()

    def weight(self, pairs):
        return mp.exp(-mp.mpf(self.eta) * mp.fsum(min(p, q) for p, q in pairs))

    def wide_weight(self, pair):
        return np.exp(-np.longdouble(self.eta) * np.minimum(pair.p, pair.q).sum(-1))

    def slope_at_zero(self, wrt):
        return mp.mpf(-0.5) if wrt == "p" and self.eta == INF else -INF

    def wide_slopes(self, pair):
        to_p, (to_q, multiple) = super().wide_slopes(pair)
        # Where most of q is improbable in p, less ½(1 − λ), the slope of a class that p lacks.
        lone = (np.where(pair.q > 4 * pair.p, pair.q, 0).sum(-1) > 0.5)[:, None]
        weight = self.wide_weight(pair)[:, None]
        left = -weight * pair.p - (1 - weight) * (1 - np.sign(pair.gap)) / 2 * pair.q
        return to_p, (np.where(lone, left, to_q), np.where(lone, (1 - weight) / 2, multiple))


@dataclass(frozen=True)
class AdaptiveKl(Mixed):
    mu: float
    first, second = Kl(), ReverseKl()

    def weight(self, pairs):
        if self.mu == 0:
            return mp.zero
        # Numbers that only the last of 60 digits tells apart are the same.
        tiny, above, smallest = mp.mpf(10) ** -50, mp.zero, INF
        for p in sorted((p for p, _ in pairs if p), reverse=True):
            if above < self.mu * (1 - tiny) or self.mu == 1 or p >= smallest * (1 - tiny):
                smallest = p
            above += p
        gaps = [(p >= smallest * (1 - tiny), abs(p - q)) for p, q in pairs]
        total = mp.fsum(gap for _, gap in gaps)
        return mp.fsum(gap for is_head, gap in gaps if is_head) / total if total else mp.mpf(0.5)

    def wide_weight(self, pair):
        if self.mu == 0:
            return np.zeros(len(pair.p))
        ordered = -np.sort(-pair.p, axis=-1)
        above = np.cumsum(ordered, axis=-1) - ordered
        in_head = (ordered > 0) & ((above < self.mu) | (self.mu == 1))
        smallest = np.where(in_head, ordered, np.inf).min(-1, keepdims=True)
        gap = np.abs(pair.gap)
        head, total = np.where(pair.p >= smallest, gap, 0).sum(-1), gap.sum(-1)
        return np.where(total > 0, head / np.where(total > 0, total, 1), 0.5)


class SquaredHellinger(Entry):
    def value(self, pairs):
        return 1 - mp.fsum(mp.sqrt(p * q) for p, q in pairs)

    def slopes(self, pairs):
        return [(-mp.sqrt(p * q) / 2,) * 2 for p, q in pairs]

    def wide_value(self, pair):
        near = (self._difference(pair) ** 2).sum(-1) / 2
        return near if pair.normalized else near + 1 - (pair.p + pair.q).sum(-1) / 2

    def wide_slopes(self, pair):
        half = self._difference(pair) / 2
        return (-np.sqrt(pair.p) * half, -0.5), (np.sqrt(pair.q) * half, -0.5)

    def _difference(self, pair):
        """√q − √p."""
        both = np.sqrt(pair.p) + np.sqrt(pair.q)
        return pair.gap / np.where(both > 0, both, 1)


@dataclass(frozen=True)
class Renyi(Entry):
    alpha: float

    def value(self, pairs):
        if self.alpha == 1:
            return Kl().value(pairs)
        total = mp.fsum(_power(p, q, self.alpha) for p, q in pairs)
        return mp.log(total) / (mp.mpf(self.alpha) - 1)

    def slopes(self, pairs):
        if self.alpha == 1:
            return Kl().slopes(pairs)
        alpha = mp.mpf(self.alpha)
        powers = [_power(p, q, alpha) for p, q in pairs]
        total = mp.fsum(powers) * (alpha - 1)
        if total in (0, INF):
            return [(NAN, NAN)] * len(pairs)
        return [(alpha * c / total, (1 - alpha) * c / total) for c in powers]

    def slope_at_zero(self, wrt):
        return mp.zero if wrt == "p" and self.alpha > 1 else -INF

    def wide_value(self, pair):
        near = self._sum_minus_one(pair)
        direct = self._powers(pair).sum(-1)
        with np.errstate(divide="ignore"):
            far = np.log(direct)
        order = np.longdouble(self.alpha) - 1
        return np.where(near > -0.5, np.log1p(np.maximum(near, -0.5)), far) / order

    def wide_slopes(self, pair):
        total = 1 + self._sum_minus_one(pair)
        direct = self._powers(pair).sum(-1)
        total = np.where(total > 0.5, total, direct)[:, None]
        alpha = np.longdouble(self.alpha)
        factor = self.alpha / (alpha - 1) / total
        # f − p and f − q for f = p^α q^(1−α).
        to_p = self._difference(pair.p, (1 - alpha) * pair.d)
        to_q = self._difference(pair.q, -alpha * pair.d)
        return (factor * to_p, factor), (-to_q / total, -1 / total)

    def _difference(self, base, t):
        """base·(exp(−t) − 1)."""
        return np.where(base > 0, base, 0) * np.expm1(-np.where(base > 0, t, 0))

    def _powers(self, pair):
        exponent = -(1 - np.longdouble(self.alpha)) * np.where(pair.p > 0, pair.d, 0)
        return pair.p * np.exp(exponent)

    def _sum_minus_one(self, pair):
        """Σ p^α q^(1−α) − 1 from terms of second order."""
        tau = 1 - np.longdouble(self.alpha)
        td = tau * np.where(pair.p > 0, pair.d, 0)
        scaled = _kl_terms(pair.p, td, self._difference(pair.p, td)).sum(-1)
        with np.errstate(invalid="ignore"):  # inf − inf where q = 0: callers take the direct sum
            near = scaled - tau * _kl_terms(pair.p, pair.d, pair.gap).sum(-1)
        if pair.normalized:
            return near
        return near + tau * pair.gap.sum(-1) + (pair.p.sum(-1) - 1)


@dataclass(frozen=True)
class AlphaDivergence(Renyi):
    def value(self, pairs):
        if self.alpha in (0, 1):
            return (Kl if self.alpha else ReverseKl)().value(pairs)
        alpha = mp.mpf(self.alpha)
        return (mp.fsum(_power(p, q, alpha) for p, q in pairs) - 1) / (alpha * (alpha - 1))

    def slopes(self, pairs):
        if self.alpha in (0, 1):
            return (Kl if self.alpha else ReverseKl)().slopes(pairs)
        alpha = mp.mpf(self.alpha)
        powers = [_power(p, q, alpha) for p, q in pairs]
        return [(c / (alpha - 1), -c / alpha) for c in powers]

    def slope_at_zero(self, wrt):
        return mp.zero if (self.alpha > 1 if wrt == "p" else self.alpha < 0) else -INF

    def wide_value(self, pair):
        near, alpha = self._sum_minus_one(pair), np.longdouble(self.alpha)
        direct = self._powers(pair).sum(-1) - 1
        return np.where(near > -0.5, near, direct) / (alpha * (alpha - 1))

    def wide_slopes(self, pair):
        alpha = np.longdouble(self.alpha)
        to_p = self._difference(pair.p, (1 - alpha) * pair.d) / (alpha - 1)
        to_q = self._difference(pair.q, -alpha * pair.d) / alpha
        return (to_p, 1 / (alpha - 1)), (-to_q, -1 / alpha)


class ChiSquared(Entry):
    def value(self, pairs):
        return mp.fsum(INF if q == 0 else (p - q) ** 2 / q for p, q in pairs if p != q)

    def slopes(self, pairs):
        return [
            (mp.zero, mp.zero)
            if p == q
            else (INF, -INF)
            if q == 0
            else (2 * p * (p - q) / q, (q - p) * (p + q) / q)
            for p, q in pairs
        ]

    def slope_at_zero(self, wrt):
        return mp.mpf(-2) if wrt == "p" else -INF

    def wide_value(self, pair):
        return (pair.gap * self._relative_gap(pair)).sum(-1)

    def wide_slopes(self, pair):
        relative = self._relative_gap(pair)
        return (-2 * pair.p * relative, 0), ((pair.p + pair.q) * relative, 0)

    def _relative_gap(self, pair):
        """(q − p)/q."""
        with np.errstate(divide="ignore"):
            return pair.gap / np.where((pair.p > 0) | (pair.q > 0), pair.q, 1)


ENTRIES = {
    "kl": Kl,
    "reverse_kl": ReverseKl,
    "jeffreys": Jeffreys,
    "jensen_shannon": JensenShannon,
    "skew_kl": SkewKl,
    "skew_reverse_kl": SkewReverseKl,
    "total_variation": TotalVariation,
    "neg_log_acceptance": NegLogAcceptance,
    "squared_hellinger": SquaredHellinger,
    "lk_hybrid": LkHybrid,
    "adaptive_kl": AdaptiveKl,
    "renyi": Renyi,
    "alpha_divergence": AlphaDivergence,
    "chi_squared": ChiSquared,
}
"""What is called with the parameter of a divergence, by name."""


def parts(name, p, q, *, space="logits", **parameter):
    """Of a mixture the weights of its first part, a row each, and the names of both parts."""
    entry, weights = ENTRIES[name](**parameter), []
    for row in zip(p, q, strict=True):
        pairs = list(zip(*_both(*row, space, 1), strict=True))
        weights.append(float(entry.weight(pairs)))
    known = {one: name for name, one in ENTRIES.items()}
    return np.array(weights), [known[type(one)] for one in (entry.first, entry.second)]


def divergence(name, p, q, *, space="logits", temperature=1, **parameter):
    """One value; `parameter` is beta or alpha."""
    p, q = _both(p, q, space, temperature)
    if any(mp.isnan(x) for x in p + q):
        return NAN
    return ENTRIES[name](**parameter).value(list(zip(p, q, strict=True)))


def gradient(name, p, q, wrt, *, space="logits", temperature=1, **parameter):
    """∂divergence/∂(numbers of `wrt`), a list; `wrt` is "p" or "q"."""
    p, q = _both(p, q, space, temperature)
    side = "pq".index(wrt)
    if any(mp.isnan(x) for x in p + q):
        return [NAN] * len(p)
    entry = ENTRIES[name](**parameter)
    pairs = list(zip(p, q, strict=True))
    slopes = [pair[side] for pair in entry.slopes(pairs)]
    own, other = (p, q) if side == 0 else (q, p)
    own_space, own_temperature = _pair(space)[side], mp.mpf(_pair(temperature)[side])
    if own_space == "log_probs":
        return slopes
    if own_space == "probs":
        if any(mp.isnan(slope) for slope in slopes):
            return slopes
        limit = entry.slope_at_zero_of(pairs, wrt)
        return [
            slope / x if x > 0 else limit if y > 0 else mp.zero
            for slope, x, y in zip(slopes, own, other, strict=True)
        ]
    total = mp.fsum(slopes)
    if abs(total) == INF:
        return [NAN] * len(own)
    return [(slope - x * total) / own_temperature for slope, x in zip(slopes, own, strict=True)]


def _both(p, q, space, temperature):
    sides = zip((p, q), _pair(space), _pair(temperature), strict=True)
    return [probabilities(row, space=space, temperature=t) for row, space, t in sides]


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


def masses(classes, target, label_smoothing=0, class_weights=None):
    """Masses w ((1 − ε) t + ε/C); `target` is a class index or a distribution."""
    if isinstance(target, int | np.integer):
        t = [mp.mpf(int(i == target)) for i in range(classes)]
    else:
        t = _row(target)
    w = [mp.one] * classes if class_weights is None else _row(class_weights)
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
        w = [mp.one] * len(q) if class_weights is None else _row(class_weights)
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
        slopes = [1 - mp.tanh(z / softcap) ** 2 if z > -INF else mp.zero for z in _row(logits)]
    return [
        slope * (x * pull - m) / mp.mpf(temperature)
        for slope, x, m in zip(slopes, q, m, strict=True)
    ]


# --- Many wide rows, extended precision -----------------------------------------------------------

WIDE_IS_EXTENDED = np.finfo(np.longdouble).eps < 2e-19
"""Whether `numpy.longdouble` has 64 bits or more on this platform."""

_SERIES_TERMS = 20  # 2^-20/20! ≈ 4e-25 of the leading term at |t| = ½


def _extended(rows):
    rows = np.asarray(rows)
    if rows.dtype != np.longdouble:
        rows = rows.astype(np.float64).astype(np.longdouble)  # exact for every dtype of kldiv
    return rows


def _second_order(t):
    """exp(−t) − 1 + t for |t| ≤ ½, by its series."""
    total = np.ones_like(t)
    for k in range(_SERIES_TERMS, 2, -1):
        total = 1 - t / k * total
    return t * t / 2 * total


def _kl_terms(p, d, gap):
    """p·(exp(−d) − 1 + d) = p·d + gap, with d = ln(p/q) and gap = q − p; gap where p = 0."""
    near = np.abs(d) <= 0.5
    far = gap + np.where(p > 0, p, 0) * np.where(p > 0, d, 0)
    return np.where(near, p * _second_order(np.where(near, d, 0)), far)


def wide_log_softmax(z, *, temperature=1):
    """Logarithms of p, each to its relative precision: log1p's argument lacks the largest class."""
    z = _extended(z)
    top = np.argmax(z, axis=-1, keepdims=True)
    shifted = (z - np.take_along_axis(z, top, -1)) / np.longdouble(temperature)
    rest = np.exp(shifted)
    np.put_along_axis(rest, top, 0, -1)
    return shifted - np.log1p(rest.sum(-1, keepdims=True))


def wide_logsumexp(z, *, temperature=1):
    """Log-sum-exp ln Σ exp(z/T), over the last axis."""
    z = _extended(z)
    ln_p = wide_log_softmax(z, temperature=temperature)
    return z.max(-1) / np.longdouble(temperature) - ln_p.max(-1)


def wide_entropy(p, *, temperature=1):
    """−Σ p ln p of logits."""
    ln_p = wide_log_softmax(p, temperature=temperature)
    return -_p_ln_p(ln_p).sum(-1)


def wide_entropy_gradient(p, *, temperature=1):
    """−p (ln p + H)/T, for logits."""
    ln_p = wide_log_softmax(p, temperature=temperature)
    terms = _p_ln_p(ln_p)
    p = np.exp(ln_p)
    return -_balanced(terms - p * terms.sum(-1, keepdims=True), p) / np.longdouble(temperature)


def _p_ln_p(ln_p):
    return np.exp(ln_p) * np.where(np.isfinite(ln_p), ln_p, 0)


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


@dataclass(frozen=True)
class WidePair:
    """Two arrays of rows, as probabilities; make one with `wide` and use it for everything."""

    p: np.ndarray
    q: np.ndarray
    d: np.ndarray
    """ln p − ln q, to its relative precision."""
    gap: np.ndarray
    """q − p, to its relative precision."""
    normalized: bool
    """Whether Σp = Σq = 1 by definition: both are logits."""
    space: tuple
    temperature: tuple

    def exchanged(self):
        """The pair of q and p."""
        return WidePair(
            self.q,
            self.p,
            -self.d,
            -self.gap,
            self.normalized,
            self.space[::-1],
            self.temperature[::-1],
        )

    def sum_of_gaps(self):
        """Σ (q − p)."""
        return 0 if self.normalized else self.gap.sum(-1)

    def value(self, name, **parameter):
        """Divergence of every row."""
        return ENTRIES[name](**parameter).wide_value(self)

    def gradient(self, name, wrt, **parameter):
        """∂value/∂(numbers of `wrt`); at probability 0 use `gradient`, the 60-digit one."""
        side = "pq".index(wrt)
        own, inverse = (self.p, self.q)[side], 1 / np.longdouble(self.temperature[side])
        # Slopes less a multiple c of the probability, which the logits' gradient does not see.
        slope, c = ENTRIES[name](**parameter).wide_slopes(self)[side]
        if self.space[side] == "logits":
            return _balanced(slope - own * slope.sum(-1, keepdims=True), own) * inverse
        slope = slope + c * own
        return slope if self.space[side] == "log_probs" else slope / own


def wide(p, q, *, space="logits", temperature=1):
    """Make the `WidePair` of two ``[rows, classes]`` arrays."""
    space, temperature = _pair(space), _pair(temperature)
    x, y = _extended(p), _extended(q)
    ln_p, ln_q = (
        _wide_log_probs(rows, one, t)
        for rows, one, t in zip((x, y), space, temperature, strict=True)
    )
    p, q = (
        rows if one == "probs" else np.exp(ln)
        for rows, one, ln in zip((x, y), space, (ln_p, ln_q), strict=True)
    )
    normalized = space == ("logits", "logits")
    with np.errstate(invalid="ignore", divide="ignore"):
        if space == ("probs", "probs"):
            close = (p <= 2 * q) & (q <= 2 * p)
            d = np.where(close, np.log1p((p - q) / np.where(close, q, 1)), ln_p - ln_q)
        elif normalized and temperature[0] == temperature[1]:
            # Relative to the same class in both: then a constant between them rounds nothing.
            top = np.argmax(x, -1)[:, None]
            x, y = (rows - np.take_along_axis(rows, top, -1) for rows in (x, y))
            one = np.longdouble(temperature[0])
            delta = wide_logsumexp(x, temperature=one) - wide_logsumexp(y, temperature=one)
            d = (x - y) / one - delta[:, None]
        else:
            d = ln_p - ln_q
        d = np.where((p == 0) & (q == 0), 0, d)
    if normalized:
        # Σ(q − p) = 0 exactly: for close rows the sum shows what d is off by, far below the
        # rounding of a log-sum-exp. For other rows it is rounding, and does nothing.
        d = d + np.log1p(_gap(p, q, d).sum(-1, keepdims=True))
    gap = q - p if space == ("probs", "probs") else _gap(p, q, d)
    if normalized:
        # A class of probability near 1 differs by what the others leave, and by far less than its
        # d is rounded.
        gap = _balanced(gap, p)
        likely = (p > 0.5) & (np.abs(gap) < 0.5 * p)
        d = np.where(likely, -np.log1p(np.where(likely, gap / p, 0)), d)
    return WidePair(p, q, d, gap, normalized, space, temperature)


def _balanced(rows, p):
    """Make rows whose sum is 0 by definition sum to 0, at a class of probability above ½."""
    likely = p > 0.5
    others = np.where(likely, 0, rows)
    return np.where(likely, -others.sum(-1, keepdims=True), rows)


def _gap(p, q, d):
    """Difference q − p from the larger of them and the log-ratio."""
    return np.where(d >= 0, p, -q) * np.expm1(-np.abs(d))


def _wide_log_probs(rows, space, temperature):
    if space == "logits":
        return wide_log_softmax(rows, temperature=temperature)
    if space == "log_probs":
        return rows
    with np.errstate(divide="ignore"):
        return np.log(rows)


def wide_divergence(name, p, q, *, space="logits", temperature=1, **parameter):
    """`divergence` of every row."""
    return wide(p, q, space=space, temperature=temperature).value(name, **parameter)


def wide_gradient(name, p, q, wrt, *, space="logits", temperature=1, **parameter):
    """`gradient` of every row."""
    return wide(p, q, space=space, temperature=temperature).gradient(name, wrt, **parameter)
