"""One peak fitted to two: what each divergence makes of a teacher that the student cannot equal.

The teacher has two modes, the student one, with a place and a width. Minimising KL makes it cover
all that the teacher has, reverse KL one mode of it, and the others lie between.

    python examples/mass_covering.py            # a minute
    python examples/mass_covering.py --quick    # fewer steps and starts
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

import kldiv.torch
from experiment import show_table, start
from kldiv._kldiv import DIVERGENCES

NAME = "mass_covering"
PLACES = torch.linspace(-6.0, 6.0, 481, dtype=torch.float64)
MODES = ((0.65, -2.0, 0.6), (0.35, 2.2, 0.6))
"""Weight, place and width."""
PARAMETERS = {
    "renyi": (0.5, 4.0),
    "alpha_divergence": (-1.0, 0.5),
    "jensen_shannon": (0.1, 0.5, 0.9),
}
"""Of those that are shown with several, or that have no default."""


@dataclass(frozen=True)
class Size:
    """How long it is fitted."""

    steps: int
    starts: int


FULL = Size(steps=2500, starts=13)
QUICK = Size(steps=800, starts=5)


def peak(place: Tensor, width: Tensor) -> Tensor:
    """Logits of a peak, −(x − place)²/(2 width²)."""
    return -((PLACES - place.unsqueeze(-1)) ** 2) / (2 * width.unsqueeze(-1) ** 2)


def teacher() -> Tensor:
    """Probabilities of the two modes."""
    shares, places, widths = (
        torch.tensor(x, dtype=torch.float64) for x in zip(*MODES, strict=True)
    )
    return shares @ peak(places, widths).softmax(-1)


def shown() -> list[tuple[str, dict[str, float]]]:
    """The divergences and their parameters."""
    found: list[tuple[str, dict[str, float]]] = []
    for name, described in DIVERGENCES.items():
        if described.parameter is None:
            found.append((name, {}))
            continue
        values = PARAMETERS.get(name, (described.parameter.default,))
        found += [(name, {described.parameter.name: value}) for value in values]
    return found


def fit(name: str, options: dict[str, float], size: Size) -> dict[str, Any]:
    """The best of several fits: all starts are rows of one batch."""
    target = teacher().log()
    place = torch.linspace(-4.0, 4.0, size.starts, dtype=torch.float64).requires_grad_()
    ln_width = torch.zeros(size.starts, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([place, ln_width], lr=0.02)
    rows = target.expand(size.starts, -1)
    divergence = getattr(kldiv.torch, name)
    for _ in range(size.steps):
        optimizer.zero_grad()
        divergence(rows, peak(place, ln_width.exp()), **options).sum().backward()
        optimizer.step()
    with torch.no_grad():
        values = divergence(rows, peak(place, ln_width.exp()), **options)
        best = int(values.argmin())
        found, width = place[best].detach(), ln_width[best].exp()
        student = peak(found, width).softmax(-1)
    return {
        "divergence": name,
        **options,
        "value": float(values[best]),
        "place": found.item(),
        "width": width.item(),
        "left_of_0": float(student[PLACES < 0].sum()),
        "student": student.tolist(),
    }


def label(one: dict[str, Any]) -> str:
    """The call, in short."""
    described = DIVERGENCES[one["divergence"]].parameter
    if described is None:
        return str(one["divergence"])
    return f"{one['divergence']}, {described.name} = {one[described.name]:g}"


def draw(fits: list[dict[str, Any]]) -> Figure:
    """A panel a divergence, the widest student first."""
    ordered = sorted(fits, key=lambda one: -one["width"])
    columns = 4
    rows = -(-len(ordered) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.1 * columns, 1.75 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis, one in zip(axes.flat, ordered, strict=False):
        axis.fill_between(PLACES, teacher(), color="0.8", label="teacher p")
        axis.plot(PLACES, one["student"], color="C0", label="student q")
        axis.set_title(label(one), fontsize=9)
        axis.set_yticks([])
    for axis in axes.flat[len(ordered) :]:
        axis.set_visible(False)
    axes[0, 0].legend(fontsize=8, loc="upper right")
    figure.tight_layout()
    return figure


def main() -> None:
    """Fit, print and draw."""
    experiment = start(NAME, __doc__)
    size = QUICK if experiment.quick else FULL
    fits = [fit(name, options, size) for name, options in shown()]
    columns = ("value", "place", "width", "left_of_0")
    table = [{"divergence": label(one), **{name: one[name] for name in columns}} for one in fits]
    show_table("One peak fitted to two", sorted(table, key=lambda one: -one["width"]))
    kept = [{key: value for key, value in one.items() if key != "student"} for one in fits]
    experiment.save({"fits": kept}, draw(fits))


if __name__ == "__main__":
    main()
