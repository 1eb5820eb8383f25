"""The divergences, one file each: the definition, and the same for wide rows."""

from .adaptive_kl import AdaptiveKl
from .alpha_divergence import AlphaDivergence
from .chi_squared import ChiSquared
from .jeffreys import Jeffreys
from .jensen_shannon import JensenShannon
from .kl import Kl, ReverseKl
from .lk_hybrid import LkHybrid
from .neg_log_acceptance import NegLogAcceptance
from .renyi import Renyi
from .skew_kl import SkewKl, SkewReverseKl
from .squared_hellinger import SquaredHellinger
from .total_variation import TotalVariation

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
