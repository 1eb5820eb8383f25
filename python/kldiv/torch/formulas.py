"""The losses in torch operations.

Tensors on other devices, second derivatives and `torch.func` take them. They have the semantics
of the extension in every corner of `docs/numerics.md`, in several passes over memory and with the
accuracy of torch's own operations.

Numbers (temperatures, orders, shares) are Python's, those of `torch.compile`, or tensors of one
number, which cannot be looked at.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kldiv._kldiv import DIVERGENCES
from kldiv.torch.sides import Number, Side, distribution, is_one, presence, spoiled, steep


def value_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where any tensor is, else float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def widened(labels: Tensor) -> Tensor:
    """Class indices of any integer dtype as int64.

    In a narrower dtype torch would wrap an `ignore_index` around before it compares.
    """
    wide = labels.to(torch.int64)
    if labels.dtype == torch.uint64:
        # Beyond int64 every label is out of range; keep it so instead of wrapping around.
        wide = torch.where(wide < 0, torch.iinfo(torch.int64).max, wide)
    return wide


def _choose(condition: Any, first: Any, second: Any) -> Any:
    if isinstance(condition, Tensor):
        return torch.where(condition, first, second)
    return first if condition else second


def _where(condition: Any, mask: Tensor) -> Tensor:
    """The mask where the condition holds; `torch.compile` makes a constant of a mask & bool."""
    if isinstance(condition, Tensor):
        return mask & condition
    return mask if condition else torch.zeros_like(mask)


def _exchanged(condition: Any, p: Side, q: Side) -> tuple[Side, Side]:
    """Both sides, in the other order where the condition holds."""
    if not isinstance(condition, Tensor):
        return (q, p) if condition else (p, q)
    # Of a parameter that cannot be looked at; the spaces are of no account from here on.
    parts = ("given", "ln", "p", "present", "bad")

    def mixed(first: Side, second: Side) -> Side:
        chosen = {
            name: torch.where(condition, getattr(second, name), getattr(first, name))
            for name in parts
        }
        return Side(space="mixed", **chosen)

    return mixed(p, q), mixed(q, p)


def _at_least_zero(value: Tensor) -> Tensor:
    """Rounding below 0 taken off, with the gradient as it is."""
    return torch.where(value < 0, value - value.detach(), value)


def _log_ratio(p: Side, q: Side, classes: Tensor) -> Tensor:
    return torch.where(classes, p.ln - q.ln, 0.0)


def _gap(p: Side, q: Side, d: Tensor, both: Tensor) -> Tensor:
    """The difference q − p from ln p − ln q, consistent with it where the two are close."""
    near = both & (d > -1.0)
    return torch.where(near, p.p * torch.expm1(-d.clamp(min=-1.0)), q.p - p.p)


def _kl(p: Side, q: Side, normalized: bool) -> Tensor:
    """Σ p·d, d = ln p − ln q; of rows that sum to one as Σ (p·d + q − p), of terms ≥ 0."""
    d = _log_ratio(p, q, p.present)
    alone = p.present & ~q.present
    # Of a class beyond the largest float, unless p is too small to tell.
    beyond = p.present & (q.ln == torch.finfo(q.ln.dtype).min) & (p.p > 0)
    d = torch.where(beyond, d + torch.inf, d)
    # Alone, even the smallest p has an infinite term, of an infinite slope.
    weight = torch.where(alone, p.p.detach() + torch.finfo(p.p.dtype).tiny, p.p)
    terms = weight * d
    if normalized:
        terms = terms + _gap(p, q, d, p.present & q.present)
    value = terms.sum(-1)
    value = _at_least_zero(value) if normalized else value
    if p.space in ("logits", "unnormalized"):
        # Of all classes, to each other's gradient.
        return value + p.spoiled(alone.any(-1))
    return value + steep(p.given, alone, 1.0)


def _total_variation(p: Side, q: Side) -> Tensor:
    """½ Σ |p − q|, with the sign of ln p − ln q where p and q are too small to be told apart."""
    difference = p.p - q.p
    both = p.present & q.present
    d = torch.where(
        both,
        _log_ratio(p, q, both),
        p.present.to(difference.dtype) - q.present.to(difference.dtype),
    )
    sign = torch.where(difference != 0, difference, d).sign().detach()
    return 0.5 * (sign * difference).sum(-1)


def _neg_log_acceptance(p: Side, q: Side, normalized: bool) -> tuple[Tensor, Tensor]:
    """−ln S with S = Σ min(p, q), and where S is 0; of rows that share much −ln(1 − TV)."""
    both = p.present & q.present
    d = torch.where(
        both, _log_ratio(p, q, both), p.present.to(p.p.dtype) - q.present.to(p.p.dtype)
    ).detach()
    exists = p.present | q.present

    def smaller(of_p: Tensor, of_q: Tensor) -> Tensor:
        """Half of each where they agree."""
        return torch.where(d < 0, of_p, torch.where(d > 0, of_q, 0.5 * (of_p + of_q)))

    share = torch.where(exists, smaller(p.p, q.p), 0.0).sum(-1)
    none = ~both.any(-1)
    # Where probabilities are found as exponentials, small ones by their logarithms.
    given = {p.space, q.space} == {"probs"}
    enough = share > (0.0 if given else torch.finfo(share.dtype).tiny ** 0.75)
    by_logarithm = both & ~(enough | none).unsqueeze(-1)
    ln_least = torch.where(by_logarithm, smaller(p.ln, q.ln), -torch.inf)
    ln_low = torch.where((enough | none).unsqueeze(-1), 0.0, ln_least).logsumexp(-1)
    ln_share = torch.where(enough, torch.where(enough, share, 1.0).log(), ln_low)
    value = torch.where(none, torch.inf, -ln_share)
    if normalized:
        distance = _total_variation(p, q)
        near = distance < 0.5
        value = torch.where(near, -torch.log1p(-torch.where(near, distance, 0.0)), value)
    return value, none


def _head_of_gap(mu: Number, p: Side, q: Side) -> Tensor:
    """The share in Σ |p − q| of the most probable classes of p, as few as hold μ of it."""
    p_given, both = p.p.detach(), p.present & q.present
    ordered = p_given.sort(-1, descending=True).values
    above = ordered.cumsum(-1) - ordered
    # A tiny μ is 0 in float32; nothing is above the first.
    in_head = (ordered > 0) & ((above < mu) | _where(mu > 0.0, above == 0))
    smallest = torch.where(in_head, ordered, torch.inf).amin(-1, keepdim=True)
    head = p.present & (_where(mu == 1.0, p.present) | (p_given >= smallest))
    gap = _gap(p, q, _log_ratio(p, q, both), both).detach().abs()
    head, total = torch.where(head, gap, 0.0).sum(-1), gap.sum(-1)
    return torch.where(total > 0, head / torch.where(total > 0, total, 1.0), 0.5)


def _logarithm(number: Number) -> Number:
    """ln, of a number that no float of the rows need hold."""
    return torch.log(number) if isinstance(number, Tensor) else math.log(number)


def _weighed_kl(weight: Tensor, p: Side, q: Side, normalized: bool) -> Tensor:
    """KL times a weight; without a class, and so 0, where the weight is 0."""
    counts = (weight > 0).unsqueeze(-1)
    p, q = replace(p, present=p.present & counts), replace(q, present=q.present & counts)
    return weight * _kl(p, q, normalized)


def _squared_hellinger(p: Side, q: Side, normalized: bool) -> Tensor:
    """1 − Σ √(pq); of rows that sum to one as ½ Σ (√p − √q)²."""
    both = p.present & q.present
    d = _log_ratio(p, q, both)
    root = torch.where(
        both, 0.5 * (torch.where(both, p.ln, 0.0) + torch.where(both, q.ln, 0.0)), -torch.inf
    )
    root = torch.where(both, root, 0.0).exp()
    if not normalized:
        return 1.0 - torch.where(both, root, 0.0).sum(-1)
    # √(pq)·(cosh(d/2) − 1), and beyond as it stands.
    near = both & (d.abs() < 1.0)
    quarter = torch.where(near, 0.25 * d, 0.0)
    far = 0.5 * (p.p + q.p) - torch.where(both, root, 0.0)
    return torch.where(near, 2.0 * root * torch.sinh(quarter).square(), far).sum(-1)


def _jensen_shannon(beta: Number, p: Side, q: Side) -> Tensor:
    """Σ [βp·ln(p/m) + (1−β)q·ln(q/m)], m = βp + (1−β)q; β ≤ ½.

    With d = ln p − ln q, ln(m/q) is ln(1 + β(e^d − 1)), and a term of d < 1 is βp·d − m·ln(m/q),
    all of which vanishes with d, and with β. Beyond, it rounds q's gradient at the size of p's.
    """
    both = p.present & q.present
    d = _log_ratio(p, q, both)
    # At β = 0 any other weight keeps ln m finite.
    b = _choose(beta == 0.0, 0.5, beta) * p.p.new_ones(())
    low = d.clamp(max=1.0)
    # The derivative of expm1 would be rounded to 0 where e^d is small.
    growth = torch.where(low > -1.0, torch.expm1(low.clamp(min=-1.0)), low.exp() - 1.0)
    m = b * p.p + (1.0 - b) * q.p
    near = b * p.p * low - m * torch.log1p(b * growth)
    high = d.clamp(min=1.0)
    to_p = (b + (1.0 - b) * (-high).exp()).log()
    # Beyond, e^d leaves the range of floats, or its derivative the other way.
    most = torch.clamp(-b.log(), max=700.0 if d.dtype == torch.float64 else 80.0)
    to_q = torch.log1p(b * (torch.minimum(high, most).exp() - 1.0))
    to_q = torch.where(high < most, to_q, high + to_p)
    far = -b * p.p * to_p - (1.0 - b) * q.p * to_q
    # Of a class that one side lacks, ln m is that of its share.
    of_p, of_q = -b * b.log() * p.p, -(1.0 - b) * torch.log1p(-b) * q.p
    alone = torch.where(p.present, of_p, torch.where(q.present, of_q, 0.0))
    value = _at_least_zero(torch.where(both, torch.where(d < 1.0, near, far), alone).sum(-1))
    limit: Tensor = _choose(beta == 0.0, 0.0 * (p.p - q.p).sum(-1), value)
    return limit


def _deficit(w: Tensor) -> Tensor:
    """The excess of w over ln(1 + w), however small w is."""
    small = w.abs() < 0.1
    # With s = w/(2 + w), w − 2s is w·s, and ln(1 + w) is 2 atanh s.
    near = torch.where(small, w, 0.0)
    s = near / (2.0 + near)
    square, tail = s * s, torch.zeros_like(s)
    for k in (13, 11, 9, 7, 5, 3):
        tail = 1.0 / k + square * tail
    far = torch.where(small, 1.0, w)
    return torch.where(small, s * (near - 2.0 * square * tail), far - torch.log1p(far))


def _skew_kl(alpha: Number, p: Side, q: Side, normalized: bool) -> Tensor:
    """Σ −p·ln(1 + w), w = m/p − 1 = (1−α)(e^(−d) − 1), d = ln p − ln q, m = αp + (1−α)q.

    Of rows that sum to one as Σ p·(w − ln(1 + w)), of terms ≥ 0.
    """
    both = p.present & q.present
    only_p = p.present & ~q.present
    d = _log_ratio(p, q, both)
    # At α = 1, where the value is 0, any other weight keeps ln m finite.
    at_zero, at_one = alpha == 0.0, alpha == 1.0
    one = p.p.new_ones(())
    a, rest = _choose(at_one, 0.5, alpha) * one, _choose(at_one, 0.5, 1.0 - alpha) * one
    ln_a = math.log(alpha) * one if isinstance(alpha, float) and alpha > 0.0 else a.log()
    # Beyond, e^(−d) leaves the range of floats.
    most = 700.0 if d.dtype == torch.float64 else 80.0
    low = d.clamp(min=-most)
    # The derivative of expm1 would be rounded to 0 where e^(−d) is small.
    w = torch.where(low < 1.0, torch.expm1(-low.clamp(max=1.0)), (-low).exp() - 1.0) * rest
    little, much = w < -0.5, (w > 1.0) | (d < -most)
    w = torch.where(much, 0.0, w)
    # ln(m/p); of p and q themselves where they are normal, so that the smallest q has its slope.
    m = a * p.p + rest * q.p
    normal = little & (m > torch.finfo(m.dtype).tiny)
    of_little = torch.logaddexp(ln_a, rest.log() - torch.where(little & ~normal, d, 0.0))
    plain = torch.where(normal, m, 1.0).log() - torch.where(normal, p.ln, 0.0)
    of_little = torch.where(normal, plain, of_little)
    share = a * torch.where(much, d, 0.0).exp() + rest
    ln = torch.where(little, of_little, torch.where(much, share.log() - d, 0.0))
    # Alone, p has ln α, of which infinity is put in at the end.
    ln = torch.where(only_p, torch.where(ln_a > -torch.inf, ln_a, 0.0), ln)
    usual = both & ~little & ~much
    if normalized:
        change = torch.where(both & ~much, p.p * w, rest * (q.p - p.p))
        terms = torch.where(usual, p.p * _deficit(torch.where(usual, w, 0.0)), change - p.p * ln)
        value = _at_least_zero(terms.sum(-1))
    else:
        terms = p.p * torch.where(usual, torch.log1p(torch.where(usual, w, 0.0)), ln)
        value = -terms.sum(-1)
    # The slope of a class that q lacks, at its probability 0.
    slope = rest / torch.clamp(_choose(at_zero, 1.0, a), min=torch.finfo(a.dtype).tiny)
    value = value - slope * torch.where(only_p, q.p, 0.0).sum(-1)
    infinite = _where(at_zero, only_p)
    value = value + torch.where(infinite.any(-1), torch.inf, 0.0)
    if p.space in ("logits", "unnormalized"):
        value = value + p.spoiled(infinite.any(-1))
    else:
        value = value + steep(p.given, infinite, 1.0)
    limit: Tensor = _choose(at_one, 0.0 * (p.p - q.p).sum(-1), value)
    return limit


def _renyi(order: Number, rest: Number, p: Side, q: Side, normalized: bool) -> Tensor:
    """Ln S / (α − 1), S = Σ f with f = p·e^((α−1)d); `rest` is α − 1, and α ≥ ½.

    Near S = 1 from S − 1 = Σ (f − p), of rows that sum to one less (α − 1)·Σ (p − q), of second
    order where p and q are close; divided by α − 1 term by term.
    """
    # Smaller and larger ones give the limits, as far as floats tell.
    rest = _choose((rest > -1e-20) & (rest < 0.0), -1e-20, rest)
    rest = _choose((rest >= 0.0) & (rest < 1e-20), 1e-20, rest)
    rest = _choose(rest > 1e30, 1e30, rest)
    both = p.present & q.present
    d = _log_ratio(p, q, both)
    ln_f = torch.where(both, p.ln + rest * d, -torch.inf)
    ln_sum = ln_f.logsumexp(-1)
    near = (ln_sum.abs() < 0.5).detach()
    within = near.unsqueeze(-1) & both
    d = torch.where(within, d, 0.0)
    t = rest * d
    f = torch.where(within, ln_f, 0.0).exp()
    grown = torch.where(t.abs() < 1.0, p.p * torch.expm1(t.clamp(-1.0, 1.0)), f - p.p)
    terms = torch.where(within, grown, -p.p) / rest
    if normalized:
        excess = (terms + _gap(p, q, d, within)).sum(-1)
    else:
        excess = terms.sum(-1) + (p.p.sum(-1) - 1.0) / rest
    excess = torch.where(near, excess, 0.0)
    if normalized:
        excess = _at_least_zero(excess)
    ln_sum = torch.where(near, torch.log1p(rest * excess), ln_sum)
    value: Tensor = ln_sum / rest
    return value


def _alpha_divergence(order: Number, rest: Number, p: Side, q: Side, normalized: bool) -> Tensor:
    """(Σ f − 1) / (α(α − 1)) with f = p·e^((α−1)d); `rest` is α − 1, and α ≥ ½.

    Of rows that sum to one less Σ (p − q) / α, so that terms are of second order where p and q are
    close.
    """
    rest = _choose((rest > -1e-20) & (rest < 0.0), -1e-20, rest)
    rest = _choose((rest >= 0.0) & (rest < 1e-20), 1e-20, rest)
    # In a range whose logarithm float32 has.
    order, rest = _choose(rest > 1e30, 1e30, order), _choose(rest > 1e30, 1e30, rest)
    both = p.present & q.present
    d = _log_ratio(p, q, both)
    t = rest * d
    near = both & (t.abs() < 1.0)
    grown = p.p * torch.expm1(torch.where(near, t, 0.0)) / rest / order
    far = both & ~near
    sign = _choose(rest < 0.0, -1.0, 1.0)
    size = (sign * rest * p.p.new_ones(())).log() + (order * p.p.new_ones(())).log()
    power = torch.where(far, torch.where(far, p.ln + t, 0.0) - size, -torch.inf)
    power = sign * torch.where(far, torch.where(far, power, 0.0).exp(), 0.0)
    terms = torch.where(near, grown, power - p.p / rest / order)
    if normalized:
        return _at_least_zero((terms + _gap(p, q, d, both) / order).sum(-1))
    value: Tensor = terms.sum(-1) + (p.p.sum(-1) - 1.0) / rest / order
    return value


def _infinite(value: Tensor, p: Side, q: Side, alone: Tensor) -> Tensor:
    """The value, infinite where classes that only p has make it so, and what gradients are there.

    NaN for logits, also of a number beyond the range of floats.
    """
    value = value + torch.where(alone.any(-1), torch.inf, 0.0)
    infinite = value.isinf()
    for side, sign in ((p, 1.0), (q, -1.0)):
        if side.space in ("logits", "unnormalized"):
            value = value + side.spoiled(infinite)
        elif side is p or side.space == "probs":
            value = value + steep(side.given, alone, sign)
        else:
            # −∞ itself, of a slope of −∞.
            own = torch.where(alone, side.given, -1.0) * -torch.inf
            value = value + torch.where(alone, own, 0.0).sum(-1)
    return value


def _chi_squared(p: Side, q: Side) -> Tensor:
    """Σ (p − q)²/q, of classes that q has."""
    both = p.present & q.present
    d = _log_ratio(p, q, both)
    near = both & (d.abs() < 1.0)
    close = q.p * torch.expm1(torch.where(near, d, 0.0)).square()
    far = both & ~near
    power = torch.where(far, torch.where(far, p.ln + d, 0.0).exp(), 0.0)
    exists = p.present | q.present
    return torch.where(near, close, torch.where(exists, power - 2.0 * p.p + q.p, 0.0)).sum(-1)


def divergence(
    kind: str,
    parameter: Number,
    p: Tensor,
    q: Tensor,
    p_space: str,
    q_space: str,
    p_temperature: Number,
    q_temperature: Number,
) -> Tensor:
    """The divergence of every row."""
    if not isinstance(parameter, Tensor):
        # Of a parameter that cannot be looked at the formula has the limit itself.
        for at, name in DIVERGENCES[kind].special:
            kind = name if parameter == at else kind
    dtype = value_dtype(p, q)
    nowhere = None
    if "unnormalized" in (p_space, q_space):
        nowhere = ~(presence(p, p_space) | presence(q, q_space))
    p, q = p.to(dtype), q.to(dtype)
    first = distribution(p, p_space, p_temperature, nowhere)
    second = distribution(q, q_space, q_temperature, nowhere)
    normalized = {p_space, q_space} <= {"logits", "unnormalized"}
    only_p, only_q = first.present & ~second.present, second.present & ~first.present
    bad = first.bad | second.bad
    unusable: Tensor = bad
    # Whether slopes of p and of q are −∞ at probability 0.
    falls: tuple[Any, Any] = (False, False)
    if kind == "kl":
        value = _kl(first, second, normalized)
        falls = (True, True)
    elif kind == "reverse_kl":
        value = _kl(second, first, normalized)
        falls = (True, True)
    elif kind == "jeffreys":
        # Of sides of its own: each gradient is centred before the larger rounds off the other.
        p_again = distribution(p, p_space, p_temperature, nowhere)
        q_again = distribution(q, q_space, q_temperature, nowhere)
        value = _kl(first, second, normalized) + _kl(q_again, p_again, normalized)
        falls = (True, True)
    elif kind == "total_variation":
        value = _total_variation(first, second)
    elif kind == "neg_log_acceptance":
        value, infinite = _neg_log_acceptance(first, second, normalized)
        unusable = bad | infinite
    elif kind == "lk_hybrid":
        surprise, _ = _neg_log_acceptance(first, second, normalized)
        # Next to an infinite divergence no weight is 0.
        ln_rate = _logarithm(parameter) - surprise.detach()
        weight = torch.exp(-torch.exp(ln_rate))
        weight = weight.clamp(min=torch.finfo(dtype).tiny)
        p_again = distribution(p, p_space, p_temperature, nowhere)
        q_again = distribution(q, q_space, q_temperature, nowhere)
        value = weight * _kl(first, second, normalized)
        value = value + (1.0 - weight) * _total_variation(p_again, q_again)
        falls = (True, True)
    elif kind == "adaptive_kl":
        weight = _head_of_gap(parameter, first, second)
        p_again = distribution(p, p_space, p_temperature, nowhere)
        q_again = distribution(q, q_space, q_temperature, nowhere)
        value = _weighed_kl(weight, first, second, normalized)
        value = value + _weighed_kl(1.0 - weight, q_again, p_again, normalized)
        falls = (True, True)
    elif kind == "squared_hellinger":
        value = _squared_hellinger(first, second, normalized)
        falls = (True, True)
    elif kind == "jensen_shannon":
        swap = parameter > 0.5
        beta = _choose(swap, 1.0 - parameter, parameter)
        value = _jensen_shannon(beta, *_exchanged(swap, first, second))
        falls = ((parameter > 0.0) & (parameter < 1.0),) * 2
    elif kind == "skew_kl":
        value = _skew_kl(parameter, first, second, normalized)
        # The slope of q, −(1 − α)/α, is as good as infinite.
        falls = (parameter < 1.0, parameter < torch.finfo(dtype).tiny)
    elif kind == "skew_reverse_kl":
        value = _skew_kl(parameter, second, first, normalized)
        falls = (parameter < torch.finfo(dtype).tiny, parameter < 1.0)
    elif kind == "renyi":
        swap = parameter < 0.5
        order = _choose(swap, 1.0 - parameter, parameter)
        rest = _choose(swap, -parameter, parameter - 1.0)
        value = _renyi(order, rest, *_exchanged(swap, first, second), normalized)
        value = value * _choose(swap, parameter / (1.0 - parameter), 1.0)
        infinite = _where(parameter >= 1.0, only_p.any(-1))
        infinite = infinite | ~(first.present & second.present).any(-1)
        # Without a class in p the sum is 0: for α > 1 its logarithm is −∞.
        nothing = _where(parameter > 1.0, ~first.present.any(-1))
        value = torch.where(infinite, torch.where(nothing, -torch.inf, torch.inf), value)
        unusable = bad | infinite
        falls = (parameter < 1.0,) * 2
    elif kind == "alpha_divergence":
        swap = parameter < 0.5
        order = _choose(swap, 1.0 - parameter, parameter)
        rest = _choose(swap, -parameter, parameter - 1.0)
        value = _alpha_divergence(order, rest, *_exchanged(swap, first, second), normalized)
        value = _infinite(value, first, second, _where(parameter > 1.0, only_p))
        value = _infinite(value, second, first, _where(parameter < 0.0, only_q))
        value = value + second.limit_at_zero(_where(parameter > 0.0, only_p), -1.0)
        value = value + first.limit_at_zero(_where(parameter < 1.0, only_q), -1.0)
    elif kind == "chi_squared":
        value = _infinite(_chi_squared(first, second), first, second, only_p)
        value = value + second.limit_at_zero(only_p, -1.0)
    else:
        raise NotImplementedError(f"{kind} in torch operations")
    value = torch.where(bad, torch.nan, value)
    value = value + first.limit_at_zero(_where(falls[0], only_q), -1.0)
    value = value + second.limit_at_zero(_where(falls[1], only_p), -1.0)
    return (value + first.spoiled(unusable) + second.spoiled(unusable)).to(dtype)


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    space: str,
    temperature: Number,
    label_smoothing: Number,
    class_weights: Tensor | None,
    z_loss: Number,
    softcap: Number | None,
) -> Tensor:
    """−Σ mᵢ ln qᵢ of every row, for class indices in range or distributions."""
    z = logits.to(value_dtype(logits, targets))
    if softcap is not None:
        # A class that does not exist stays so, at slope 0, and +∞ stays what it is.
        capped = softcap * (z / softcap).tanh()
        z = torch.where(z.isinf(), torch.where(z < 0, z.detach(), z), capped)
    q = distribution(z, space, temperature)
    weights = z.new_ones(())
    if class_weights is not None:
        weights = class_weights.to(z.dtype)
    own = 1.0 - label_smoothing
    uniform = weights * (label_smoothing / z.shape[-1])
    if targets.is_floating_point():
        given = targets.to(z.dtype)
        # Times an infinite surprise a share of 0 is 0.
        given = torch.where(weights * own == 0, given.detach(), given)
        value = _surprise(weights * own * given + uniform, q)
        # Its mass would meet an infinite surprise.
        never = ~q.present & (weights * own > 0) & (given == 0)
        value = value + steep(given, never, 1.0)
    else:
        at = targets.unsqueeze(-1)
        mass = own * (weights if class_weights is None else weights[targets])
        counts = mass != 0
        surprise = -q.ln.gather(-1, at).squeeze(-1)
        value = torch.where(counts, mass * torch.where(counts, surprise, 0.0), 0.0)
        if space == "probs":
            named = torch.zeros_like(q.present).scatter(-1, at, True)
            value = value + q.limit_at_zero(named & ~q.present & counts.unsqueeze(-1), -1.0)
        if isinstance(label_smoothing, Tensor) or label_smoothing:
            value = value + _surprise(uniform.expand_as(q.ln), q)
    if isinstance(z_loss, Tensor) or z_loss:
        value = value + z_loss * logsumexp(z, temperature).square()
    value = torch.where(q.bad, torch.nan, value)
    bad = value.isnan()
    if targets.is_floating_point():
        value = value + spoiled(targets.to(z.dtype), bad)
    return (value + spoiled(logits.to(z.dtype), bad)).to(z.dtype)


def _surprise(mass: Tensor, q: Side) -> Tensor:
    """−Σ m ln q."""
    counts = (mass != 0) | q.present
    value = -(torch.where(counts, mass, 0.0) * torch.where(counts, q.ln, 0.0)).sum(-1)
    return value + q.limit_at_zero((mass > 0) & ~q.present, -1.0)


def entropy(p: Tensor, space: str, temperature: Number) -> Tensor:
    """−Σ p ln p of every row."""
    side = distribution(p.to(value_dtype(p)), space, temperature)
    value = -(side.p * torch.where(side.present, side.ln, 0.0)).sum(-1)
    value = value + side.limit_at_zero(~side.present, 1.0)
    return torch.where(side.bad, torch.nan, value) + side.spoiled(side.bad)


def logsumexp(z: Tensor, temperature: Number) -> Tensor:
    """Ln Σ e^(z/T) of every row."""
    z = z.to(value_dtype(z))
    largest = z.amax(-1, keepdim=True).detach()
    finite = largest.isfinite()
    top = torch.where(finite, largest, 0.0)
    exponents = torch.where(finite, z - top, 0.0) / temperature
    value = exponents.logsumexp(-1) + top.squeeze(-1) / temperature
    # A row without a class gives −∞, the logarithm of 0.
    bad = ~finite.squeeze(-1)
    bare = torch.where(largest == -torch.inf, -torch.inf, torch.nan).squeeze(-1)
    root = torch.where(bad, 0.0 * z.sum(-1).sigmoid(), 1.0).sqrt()
    return torch.where(bad, bare, value).to(z.dtype) + torch.where(bad, root, 0.0)


def log_softmax(z: Tensor, temperature: Number, where: Tensor | None) -> Tensor:
    """z/T − ln Σ e^(z/T) of every class; 0 for rows left out."""
    z = neutral(z.to(value_dtype(z)), where)
    if not is_one(temperature):
        z = (z - z.amax(-1, keepdim=True).detach()) / temperature
    return neutral(z.log_softmax(-1), where)


def kept_rows(
    where: Tensor | None, weights: Tensor | None, labels: Tensor | None, ignore_index: int | None
) -> Tensor | None:
    """Which rows count; `None` for all."""
    keep = where
    for more in (
        None if weights is None else weights != 0,
        None if labels is None or ignore_index is None else widened(labels) != ignore_index,
    ):
        if more is not None:
            keep = more if keep is None else keep & more
    return keep


def neutral(x: Tensor, keep: Tensor | None) -> Tensor:
    """Rows, with zeros in place of those that do not count."""
    return x if keep is None else torch.where(keep.unsqueeze(-1), x, 0.0)


def reduced(
    rows: Tensor,
    keep: Tensor | None,
    weights: Tensor | None,
    reduction: str,
    denominator: Number | None,
    share: Tensor | None = None,
) -> Tensor:
    """What becomes of the values of the rows.

    `share` is what a row adds to the divisor of a mean, beside its weight.
    """
    weight = rows.new_ones(())
    if weights is not None:
        weight = weights.to(rows.dtype)
    if keep is not None:
        rows = torch.where(keep, rows, 0.0)
        weight = torch.where(keep, weight, 0.0)
    values = rows * weight
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    # Divided before they are summed: the sum may be beyond the largest float, and the mean not.
    if reduction == "batchmean":
        # Of an empty batch 0.
        return (values / max(rows.shape[0], 1)).sum()
    if denominator is not None:
        mean: Tensor = (values / denominator).sum()
        return mean.to(rows.dtype)
    divisor = (weight if share is None else weight * share).expand_as(rows).sum()
    # A mean over nothing is 0.
    empty = divisor == 0
    return torch.where(empty, 0.0, (values / torch.where(empty, 1.0, divisor)).sum())
