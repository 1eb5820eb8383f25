"""How the other libraries do each job: as their users write it, on the same memory where they can.

A contender is a class whose construction imports its library, and fails where that is not
installed. `prepare` makes the call for a job, or gives None for what the library does not have.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import kldiv
from jobs import WEIGHT, Array, Call, Inputs, Job, as_tensor

GROUPS = 8
"""Parts of a batch, of a `jax.vmap` or a `jax.lax.scan`."""


def _widened(array: Array) -> Array:
    # Neither NumPy nor SciPy computes with half types in earnest.
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array


class Torch:
    """torch as it comes, through autograd for gradients."""

    title = "torch eager"
    package = "torch"

    def __init__(self) -> None:
        import torch

        import torch_formulas

        self.torch, self.formulas = torch, torch_formulas
        self.set_threads(kldiv.get_num_threads())

    def set_threads(self, count: int) -> None:
        """Use as many threads as kldiv."""
        self.torch.set_num_threads(count)

    def prepare(self, job: Job, inputs: Inputs) -> Call | None:
        """Make the call: value, or value and backward pass."""
        first, second, function = self._arguments(job, inputs)
        function = self._transformed(function)
        if not job.gradient:
            return lambda: (function(first, second), None)
        leaf = second.detach().requires_grad_()

        def backward() -> tuple[Any, Any]:
            leaf.grad = None
            value = function(first, leaf)
            value.sum().backward()
            return value, leaf.grad

        return backward

    def _transformed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def _arguments(self, job: Job, inputs: Inputs) -> tuple[Any, Any, Callable[..., Any]]:
        """Give what is held constant, what is differentiated, and the function of both."""
        p, q = (as_tensor(array) for array in inputs.pair(job))
        if job.function == "cross_entropy":
            return as_tensor(inputs.labels), q, self.formulas.cross_entropy
        if job.space == "probs":
            return p, q, self.formulas.kl_of_probabilities
        if job.function == "renyi":
            return p, q, self.formulas.renyi(**job.parameter)
        return p, q, getattr(self.formulas, job.function)


COMPILED = ("kl", "cross_entropy", "jensen_shannon")
"""Functions for the compilers, each of whose compilations takes seconds."""


class TorchCompile(Torch):
    """The same functions compiled for their shape and dtype, and differentiated by torch."""

    title = "torch.compile"

    def prepare(self, job: Job, inputs: Inputs) -> Call | None:
        """Make the call, compiled when it is first made."""
        return super().prepare(job, inputs) if job.function in COMPILED else None

    def _transformed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        # Otherwise the functions of earlier shapes would count as recompilations of this one.
        self.torch.compiler.reset()
        compiled: Callable[..., Any] = self.torch.compile(function, dynamic=False)
        return compiled


class Jax:
    """optax's losses under jax.jit."""

    title = "JAX + optax"
    package = "jax"

    def __init__(self) -> None:
        import jax
        import optax

        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", True)
        self.jax, self.losses = jax, optax.losses

    def prepare(self, job: Job, inputs: Inputs) -> Call | None:
        """Make the call, compiled when it is first made."""
        if job.function not in COMPILED:
            return None
        jax, function = self.jax, self._function(job)
        first, second = (jax.numpy.asarray(array) for array in inputs.pair(job))
        if job.function == "cross_entropy":
            first = jax.numpy.asarray(inputs.labels)
        if not job.gradient:
            value = jax.jit(function)
            return lambda: (value(second, first).block_until_ready(), None)

        if job.form is not None:
            loss = jax.jit(self._in_form(job, len(inputs.p)))
            return lambda: (None, jax.block_until_ready(loss(second, first))[1])
        both = jax.jit(jax.value_and_grad(self._total(job), has_aux=True))

        def backward() -> tuple[Any, Any]:
            (_, value), gradient = jax.block_until_ready(both(second, first))
            return value, gradient

        return backward

    def _total(self, job: Job) -> Callable[..., Any]:
        """Give the sum over the rows, and their values beside it."""
        function = self._function(job)

        def total(q: Any, p: Any) -> tuple[Any, Any]:
            rows = function(q, p)
            return rows.sum(), rows

        return total

    def _mean(self, job: Job) -> Callable[..., Any]:
        """Give the mean over the rows."""
        function = self._function(job)
        return lambda q, p: function(q, p).mean()

    def _in_form(self, job: Job, rows: int) -> Callable[..., Any]:
        """Give value and gradient of a weighted mean, inside of what the job says."""
        jax, mean = self.jax, self._mean(job)
        groups = math.gcd(rows, GROUPS)

        def in_groups(array: Any) -> Any:
            return array.reshape(groups, -1, *array.shape[1:])

        def weighted(q: Any, p: Any) -> Any:
            return WEIGHT * mean(q, p)

        def mapped(q: Any, p: Any) -> Any:
            return WEIGHT * jax.vmap(mean)(in_groups(q), in_groups(p)).mean()

        def scanned(q: Any, p: Any) -> tuple[Any, Any]:
            both = jax.value_and_grad(lambda q, p: weighted(q, p) / groups)

            def step(so_far: Any, part: Any) -> tuple[Any, Any]:
                value, gradient = both(*part)
                return so_far + value, gradient

            value, gradients = jax.lax.scan(step, 0.0, (in_groups(q), in_groups(p)))
            return value, gradients.reshape(q.shape)

        forms = {"weighted": jax.value_and_grad(weighted), "vmap": jax.value_and_grad(mapped)}
        return scanned if job.form == "scan" else forms[str(job.form)]

    def _function(self, job: Job) -> Callable[..., Any]:
        """Give the function of what is differentiated, and of what is held constant."""
        jax, losses = self.jax, self.losses
        kl_of_logs = losses.kl_divergence_with_log_targets

        def kl(q: Any, p: Any) -> Any:
            return kl_of_logs(jax.nn.log_softmax(q), jax.nn.log_softmax(p))

        def of_probabilities(q: Any, p: Any) -> Any:
            return losses.kl_divergence(jax.numpy.log(q), p)

        def jensen_shannon(q: Any, p: Any) -> Any:
            ln_p, ln_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
            ln_m = jax.numpy.logaddexp(ln_p, ln_q) - np.log(2)
            return (kl_of_logs(ln_m, ln_p) + kl_of_logs(ln_m, ln_q)) / 2

        if job.function == "cross_entropy":
            theirs: Callable[..., Any] = losses.softmax_cross_entropy_with_integer_labels
            return theirs
        if job.function == "jensen_shannon":
            return jensen_shannon
        return of_probabilities if job.space == "probs" else kl


