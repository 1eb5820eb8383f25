"""Finds made small, and written down so that they can be pasted into a test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from . import contents
from .bounds import Find, check
from .calls import arranged, keywords_of, padded, positional_of
from .case import Case
from .frontends import fit, run
from .options import OPTIONS

_FIRST = (
    "front",
    "threads",
    "flush",
    "layouts",
    "out",
    "axis",
    "batch",
    "grad_output",
    "denominator",
    "weights",
    "where",
    "reduction",
    "isa",
)


def find_in(case: Case, *, arbiter: bool = False) -> Find | None:
    """What is wrong with a case, or None."""
    try:
        outcome = run(case)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic of the extension is no Exception
        return Find(
            f"raises {type(error).__name__}", f"{type(error).__name__}: {error}"[:300], "a value"
        )
    try:
        return check(case, outcome, arbiter=arbiter)
    except Exception as error:
        return Find("fault of the fuzzer", f"{type(error).__name__}: {error}", "a verdict")


def signature(case: Case, find: Find) -> tuple[str, ...]:
    """What finds of one fault have in common, as far as that can be said."""
    space = case.space if case.subject.name != "distillation_loss" else "logits"
    spaces = (space,) if isinstance(space, str) else tuple(dict.fromkeys(space))
    kind = find.kind
    if kind.startswith("raises"):
        # The words of the message, without the numbers and dtypes of the case.
        words = re.sub(r"[<>|]?\b[a-z]+\d+\b|[\[(].*?[\])]|-?\d[\w.]*", "…", str(find.got)).split()
        return ("raises", case.front, " ".join(words[:14]))
    ways = [way[0] for way in (case.out or {}).values() if isinstance(way, tuple)]
    way = "flush" if case.flush else ways[0] if ways else ""
    return (case.subject.name, case.front, kind, " ".join(spaces), way)


def shrunk(case: Case, find: Find) -> tuple[Case, Find]:
    """The simplest case found that fails in the same way, also by the oracle itself."""
    small, _ = _shrunk(case, find, 1500, arbiter=False)
    confirmed = find_in(small, arbiter=True)
    return (small, confirmed) if confirmed is not None else _shrunk(case, find, 300, arbiter=True)


def _shrunk(case: Case, find: Find, tries: int, *, arbiter: bool) -> tuple[Case, Find]:
    kind = find.kind.split(" gives")[0].split(" misses")[0]
    changed = True
    while changed and tries > 0:
        changed = False
        for simpler in _simpler(case):
            tries -= 1
            if tries <= 0:
                break
            try:
                simpler = fit(simpler)
                if _key(simpler) == _key(case):
                    continue
                now = find_in(simpler, arbiter=arbiter)
            except Exception:  # options that do not go together
                continue
            if now is not None and now.kind.startswith(kind) and _raises_alike(find, now):
                case, find, changed = simpler, now, True
                break
    return case, find


def _key(case: Case) -> tuple[Any, ...]:
    options = (
        (
            name,
            (value.dtype.name, value.shape, value.tobytes())
            if isinstance(value, np.ndarray)
            else repr(value),
        )
        for name, value in sorted(case.options.items())
    )
    return *options, *((name, rows.shape, rows.tobytes()) for name, rows in case.rows.items())


def _raises_alike(find: Find, now: Find) -> bool:
    if not find.kind.startswith("raises"):
        return True
    return str(find.got).split()[:4] == str(now.got).split()[:4]


def _simpler(case: Case) -> Iterator[Case]:
    count, classes = case.shape
    names = [*_FIRST, *(name for name in case.options if name not in _FIRST)]
    for name in names:
        if name in case.options and name not in ("dtypes", "labels", "space"):
            yield _copy(case, **{name: None})
    for row in range(count):
        if count > 1:
            yield _take(case, [i for i in range(count) if i != row])
    for only in case.rows if case.subject.own_classes else (None,):
        width = classes if only is None else case.rows[only].shape[1]
        for size in (width // 2, width // 4, 1):
            for at in range(0, width, size) if size and width > 1 else ():
                yield _drop(case, range(at, min(at + size, width)), only)
    for name in names:
        if name in case.options:
            for value in OPTIONS[name].simpler(case.options[name]):
                if not _same(value, case.options[name]):
                    yield _restored(_copy(case, **{name: value}))
    if count * classes <= 24:
        for name, rows in case.rows.items():
            for at in np.ndindex(rows.shape):
                for value in (0.0, *_rounder(rows[at])):
                    if (
                        value != rows[at]
                        and not np.isnan(rows[at])
                        and _weight(value) < _weight(rows[at])
                    ):
                        changed = rows.copy()
                        changed[at] = value
                        yield _restored(replace(case, rows={**case.rows, name: changed}))


def _weight(value: float) -> int:
    return len(repr(abs(float(value)))) if value else 0


def _rounder(value: float) -> list[float]:
    return [float(f"{value:.{digits}g}") for digits in (1, 2, 4, 8)] if np.isfinite(value) else []


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and first.tobytes() == second.tobytes()
        )
    return type(first) is type(second) and bool(first == second)


def _copy(case: Case, **options: Any) -> Case:
    return case.with_options(**options)


def _restored(case: Case) -> Case:
    rows = {name: contents.stored(rows, case.dtype_of(name)) for name, rows in case.rows.items()}
    return replace(case, rows=rows, options=dict(case.options))


def _take(case: Case, rows: list[int]) -> Case:
    options: dict[str, Any] = {}
    for name in ("labels", "where", "weights", "grad_output"):
        value = case.options.get(name)
        if value is not None and value.ndim:
            options[name] = value[rows]
    if case.support is not None:
        options["support"] = tuple(case.support[row] for row in rows)
    options["batch"] = None
    taken = {name: array[rows] for name, array in case.rows.items()}
    return replace(case, rows=taken, options={**case.with_options(**options).options})


def _drop(case: Case, classes: range, only: str | None = None) -> Case:
    """The case without some classes, of one array or of all."""
    width = case.shape[1] if only is None else case.rows[only].shape[1]
    left = [i for i in range(width) if i not in classes]
    if not left:
        left = [0]
    options: dict[str, Any] = {}
    if case.id_map is not None and only is not None:
        side = list(case.rows).index(only)
        gone = {old: new for new, old in enumerate(left)}
        pairs = [pair for pair in zip(*case.id_map, strict=True) if pair[side] in gone]
        moved = [
            tuple(gone[one] if at == side else one for at, one in enumerate(pair)) for pair in pairs
        ]
        options["id_map"] = tuple(zip(*moved, strict=True)) if moved else ((), ())
    if case.support is not None:
        gone = {old: new for new, old in enumerate(left)}
        options["support"] = tuple(
            tuple(gone[one] for one in ids if one in gone) or (0,) for ids in case.support
        )
    if case.top_k is not None:
        options["top_k"] = min(case.top_k, len(left))
    if case.class_weights is not None:
        options["class_weights"] = np.broadcast_to(case.class_weights, case.shape[1])[left]
    if case.labels is not None:
        gone = {old: new for new, old in enumerate(left)}
        labels = case.labels.copy()
        for row, label in enumerate(labels):
            if int(label) < case.shape[1]:
                labels[row] = gone.get(int(label), 0)
        options["labels"] = labels
    taken = {
        name: array[:, left] if only in (None, name) else array for name, array in case.rows.items()
    }
    return replace(case, rows=taken, options={**case.with_options(**options).options})


# --- Written down ---------------------------------------------------------------------------------


def snippet(case: Case, find: Find) -> str:
    """A few lines of Python that make the call of a case."""
    lines = []
    names = []
    for name in case.rows:
        array = arranged(case, padded(case, name))
        names.append(name)
        lines.append(_laid(name, _array(array.tolist(), case.dtype_of(name)), case.layout_of(name)))
    for name in ("labels", "where", "weights", "class_weights", "grad_output"):
        value = case.options.get(name)
        if value is not None:
            if name != "class_weights" and value.ndim:
                value = value.reshape(case.batch_shape)
            lines.append(
                _laid(name, _array(value.tolist(), value.dtype.name), case.layout_of(name))
            )
    keywords = [f"{k}={v!r}" for k, v in keywords_of(case).items()]
    keywords += [f"{k}={k}" for k in ("where", "weights", "class_weights") if k in case.options]
    arguments = ", ".join([*positional_of(case), *keywords])
    function = f"kldiv.{case.subject.name}"
    if case.front == "numpy" and case.wrt is not None:
        wrt = case.wrt[0] if len(case.wrt) == 1 else case.wrt
        more = ", grad_output=grad_output" if "grad_output" in case.options else ""
        more += f", out={case.out!r}" if case.out else ""
        lines.append(f"kldiv.value_and_grad({function}, {arguments}, wrt={wrt!r}{more})")
    elif case.front == "numpy":
        lines.append(f"{function}({arguments}{f', out={case.out!r}' if case.out else ''})")
    else:
        wrt = f", gradients for {case.wrt}" if case.wrt else ""
        inplace = f", inplace={case.inplace!r}" if case.inplace else ""
        function = function.replace(
            "kldiv.", "kldiv.jax." if case.front == "jax" else "kldiv.torch."
        )
        lines.append(f"{function}({arguments})  # {case.front}{wrt}{inplace}")
    settings = [
        f"{name}={case.options[name]!r}"
        for name in ("isa", "threads", "flush")
        if name in case.options
    ]
    lines.append(f"# {', '.join([*settings, str(find)])}")
    return "\n".join(lines)


def _array(numbers: Any, dtype: str) -> str:
    text = repr(numbers).replace("nan", "np.nan").replace("inf", "np.inf")
    if dtype == "bfloat16":
        return f"np.array({text}, ml_dtypes.bfloat16)"
    return f"np.array({text}, np.{dtype}{'_' if dtype == 'bool' else ''})"


def _laid(name: str, text: str, layout: str) -> str:
    return f"{name} = {text}" if layout == "plain" else f"{name} = lay({text}, {layout!r})"
