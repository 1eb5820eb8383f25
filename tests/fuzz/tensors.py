"""Calls on tensors and JAX arrays: torch eager, its formulas under `torch.func`, JAX."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from . import kept
from .calls import Outcome, arrays_of, function_of, is_refusal, keywords_of, positional_of
from .case import Case
from .contents import DTYPES

Array = np.ndarray[Any, Any]


def _tensor(array: Array) -> Any:
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _from_tensor(tensor: Any) -> Array:
    import torch

    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().view(DTYPES["bfloat16"])
    return tensor.numpy()


def with_torch(case: Case) -> Outcome:
    import torch

    import kldiv.torch as kt

    torch.set_num_threads(1)
    tensors = {name: _tensor(array) for name, array in arrays_of(case).items()}
    function = _torch_function(case, kt)
    wrt = case.wrt or ()
    for name in wrt:
        tensors[name].requires_grad_()
    leaves = [tensors[name] for name in wrt]
    keywords = keywords_of(case)
    keywords.update(
        {name: tensors[name] for name in ("where", "weights", "class_weights") if name in tensors}
    )
    inputs = kept.positional_of(case, tensors, positional_of(case))
    if case.inplace:
        # A leaf would be overwritten.
        inputs[0] = inputs[0] * 1
        if case.inplace == "shifted":
            memory = torch.cat([inputs[1][:1], inputs[0]])
            inputs[:2] = memory[1:], memory[:-1]
        keywords["inplace"] = True
    try:
        value = function(*inputs, **keywords)
    except ValueError as error:
        if case.inplace != "shifted" or not is_refusal(error):
            raise
        return Outcome(refused=True)
    value, mass = value if case.return_mass else (value, None)
    outcome = Outcome(_from_tensor(value))
    if wrt:
        upstream = _upstream(case, tensors, value)
        gradients = torch.autograd.grad(value, leaves, upstream, retain_graph=mass is not None)
        outcome.gradients = {name: _from_tensor(g) for name, g in zip(wrt, gradients, strict=True)}
    if mass is not None:
        outcome.mass = _from_tensor(mass)
        if wrt:
            gradients = torch.autograd.grad(mass, leaves, torch.ones_like(mass))
            outcome.mass_gradients = dict(zip(wrt, map(_from_tensor, gradients), strict=True))
    return outcome


def _torch_function(case: Case, kt: Any) -> Any:
    if case.subject.name == "cross_entropy":
        # The drop-in has that name; with the options of kldiv it is the operator's request.
        return functools.partial(_torch_cross_entropy, kt)
    return function_of(case, kt)


def _torch_cross_entropy(
    kt: Any,
    logits: Any,
    target: Any,
    *,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: Any = None,
    ignore_index: Any = -100,
    axis: int = -1,
    **loss: Any,
) -> Any:
    from kldiv.torch.functional.rows import RowOptions

    options = (
        loss.get("class_weights"),
        loss.get("space", "logits"),
        loss.get("temperature", 1.0),
        loss.get("label_smoothing", 0.0),
        loss.get("z_loss", 0.0),
        loss.get("softcap"),
    )
    rows = RowOptions(where, weights, reduction, denominator)
    logits = logits.movedim(axis, -1)
    if target.is_floating_point():
        return rows.run(
            kt.ops.cross_entropy.soft_cross_entropy, (logits, target.movedim(axis, -1), *options)
        )
    return rows.run(kt.ops.cross_entropy.cross_entropy, (logits, target, ignore_index, *options))


def _upstream(case: Case, tensors: dict[str, Any], value: Any) -> Any:
    import torch

    given = tensors.get("grad_output")
    if given is None:
        return torch.ones_like(value)
    return given.to(value.dtype).expand(value.shape)


def with_torch_func(case: Case) -> Outcome:
    import torch

    import kldiv.torch as kt

    torch.set_num_threads(1)
    tensors = {name: _tensor(array) for name, array in arrays_of(case).items()}
    function = _torch_function(case, kt)
    keywords = keywords_of(case)
    keywords.update(
        {name: tensors[name] for name in ("where", "weights", "class_weights") if name in tensors}
    )
    names = case.wrt or tuple(case.rows)[-1:]

    def of_all(*inputs: Any) -> Any:
        known = {**tensors, **dict(zip(names, inputs, strict=True))}
        return function(*kept.positional_of(case, known, positional_of(case)), **keywords)

    def of_inputs(*inputs: Any) -> Any:
        return of_all(*inputs)[0] if case.return_mass else of_all(*inputs)

    value, pull_back = torch.func.vjp(of_inputs, *(tensors[name] for name in names))
    outcome = Outcome(_from_tensor(value))
    if case.return_mass:
        mass, pull_mass = torch.func.vjp(
            lambda *inputs: of_all(*inputs)[1], *(tensors[name] for name in names)
        )
        outcome.mass = _from_tensor(mass)
        if case.wrt:
            gradients = map(_from_tensor, pull_mass(torch.ones_like(mass)))
            outcome.mass_gradients = dict(zip(names, gradients, strict=True))
    if case.wrt:
        gradients = pull_back(_upstream(case, tensors, value))
        outcome.gradients = {
            name: _from_tensor(g) for name, g in zip(names, gradients, strict=True)
        }
    return outcome


def with_jax(case: Case) -> Outcome:
    import jax

    import kldiv.jax as kj

    jax.config.update("jax_enable_x64", True)
    arrays = {name: jax.numpy.asarray(array) for name, array in arrays_of(case).items()}
    function = function_of(case, kj)
    names = case.wrt or ()

    def computed(arrays: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
        beside = ("where", "weights", "class_weights")
        keywords = keywords_of(case) | {name: arrays[name] for name in beside if name in arrays}
        inputs = [arrays[name] for name in names]

        def of_all(*inputs: Any) -> Any:
            known = {**arrays, **dict(zip(names, inputs, strict=True))}
            found = function(*kept.positional_of(case, known, positional_of(case)), **keywords)
            return found if case.return_mass else (found, None)

        if not names:
            return (*of_all(), None, None)
        mass = of_mass = None
        if case.return_mass:
            mass, pull_mass = jax.vjp(lambda *inputs: of_all(*inputs)[1], *inputs)
            of_mass = pull_mass(jax.numpy.ones_like(mass))
        value, pull_back = jax.vjp(lambda *inputs: of_all(*inputs)[0], *inputs)
        upstream = arrays.get("grad_output", jax.numpy.ones(()))
        upstream = jax.numpy.broadcast_to(upstream.astype(value.dtype), value.shape)
        return value, mass, pull_back(upstream), of_mass

    # Nothing but options is known while JAX traces: XLA calls the extension.
    run = jax.jit(computed) if case.subject.jax is None else computed
    value, mass, gradients, of_mass = run(arrays)

    def by_name(gradients: Any) -> dict[str, Any]:
        return dict(zip(names, map(np.asarray, gradients or ()), strict=gradients is not None))

    return Outcome(
        np.asarray(value),
        by_name(gradients),
        mass=None if mass is None else np.asarray(mass),
        mass_gradients=by_name(of_mass),
    )
