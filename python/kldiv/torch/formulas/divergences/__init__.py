"""The divergences, one file each: functions of a parameter and a `Pair`."""

from collections.abc import Callable

from kldiv.torch.formulas.divergences.adaptive_kl import adaptive_kl
from kldiv.torch.formulas.divergences.alpha_divergence import alpha_divergence
from kldiv.torch.formulas.divergences.chi_squared import chi_squared
from kldiv.torch.formulas.divergences.jeffreys import jeffreys
from kldiv.torch.formulas.divergences.jensen_shannon import jensen_shannon
from kldiv.torch.formulas.divergences.kl import kl, reverse_kl
from kldiv.torch.formulas.divergences.lk_hybrid import lk_hybrid
from kldiv.torch.formulas.divergences.neg_log_acceptance import neg_log_acceptance
from kldiv.torch.formulas.divergences.renyi import renyi
from kldiv.torch.formulas.divergences.skew_kl import skew_kl, skew_reverse_kl
from kldiv.torch.formulas.divergences.squared_hellinger import squared_hellinger
from kldiv.torch.formulas.divergences.total_variation import total_variation
from kldiv.torch.formulas.pair import Found, Pair
from kldiv.torch.formulas.sides import Number

FORMULAS: dict[str, Callable[[Number, Pair], Found]] = {
    one.__name__: one
    for one in (
        adaptive_kl,
        alpha_divergence,
        chi_squared,
        jeffreys,
        jensen_shannon,
        kl,
        lk_hybrid,
        neg_log_acceptance,
        renyi,
        reverse_kl,
        skew_kl,
        skew_reverse_kl,
        squared_hellinger,
        total_variation,
    )
}