class KldivJax(Jax):
    """`kldiv.jax` under jax.jit."""

    title = "kldiv.jax"

    def __init__(self) -> None:
        super().__init__()
        import kldiv.jax

        self.functions = kldiv.jax.FUNCTIONS

    def _function(self, job: Job) -> Callable[..., Any]:
        ours = self.functions[job.function]
        if job.function == "cross_entropy":
            return ours
        return lambda q, p, **options: ours(p, q, space=job.space, **options)

    def _total(self, job: Job) -> Callable[..., Any]:
        function = self._function(job)
        return lambda q, p: (function(q, p, reduction="sum"), None)

    def _mean(self, job: Job) -> Callable[..., Any]:
        return functools.partial(self._function(job), reduction="mean")


class SciPy:
    """scipy.special's softmax and rel_entr; half types widened to float32 first."""

    title = "SciPy"
    package = "scipy"

    def __init__(self) -> None:
        import scipy.special

        self.special = scipy.special

    def prepare(self, job: Job, inputs: Inputs) -> Call | None:
        """Make the call; SciPy has no gradients."""
        if job.gradient or job.function not in COMPILED:
            return None
        first, second = inputs.pair(job)
        special, labels = self.special, inputs.labels[:, None]

        def probabilities() -> tuple[Array, ...]:
            both = (_widened(first), _widened(second))
            return both if job.space == "probs" else tuple(special.softmax(z, -1) for z in both)

        def kl() -> tuple[Array, None]:
            return special.rel_entr(*probabilities()).sum(-1), None

        def cross_entropy() -> tuple[Array, None]:
            ln_q = special.log_softmax(_widened(second), -1)
            return -np.take_along_axis(ln_q, labels, -1), None

        def jensen_shannon() -> tuple[Array, None]:
            p, q = probabilities()
            m = (p + q) / 2
            return (special.rel_entr(p, m).sum(-1) + special.rel_entr(q, m).sum(-1)) / 2, None

        return {"kl": kl, "cross_entropy": cross_entropy, "jensen_shannon": jensen_shannon}[
            job.function
        ]


