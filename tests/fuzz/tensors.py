"""Calls on tensors and JAX arrays: torch eager, its formulas under `torch.func`, JAX."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from . import kept
from .calls import Outcome, arrays_of, is_refusal, keywords_of, positional_of
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
    outcome = Outcome(_from_tensor(value))
    if wrt:
        upstream = _upstream(case, tensors, value)
        gradients = torch.autograd.grad(value, leaves, upstream)
        outcome.gradients = {name: _from_tensor(g) for name, g in zip(wrt, gradients, strict=True)}
    return outcome


def _torch_function(case: Case, kt: Any) -> Any:
    if case.subject.name == "cross_entropy":
        # The drop-in has that name; with the options of kldiv it is the operator's request.
        return functools.partial(_torch_cross_entropy, kt)
    return getattr(kt, case.subject.name)


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

    def of_inputs(*inputs: Any) -> Any:
        known = {**tensors, **dict(zip(names, inputs, strict=True))}
        return function(*kept.positional_of(case, known, positional_of(case)), **keywords)

    value, pull_back = torch.func.vjp(of_inputs, *(tensors[name] for name in names))
    outcome = Outcome(_from_tensor(value))
    if case.wrt:
        gradients = pull_back(_upstream(case, tensors, value))
        outcome.gradients = {
            name: _from_tensor(g) for name, g in zip(names, gradients, strict=True)
        }
    return outcome


def with_jax(case: Case) -> Outcome:
    """As XLA calls the extension: nothing but options is known while JAX traces."""
    import jax

    import kldiv.jax as kj

    jax.config.update("jax_enable_x64", True)
    arrays = {name: jax.numpy.asarray(array) for name, array in arrays_of(case).items()}
    function = getattr(kj, case.subject.name)
    names = case.wrt or ()

    @jax.jit
    def compiled(arrays: dict[str, Any]) -> tuple[Any, ...]:
        beside = ("where", "weights", "class_weights")
        keywords = keywords_of(case) | {name: arrays[name] for name in beside if name in arrays}

        def of_inputs(*inputs: Any) -> Any:
            known = {**arrays, **dict(zip(names, inputs, strict=True))}
            return function(*kept.positional_of(case, known, positional_of(case)), **keywords)

        if not names:
            return (of_inputs(),)
        value, pull_back = jax.vjp(of_inputs, *(arrays[name] for name in names))
        upstream = arrays.get("grad_output", jax.numpy.ones(()))
        return value, *pull_back(jax.numpy.broadcast_to(upstream.astype(value.dtype), value.shape))

    value, *gradients = compiled(arrays)
    return Outcome(
        np.asarray(value), {name: np.asarray(g) for name, g in zip(names, gradients, strict=True)}
    )
