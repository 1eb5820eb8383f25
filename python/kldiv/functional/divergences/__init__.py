"""The divergences of two arrays of rows, one file each."""

from kldiv.functional.divergences.adaptive_kl import adaptive_kl as adaptive_kl
from kldiv.functional.divergences.alpha_divergence import alpha_divergence as alpha_divergence
from kldiv.functional.divergences.chi_squared import chi_squared as chi_squared
from kldiv.functional.divergences.jeffreys import jeffreys as jeffreys
from kldiv.functional.divergences.jensen_shannon import jensen_shannon as jensen_shannon
from kldiv.functional.divergences.kl import kl as kl
from kldiv.functional.divergences.lk_hybrid import lk_hybrid as lk_hybrid
from kldiv.functional.divergences.neg_log_acceptance import neg_log_acceptance as neg_log_acceptance
from kldiv.functional.divergences.renyi import renyi as renyi
from kldiv.functional.divergences.reverse_kl import reverse_kl as reverse_kl
from kldiv.functional.divergences.skew_kl import skew_kl as skew_kl
from kldiv.functional.divergences.skew_reverse_kl import skew_reverse_kl as skew_reverse_kl
from kldiv.functional.divergences.squared_hellinger import squared_hellinger as squared_hellinger
from kldiv.functional.divergences.total_variation import total_variation as total_variation
