"""What is measured: the jobs, their inputs, the truth, kldiv's calls and the limit of each."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kldiv
from accuracy import DTYPES, oracle
from kldiv import _kldiv
from kldiv._arrays import Operand, as_rows
from kldiv._kldiv import RULES
from samples import USUAL

Array = NDArray[Any]
Result = tuple[Any, Any]
"""One value a row (of `compare`, a line of them for each divergence), and a gradient or None."""
Call = Callable[[], Result]

TRUE_ELEMENTS = 1 << 20
"""Errors are found on as many rows, spread over the batch, as hold about this many numbers."""

KEPT = 64
"""Classes that a teacher kept as top-k has."""

WEIGHT = 0.3
"""Of a loss among others: no power of two, so that a product with it is rounded."""
FORMS = {
    "weighted": f"times {WEIGHT}",
    "vmap": f"times {WEIGHT}, under vmap with a reshape",
    "scan": f"times {WEIGHT}, in a scan",
}

COMPARED = ("kl", "reverse_kl", "jensen_shannon", "total_variation")


@dataclass(frozen=True)
class Job:
    """One thing to compute, that every contender has its way for."""

    key: str
    title: str
    function: str
    gradient: bool = False
    parameter: dict[str, float] = field(default_factory=dict)
    space: str = "logits"
    threads: int | None = None
    """Where not as many as there are."""
    peers: tuple[str, ...] | None = None
    """Where not all."""
    rule: str | None = None
    """What the classes of the teacher but the `KEPT` most probable are taken for."""
    autograd: bool = False
    """Whether kldiv too is differentiated by torch, as a sum over the rows."""
    form: str | None = None
    """What of JAX the gradient of `WEIGHT` times a mean over the rows is inside of, of `FORMS`."""

    @property
    def reads(self) -> int:
        """Arrays that have to be read."""
        return 1 if self.function == "cross_entropy" or self.rule else 2


JOBS = [
    Job("kl", "KL", "kl"),
    Job("kl+grad", "KL and ∂q", "kl", gradient=True),
    Job("cross_entropy", "cross-entropy", "cross_entropy"),
    Job("cross_entropy+grad", "cross-entropy and ∂z", "cross_entropy", gradient=True),
    Job("js", "Jensen–Shannon", "jensen_shannon"),
    Job("js+grad", "Jensen–Shannon and ∂q", "jensen_shannon", gradient=True),
    Job("reverse_kl+grad", "reverse KL and ∂q", "reverse_kl", gradient=True),
    Job("total_variation+grad", "total variation and ∂q", "total_variation", gradient=True),
    Job("renyi_half+grad", "Rényi α = ½ and ∂q", "renyi", gradient=True, parameter={"alpha": 0.5}),
    Job("renyi_2+grad", "Rényi α = 2 and ∂q", "renyi", gradient=True, parameter={"alpha": 2.0}),
    Job("probs", "KL of probabilities", "kl", space="probs"),
    Job(
        "probs_1_thread",
        "KL of probabilities, 1 thread",
        "kl",
        space="probs",
        threads=1,
        peers=("simsimd", "numkong"),
    ),
    Job("compare", "compare", "compare"),
    Job(
        "kl+autograd",
        "KL and ∂q by autograd",
        "kl",
        gradient=True,
        peers=("torch", "compile"),
        autograd=True,
    ),
    Job(
        "cross_entropy+autograd",
        "cross-entropy and ∂z by autograd",
        "cross_entropy",
        gradient=True,
        peers=("torch", "compile"),
        autograd=True,
    ),
]

FAMILY = [
    Job(
        f"{name}({', '.join(f'{value:g}' for value in parameter.values())})+grad"
        if parameter
        else f"{name}+grad",
        f"{name}{' '.join(f', {key} = {value:g},' for key, value in parameter.items())} and ∂q",
        name,
        gradient=True,
        parameter=parameter,
        peers=(),
    )
    for name, parameter in USUAL
]
"""Every divergence with the parameters that people pass, those of `samples.USUAL`."""
TOP_K = [
    Job(
        f"{rule}+grad",
        f"KL from {KEPT} classes, {rule}, and ∂q",
        "kl",
        gradient=True,
        peers=(),
        rule=rule,
    )
    for rule, described in RULES.items()
    if not described.samples
]
"""KL from a teacher kept as top-k, by every rule."""
IN_JAX = [
    Job(
        f"{key}+{form}",
        f"{title}, {words}",
        key,
        gradient=True,
        peers=("jax", "kldiv_jax"),
        form=form,
    )
    for key, title in (("kl", "KL and ∂q"), ("cross_entropy", "cross-entropy and ∂z"))
    for form, words in FORMS.items()
]
"""What programs in JAX put around a loss."""
JOBS += IN_JAX
JOBS += [job for job in FAMILY if job.key not in {known.key for known in JOBS}]
JOBS += TOP_K


@dataclass(frozen=True)
class Inputs:
    """Logits N(0, 3²), or p plus noise, as stored; everyone computes on these."""

    dtype: str
    p: Array
    q: Array
    labels: NDArray[np.int64]
    out: Array
    """Where gradients go; its pages are there."""

    @classmethod
    def make(
        cls,
        rows: int,
        classes: int,
        dtype: str,
        noise: float | None,
        *,
        offset: float = 0.0,
        tops: int = 0,
    ) -> Inputs:
        """Make the inputs of a shape: the same ones in every run.

        `offset` is added to the logits of q. Of some classes, one in the first row and one more in
        each of the next up to `tops`, logits are 8 to 22 higher, as in rows of a language model.
        """
        rng = np.random.default_rng([rows, classes])
        p, normal = (rng.standard_normal((rows, classes)) for _ in range(2))
        p *= 3
        for row in range(rows if tops else 0):
            some = rng.choice(classes, 1 + row % tops, replace=False)
            p[row, some] += rng.uniform(8, 22, size=len(some))
        normal *= 3 if noise is None else noise
        q = (normal if noise is None else p + normal) + offset
        p, q = p.astype(DTYPES[dtype]), q.astype(DTYPES[dtype])
        labels = rng.integers(classes, size=rows)
        return cls(dtype, p, q, labels, np.full_like(q, 0))

    def first(self, rows: int) -> Inputs:
        """Take the first rows."""
        arrays = (array[:rows] for array in (self.p, self.q, self.labels, self.out))
        return Inputs(self.dtype, *arrays)

    @cached_property
    def probabilities(self) -> tuple[Array, Array]:
        """Softmax of both; never below the smallest number, so that no divergence is infinite."""
        least = np.nextafter(DTYPES[self.dtype](0), DTYPES[self.dtype](1))
        return tuple(_softmax(z, least) for z in (self.p, self.q))  # type: ignore[return-value]

    def pair(self, job: Job) -> tuple[Array, Array]:
        """Give the two arrays that a job is about."""
        return self.probabilities if job.space == "probs" else (self.p, self.q)

    @cached_property
    def kept(self) -> kldiv.TopK:
        """The teacher kept as top-k."""
        return kldiv.top_k(self.p, min(KEPT, max(1, self.p.shape[-1] // 2)))

    @cached_property
    def rows_with_truth(self) -> NDArray[np.int64]:
        """Rows that errors are found on."""
        rows, classes = self.p.shape
        count = min(rows, max(1, TRUE_ELEMENTS // classes))
        return np.linspace(0, rows - 1, count).astype(np.int64)

    @cached_property
    def _wide(self) -> Any:
        at = self.rows_with_truth
        return oracle.wide(self.p[at], self.q[at])

    def truth(self, job: Job) -> tuple[Array, Array | None]:
        """Value and gradient of those rows, by the oracle of the tests."""
        at = self.rows_with_truth
        if job.form is not None:
            value, gradient = self.truth(dataclasses.replace(job, form=None))
            assert gradient is not None
            return value, gradient * (WEIGHT / len(self.p))
        if job.function == "cross_entropy":
            z, labels = self.q[at], self.labels[at]
            value = oracle.wide_cross_entropy(z, labels)
            return value, oracle.wide_cross_entropy_gradient(z, labels) if job.gradient else None
        if job.function == "compare":
            entropies = (oracle.wide_entropy(z[at]) for z in (self.p, self.q))
            return np.stack(
                [*(self._wide.value(name, **_beta(name)) for name in COMPARED), *entropies]
            ), None
        if job.rule is not None:
            return _truth_of_kept(job.rule, self.kept[at], self.q[at].astype(np.longdouble))
        pair = self._wide
        if job.space == "probs":
            pair = oracle.wide(*(x[at] for x in self.probabilities), space="probs")
        parameter = job.parameter or _beta(job.function)
        gradient = pair.gradient(job.function, "q", **parameter) if job.gradient else None
        return pair.value(job.function, **parameter), gradient


def _truth_of_kept(rule: str, kept: kldiv.TopK, z: Array) -> tuple[Array, Array]:
    """KL and its gradient, of rows that are far apart: as the definitions have them."""
    rows = np.arange(len(z))[:, None]
    ids, ln_p = kept.ids, kept.values.astype(np.longdouble)
    ln_q = z - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True))
    ln_q -= z.max(-1, keepdims=True)
    others = np.ones(z.shape, bool)
    others[rows, ids] = False
    if rule in ("renormalize", "renormalize_p"):
        ln_p = ln_p - np.log(np.exp(ln_p).sum(-1, keepdims=True))
    p, q, tail = np.exp(ln_p), np.exp(ln_q), 1 - np.exp(ln_p).sum(-1)
    known = (p * (ln_p - ln_q[rows, ids])).sum(-1)
    gradient = q * p.sum(-1, keepdims=True)
    gradient[rows, ids] -= p
    if rule == "renormalize":
        mass = q[rows, ids].sum(-1)
        gradient[others] = 0
        gradient[rows, ids] = q[rows, ids] / mass[:, None] - p
        return known + np.log(mass), gradient
    if rule == "tail":
        of_q = (q * others).sum(-1)
        gradient = np.where(others, q * (1 - tail / of_q)[:, None], q)
        gradient[rows, ids] -= p
        return known + tail * np.log(tail / of_q), gradient
    if rule in ("uniform_tail", "floor"):
        count = others.sum(-1)
        ln_each = np.log(tail / count) if rule == "uniform_tail" else np.full(len(z), -100.0)
        each = np.exp(ln_each)
        known += count * each * ln_each - each * (ln_q * others).sum(-1)
        gradient += q * (count * each)[:, None] - each[:, None] * others
    return known, gradient


def _beta(name: str) -> dict[str, float]:
    return {"beta": 0.5} if name == "jensen_shannon" else {}


def _softmax(logits: Array, least: Any) -> Array:
    result = np.empty_like(logits)
    # Row by row: a float64 copy of the whole would be the largest array of the run.
    for row, z in zip(result, logits, strict=True):
        e = np.exp(z.astype(np.float64) - float(z.max()))
        row[...] = np.maximum((e / e.sum()).astype(logits.dtype), least)
    return result


def ours(job: Job, inputs: Inputs, *, fresh: bool = False, tensors: bool = False) -> Call:
    """Make kldiv's call; a `fresh` one allocates the gradient. `tensors` are given as they are."""
    p, q = inputs.pair(job)
    labels: Any = inputs.labels
    if tensors:
        p, q, labels = (as_tensor(array) for array in (p, q, labels))
    if job.function == "compare":

        def compare() -> Result:
            found = kldiv.compare(p, q)
            entropies = (found.entropy_p, found.entropy_q)
            return [*(getattr(found, name) for name in COMPARED), *entropies], None

        return compare
    if job.autograd:
        return by_autograd(job, inputs)
    function = getattr(kldiv, job.function)
    arguments: tuple[Any, Any] = (q, labels) if job.function == "cross_entropy" else (p, q)
    keywords: dict[str, Any] = {**job.parameter, "space": job.space}
    if job.rule is not None:
        arguments, keywords = (inputs.kept, q), {"rule": job.rule}
    if not job.gradient:
        return lambda: (function(*arguments, **keywords), None)
    if job.form is not None:
        keywords |= {"reduction": "mean", "grad_output": WEIGHT}
    if not fresh:
        keywords["out"] = inputs.out
    if job.form is not None:
        return lambda: (None, kldiv.value_and_grad(function, *arguments, **keywords)[1])
    return lambda: kldiv.value_and_grad(function, *arguments, **keywords)


