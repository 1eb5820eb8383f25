"""The ways to call kldiv: NumPy, torch, its formulas under `torch.func`, JAX."""

from __future__ import annotations

import functools
import importlib
import math
import sys
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

import kldiv
from kldiv import _kldiv

from . import tensors
from .calls import Outcome, full_shape, with_numpy
from .case import Case
from .contents import stored

_UNKNOWN_TO_TORCH = ("uint16", "uint32", "uint64")


def run(case: Case) -> Outcome:
    """Make the call of a case."""
    _on_isa(case.isa)
    if kldiv.get_num_threads() != case.threads:
        kldiv.set_num_threads(case.threads)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Advice on what the numbers look like.
        warnings.filterwarnings("ignore", category=UserWarning)
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
            # Each row's teacher is the row of the student before, whose gradient is written first.
            student, teacher = case.rows["student_logits"], case.rows["teacher_logits"]
            dtype = case.dtype_of("student_logits")
            o["dtypes"] = dict.fromkeys(case.rows, dtype)
            teacher = np.concatenate([stored(teacher[:1], dtype), student[:-1]])
            case = replace(case, rows={"student_logits": student, "teacher_logits": teacher})
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
    if case.subject.name == "gather_log_probs" and case.front == "numpy":
        o.pop("wrt", None)
    if case.wrt is None:
        o.pop("grad_output", None)
    if case.grad_output is not None and case.grad_output.ndim and case.reduction != "none":
        o["grad_output"] = np.array(1.5)
    layouts = case.layouts or {}
    if case.front != "numpy":
        o.pop("out", None)
        o.pop("padding", None)
        if not case.subject.has_classes and case.front == "jax":
            # One compilation a shape.
            o.pop("batch", None)
        layouts = {k: v for k, v in layouts.items() if v in ("strided", "apart", "fortran")}
        if case.front != "jax" and case.id_dtype in _UNKNOWN_TO_TORCH:
            o.pop("id_dtype")
        for name in ("labels", "where", "weights", "class_weights"):
            # torch computes with no other integers.
            if case.front != "jax" and name in o and o[name].dtype.name in _UNKNOWN_TO_TORCH:
                o[name] = o[name].astype(np.int64)
        if case.front == "jax":
            layouts = {}
        if case.front == "jax" and case.subject.jax is not None:
            rows = {k: _within_xla(v, case.dtype_of(k)) for k, v in case.rows.items()}
            case = replace(case, rows=rows)
        if case.front in ("torch.func", "jax"):
            # torch's own operations lose them.
            o.pop("flush", None)
        if case.front == "torch.func" and case.options.get("scale_by_t_squared"):
            # Beyond the range of float32.
            o["temperature"] = min(max(case.options.get("temperature", 1.0), 1e-15), 1e15)
        if case.front == "torch.func" and case.options.get("softcap"):
            # Multiplied on the way.
            o["softcap"] = max(case.options["softcap"], 1e-15)
            o["temperature"] = min(case.options.get("temperature", 1.0), 1e15)
        if case.front == "torch.func" and case.options.get("z_loss"):
            o["temperature"] = max(case.options.get("temperature", 1.0), 1e-9)
        if case.front == "torch.func":
            if "alpha" in o:
                # Multiplies the rounding of every log-ratio.
                most = 1e9 if case.is_wide else 1e3
                o["alpha"] = max(-most, min(o["alpha"], most))
            coldest = min(np.atleast_1d(case.options.get("temperature", 1.0)))
            rows = {k: _within_torch(v, case.dtype_of(k), coldest) for k, v in case.rows.items()}
            case = replace(case, rows=rows)
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
                other = case.rows.get(way[1])
                if (
                    other is None
                    or case.dtype_of(way[1]) != case.dtype_of(argument)
                    or full_shape(case, way[1]) != full_shape(case, argument)
                ):
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


def _within_torch(rows: np.ndarray, dtype: str, temperature: float) -> np.ndarray:
    """Numbers that torch's own operations are made for: docs/torch.md names the others."""
    # Powers of two, which every dtype has that can come near them.
    smallest, largest = (2.0**-996, 2.0**996) if dtype == "float64" else (2.0**-90, 2.0**90)
    largest *= 2.0 ** min(0, math.floor(math.log2(temperature)))
    size = np.abs(rows)
    rows = np.where((size > largest) & np.isfinite(rows), np.sign(rows) * largest, rows)
    return np.where((size > 0) & (size < smallest), np.sign(rows) * smallest, rows)


def _within_xla(rows: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers that are no subnormal ones, which are 0 in XLA's own operations."""
    smallest = 2.0**-1022 if dtype == "float64" else 2.0**-126
    return np.where(np.abs(rows) < smallest, 0.0, rows)


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
    for name, module in (
        list(sys.modules.items()) if not _patched or len(sys.modules) != _patched[0] else ()
    ):
        if name.startswith("kldiv.") and getattr(module, "_kldiv", None) is _kldiv:
            module._kldiv = _proxy  # type: ignore[attr-defined]
    _patched[:] = [len(sys.modules)]


_patched: list[int] = []


_FRONTS = {
    "numpy": with_numpy,
    "torch": tensors.with_torch,
    "torch.func": tensors.with_torch_func,
    "jax": tensors.with_jax,
}
