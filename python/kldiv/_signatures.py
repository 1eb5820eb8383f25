"""Signatures and docstrings that stand once: those of `kldiv`, which its companions adopt.

What adopts one is a function of any arguments to Python, so that nothing is bound to parameters a
second time, and a function with every parameter and default to `help`, to IPython and to
`inspect.signature`. Type checkers read the same from stubs, which `make stubs` writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

NUMPY_ONLY = {
    "pairwise": "a matrix of numbers to look at, which nothing is fitted by",
    "sample_k": "what is kept of a teacher is data, of NumPy arrays; tensors are taken as they are",
    "top_k": "what is kept of a teacher is data, of NumPy arrays; tensors are taken as they are",
    "value_and_grad": "torch and JAX differentiate by themselves",
}
"""Functions whose signature companions do not adopt, and why."""

OWN = {
    ("torch", "cross_entropy"): "a drop-in for torch.nn.functional.cross_entropy",
}
"""Functions whose signature is not adopted, by companion and name, and why."""

WITHOUT = {
    "out": "tensors with a gradient and JAX arrays are not written to",
    "classes": "a view z[..., :classes] is differentiable",
}
"""Parameters that are not adopted, and why."""


def show(function: F, signature: inspect.Signature) -> F:
    """Give a function the signature that is to be shown of it."""
    annotations = {name: one.annotation for name, one in signature.parameters.items()}
    function.__annotations__ = annotations | {"return": signature.return_annotation}
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def adopted(model: Callable[..., Any], types: Mapping[str, str], returns: str) -> inspect.Signature:
    """The signature of a function of `kldiv`, with other types in place of NumPy's."""
    parameters = [
        one.replace(annotation=types.get(one.annotation, one.annotation))
        for one in inspect.signature(model).parameters.values()
        if one.name not in WITHOUT
    ]
    return inspect.Signature(parameters, return_annotation=returns)


def defaults(signature: inspect.Signature) -> dict[str, Any]:
    """The defaults of those parameters that have one."""
    parameters = signature.parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def adopt(function: F, model: Callable[..., Any], module: str, signature: inspect.Signature) -> F:
    """Make a function one of a companion, with the name of its model."""
    function.__name__ = function.__qualname__ = model.__name__
    function.__module__ = module
    return show(function, signature)


def docstring(
    model: Callable[..., Any],
    module: str,
    arrays: str,
    array: str,
    printed: str,
    remark: str = "differentiable in both",
    source: str = "kldiv",
) -> str:
    """The docstring of a function of two arrays on others than NumPy's, made of that of `kldiv`.

    `arrays` is what its arrays are called, `array` the expression that makes one of a list,
    `printed` how the number of one is printed, with ``{}`` in its place, `remark` what is to
    be said of it, and `source` the module of NumPy's function as its example calls it.
    """
    name, given = model.__name__, inspect.getdoc(model) or ""
    summary, _, text = given.partition("\nExamples\n")[0].partition("\n\n")
    call = re.compile(
        rf">>> {re.escape(source)}\.{name}\((\[.*?\]), (\[.*?\]), (.*)\)\.round\(6\)\n"
        r" *np\.float64\((.*)\)"
    )
    found = call.search(given)
    if found is None:
        raise ValueError(f"the docstring of {source}.{name} has no example of two rows of numbers")
    p, q, options, number = found.groups()
    # Its references are left out, as are its examples.
    text = re.sub(r" \[\d+\]_", "", text)
    for left_out in WITHOUT:
        text = re.sub(rf"^{left_out} : .*\n(?: +.*\n)+", "", text, flags=re.M)
        text = re.sub(rf"(?<=, ){left_out}, ", "", text)
    expression = f"{module}.{name}(p, q, {options})".replace('"', "'")
    return f"""{summary}

`{source}.{name}` on {arrays}, {remark}.

{text.rstrip().replace("array_like", arrays)}

Examples
--------
>>> import {array.partition(".")[0]}
>>> import {module}
>>> p, q = {array}({p}), {array}({q})
>>> print(f"{{{printed.format(expression)}:.6f}}")
{float(number):.6f}
"""


def bound(
    name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of a call with their defaults: those of rows, and the options.

    Raises
    ------
    TypeError
        As Python does, with the name of the function.
    """
    try:
        given = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}() {error}") from None
    given.apply_defaults()
    rows: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in given.arguments.items():
        keyword = signature.parameters[key].kind is inspect.Parameter.KEYWORD_ONLY
        (options if keyword else rows)[key] = value
    return rows, options
