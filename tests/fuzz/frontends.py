"""The ways to call kldiv: NumPy, torch, its formulas under `torch.func`, JAX."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import kldiv
from kldiv import _kldiv

from .case import Case
from .contents import DTYPES, stored
from .layouts import inside, lay, memory_of, shifted

Array = np.ndarray[Any, Any]

_AS_KEYWORD = {"mix": "alpha"}
_SIDES = ("labels", "where", "weights", "class_weights", "grad_output")
_UNKNOWN_TO_TORCH = ("uint16", "uint32", "uint64")


@dataclass
class Outcome:
    """What a call gave."""

    value: Array | None = None
    gradients: dict[str, Array] = field(default_factory=dict)
    refused: bool = False
    """Whether the call was refused as it may be, with everything left as it was."""
    complaint: str = ""
    """What is wrong beside the numbers."""


def is_refusal(error: ValueError) -> bool:
    """Whether an error says that two arrays overlap."""
    return any(word in str(error) for word in ("overlap", "memory", "share"))


def run(case: Case) -> Outcome:
    """Make the call of a case."""
    _on_isa(case.isa)
    if kldiv.get_num_threads() != case.threads:
        kldiv.set_num_threads(case.threads)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if not case.flush:
            return _FRONTS[case.front](case)
        # What other libraries do to the calling thread must not matter.
        torch = importlib.import_module("torch")
        torch.set_flush_denormal(True)
        try:
            return _FRONTS[case.front](case)
        finally:
            torch.set_flush_denormal(False)


def fit(case: Case) -> Case:
    """The case as its front end and its arrays allow."""
    o = case.options
    if case.subject.name == "distillation_loss":
        if case.front not in ("torch", "torch.func"):
            o["front"] = "torch"
        if case.mix == 1.0 and not case.label_smoothing and case.ignore_index == -100:
            o.pop("labels", None)
        if case.reduction == "none":
            o["reduction"] = "sum"
        if case.inplace:
            o.pop("layouts", None)
            o["front"], o["wrt"] = "torch", ("student_logits",)
        if case.inplace == "shifted":
            # Each row's teacher is the next row of the student.
            student, teacher = case.rows["student_logits"], case.rows["teacher_logits"]
            dtype = case.dtype_of("student_logits")
            o["dtypes"] = dict.fromkeys(case.rows, dtype)
            last = stored(teacher[-1:], dtype)
            case = replace(case, rows={"student_logits": student, "teacher_logits": np.concatenate([student[1:], last])})
    else:
        o.pop("inplace", None)
    if not case.batch_shape:
        o.pop("axis", None)
    if "axis" in o and not -len(case.batch_shape) - 1 <= o["axis"] <= len(case.batch_shape):
        o.pop("axis")
    if case.reduction == "batchmean" and not case.batch_shape:
        o.pop("reduction")
    if case.reduction != "mean":
        o.pop("denominator", None)
    if case.wrt is None:
        o.pop("grad_output", None)
    if case.grad_output is not None and case.grad_output.ndim and case.reduction != "none":
        o["grad_output"] = np.array(1.5)
    layouts = case.layouts or {}
    if case.front != "numpy":
        o.pop("out", None)
        if case.subject.name == "log_softmax":
            o.pop("where", None)
        layouts = {k: v for k, v in layouts.items() if v in ("strided", "apart", "fortran")}
        for name in ("labels", "where", "weights", "class_weights"):
            # torch computes with no other integers.
            if case.front != "jax" and name in o and o[name].dtype.name in _UNKNOWN_TO_TORCH:
                o[name] = o[name].astype(np.int64)
        if case.front == "jax":
            layouts = {}
        if case.subject.name == "distillation_loss" and case.ignore_index == "none":
            o.pop("ignore_index")
        if case.front in ("torch.func", "jax"):
            # torch's own operations lose them.
            o.pop("flush", None)
        if case.front == "torch.func" or case.subject.name == "distillation_loss":
            o.pop("threads", None)
    outs = case.out
    if outs:
        names = case.wrt or ("out",)
        outs = {name: way for name, way in outs.items() if name in names}
        for name, way in outs.items():
            argument = name if name in case.rows else next(iter(case.rows))
            if way == "in place" and layouts.get(argument) in ("swapped", "read-only"):
                layouts = {k: v for k, v in layouts.items() if k != argument}
            if isinstance(way, tuple) and way[0] == "other":
                if way[1] not in case.rows or case.dtype_of(way[1]) != case.dtype_of(argument):
                    outs[name] = "given"
                else:
                    layouts = {k: v for k, v in layouts.items() if k != way[1]}
            if isinstance(way, tuple) and way[0] == "over" and way[1] not in o:
                outs[name] = "given"
            if isinstance(way, tuple) and way[0] == "shifted":
                layouts = {k: v for k, v in layouts.items() if k != argument}
        if layouts.get("out") in ("swapped", "read-only"):
            layouts = {k: v for k, v in layouts.items() if k != "out"}
        o.pop("out", None)
        if outs:
            o["out"] = outs
    o.pop("layouts", None)
    layouts = {k: v for k, v in layouts.items() if v != "plain"}
    if layouts:
        o["layouts"] = layouts
    return case


# --- Arrays ----------------------------------------------------------------------------------------


def full_shape(case: Case) -> tuple[int, ...]:
    """The shape of rows as passed."""
    shape = [*case.batch_shape]
    axis = case.axis
    at = axis if axis >= 0 else len(shape) + 1 + axis
    shape.insert(at, case.shape[1])
    return tuple(shape)


def arranged(case: Case, rows: Array) -> Array:
    """``[rows, classes]`` in the shape passed."""
    return np.ascontiguousarray(np.moveaxis(rows.reshape((*case.batch_shape, -1)), -1, case.axis))


def flat(case: Case, array: Array) -> Array:
    """Rows as passed, as ``[rows, classes]``."""
    return np.moveaxis(array, case.axis, -1).reshape(case.shape)


def arrays_of(case: Case) -> dict[str, Array]:
    """Every array of a case as NumPy passes it, but for overlaps."""
    found = {}
    with np.errstate(all="ignore"):
        for name, rows in case.rows.items():
            stored = rows.astype(DTYPES[case.dtype_of(name)])
            found[name] = lay(arranged(case, stored), case.layout_of(name))
    for name in _SIDES:
        value = case.options.get(name)
        if value is not None:
            if name != "class_weights" and value.ndim:
                value = value.reshape(case.batch_shape)
            found[name] = lay(value, case.layout_of(name))
    return found


def keywords_of(case: Case) -> dict[str, Any]:
    """Options that are passed by their names, arrays left out."""
    from .options import OPTIONS

    found = {}
    for name in case.subject.options:
        option = OPTIONS[name]
        value = case.options.get(name)
        if option.keyword and value is not None and not isinstance(value, np.ndarray):
            found[_AS_KEYWORD.get(name, name)] = value
    if case.subject.name == "renyi":
        found["alpha"] = case.alpha
    if case.divergence == "renyi" and case.subject.name == "distillation_loss":
        found["parameter"] = case.parameter or 0.5
    if case.subject.name == "distillation_loss" and "denominator" in found:
        found["num_items_in_batch"] = found.pop("denominator")
    if case.ignore_index == "none":
        found["ignore_index"] = None
    return found


def positional_of(case: Case) -> list[str]:
    """The names of the arguments that come first."""
    return [*case.rows, *(["labels"] if case.labels is not None else [])]


# --- NumPy -----------------------------------------------------------------------------------------


def _numpy(case: Case) -> Outcome:
    arrays = arrays_of(case)
    outs = {name: _output(case, arrays, name) for name in (case.out or {})}
    before = [(array, array.copy(), memory_of(array)) for array in (*arrays.values(), *outs.values())]
    function = getattr(kldiv, case.subject.name)
    positional = [arrays[name] for name in positional_of(case)]
    keywords = keywords_of(case)
    keywords.update({name: arrays[name] for name in ("where", "weights", "class_weights") if name in arrays})
    outcome = Outcome()
    try:
        if case.wrt is not None:
            given = tuple(outs.get(name) for name in case.wrt)
            single = len(case.wrt) == 1
            more: dict[str, Any] = {}
            if any(array is not None for array in given):
                more["out"] = given[0] if single else tuple(given)
            if "grad_output" in arrays:
                more["grad_output"] = arrays["grad_output"]
            wrt = case.wrt[0] if single else case.wrt
            value, gradients = kldiv.value_and_grad(function, *positional, wrt=wrt, **more, **keywords)
            outcome.gradients = dict(zip(case.wrt, (gradients,) if single else gradients, strict=True))
        else:
            if "out" in outs:
                keywords["out"] = outs["out"]
            value = function(*positional, **keywords)
    except ValueError as error:
        overlaps = any(isinstance(way, tuple) for way in (case.out or {}).values())
        if not overlaps or not is_refusal(error):
            raise
        outcome.refused = True
        if any(memory_of(array).tobytes() != memory.tobytes() for array, _, memory in before):
            outcome.complaint = "refused, but something was written"
        return outcome
    outcome.value = np.array(value)
    if outs:
        for name, gradient in outcome.gradients.items():
            if name in outs and gradient is not outs[name]:
                outcome.complaint = "out is not what was returned"
        outcome.gradients = {name: np.array(g) for name, g in outcome.gradients.items()}
    for array, copy, _ in before:
        touched = any(np.may_share_memory(array, out) for out in outs.values())
        if not touched and array.tobytes() != copy.tobytes():
            outcome.complaint = "an input was changed"
    return outcome


def _output(case: Case, arrays: dict[str, Array], name: str) -> Array:
    """Where the gradient of `name` is to be written; may move an input into the same memory."""
    way = case.out[name]
    argument = name if name in arrays else next(iter(case.rows))
    given = arrays[argument]
    result = np.dtype(np.float64 if case.is_wide else np.float32)
    match way:
        case "in place":
            return given
        case "given as argument":
            return lay(np.full(given.shape, 7, given.dtype.newbyteorder("=")), case.layout_of("out"))
        case ("other", other):
            return arrays[other]
        case ("shifted", by):
            arrays[argument], out = shifted(given, by)
            return out
        case ("over", side, offset):
            out = np.full(given.shape, 7, result)
            moved = inside(arrays[side], out, offset)
            if moved is not None:
                arrays[side] = moved
            return out
    return lay(np.full(given.shape, 7, result), case.layout_of("out"))


class _OnIsa:
    """The extension, with the instruction set of the case for every function that takes one."""

    def __init__(self) -> None:
        self.isa: str | None = None
        self.functions = {
            name
            for name in dir(_kldiv)
            if "isa=" in (getattr(getattr(_kldiv, name), "__text_signature__", None) or "")
        }

    def __getattr__(self, name: str) -> Any:
        function = getattr(_kldiv, name)
        return functools.partial(function, isa=self.isa) if name in self.functions else function


_proxy = _OnIsa()


def _on_isa(isa: str) -> None:
    _proxy.isa = isa
    for name, module in list(sys.modules.items()) if not _patched or len(sys.modules) != _patched[0] else ():
        if name.startswith("kldiv.") and getattr(module, "_kldiv", None) is _kldiv:
            module._kldiv = _proxy  # type: ignore[attr-defined]
    _patched[:] = [len(sys.modules)]


_patched: list[int] = []


# --- torch -----------------------------------------------------------------------------------------


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


def _torch(case: Case) -> Outcome:
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
    keywords.update({name: tensors[name] for name in ("where", "weights", "class_weights") if name in tensors})
    inputs = [tensors[name] for name in positional_of(case)]
    if case.inplace:
        # A leaf would be overwritten.
        inputs[0] = inputs[0] * 1
        if case.inplace == "shifted":
            memory = torch.cat([inputs[0], inputs[1][-1:]])
            inputs[:2] = memory[:-1], memory[1:]
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


def _torch_cross_entropy(kt: Any, logits: Any, target: Any, *, where: Any = None, weights: Any = None, reduction: str = "none", denominator: Any = None, ignore_index: Any = -100, axis: int = -1, **loss: Any) -> Any:
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
        return rows.run(kt.ops.soft_cross_entropy, (logits, target.movedim(axis, -1), *options))
    return rows.run(kt.ops.cross_entropy, (logits, target, ignore_index, *options))


def _upstream(case: Case, tensors: dict[str, Any], value: Any) -> Any:
    import torch

    given = tensors.get("grad_output")
    if given is None:
        return torch.ones_like(value)
    return given.to(value.dtype).expand(value.shape)


def _torch_func(case: Case) -> Outcome:
    import torch

    import kldiv.torch as kt

    torch.set_num_threads(1)
    tensors = {name: _tensor(array) for name, array in arrays_of(case).items()}
    function = _torch_function(case, kt)
    keywords = keywords_of(case)
    keywords.update({name: tensors[name] for name in ("where", "weights", "class_weights") if name in tensors})
    names = case.wrt or tuple(case.rows)[:1]

    def of_inputs(*inputs: Any) -> Any:
        known = {**tensors, **dict(zip(names, inputs, strict=True))}
        return function(*(known[name] for name in positional_of(case)), **keywords)

    value, pull_back = torch.func.vjp(of_inputs, *(tensors[name] for name in names))
    outcome = Outcome(_from_tensor(value))
    if case.wrt:
        gradients = pull_back(_upstream(case, tensors, value))
        outcome.gradients = {name: _from_tensor(g) for name, g in zip(names, gradients, strict=True)}
    return outcome


# --- JAX -------------------------------------------------------------------------------------------


def _jax(case: Case) -> Outcome:
    import jax

    import kldiv.jax as kj

    jax.config.update("jax_enable_x64", True)
    arrays = {name: jax.numpy.asarray(array) for name, array in arrays_of(case).items()}
    function = getattr(kj, case.subject.name)
    keywords = keywords_of(case)
    keywords.update({name: arrays[name] for name in ("where", "weights", "class_weights") if name in arrays})
    names = case.wrt or ()

    def of_inputs(*inputs: Any) -> Any:
        known = {**arrays, **dict(zip(names, inputs, strict=True))}
        return function(*(known[name] for name in positional_of(case)), **keywords)

    if not names:
        return Outcome(np.asarray(of_inputs()))
    value, pull_back = jax.vjp(of_inputs, *(arrays[name] for name in names))
    upstream = arrays.get("grad_output", jax.numpy.ones(()))
    gradients = pull_back(jax.numpy.broadcast_to(upstream.astype(value.dtype), value.shape))
    return Outcome(
        np.asarray(value), {name: np.asarray(g) for name, g in zip(names, gradients, strict=True)}
    )


_FRONTS = {"numpy": _numpy, "torch": _torch, "torch.func": _torch_func, "jax": _jax}