def by_autograd(job: Job, inputs: Inputs) -> Call:
    """Make kldiv's call on tensors; the value is the sum of the rows."""
    import kldiv.torch

    p, q = (as_tensor(array) for array in inputs.pair(job))
    leaf = q.requires_grad_()
    labels = as_tensor(inputs.labels)

    def backward() -> Result:
        leaf.grad = None
        if job.function == "cross_entropy":
            value = kldiv.torch.cross_entropy(leaf, labels, reduction="sum")
        else:
            value = getattr(kldiv.torch, job.function)(p, leaf, reduction="sum")
        value.backward()
        return None, leaf.grad

    return backward


def as_tensor(array: Array) -> Any:
    """Make a tensor in the same memory."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # arrays that are read-only are only read
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)


def limits(job: Job, inputs: Inputs) -> dict[str, Call]:
    """Ways of moving the data of a job, of which the fastest is its limit."""
    p, q = (as_rows("array", array, -1) for array in inputs.pair(job))
    others: tuple[Operand | None, ...] = (q, None) if job.reads == 2 else (None, None)
    if not job.gradient:
        return {"reads": lambda: (_kldiv.stream(p, *others), None)}
    others = (others[0], as_rows("out", inputs.out, -1))
    return {
        "streaming writes": lambda: (_kldiv.stream(p, *others, True), None),
        "regular writes": lambda: (_kldiv.stream(p, *others, False), None),
    }


def errors(
    job: Job, inputs: Inputs, truth: tuple[Array, Array | None], result: Result
) -> dict[str, float]:
    """Find the largest relative error of a value, and of a gradient by its norm."""
    at = inputs.rows_with_truth
    found = {}
    if result[0] is not None:
        found["error"] = value_error(job, inputs, truth[0], result[0])
    if truth[1] is not None and result[1] is not None:
        difference = as_float64(result[1][at]) - truth[1]
        norms = (np.sqrt((x * x).sum(-1)) for x in (difference, truth[1]))
        found["gradient_error"] = float(np.max(next(norms) / next(norms)))
    return found


def value_error(job: Job, inputs: Inputs, truth: Array, value: Any) -> float:
    """Find the largest relative error of the value of a row."""
    at = inputs.rows_with_truth
    shape = (-1, len(inputs.labels)) if job.function == "compare" else (len(inputs.labels),)
    found = as_float64(value).reshape(shape)[..., at]
    return float(np.max(np.abs(found - truth) / np.abs(truth)))


def as_float64(numbers: Any) -> Array:
    """Widen whatever a contender gives back."""
    if hasattr(numbers, "detach"):  # NumPy has no bfloat16 for torch to convert to
        numbers = numbers.detach().double().numpy()
    result: Array = np.asarray(numbers).astype(np.float64)
    return result
