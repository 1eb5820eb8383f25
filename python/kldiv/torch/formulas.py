"""The losses in torch operations.

Tensors on other devices, second derivatives and `torch.func` take them. They have the semantics
of the extension in every corner of `docs/numerics.md`, in several passes over memory and with the
accuracy of torch's own operations.

Numbers (temperatures, orders, shares) are Python's, those of `torch.compile`, or tensors of one
number, which cannot be looked at.
"""

from __future__ import annotations

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
    # Whether slopes are −∞ at probability 0.
    falls: Any = False
    if kind == "kl":
        value = _kl(first, second, normalized)
        falls = True
    elif kind == "reverse_kl":
        value = _kl(second, first, normalized)
        falls = True
    elif kind == "jeffreys":
        # Of sides of its own: each gradient is centred before the larger rounds off the other.
        p_again = distribution(p, p_space, p_temperature, nowhere)
        q_again = distribution(q, q_space, q_temperature, nowhere)
        value = _kl(first, second, normalized) + _kl(q_again, p_again, normalized)
        falls = True
    elif kind == "total_variation":
        value = _total_variation(first, second)
    elif kind == "jensen_shannon":
        swap = parameter > 0.5
        beta = _choose(swap, 1.0 - parameter, parameter)
        value = _jensen_shannon(beta, *_exchanged(swap, first, second))
        falls = (parameter > 0.0) & (parameter < 1.0)
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
        falls = parameter < 1.0
    else:
        raise NotImplementedError(f"{kind} in torch operations")
    value = torch.where(bad, torch.nan, value)
    value = value + first.limit_at_zero(_where(falls, only_q), -1.0)
    value = value + second.limit_at_zero(_where(falls, only_p), -1.0)
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
