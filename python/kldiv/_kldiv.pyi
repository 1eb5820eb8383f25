from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypedDict, final

import numpy as np
from numpy.typing import NDArray

class _Operand(Protocol):
    """Rows to read, or memory for some."""

    @property
    def memory(self) -> np.ndarray[Any, Any]:
        """The class axis last and of unit stride, in native byte order."""

    @property
    def dtype_name(self) -> str:
        """What the numbers are; memory of bfloat16 may be that of integers to NumPy."""

class _Reducer(Protocol):
    """What is done with the values of the rows of a batch; vectors have an element a row."""

    @property
    def where(self) -> NDArray[np.bool_] | None:
        """Which rows count."""

    @property
    def weights(self) -> NDArray[np.float64] | None: ...
    @property
    def reduction(self) -> str: ...
    @property
    def denominator(self) -> float | None:
        """Replaces the divisor of the mean."""

    @property
    def dtype_name(self) -> str:
        """That of the values: float64 or float32."""

class _CrossEntropy(Protocol):
    """What cross-entropy is to be, beside rows and targets."""

    @property
    def space(self) -> str: ...
    @property
    def temperature(self) -> float: ...
    @property
    def label_smoothing(self) -> float: ...
    @property
    def class_weights(self) -> NDArray[np.float64] | None: ...
    @property
    def z_loss(self) -> float: ...
    @property
    def softcap(self) -> float | None: ...

class _Distillation(Protocol):
    """A divergence from a teacher, and cross-entropy on labels, each with its weight."""

    @property
    def kind(self) -> str:
        """The divergence, and its parameter: 0 of one that has none."""

    @property
    def parameter(self) -> float: ...
    @property
    def temperature(self) -> float: ...
    @property
    def divergence_weight(self) -> float: ...
    @property
    def cross_entropy_weight(self) -> float: ...
    @property
    def ignore_index(self) -> int | None: ...
    @property
    def label_smoothing(self) -> float: ...

class _FlatTopK(Protocol):
    """Kept classes of rows, one after the other."""

    @property
    def ids(self) -> NDArray[np.int64]: ...
    @property
    def log_probs(self) -> NDArray[np.float64]: ...
    @property
    def weights(self) -> NDArray[np.float64] | None:
        """What classes that were drawn stand for."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """One more than rows, from 0: where each begins and ends."""

    @property
    def normalized(self) -> bool:
        """Whether these are log-probabilities of all classes, and not up to a number a row."""

    @property
    def classes(self) -> int: ...

class _SparseLoss(Protocol):
    """What a loss from kept classes is to be."""

    @property
    def loss(self) -> str:
        """A divergence, with its parameter, or cross_entropy."""

    @property
    def parameter(self) -> float: ...
    @property
    def rule(self) -> str:
        """A name of `RULES`."""

    @property
    def floor(self) -> float:
        """The parameter of the rule that has one."""

    @property
    def temperatures(self) -> tuple[float, float]:
        """Of teacher and student."""

    @property
    def temper_after(self) -> bool: ...

class _KeptSets(Protocol):
    """Which classes of every row count: those named, where there are any."""

    @property
    def ids(self) -> NDArray[np.int64] | None:
        """Of all rows, one row after the other."""

    @property
    def offsets(self) -> NDArray[np.int64] | None:
        """Where those of each row begin, and where those of the last one end."""

    @property
    def top_k(self) -> int | None: ...
    @property
    def top_p(self) -> float | None: ...
    @property
    def min_p(self) -> float | None: ...
    @property
    def return_mass(self) -> bool: ...

class _UldLoss(Protocol):
    """How rows of different classes are compared."""

    @property
    def spaces(self) -> tuple[str, str]: ...
    @property
    def temperatures(self) -> tuple[float, float]: ...
    @property
    def p_ids(self) -> NDArray[np.int64] | None:
        """Classes of p that q has too; both or neither."""

    @property
    def q_ids(self) -> NDArray[np.int64] | None: ...
    @property
    def kind(self) -> str:
        """The divergence of these classes, and its parameter: 0 of one that has none."""

    @property
    def parameter(self) -> float: ...
    @property
    def matched_weight(self) -> float: ...
    @property
    def unmatched_weight(self) -> float: ...

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

class Rule(NamedTuple):
    """What is known of a rule for the classes that a teacher does not keep."""

    name: str
    parameter: Parameter | None
    needs_normalizer: bool
    """Whether the teacher's probabilities must be those of all classes."""
    samples: bool
    """Whether it is for classes that were drawn, and only it."""

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
    detached: bool
    """Whether it mixes others with weights that the rows give, which gradients take for constants."""

