"""Losses from the classes that a teacher keeps, by the rules of `kldiv.kl`."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.divergence import divergence
from kldiv.torch.formulas.rows import value_dtype
from kldiv.torch.formulas.sides import Number, is_one, spoiled


def sparse(
    q: Tensor,
    ids: Tensor,
    log_probs: Tensor,
    offsets: Tensor,
    drawn: Tensor | None,
    loss: str,
    parameter: Number,
    rule: str,
    floor: Number,
    p_temperature: Number,
    q_temperature: Number,
    temper_after: bool,
    width: int,
    wide: bool,
) -> Tensor:
    """The loss of every row; at most `width` classes of a row are kept."""
    dtype = torch.float64 if wide else value_dtype(q)
    shape, classes = q.shape[:-1], q.shape[-1]
    z = q.to(dtype).reshape(-1, classes)
    place = offsets[:-1, None] + torch.arange(width, device=q.device)
    absent = place >= offsets[1:, None]
    place = torch.where(absent, 0, place)

    def padded(numbers: Tensor, padding: float) -> Tensor:
        if not numbers.numel():
            return torch.full(place.shape, padding, dtype=dtype, device=q.device)
        return torch.where(absent, padding, numbers.to(dtype)[place])

    if not ids.numel():
        ids = ids.new_zeros(1)
    # Absent ones go to a class behind the last.
    at = torch.where(absent, classes, ids[place])
    ln_p = padded(log_probs, -torch.inf)
    of_all = torch.cat([z, z.new_full((len(z), 1), -torch.inf)], -1)
    kept = of_all.gather(-1, at)
    is_kept = torch.zeros_like(of_all, dtype=torch.bool).scatter(-1, at, True)[:, :classes]
    all_kept = is_kept.all(-1, keepdim=True)
    only = rule in ("renormalize", "renormalize_p") or temper_after
    if only or not is_one(p_temperature):
        ln_p = (ln_p / p_temperature).log_softmax(-1)
    if rule == "renormalize":
        value = _of(loss, parameter, ln_p, kept / q_temperature, "logits")
        return _spoiled(value, z).reshape(shape)
    others = torch.where(is_kept, -torch.inf, z / q_temperature)
    ln_q = torch.cat([kept / q_temperature, others.logsumexp(-1, keepdim=True)], -1)
    if only:
        tail = torch.full_like(ln_q[:, -1:], -torch.inf)
    else:
        tail = torch.where(all_kept, -torch.inf, _ln_rest(ln_p))
    if rule == "sampled":
        assert drawn is not None
        weights = padded(drawn, 0.0)
        own = torch.zeros_like(ln_p) if loss == "cross_entropy" else ln_p
        counts = weights > 0
        terms = weights * torch.where(counts, own - ln_q.log_softmax(-1)[:, :-1], 0.0)
        value = torch.where(counts, terms, 0.0).sum(-1)
    elif rule == "truncate":
        value = _of(loss, parameter, ln_p, ln_q.log_softmax(-1)[:, :-1], "log_probs")
        value = torch.where(absent.all(-1), 0.0, value)
    elif rule in ("tail", "renormalize_p"):
        ln_p = torch.cat([ln_p, tail if rule == "tail" else torch.full_like(tail, -torch.inf)], -1)
        value = _of(loss, parameter, ln_p, ln_q, "logits")
        if rule == "renormalize_p":
            value = torch.where(absent.all(-1), torch.nan, value)
    else:
        count = (~is_kept).sum(-1, keepdim=True).clamp(min=1)
        elsewhere = tail - count.to(dtype).log()
        if rule == "floor":
            elsewhere = torch.zeros_like(tail) + floor
        dense = elsewhere.expand(-1, classes + 1).scatter(-1, at, ln_p)[:, :classes]
        space = "log_probs" if rule == "floor" else "logits"
        value = _of(loss, parameter, dense, z / q_temperature, space, "logits")
    return _spoiled(value, z).reshape(shape)


def _spoiled(value: Tensor, z: Tensor) -> Tensor:
    """The values, of which those that are NaN have a gradient of NaN throughout."""
    bad = value.isnan()
    return value + spoiled(torch.where(bad.unsqueeze(-1), z, 0.0), bad)


def _of(
    loss: str, parameter: Number, p: Tensor, q: Tensor, space: str, q_space: str | None = None
) -> Tensor:
    """A divergence, or cross-entropy, of rows of a space."""
    q_space = q_space or space
    if loss != "cross_entropy":
        return divergence(loss, parameter, p, q, space, q_space, 1.0, 1.0)
    masses = p.softmax(-1) if space == "logits" else p.exp()
    ln_q = q.log_softmax(-1) if q_space == "logits" else q
    counts = masses > 0
    return -torch.where(counts, masses * torch.where(counts, ln_q, 0.0), 0.0).sum(-1)


def _ln_rest(ln_p: Tensor) -> Tensor:
    """Ln of what is left of 1."""
    known = ln_p.logsumexp(-1, keepdim=True)
    some = known < 0
    rest = -torch.where(some, known, -1.0).expm1()
    return torch.where(some, rest.log(), -torch.inf)