class NumPy:
    """The formulas as one writes them; half types widened to float32 first."""

    title = "NumPy"
    package = "numpy"

    def prepare(self, job: Job, inputs: Inputs) -> Call | None:
        """Make the call, with the gradients that have a short formula."""
        if job.function not in ("kl", "cross_entropy") and job.key != "js":
            return None
        first, second = inputs.pair(job)
        labels = inputs.labels[:, None]

        def log_softmax(z: Array) -> Array:
            z = _widened(z)
            z = z - z.max(-1, keepdims=True)
            return z - np.log(np.exp(z).sum(-1, keepdims=True))

        def kl() -> tuple[Array, Array | None]:
            ln_p, ln_q = log_softmax(first), log_softmax(second)
            p = np.exp(ln_p)
            return (p * (ln_p - ln_q)).sum(-1), np.exp(ln_q) - p if job.gradient else None

        def of_probabilities() -> tuple[Array, None]:
            p, q = _widened(first), _widened(second)
            return (p * np.log(p / q)).sum(-1), None

        def jensen_shannon() -> tuple[Array, None]:
            p, q = np.exp(log_softmax(first)), np.exp(log_softmax(second))
            m = (p + q) / 2
            return (p * np.log(p / m) + q * np.log(q / m)).sum(-1) / 2, None

        def cross_entropy() -> tuple[Array, Array | None]:
            ln_q = log_softmax(second)
            value = -np.take_along_axis(ln_q, labels, -1)
            if not job.gradient:
                return value, None
            gradient = np.exp(ln_q)
            gradient[np.arange(len(labels)), labels[:, 0]] -= 1
            return value, gradient

        if job.space == "probs":
            return of_probabilities
        return {"kl": kl, "cross_entropy": cross_entropy, "jensen_shannon": jensen_shannon}[
            job.function
        ]


class SimSimd:
    """simsimd.kl: row by row of two matrices, on one thread."""

    title = "SimSIMD"
    package = "simsimd"

    def __init__(self) -> None:
        import simsimd

        self.function: Callable[..., Any] = simsimd.kl

    def prepare(self, job: Job, inputs: Inputs) -> Call | None:
        """Make the call, for probabilities only."""
        if job.space != "probs":
            return None
        p, q = inputs.probabilities
        if inputs.dtype == "bfloat16":
            bits = p.view(np.uint16), q.view(np.uint16)
            return lambda: (self.function(*bits, "bf16"), None)
        return lambda: (self.function(p, q), None)


class NumKong(SimSimd):
    """numkong.kld, its successor's."""

    title = "NumKong"
    package = "numkong"

    def __init__(self) -> None:
        import numkong

        self.function = numkong.kld


CONTENDERS: dict[str, Any] = {
    "torch": Torch,
    "compile": TorchCompile,
    "jax": Jax,
    "kldiv_jax": KldivJax,
    "scipy": SciPy,
    "numpy": NumPy,
    "simsimd": SimSimd,
    "numkong": NumKong,
}


def installed(names: list[str]) -> dict[str, Any]:
    """Make the contenders that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = CONTENDERS[name]()
        except ImportError:
            continue
    return found


def versions(contenders: dict[str, Any]) -> dict[str, str]:
    """Versions of the packages in use."""
    packages = {each.package for each in contenders.values()} | {"numpy"}
    packages |= {"jaxlib", "optax"} if "jax" in packages else set()
    return {name: importlib.metadata.version(name) for name in sorted(packages)}
