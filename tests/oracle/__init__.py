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

Modules import each other relatively, so that the fuzzer can load the package again under another
name, with numbers of another library.

>>> mp.nprint(divergence("kl", [0.5, 0.5], [0.75, 0.25], space="probs"), 20)
0.14384103622589046372
>>> mp.nprint(gradient("kl", [0.5, 0.5], [0.75, 0.25], "q", space="probs"), 12)
[-0.666666666667, -2.0]
"""

from .classes import cumulative as cumulative
from .classes import drawn as drawn
from .classes import most_probable as most_probable
from .cross_entropy import cross_entropy as cross_entropy
from .cross_entropy import cross_entropy_gradient as cross_entropy_gradient
from .cross_entropy import masses as masses
from .cross_entropy import wide_cross_entropy as wide_cross_entropy
from .cross_entropy import wide_cross_entropy_gradient as wide_cross_entropy_gradient
from .divergence import both_probabilities as both_probabilities
from .divergence import divergence as divergence
from .divergence import gradient as gradient
from .divergence import parts as parts
from .divergences import ENTRIES as ENTRIES
from .estimators import VALUES as VALUES
from .estimators import estimator as estimator
from .estimators import estimator_gradient as estimator_gradient
from .estimators import log_ratio as log_ratio
from .kept_sets import kept_classes as kept_classes
from .kept_sets import kept_entropy as kept_entropy
from .kept_sets import kept_entropy_gradient as kept_entropy_gradient
from .kept_sets import kept_log_prob as kept_log_prob
from .kept_sets import kept_log_prob_gradient as kept_log_prob_gradient
from .kept_sets import kept_mass as kept_mass
from .kept_sets import kept_mass_gradient as kept_mass_gradient
from .numbers import INF as INF
from .numbers import NAN as NAN
from .numbers import mp as mp
from .numbers import pair_of as pair_of
from .numbers import row_of as row_of
from .rows import log_softmax as log_softmax
from .rows import logsumexp as logsumexp
from .rows import probabilities as probabilities
from .rows import rel_entr as rel_entr
from .softmax import entropy as entropy
from .softmax import entropy_gradient as entropy_gradient
from .softmax import logsumexp_gradient as logsumexp_gradient
from .softmax import wide_entropy as wide_entropy
from .softmax import wide_entropy_gradient as wide_entropy_gradient
from .sparse import sparse_gradient as sparse_gradient
from .sparse import sparse_loss as sparse_loss
from .uld import uld as uld
from .uld import uld_gradient as uld_gradient
from .wide_pair import WidePair as WidePair
from .wide_pair import wide as wide
from .wide_pair import wide_divergence as wide_divergence
from .wide_pair import wide_gradient as wide_gradient
from .wide_rows import WIDE_IS_EXTENDED as WIDE_IS_EXTENDED
from .wide_rows import wide_log_softmax as wide_log_softmax
from .wide_rows import wide_logsumexp as wide_logsumexp
