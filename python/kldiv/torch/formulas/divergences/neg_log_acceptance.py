"""The negative logarithm of the acceptance rate."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.divergences.total_variation import total_variation_of
from kldiv.torch.formulas.pair import Found, Pair, log_ratio
from kldiv.torch.formulas.sides import Number, Side


def neg_log_acceptance(parameter: Number, pair: Pair) -> Found:
    """−ln Σ min(p, q)."""
    value, infinite = neg_log_acceptance_of(pair.p, pair.q, pair.normalized)
    return Found(value, unusable=infinite)


def neg_log_acceptance_of(p: Side, q: Side, normalized: bool) -> tuple[Tensor, Tensor]:
    """−ln S with S = Σ min(p, q), and where S is 0; of rows that share much −ln(1 − TV)."""
    both = p.present & q.present
    # Logarithms may be the same where probabilities as given are not.
    given = {p.space, q.space} == {"probs"}
    d = p.p - q.p if given else log_ratio(p, q, both)
    d = torch.where(both, d, p.present.to(p.p.dtype) - q.present.to(p.p.dtype)).detach()
    exists = p.present | q.present

    def smaller(of_p: Tensor, of_q: Tensor) -> Tensor:
        """Half of each where they agree."""
        return torch.where(d < 0, of_p, torch.where(d > 0, of_q, 0.5 * (of_p + of_q)))

    share = torch.where(exists, smaller(p.p, q.p), 0.0).sum(-1)
    none = ~both.any(-1)
    # Where probabilities are found as exponentials, small ones by their logarithms.
    enough = share > (0.0 if given else torch.finfo(share.dtype).tiny ** 0.75)
    by_logarithm = both & ~(enough | none).unsqueeze(-1)
    ln_least = torch.where(by_logarithm, smaller(p.ln, q.ln), -torch.inf)
    ln_low = torch.where((enough | none).unsqueeze(-1), 0.0, ln_least).logsumexp(-1)
    ln_share = torch.where(enough, torch.where(enough, share, 1.0).log(), ln_low)
    value = torch.where(none, torch.inf, -ln_share)
    if normalized:
        distance = total_variation_of(p, q)
        near = distance < 0.5
        value = torch.where(near, -torch.log1p(-torch.where(near, distance, 0.0)), value)
    return value, none