__all__ = [
    "DIVERGENCES",
    "RULES",
    "TEMPERATURE",
    "Divergence",
    "Parameter",
    "PlainCalls",
    "Rule",
    "build_info",
    "check_rule",
    "clipped_kl",
    "compare",
    "cross_entropy",
    "decode_log_probs",
    "distillation",
    "divergence",
    "empty",
    "empty_cache",
    "encode_log_probs",
    "entropy",
    "gather_kept_log_probs",
    "gather_log_probs",
    "get_num_threads",
    "infinite_where",
    "isa",
    "kept_entropy",
    "linear",
    "log_softmax",
    "logsumexp",
    "lowest_kept",
    "pairwise",
    "plain_calls",
    "pointwise_kl",
    "sample_k",
    "set_num_threads",
    "sparse_loss",
    "stream",
    "top_k",
    "uld",
    "xla_handlers",
]

@final
class PlainCalls:
    """The calls of a function that need no request: few rows in arrays or tensors, as they are.

    Options are numbers and names, and logits no probabilities, as far as a look at some tells. All
    methods give `None` for any other call, and for one that fails.
    """

    def value(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> _Values | None: ...
    def value_of_tensors(
        self, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> _Values | None:
        """`None` of arrays."""

    def value_and_grad(
        self, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[_Values, NDArray[np.floating]] | None:
        """With the gradient that `value_and_grad` has by default, in new memory."""

def plain_calls(name: str, defaults: dict[str, Any]) -> PlainCalls | None:
    """Those of the function of a name, whose keywords have these defaults; `None` where all need one."""

DIVERGENCES: Mapping[str, Divergence]
RULES: Mapping[str, Rule]
TEMPERATURE: Parameter

def infinite_where(kind: str, parameter: float) -> tuple[bool, bool]: ...
def divergence(
    kind: str,
    parameter: float,
    p: _Operand,
    q: _Operand,
    spaces: tuple[str, str],
    temperatures: tuple[float, float],
    reducer: _Reducer,
    grad_output: NDArray[np.float64] | None = None,
    p_gradient: _Operand | None = None,
    q_gradient: _Operand | None = None,
    isa: str | None = None,
) -> _Values: ...
def check_rule(options: _SparseLoss, normalized: bool, drawn: bool, knows_all: bool) -> None:
    """Raise `ValueError` for a loss that its rule gives no meaning with such a teacher."""

def sparse_loss(
    teacher: _FlatTopK,
    student: _Operand,
    options: _SparseLoss,
    reducer: _Reducer,
    grad_output: NDArray[np.float64] | None = None,
    gradient: _Operand | None = None,
    isa: str | None = None,
) -> _Values: ...
def uld(
    p: _Operand,
    q: _Operand,
    loss: _UldLoss,
    reducer: _Reducer,
    grad_output: NDArray[np.float64] | None = None,
    p_gradient: _Operand | None = None,
    q_gradient: _Operand | None = None,
    isa: str | None = None,
) -> _Values: ...
def cross_entropy(
    logits: _Operand,
    labels: NDArray[np.int64] | None,
    distributions: _Operand | None,
    ignore_index: int | None,
    loss: _CrossEntropy,
    reducer: _Reducer,
    grad_output: NDArray[np.float64] | None = None,
    logits_gradient: _Operand | None = None,
    targets_gradient: _Operand | None = None,
    isa: str | None = None,
) -> _Values: ...
def distillation(
    teacher: _Operand,
    student: _Operand,
    labels: NDArray[np.int64] | None,
    loss: _Distillation,
    reducer: _Reducer,
    grad_output: NDArray[np.float64] | None = None,
    teacher_gradient: _Operand | None = None,
    student_gradient: _Operand | None = None,
    isa: str | None = None,
) -> _Values: ...
def pairwise(
    kind: str,
    parameter: float,
    p: _Operand,
    q: _Operand | None,
    spaces: tuple[str, str],
    temperatures: tuple[float, float],
    out: _Operand,
    isa: str | None = None,
) -> None: ...
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
    reducer: _Reducer,
    grad_output: NDArray[np.float64] | None = None,
    gradient: _Operand | None = None,
    isa: str | None = None,
) -> _Values: ...
def logsumexp(
    z: _Operand,
    temperature: float,
    reducer: _Reducer,
    grad_output: NDArray[np.float64] | None = None,
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
def gather_kept_log_probs(
    z: _Operand,
    labels: NDArray[np.int64],
    kept: _KeptSets,
    temperature: float,
    ignore_index: int | None,
    where: NDArray[np.bool_] | None,
    isa: str | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]: ...
def kept_entropy(
    p: _Operand,
    kept: _KeptSets,
    temperature: float,
    reducer: _Reducer,
    grad_output: NDArray[np.float64] | None = None,
    gradient: _Operand | None = None,
    isa: str | None = None,
) -> tuple[_Values, NDArray[np.floating]]: ...
def lowest_kept(
    z: _Operand,
    kept: _KeptSets,
    temperature: float,
    isa: str | None = None,
) -> NDArray[np.float64]: ...
def top_k(
    logits: _Operand,
    k: int,
    temperature: float,
    isa: str | None = None,
) -> dict[str, np.ndarray[Any, Any]]: ...
def sample_k(
    logits: _Operand,
    k: int,
    power: float,
    seed: int,
    first_row: int,
    temperature: float,
    isa: str | None = None,
) -> dict[str, np.ndarray[Any, Any]]: ...
def compare(
    p: _Operand,
    q: _Operand,
    labels: NDArray[np.int64] | None,
    extra: list[tuple[str, float]],
    temperature: float,
    where: NDArray[np.bool_] | None,
    ignore_index: int | None = None,
    isa: str | None = None,
) -> dict[str, Any]: ...
def decode_log_probs(
    codes: NDArray[np.uint8],
    magic: str,
    out: NDArray[np.float32],
    classes: int,
    isa: str | None = None,
) -> NDArray[np.float64]: ...
def encode_log_probs(
    logits: NDArray[np.float32],
    classes: int,
    magic: str,
    clip: float,
    out: NDArray[np.uint8],
    isa: str | None = None,
) -> NDArray[np.float64]: ...
def clipped_kl(
    log_p: _Operand,
    logits: _Operand,
    labels: NDArray[np.int64] | None,
    ignore_index: int | None = None,
    isa: str | None = None,
) -> dict[str, np.ndarray[Any, Any]]: ...
def linear(
    input: _Operand,
    weight: _Operand,
    out: _Operand,
    isa: str | None = None,
) -> None: ...
def stream(
    p: _Operand,
    q: _Operand | None = None,
    out: _Operand | None = None,
    past_caches: bool = False,
    isa: str | None = None,
) -> None: ...
def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An array that holds anything, whose memory is kept for the next when it is freed."""

def empty_cache() -> None: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def isa() -> str: ...
def xla_handlers() -> dict[str, object]:
    """Capsules of the handlers of XLA's typed foreign function interface, by function."""

def build_info() -> _BuildInfo: ...
