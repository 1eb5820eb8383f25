"""Checked calls of the extension: what a public function was asked for, before it is computed."""

from kldiv._requests.cross_entropy import CrossEntropyRequest as CrossEntropyRequest
from kldiv._requests.distillation import distillation as distillation
from kldiv._requests.divergence import DivergenceRequest as DivergenceRequest
from kldiv._requests.divergence import divergence as divergence
from kldiv._requests.divergence import divergence_of_sides as divergence_of_sides
from kldiv._requests.gradients import differentiable as differentiable
from kldiv._requests.gradients import differentiate as differentiate
from kldiv._requests.kept_sets import KeptEntropyRequest as KeptEntropyRequest
from kldiv._requests.kept_sets import KeptSets as KeptSets
from kldiv._requests.kept_sets import as_kept_sets as as_kept_sets
from kldiv._requests.kept_sets import check_rules as check_rules
from kldiv._requests.kept_sets import with_mass as with_mass
from kldiv._requests.negative import warn_of_negative as warn_of_negative
from kldiv._requests.options import ENDPOINTS as ENDPOINTS
from kldiv._requests.options import SPACES as SPACES
from kldiv._requests.options import Space as Space
from kldiv._requests.options import Temperature as Temperature
from kldiv._requests.options import as_space as as_space
from kldiv._requests.options import at_endpoints as at_endpoints
from kldiv._requests.options import normalized as normalized
from kldiv._requests.options import pair_of as pair_of
from kldiv._requests.options import sides_of as sides_of
from kldiv._requests.request import Request as Request
from kldiv._requests.softmax import EntropyRequest as EntropyRequest
from kldiv._requests.softmax import LogSumExpRequest as LogSumExpRequest
from kldiv._requests.softmax import entropy_of_side as entropy_of_side
