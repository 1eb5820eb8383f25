"""How the other libraries do each job: as their users write it, on the same memory where they can.

A contender is a class whose construction imports its library, and fails where that is not
installed. `prepare` makes the call for a job, or gives None for what the library does not have.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import kldiv
from jobs import Array, Call, Inputs, Job


def _widened(array: Array) -> Array:
    # Neither NumPy nor SciPy computes with half types in earnest.
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array


class Torch:
    """torch as it comes, through autograd for gradients."""

    title = "torch eager"
    package = "torch"

    def __init__(self) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(kldiv.get_num_threads())

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

    def _tensor(self, array: Array) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # arrays that are read-only are only read
            if array.dtype.name == "bfloat16":
                return self.torch.from_numpy(array.view(np.int16)).view(self.torch.bfloat16)
            return self.torch.from_numpy(array)

    def _arguments(self, job: Job, inputs: Inputs) -> tuple[Any, Any, Callable[..., Any]]:
        """Give what is held constant, what is differentiated, and the function of both."""
        torch, functional = self.torch, self.torch.nn.functional
        p, q = (self._tensor(array) for array in inputs.pair(job))

        def kl(p: Any, q: Any) -> Any:
            ln_p, ln_q = p.log_softmax(-1), q.log_softmax(-1)
            return functional.kl_div(ln_q, ln_p, reduction="none", log_target=True).sum(-1)

        def reverse_kl(p: Any, q: Any) -> Any:
            return kl(q, p)

        def js_of_logs(ln_p: Any, ln_q: Any) -> Any:
            ln_m = torch.logaddexp(ln_p, ln_q) - np.log(2)
            to_p, to_q = (
                functional.kl_div(ln_m, ln, reduction="none", log_target=True).sum(-1)
                for ln in (ln_p, ln_q)
            )
            return (to_p + to_q) / 2

        def jensen_shannon(p: Any, q: Any) -> Any:
            return js_of_logs(p.log_softmax(-1), q.log_softmax(-1))

        def total_variation(p: Any, q: Any) -> Any:
            return (p.softmax(-1) - q.softmax(-1)).abs().sum(-1) / 2

        def renyi(p: Any, q: Any) -> Any:
            alpha = job.parameter["alpha"]
            ln_p, ln_q = p.log_softmax(-1), q.log_softmax(-1)
            return (alpha * ln_p + (1 - alpha) * ln_q).logsumexp(-1) / (alpha - 1)

        def cross_entropy(labels: Any, z: Any) -> Any:
            return functional.cross_entropy(z, labels, reduction="none")

        def of_probabilities(p: Any, q: Any) -> Any:
            return functional.kl_div(q.log(), p, reduction="none").sum(-1)

        def compare(p: Any, q: Any) -> Any:
            ln_p, ln_q = p.log_softmax(-1), q.log_softmax(-1)
            p, q, d = ln_p.exp(), ln_q.exp(), ln_p - ln_q
            p.argmax(-1), q.argmax(-1)
            variation = (p - q).abs().sum(-1) / 2
            entropies = (-(p * ln_p).sum(-1), -(q * ln_q).sum(-1))
            divergences = ((p * d).sum(-1), -(q * d).sum(-1), js_of_logs(ln_p, ln_q), variation)
            return torch.stack([*divergences, *entropies])

        if job.function == "cross_entropy":
            return torch.from_numpy(inputs.labels), q, cross_entropy
        if job.space == "probs":
            return p, q, of_probabilities
        known = (kl, reverse_kl, jensen_shannon, total_variation, renyi, compare)
        return p, q, next(each for each in known if each.__name__ == job.function)


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
        jax, losses = self.jax, self.losses
        first, second = (jax.numpy.asarray(array) for array in inputs.pair(job))
        kl_of_logs = losses.kl_divergence_with_log_targets

        def kl(q: Any, p: Any) -> Any:
            return kl_of_logs(jax.nn.log_softmax(q), jax.nn.log_softmax(p))

        def of_probabilities(q: Any, p: Any) -> Any:
            return losses.kl_divergence(jax.numpy.log(q), p)

        def jensen_shannon(q: Any, p: Any) -> Any:
            ln_p, ln_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
            ln_m = jax.numpy.logaddexp(ln_p, ln_q) - np.log(2)
            return (kl_of_logs(ln_m, ln_p) + kl_of_logs(ln_m, ln_q)) / 2

        function: Callable[..., Any] = of_probabilities if job.space == "probs" else kl
        if job.function == "cross_entropy":
            first = jax.numpy.asarray(inputs.labels)
            function = losses.softmax_cross_entropy_with_integer_labels
        elif job.function == "jensen_shannon":
            function = jensen_shannon
        if not job.gradient:
            value = jax.jit(function)
            return lambda: (value(second, first).block_until_ready(), None)

        def total(q: Any, p: Any) -> tuple[Any, Any]:
            rows = function(q, p)
            return rows.sum(), rows

        both = jax.jit(jax.value_and_grad(total, has_aux=True))

        def backward() -> tuple[Any, Any]:
            (_, value), gradient = jax.block_until_ready(both(second, first))
            return value, gradient

        return backward


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
    packages |= {"jaxlib", "optax"} if "jax" in contenders else set()
    return {name: importlib.metadata.version(name) for name in sorted(packages)}
