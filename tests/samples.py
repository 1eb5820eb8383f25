"""With what parameters the divergences are tested: the one list of divergences of the tests.

The names are those of the crate's table. A divergence without a parameter is in every list here
as soon as it is there; one with a parameter needs a line in `PARAMETERS`, and no test is collected
without it.
"""

from dataclasses import dataclass

from kldiv._kldiv import DIVERGENCES


@dataclass(frozen=True)
class Samples:
    """Values of one parameter."""

    usual: tuple[float, ...]
    """What people pass, the default first; accuracy is measured there."""
    more: tuple[float, ...]
    """Others of the size that people pass, limits among them."""
    general: float
    """A value at which nothing is special."""
    extreme: tuple[float, ...]
    """Special values, and as close to limits as numbers get, for which a few rows are enough."""


SHARES = Samples(
    usual=(0.1, 0.5),
    more=(0.9, 0.0, 1.0),
    general=0.3,
    extreme=(1e-8, 1e-15, 1e-300, 1 - 2.0**-30, 1 - 2.0**-50),
)
"""Of a row's weight in a mixture."""

PARAMETERS = {
    "jensen_shannon": Samples(
        usual=(0.5, 0.1),
        more=(0.9, 0.0, 1.0),
        general=0.3,
        extreme=(1e-8, 1e-15, 1 - 2.0**-50),
    ),
    "skew_kl": SHARES,
    "skew_reverse_kl": SHARES,
    "lk_hybrid": Samples(
        usual=(3.0, 0.5),
        more=(0.0, 10.0),
        general=1.3,
        extreme=(1e-8, 1e-300, 1e4, 1e300),
    ),
    "adaptive_kl": Samples(
        usual=(0.5, 0.9),
        more=(0.0, 0.1),
        general=0.3,
        extreme=(1e-8, 1e-300, 1 - 2.0**-20, 1.0),
    ),
    "alpha_divergence": Samples(
        usual=(2.0, 0.5),
        more=(0.2, -1.0, 20.0),
        general=0.7,
        extreme=(1.0, 0.0, 1e-8, -1e-15, 1 - 2.0**-40, 1 + 2.0**-40, -30.0, 1e300, -1e300),
    ),
    "renyi": Samples(
        usual=(0.5, 2.0),
        more=(0.2, 50.0),
        general=0.7,
        extreme=(1.0, 1e-8, 1e-15, 1 - 2.0**-40, 1 + 2.0**-40, 1e30, 1e300),
    ),
}


def _options(name, choose):
    described = DIVERGENCES[name].parameter
    if described is None:
        return [{}]
    return [{described.name: value} for value in choose(PARAMETERS[name])]


USUAL = [(name, one) for name in DIVERGENCES for one in _options(name, lambda of: of.usual)]
"""Name and options, in the order of the table."""

MORE = [
    *USUAL,
    *((name, one) for name in PARAMETERS for one in _options(name, lambda of: of.more)),
]
"""More of the same."""

GENERAL = {name: _options(name, lambda of: [of.general])[0] for name in DIVERGENCES}
"""The options of each, one sample a divergence."""

ALL = {
    name: _options(name, lambda of: dict.fromkeys((*of.usual, *of.more, *of.extreme)))
    for name in DIVERGENCES
}
"""All options of each, usual ones first."""


def number_of(options):
    """The parameter as the extension takes it: a number, 0 where there is none."""
    return next(iter(options.values()), 0.0)


def identity(sample):
    """What pytest is to call a name with options."""
    name, options = sample
    return "-".join(map(str, (name, *options.values())))
