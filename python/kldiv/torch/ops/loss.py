"""Losses as registered operators: value and gradients in one call of the extension.

A loss ``x`` becomes two operators. ``kldiv::x`` gives the value and, if asked, the gradients for an
upstream gradient of 1 in the same pass, which its backward hands on; ``kldiv::x_backward`` gives the
gradients for any upstream gradient, and reads the inputs again. The latter's own gradient, and what
`torch.vmap` makes of both, are computed by the same loss in torch operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kldiv._arrays import Array, Operand, as_array

Named = dict[str, Any]


class Call(Protocol):
    """A checked call of the extension."""

    @property
    def value_dtype(self) -> torch.dtype: ...

    def run(self, grad_output: Tensor | None, gradients: dict[str, Operand]) -> Any:
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
        The other arguments, as ``(name, type in the schema)``.
    prepare
        Checks the arguments and gives a `Call`.
    shape
        The shape of the value for the arguments; raises what `prepare` raises for shapes.
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
        self._register()

    def __call__(self, *arguments: Any, at_once: bool = True) -> Tensor:
        """The value; with the gradients that will be needed if `at_once`."""
        wanted = [False] * len(self.inputs)
        if at_once and torch.is_grad_enabled():
            wanted = [tensor.requires_grad for tensor in arguments[: len(self.inputs)]]
        value: Tensor = self._forward(*arguments, *wanted)[0]
        return value

    def _register(self) -> None:
        inputs = ", ".join(f"Tensor {name}" for name in self.inputs)
        others = "".join(f", {kind} {name}" for name, kind in self._types.items())
        wanted = ", ".join(f"bool {name}_gradient" for name in self.inputs)
        gradients = ", ".join("Tensor" for _ in self.inputs)
        forward, backward = f"kldiv::{self.name}", f"kldiv::{self.name}_backward"
        tags = (torch.Tag.pt2_compliant_tag,)
        torch.library.define(
            forward, f"({inputs}{others}, {wanted}) -> (Tensor, {gradients})", tags=tags
        )
        torch.library.define(
            backward, f"(Tensor grad_output, {inputs}{others}, {wanted}) -> ({gradients})", tags=tags
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
        torch.library.register_vmap(forward, self._vmap)
        torch.library.register_vmap(backward, self._vmap_gradients)
        namespace = torch.ops.kldiv
        self._forward = getattr(namespace, self.name).default
        self._backward = getattr(namespace, f"{self.name}_backward").default

    def _split(self, arguments: Sequence[Any]) -> tuple[Named, tuple[bool, ...]]:
        """The arguments by name, and which gradients are wanted."""
        count = len(self.arguments)
        return dict(zip(self.arguments, arguments[:count], strict=True)), tuple(arguments[count:])

    # On the CPU.

    def _compute(self, *arguments: Any) -> tuple[Tensor, ...]:
        named, wanted = self._split(arguments)
        call = self.prepare(**_detached(named))
        gradients, operands = self._memory(named, wanted)
        value = call.run(None, operands)
        return _value(value, call.value_dtype), *gradients

    def _compute_gradients(self, grad_output: Tensor, *arguments: Any) -> Any:
        named, wanted = self._split(arguments)
        call = self.prepare(**_detached(named))
        gradients, operands = self._memory(named, wanted)
        call.run(grad_output.detach(), operands)
        return gradients[0] if len(gradients) == 1 else tuple(gradients)

    def _memory(
        self, named: Named, wanted: Sequence[bool]
    ) -> tuple[list[Tensor], dict[str, Operand]]:
        """A new tensor for each gradient, empty where it is not wanted."""
        gradients, operands = [], {}
        for name, want in zip(self.inputs, wanted, strict=True):
            tensor = named[name]
            gradient = new_tensor(tensor.shape, tensor.dtype) if want else tensor.new_empty(0)
            gradients.append(gradient)
            if want:
                operands[name] = operand(gradient)
        return gradients, operands

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
        _keep(ctx, named)

    def _differentiate(self, ctx: Any, grad_output: Tensor | None, *_: Any) -> tuple[Any, ...]:
        nothing = (None,) * (len(self.arguments) + len(self.inputs))
        if grad_output is None:
            return nothing
        needed = tuple(ctx.needs_input_grad[: len(self.inputs)])
        computed = ctx.gradients is not None and all(
            has or not needs for has, needs in zip(ctx.wanted, needed, strict=True)
        )
        if computed and not torch.is_grad_enabled():
            gradients = self._scaled(ctx, grad_output)
        else:
            # For a second derivative, a second call, or one upstream gradient a row.
            gradients = self._backward(grad_output, *_kept(ctx).values(), *needed)
            if len(self.inputs) == 1:
                gradients = (gradients,)
        used = (
            gradient if needs else None for gradient, needs in zip(gradients, needed, strict=True)
        )
        return *used, *nothing[len(self.inputs) :]

    @staticmethod
    def _scaled(ctx: Any, grad_output: Tensor) -> list[Tensor]:
        """The gradients found with the value, times the upstream gradient."""
        gradients: list[Tensor] = ctx.gradients
        if type(grad_output) is not Tensor or type(gradients[0]) is not Tensor:
            # Traced, where nothing can be looked at or changed.
            return [gradient * grad_output.to(gradient.dtype) for gradient in gradients]
        # Handed on as they are, without a copy: they are nobody else's.
        ctx.gradients = None
        factor = grad_output.item()
        return gradients if factor == 1.0 else [gradient.mul_(factor) for gradient in gradients]

    def _keep_for_double_backward(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        grad_output, *arguments = inputs
        named, ctx.wanted = self._split(arguments)
        ctx.set_materialize_grads(False)
        _keep(ctx, {"grad_output": grad_output, **named})

    def _differentiate_gradients(self, ctx: Any, *grad_gradients: Any) -> tuple[Any, ...]:
        kept = _kept(ctx)
        grad_output = kept.pop("grad_output")
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

        _, pull_back = torch.func.vjp(gradients, *tensors)
        found = pull_back(tuple(grad for _, grad in chosen))
        return *found, *nothing[len(found) :]

    def _formula_gradients(
        self, named: Named, grad_output: Tensor, inputs: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        def value(*inputs: Tensor) -> Tensor:
            return self.formula(**{**named, **dict(zip(self.inputs, inputs, strict=True))})

        result, pull_back = torch.func.vjp(value, *inputs)
        gradients: tuple[Tensor, ...] = pull_back(grad_output.to(result.dtype))
        return gradients

    # torch.vmap.

    def _vmap(self, info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
        return self._map(info, (None, *in_dims), None, *arguments)

    def _vmap_gradients(self, info: Any, in_dims: Sequence[Any], *arguments: Any) -> Any:
        outputs, dims = self._map(info, in_dims, *arguments)
        return (outputs[0], dims[0]) if len(self.inputs) == 1 else (outputs, dims)

    def _map(
        self, info: Any, in_dims: Sequence[Any], grad_output: Tensor | None, *arguments: Any
    ) -> tuple[Any, Any]:
        everything = (grad_output, *arguments)
        dims = dict(enumerate(in_dims))
        mapped = [at for at, item in enumerate(everything) if dims[at] is not None]
        forward = grad_output is None

        def one(*tensors: Tensor) -> tuple[Tensor, ...]:
            filled = list(everything)
            for at, tensor in zip(mapped, tensors, strict=True):
                filled[at] = tensor
            named, wanted = self._split(filled[1:])
            inputs = [named[name] for name in self.inputs]
            value = self.formula(**named)
            upstream = torch.ones_like(value) if forward else filled[0]
            gradients = inputs
            if any(wanted):
                gradients = list(self._formula_gradients(named, upstream, inputs))
            empty = inputs[0].new_empty(0)
            kept = [
                grad if want else empty for grad, want in zip(gradients, wanted, strict=True)
            ]
            return (value, *kept) if forward else tuple(kept)

        results = torch.vmap(one, in_dims=tuple(dims[at] for at in mapped))(
            *(everything[at] for at in mapped)
        )
        return results, (0,) * len(results)


def _detached(named: Named) -> Named:
    """The arguments without their history, which NumPy would refuse."""
    return {
        name: item.detach() if isinstance(item, Tensor) else item for name, item in named.items()
    }


def _keep(ctx: Any, named: Named) -> None:
    tensors = {name: item for name, item in named.items() if isinstance(item, Tensor)}
    ctx.names = tuple(tensors)
    ctx.save_for_backward(*tensors.values())
    ctx.named = {name: None if name in tensors else item for name, item in named.items()}


def _kept(ctx: Any) -> Named:
    return {**ctx.named, **dict(zip(ctx.names, ctx.saved_tensors, strict=True))}


def _value(value: Any, dtype: torch.dtype) -> Tensor:
    """A result of the extension as a tensor."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value).to(dtype)
    return torch.tensor(float(value), dtype=dtype)


_NUMPY = {
    torch.float64: np.dtype(np.float64),
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(np.uint16),
}


def new_tensor(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor on the CPU, in memory of NumPy.

    NumPy asks for huge pages, torch does not: to touch 131 MB for the first time takes 12 ms
    instead of 48.
    """
    tensor = torch.from_numpy(np.empty(shape, _NUMPY[dtype]))
    return tensor.view(torch.bfloat16) if dtype == torch.bfloat16 else tensor


def operand(tensor: Tensor) -> Operand:
    """A contiguous tensor as the extension takes it."""
    array: Array = as_array("gradient", tensor)
    return (array if array.ndim else array.reshape(1)), str(tensor.dtype).removeprefix("torch.")
