from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

_Operand = tuple[np.ndarray[Any, Any], str]
_Options = tuple[Any, ...]
# One number is a scalar of float64 or float32.
_Values = NDArray[np.floating] | Any

class _BuildInfo(TypedDict):
    version: str
    target: str
    optimized: bool
    isas: list[str]

class Parameter(NamedTuple):
    """A number that a function takes."""

    name: str
    default: float | None
    """`None` where one must be given."""
    low: float
    high: float
    smallest: float
    """The smallest magnitude of a value other than 0."""
    domain: str
    """All three in words, to complete "… must be"."""

class Divergence(NamedTuple):
    """What is known of a divergence beside its formula; properties are of rows that sum to one."""

    name: str
    parameter: Parameter | None
    symmetric: bool
    """Whether p and q can be exchanged, whatever the parameter."""
    symmetric_at: float | None
    """The value of the parameter at which they can be."""
    exchanged: str | None
    """What it is with p and q exchanged, of one that is not symmetric."""
    special: tuple[tuple[float, str], ...]
    """Values of the parameter at which it is, as a limit, another one, with the name of that."""
    f_divergence: bool
    """Whether it is Σ q·f(p/q) with a convex f."""
    bound: float | None
    """The least number that it does not exceed, whatever the parameter."""
    kinked: bool
    """Whether it has a kink where p = q, being of first order in p − q."""

__all__ = [
    "DIVERGENCES",
    "TEMPERATURE",
    "Divergence",
    "Parameter",
    "build_info",
    "compare",
    "cross_entropy",
    "distillation",
    "divergence",
    "entropy",
    "gather_log_probs",
    "get_num_threads",
    "infinite_where",
    "isa",
    "log_softmax",
    "logsumexp",
    "pointwise_kl",
    "set_num_threads",
    "stream",
]
DIVERGENCES: Mapping[str, Divergence]
TEMPERATURE: Parameter

def infinite_where(kind: str, parameter: float) -> tuple[bool, bool]: ...
def divergence(
    kind: str,
    parameter: float,
    p: _Operand,
    q: _Operand,
    spaces: tuple[str, str],
    temperatures: tuple[float, float],
    options: _Options,
    p_gradient: _Operand | None = None,
    q_gradient: _Operand | None = None,
    isa: str | None = None,
) -> _Values: ...
def cross_entropy(
    logits: _Operand,
    labels: NDArray[np.int64] | None,
    distributions: _Operand | None,
    ignore_index: int | None,
    loss: tuple[Any, ...],
    options: _Options,
    logits_gradient: _Operand | None = None,
    targets_gradient: _Operand | None = None,
    isa: str | None = None,
) -> _Values: ...
def distillation(
    teacher: _Operand,
    student: _Operand,
    labels: NDArray[np.int64] | None,
    loss: tuple[str, float, float, tuple[float, float], int | None, float],
    options: _Options,
    teacher_gradient: _Operand | None = None,
    student_gradient: _Operand | None = None,
    isa: str | None = None,
) -> _Values: ...
def pointwise_kl(
    p: _Operand,
    ln_q: _Operand,
    log_p: bool,
    scale: float,
    p_gradient: _Operand | None = None,
    q_gradient: _Operand | None = None,
    isa: str | None = None,
) -> float: ...
def entropy(
    p: _Operand,
    space: str,
    temperature: float,
    options: _Options,
    gradient: _Operand | None = None,
    isa: str | None = None,
) -> _Values: ...
def logsumexp(
    z: _Operand,
    temperature: float,
    options: _Options,
    gradient: _Operand | None = None,
    isa: str | None = None,
) -> _Values: ...
def log_softmax(
    z: _Operand,
    temperature: float,
    where: NDArray[np.bool_] | None,
    out: _Operand,
    isa: str | None = None,
) -> None: ...
def gather_log_probs(
    z: _Operand,
    labels: NDArray[np.int64],
    temperature: float,
    ignore_index: int | None,
    where: NDArray[np.bool_] | None,
    isa: str | None = None,
) -> NDArray[np.floating]: ...
def compare(
    p: _Operand,
    q: _Operand,
    labels: NDArray[np.int64] | None,
    temperature: float,
    where: NDArray[np.bool_] | None,
    ignore_index: int | None = None,
    isa: str | None = None,
) -> dict[str, np.ndarray[Any, Any]]: ...
def stream(
    p: _Operand,
    q: _Operand | None = None,
    out: _Operand | None = None,
    past_caches: bool = False,
    isa: str | None = None,
) -> None: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def isa() -> str: ...
def build_info() -> _BuildInfo: ...
