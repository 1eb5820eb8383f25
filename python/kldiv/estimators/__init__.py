"""Monte Carlo estimators of KL divergence from sampled tokens, on NumPy arrays, with gradients.

The tokens are samples of q, the policy; what is known of each is its log-probability under q and
under the reference p. **p comes first, as everywhere in kldiv, and the divergence is KL(q‖p)**:
``k3(p, q)`` estimates what `kldiv.reverse_kl` computes from whole rows. `docs/estimators.md` says
which estimator to take when.
"""

from kldiv.estimators.functional import k1 as k1
from kldiv.estimators.functional import k2 as k2
from kldiv.estimators.functional import k3 as k3
from kldiv.estimators.table import ESTIMATORS as ESTIMATORS

__all__ = ["ESTIMATORS", "k1", "k2", "k3"]
