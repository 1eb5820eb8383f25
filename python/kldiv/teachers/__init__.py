"""Teachers that other projects keep, as `kldiv.TopK`.

Each function reads one project's format, and says which kind of numbers it holds: what is
normalised over all classes becomes log-probabilities, what was renormalised over the kept classes
becomes logits without a normaliser, since the mass of the other classes is lost.
"""

from kldiv.teachers.arrays import from_tinker as from_tinker
from kldiv.teachers.arrays import from_verl as from_verl
from kldiv.teachers.axolotl import from_axolotl as from_axolotl
from kldiv.teachers.axolotl import from_logprob_lists as from_logprob_lists
from kldiv.teachers.distillkit import from_distillkit as from_distillkit
from kldiv.teachers.servers import from_server_json as from_server_json

__all__ = [
    "from_axolotl",
    "from_distillkit",
    "from_logprob_lists",
    "from_server_json",
    "from_tinker",
    "from_verl",
]
