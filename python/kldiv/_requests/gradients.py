"""From a builder of requests to a public function; value and gradients of a request."""

from __future__ import annotations

import functools
import inspect
import sysconfig
from collections.abc import Callable, Collection
from typing import Any, ParamSpec

from kldiv._arrays import Array
from kldiv._kldiv import PlainCalls, plain_calls
from kldiv._outputs import (
    Output,
    apart,
    check_distinct,
    fresh_output,
    given_output,
    without_padding,
)
from kldiv._probabilities import check_logits
from kldiv._reducer import Value
from kldiv._requests.request import Request
from kldiv._signatures import show

P = ParamSpec("P")

# A plain call reads memory that only the GIL keeps others from resizing meanwhile: a free-threaded
# Python has none, also where an old module has turned the GIL on.
_HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")


def differentiable(build: Callable[P, Request]) -> Callable[P, Value]:
    """Make a public function of one that builds a request.

    `value_and_grad` finds the request behind the function in its attribute ``request``, and in
    ``plain`` its calls that need none. What is shown of the function is its own signature, of a
    value.
    """

    @functools.wraps(build)
    def function(*args: P.args, **kwargs: P.kwargs) -> Value:
        plain: PlainCalls | None = function.plain  # type: ignore[attr-defined]
        if plain is not None and (found := plain.value(args, kwargs)) is not None:
            return found
        request = build(*args, **kwargs)
        check_logits(request.rows, request.spaces)
        return request.call(None, {})

    function.request = build  # type: ignore[attr-defined]
    defaults = build.__kwdefaults__ or {}
    plain = plain_calls(build.__name__, defaults) if _HAS_GIL else None
    function.plain = plain  # type: ignore[attr-defined]
    return show(function, inspect.signature(build).replace(return_annotation="Value"))


def differentiate(
    request: Request, wrt: Any, out: Any, grad_output: Any
) -> tuple[Value, Array | tuple[Array, ...]]:
    """Compute value and gradients of a request."""
    names = request.default_wrt if wrt is None else wrt
    single = isinstance(names, str)
    try:
        wanted: tuple[str, ...] = (names,) if single else tuple(names)
        distinct = set(wanted)
    except TypeError:
        # No names, and refused as such.
        wanted, distinct = (), set()
    if not wanted or len(distinct) != len(wanted) or not distinct <= request.rows.keys():
        known = ", ".join(repr(name) for name in request.rows)
        raise ValueError(f"wrt must be one or several of {known}, got {wrt!r}")
    outs: tuple[Any, ...] = (out,)
    if not single:
        outs = (None,) * len(wanted) if out is None else tuple(out)
    if len(outs) != len(wanted):
        raise ValueError(
            f"out has {len(outs)} arrays for the {len(wanted)} gradients of wrt={wrt!r}"
        )
    upstream = request.reducer.upstream(grad_output)
    outputs: dict[str, Output] = {}
    memory: dict[str, Array] = {}
    for name, given in zip(wanted, outs, strict=True):
        cut = request.rows[name]
        rows = cut.whole or cut
        dtype = request.reducer.dtype
        if given is None:
            outputs[name] = fresh_output(rows, dtype)
        else:
            in_place = request.gradients_at_once or len(wanted) == 1
            inputs = [one.whole or one for one in request.rows.values()]
            outputs[name] = given_output("out", given, rows, dtype, inputs, in_place)
            memory[name] = outputs[name].array
        without_padding(outputs[name], cut)
    if memory:
        check_distinct(memory)
        upstream = separate(request, upstream, memory.values())
    value = request.call(upstream, outputs)
    gradients = tuple(output.finish() for output in outputs.values())
    return value, gradients[0] if single else gradients


def separate(request: Request, upstream: Array | None, outputs: Collection[Array]) -> Array | None:
    """Give a request copies of what it reads beside the rows, where outputs share its memory.

    The upstream gradient is returned.
    """
    reducer = request.reducer
    reducer.where = apart(reducer.where, outputs)
    reducer.weights = apart(reducer.weights, outputs)
    for name in request.side_inputs:
        setattr(request, name, apart(getattr(request, name), outputs))
    return apart(upstream, outputs)
