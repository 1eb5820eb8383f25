"""What numbers rounded to float64 make of values and gradients, where that is more than a bound."""

from __future__ import annotations

import itertools
import math
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .exact import wide

if TYPE_CHECKING:
    from .truth import Truth

EPS = float(np.finfo(np.float64).eps)


UNDECIDED = 1e200
"""What is rounded where either of two results is right."""


def size(x: Any) -> float:
    return abs(float(x)) if math.isfinite(float(x)) else 0.0


def of_rounded_gap(
    o: ModuleType, truth: Truth, rows: Any, pair: Any, sides: dict[str, Any], mixed: float
) -> None:
    """What value and gradient get of the weight where rows meet as rounded logarithms.

    A p − q is rounded by 10⁻¹⁶·p·|ln p| then, whatever it is itself, and a share in Σ |p − q| by
    their sum over that one. The weight is in value and slopes as a factor of the difference of
    those of both KL.
    """
    gap = float(sum(abs(x - y) for x, y in zip(*pair, strict=True)))
    if gap == 0.0:
        return
    kinds = ("kl", "reverse_kl")
    first, second = (float(o.divergence(kind, *rows, **sides)) for kind in kinds)
    truth.rounding += mixed / gap * size(first - second)
    apart = {}
    for wrt in "pq":
        one, other = (wide(o.gradient(kind, *rows, wrt, **sides)) for kind in kinds)
        with np.errstate(invalid="ignore"):
            apart[wrt] = np.nan_to_num(np.abs(one - other), posinf=0.0)
    without = truth.gradient_rounding
    truth.gradient_rounding = lambda wrt: without(wrt) + mixed / gap * apart[wrt]


def at_the_border(
    o: ModuleType, truth: Truth, numbers: Any, pair: Any, mu: float, rounding: float
) -> None:
    """Where rounding says what is in the head of p.

    Where the classes above hold μ, where p is as good as q, and where classes are all but equal.
    """
    (p, q), above = pair, o.mp.zero
    gap = sum(abs(x - y) for x, y in zip(p, q, strict=True))
    ordered = sorted(zip(p, numbers, strict=True), reverse=True)
    twins = any(
        x[1] != y[1] and abs(x[0] - y[0]) < rounding * x[0] for x, y in itertools.pairwise(ordered)
    )
    either = gap < rounding * sum(p) or twins
    for number in sorted(p, reverse=True):
        either = either or (0 < mu < 1 and abs(above - mu) < rounding)
        above += number
    if not either:
        return
    truth.rounding, truth.gradient_rounding = UNDECIDED, lambda _: UNDECIDED
    if any((x > 0) != (y > 0) for x, y in zip(p, q, strict=True)):
        # Which of two directions is infinite, and which gradients are NaN, too.
        truth.undecided = dict.fromkeys(("numpy", "torch", "torch.func", "jax"), True)


def rounded_powers(o: ModuleType, a: Any, b: Any, alpha: float) -> float:
    """What 10⁻¹⁵·α·|ln p| of each power makes of ln Σ p^α q^(1−α), relative to the bound of f64."""
    order = o.mp.mpf(alpha)
    pairs = [(o.mp.log(x), o.mp.log(y)) for x, y in zip(a, b, strict=True) if x > 0 and y > 0]
    if not pairs or alpha == 1:
        return 0.0
    powers = [o.mp.exp(order * x + (1 - order) * y) for x, y in pairs]
    lns = [float(power * max(abs(x), abs(y))) for power, (x, y) in zip(powers, pairs, strict=True)]
    total = float(o.mp.fsum(powers))
    if not 0 < total < math.inf or max(lns) < 100 * total:
        return 0.0
    return 1e-2 * alpha * sum(lns) / total / abs(alpha - 1)


def log_of(o: ModuleType, x: Any) -> float:
    """|ln x| as a float, and 0 for 0."""
    if x <= 0:
        return 0.0
    double = float(x)
    return abs(math.log(double)) if double > 1e-300 else abs(float(o.mp.log(x)))


def rounded_logarithms(
    truth: Truth,
    wrt: str,
    spaces: Any,
    temperatures: Any,
    ln_a: Any,
    ln_b: Any,
    mixed: float,
    order: float,
) -> Any:
    side = "pq".index(wrt)
    if spaces[side] == "logits":
        return order * mixed / temperatures[side]
    gradient = np.nan_to_num(np.abs(wide(truth.gradient(wrt))), posinf=0.0)
    return order * (mixed + (1 + gradient) * (np.array(ln_a) + np.array(ln_b)))


def kinks(
    wrt: str, spaces: Any, temperatures: Any, a: Any, b: Any, ln_a: Any, ln_b: Any, rounding: float
) -> Any:
    """Classes whose p and q agree to rounding may get either sign."""
    if spaces[0] == spaces[1] == "probs":
        return 0.0
    side = "pq".index(wrt)
    near = np.array(
        [
            abs(x - y) <= rounding * max(x, y) * (1 + ln_x + ln_y)
            for x, y, ln_x, ln_y in zip(a, b, ln_a, ln_b, strict=True)
        ]
    )
    own = np.array([float(x) for x in (a, b)[side]])
    if spaces[side] == "logits":
        return float((near * own).sum()) / temperatures[side] / EPS
    return near * (own if spaces[side] == "log_probs" else 1.0) / EPS
