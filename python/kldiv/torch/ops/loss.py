"""Losses as registered operators: value and gradients in one call of the extension.

A loss ``x`` becomes two operators. ``kldiv::x`` gives the value and, if asked, the gradients for
an upstream gradient of 1 in the same pass, which its backward hands on; ``kldiv::x_backward``
gives the gradients for any upstream gradient, and reads the inputs again. The latter's own
gradient is computed by the same loss in torch operations, and so is everything under `torch.func`.

Compiled and exported code has the operators; eager code calls the extension from an
`autograd.Function`, which costs less and can reuse memory.

The numbers among the arguments, as temperatures, are tensors in the schema: `torch.compile` makes a
constant of what an operator takes as a number, and would compile a loss anew for each value.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

import kldiv
from kldiv._arrays import Operand
from kldiv._outputs import new_array
from kldiv.torch.ops.modes import are_plain, composes, is_traced
from kldiv.torch.private import is_batched

Named = dict[str, Any]


class Call(Protocol):
    """A checked call of the extension."""

    @property
    def value_dtype(self) -> torch.dtype:
        """The dtype of the value."""
        ...

    def run(self, grad_output: Tensor | None, gradients: Mapping[str, Operand]) -> Any:
        """Compute the value, and write the gradients."""
        ...


class Loss:
    """A loss and its two operators.

    Parameters
    ----------
    name
        Of the operator.
    inputs
        Names of the tensors that have a gradient, which come first.
    arguments
        The other arguments, as ``(name, type)``: that of the schema, or ``float`` for a number.
    prepare
        Checks the arguments and gives a `Call`.
    value_like
        A tensor of the shape and dtype of the value; raises what `prepare` raises for shapes.
    formula
        The loss in torch operations.
    """

    def __init__(
        self,
        name: str,
        inputs: Sequence[str],
        arguments: Sequence[tuple[str, str]],
        *,
        prepare: Callable[..., Call],
        value_like: Callable[..., Tensor],
        formula: Callable[..., Tensor],
    ) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.arguments = (*self.inputs, *(argument for argument, _ in arguments))
        self.prepare = prepare
        self.value_like = value_like
        self.formula = formula
        self._types = dict(arguments)
        self.numbers = tuple(name for name, kind in arguments if kind.startswith("float"))
        tensors = (name for name, kind in arguments if kind.startswith("Tensor"))
        self.tensors = (*self.inputs, *tensors)
        is_reduced = "reduction" in self.arguments
        self._reduction = self.arguments.index("reduction") if is_reduced else None
        self._register()

    def __call__(self, *arguments: Any) -> Tensor:
        """The value; with the gradients that will be needed, unless it has one number a row."""
        if composes():
            return self.formula(**dict(zip(self.arguments, arguments, strict=True)))
        needed = (False,) * len(self.inputs)
        if torch.is_grad_enabled():
            needed = tuple(tensor.requires_grad for tensor in arguments[: len(self.inputs)])
        reduction = arguments[self._reduction] if self._reduction is not None else "sum"
        wanted = needed if reduction != "none" else (False,) * len(needed)
        value: Tensor
        if is_traced() or not are_plain(arguments):
            inputs = arguments[: len(self.inputs)]
            if any(tensor.dtype.itemsize == 2 for tensor in inputs):
                # To be multiplied by the upstream gradient before it is rounded, in backward.
                wanted = (False,) * len(needed)
            named = dict(zip(self.arguments, arguments, strict=True))
            value = self._forward(*self._as_schema(named), *wanted)[0]
        elif any(needed):
            value = _Eager.apply(self, wanted, *arguments)
        else:
            value, _ = self.evaluate(dict(zip(self.arguments, arguments, strict=True)), wanted)
        return value

    def _register(self) -> None:
        inputs = ", ".join(f"Tensor {name}" for name in self.inputs)
        others = "".join(
            f", {kind.replace('float', 'Tensor')} {name}" for name, kind in self._types.items()
        )
        wanted = ", ".join(f"bool {name}_gradient" for name in self.inputs)
        gradients = ", ".join("Tensor" for _ in self.inputs)
        forward, backward = f"kldiv::{self.name}", f"kldiv::{self.name}_backward"
        tags = (torch.Tag.pt2_compliant_tag,)
        torch.library.define(
            forward, f"({inputs}{others}, {wanted}) -> (Tensor, {gradients})", tags=tags
        )
        torch.library.define(
            backward,
            f"(Tensor grad_output, {inputs}{others}, {wanted}) -> ({gradients})",
            tags=tags,
        )
        torch.library.impl(forward, "cpu", self._compute)
        torch.library.impl(backward, "cpu", self._compute_gradients)
        torch.library.register_fake(forward, self._fake)
        torch.library.register_fake(backward, self._fake_gradients)
        torch.library.register_autograd(
            forward, self._differentiate, setup_context=self._keep_for_backward
        )
        torch.library.register_autograd(
            backward, self._differentiate_gradients, setup_context=self._keep_for_double_backward
        )
        namespace = torch.ops.kldiv
        self._forward = getattr(namespace, self.name).default
        self._backward = getattr(namespace, f"{self.name}_backward").default

    def _split(self, arguments: Sequence[Any]) -> tuple[Named, tuple[bool, ...]]:
        """The arguments by name, and which gradients are wanted."""
        count = len(self.arguments)
        return dict(zip(self.arguments, arguments[:count], strict=True)), tuple(arguments[count:])

    def _as_schema(self, named: Named) -> list[Any]:
        """The arguments as the operators take them: numbers as tensors."""
        return [
            as_tensor(value) if name in self.numbers else value for name, value in named.items()
        ]

    def _look_at_numbers(self, named: Named) -> Named:
        """The arguments with numbers as Python's."""
        numbers = {name: named[name] for name in self.numbers}
        return {
            **named,
            **{
                name: number.item() if isinstance(number, Tensor) else number
                for name, number in numbers.items()
            },
        }

    # On the CPU.

    def _compute(self, *arguments: Any) -> tuple[Tensor, ...]:
        named, wanted = self._split(arguments)
        value, gradients = self.evaluate(self._look_at_numbers(named), wanted)
        return value, *self._or_empty(named, gradients)

    def _compute_gradients(self, grad_output: Tensor, *arguments: Any) -> Any:
        named, wanted = self._split(arguments)
        _, found = self.evaluate(self._look_at_numbers(named), wanted, grad_output.detach())
        gradients = self._or_empty(named, found)
        return gradients[0] if len(gradients) == 1 else tuple(gradients)

    def _or_empty(self, named: Named, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """An operator cannot return nothing."""
        return [
            named[name].new_empty(0) if gradient is None else gradient
            for name, gradient in zip(self.inputs, gradients, strict=True)
        ]

    def evaluate(
        self, named: Named, wanted: Sequence[bool], grad_output: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The value, and a new tensor for each gradient that is wanted."""
        detached = dict(named)
        for name in self.tensors:
            # NumPy refuses a tensor with a history, or with a sign to be changed.
            if (tensor := named[name]) is not None and (tensor.requires_grad or tensor.is_neg()):
                detached[name] = tensor.detach().resolve_neg()
        _share_threads()
        call = self.prepare(**detached)
        gradients: list[Tensor | None] = [None] * len(self.inputs)
        operands = {}
        for position, (name, want) in enumerate(zip(self.inputs, wanted, strict=True)):
            if want:
                tensor = named[name]
                gradients[position], operands[name] = new_tensor(tensor.shape, tensor.dtype)
        return as_value(call.run(grad_output, operands), call.value_dtype), gradients

    # Shapes only.

    def _fake(self, *arguments: Any) -> tuple[Tensor, ...]:
        named, wanted = self._split(arguments)
        return self.value_like(**named), *self._fake_memory(named, wanted)

    def _fake_gradients(self, grad_output: Tensor, *arguments: Any) -> Any:
        gradients = self._fake_memory(*self._split(arguments))
        return gradients[0] if len(gradients) == 1 else gradients

    def _fake_memory(self, named: Named, wanted: Sequence[bool]) -> tuple[Tensor, ...]:
        return tuple(
            named[name].new_empty(named[name].shape if want else 0)
            for name, want in zip(self.inputs, wanted, strict=True)
        )

    # Autograd.

    def _keep_for_backward(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        named, ctx.wanted = self._split(inputs)
        ctx.gradients = list(output[1:])
        ctx.mark_non_differentiable(*ctx.gradients)
        ctx.set_materialize_grads(False)
        _keep(ctx, named, (*self.tensors, *self.numbers))

    def _differentiate(self, ctx: Any, grad_output: Tensor | None, *_: Any) -> tuple[Any, ...]:
        nothing = (None,) * (len(self.arguments) + len(self.inputs))
        if grad_output is None:
            return nothing
        needed = tuple(ctx.needs_input_grad[: len(self.inputs)])
        gradients = ctx.gradients
        if needed != ctx.wanted or torch.is_grad_enabled():
            # One upstream gradient a row, or a second derivative.
            gradients = self._gradients(grad_output, _kept(ctx), needed)
        else:
            gradients = [gradient * grad_output.to(gradient.dtype) for gradient in gradients]
        used = (grad if needs else None for grad, needs in zip(gradients, needed, strict=True))
        return *used, *nothing[len(self.inputs) :]

    def _gradients(
        self, grad_output: Tensor, named: Named, wanted: Sequence[bool]
    ) -> Sequence[Tensor]:
        """By the operator, which can itself be differentiated."""
        gradients = self._backward(grad_output, *self._as_schema(named), *wanted)
        return (gradients,) if len(self.inputs) == 1 else gradients

    def _keep_for_double_backward(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        grad_output, arguments = inputs[0], inputs[1:]
        named, ctx.wanted = self._split(arguments)
        ctx.set_materialize_grads(False)
        tensors = ("grad_output", *self.tensors, *self.numbers)
        _keep(ctx, {"grad_output": grad_output, **named}, tensors)

    def _differentiate_gradients(self, ctx: Any, *grad_gradients: Any) -> tuple[Any, ...]:
        kept = _kept(ctx)
        grad_output = kept.pop("grad_output")
        if not is_traced() and are_plain(kept.values()):
            kept = self._look_at_numbers(kept)
        tensors = (grad_output, *(kept[name] for name in self.inputs))
        # A gradient that was not wanted is empty, and nothing depends on it.
        chosen = [
            (position, grad)
            for position, (grad, want) in enumerate(zip(grad_gradients, ctx.wanted, strict=True))
            if want and grad is not None
        ]
        nothing = (None,) * (1 + len(self.arguments) + len(self.inputs))
        if not chosen:
            return nothing

        def gradients(grad_output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
            found = self._formula_gradients(kept, grad_output, inputs)
            return tuple(found[position] for position, _ in chosen)

        pull_back = torch.func.vjp(gradients, *tensors)[1]
        found = pull_back(tuple(grad for _, grad in chosen))
        return *found, *nothing[len(found) :]

    def _formula_gradients(
        self, named: Named, grad_output: Tensor, inputs: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        def value(*inputs: Tensor) -> Tensor:
            return self.formula(**{**named, **dict(zip(self.inputs, inputs, strict=True))})

        result = torch.func.vjp(value, *inputs)
        gradients: tuple[Tensor, ...] = result[1](grad_output.to(result[0].dtype))
        return gradients


class _Eager(torch.autograd.Function):
    """A loss outside of compiled code, where nobody else holds the gradients found with its value.

    They are handed on without a copy, and multiplied in place.
    """

    @staticmethod
    def forward(ctx: Any, loss: Loss, wanted: tuple[bool, ...], *arguments: Any) -> Tensor:
        """The value."""
        named, _ = loss._split(arguments)
        value, gradients = loss.evaluate(named, wanted)
        ctx.loss, ctx.wanted = loss, wanted
        ctx.gradients = gradients if any(wanted) else None
        _keep(ctx, named, loss.tensors)
        return value

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        """The gradients of the inputs."""
        (grad_output,) = grad_outputs
        loss: Loss = ctx.loss
        count = len(loss.inputs)
        needed = tuple(ctx.needs_input_grad[2 : 2 + count])
        # A second call has to compute them again, and so does one with other inputs.
        if ctx.gradients is not None and needed == ctx.wanted and not torch.is_grad_enabled():
            if is_batched(grad_output):
                # Of many upstream gradients at once.
                gradients: Sequence[Tensor | None] = [
                    None if gradient is None else gradient * grad_output.to(gradient.dtype)
                    for gradient in ctx.gradients
                ]
            else:
                gradients, ctx.gradients = ctx.gradients, None
                if not _multiply(gradients, grad_output.item()):
                    gradients = loss._gradients(grad_output, _kept(ctx), needed)
        else:
            gradients = loss._gradients(grad_output, _kept(ctx), needed)
        used = (grad if needs else None for grad, needs in zip(gradients, needed, strict=True))
        return None, None, *used, *(None,) * (len(loss.arguments) - count)


def _multiply(gradients: Sequence[Tensor | None], factor: float) -> bool:
    """Multiply in place, unless that would round numbers that were rounded to half types before.

    A scale that keeps small gradients from vanishing in float16 has to come first.
    """
    found = [gradient for gradient in gradients if gradient is not None]
    if factor == 1.0:
        return True
    if any(gradient.dtype.itemsize == 2 for gradient in found):
        return False
    for gradient in found:
        gradient.mul_(factor)
    return True


# The worker process of a DataLoader that has been told to use one thread.
_worker = 0


def _share_threads() -> None:
    """One thread in a worker of a DataLoader, as torch sets for itself there."""
    global _worker
    if torch.utils.data.get_worker_info() is not None and _worker != os.getpid():
        _worker = os.getpid()
        kldiv.set_num_threads(1)


def _keep(ctx: Any, named: Named, tensors: Sequence[str]) -> None:
    ctx.tensors = tensors
    ctx.save_for_backward(*(named[name] for name in tensors))
    ctx.named = dict(named)
    for name in tensors:
        # Held by autograd, which checks that they stay as they are.
        ctx.named[name] = None


def _kept(ctx: Any) -> Named:
    return {**ctx.named, **dict(zip(ctx.tensors, ctx.saved_tensors, strict=True))}


def as_value(value: Any, dtype: torch.dtype) -> Tensor:
    """A result of the extension as a tensor."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value).to(dtype)
    return torch.scalar_tensor(float(value), dtype=dtype, device="cpu")


def as_tensor(number: Any) -> Tensor | None:
    """A number as the operators take it."""
    if number is None:
        return None
    if isinstance(number, Tensor):
        return number.to("cpu", torch.float64)
    # A product is what `torch.compile` keeps open; of a number made a tensor it makes a constant.
    tensor: Tensor = torch.ones((), dtype=torch.float64, device="cpu") * number
    return tensor


# A NumPy dtype of its size, and the name that the extension has for it.
_STORAGE: dict[torch.dtype, tuple[np.dtype[Any], str]] = {
    torch.float64: (np.dtype(np.float64), "float64"),
    torch.float32: (np.dtype(np.float32), "float32"),
    torch.float16: (np.dtype(np.float16), "float16"),
    torch.bfloat16: (np.dtype(np.uint16), "bfloat16"),
}


def new_tensor(shape: torch.Size, dtype: torch.dtype) -> tuple[Tensor, Operand]:
    """An uninitialised tensor on the CPU, in memory of NumPy, and the same for the extension.

    That of the last one that was freed, or new memory in huge pages, for which torch does not ask:
    to touch 131 MB for the first time takes 12 ms instead of 48.
    """
    storage, name = _STORAGE[dtype]
    array = new_array(shape, storage)
    tensor = torch.from_numpy(array)
    if dtype == torch.bfloat16:
        tensor = tensor.view(torch.bfloat16)
    return tensor, Operand(array, name)
