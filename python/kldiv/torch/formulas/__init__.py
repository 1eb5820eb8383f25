"""The losses in torch operations.

Tensors on other devices, second derivatives and `torch.func` take them. They have the semantics
of the extension in every corner of `docs/numerics.md`, in several passes over memory and with the
accuracy of torch's own operations.

Numbers (temperatures, orders, shares) are Python's, those of `torch.compile`, or tensors of one
number, which cannot be looked at.
"""

from kldiv.torch.formulas.cross_entropy import cross_entropy as cross_entropy
from kldiv.torch.formulas.divergence import divergence as divergence
from kldiv.torch.formulas.rows import kept_rows as kept_rows
from kldiv.torch.formulas.rows import neutral as neutral
from kldiv.torch.formulas.rows import reduced as reduced
from kldiv.torch.formulas.rows import value_dtype as value_dtype
from kldiv.torch.formulas.rows import widened as widened
from kldiv.torch.formulas.softmax import entropy as entropy
from kldiv.torch.formulas.softmax import log_softmax as log_softmax
from kldiv.torch.formulas.softmax import logsumexp as logsumexp
from kldiv.torch.formulas.sparse import sparse as sparse
from kldiv.torch.formulas.uld import uld as uld
