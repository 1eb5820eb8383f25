"""The options of all functions: how they are drawn, and what is simpler. One line each.

A new option is a line here, and its name in the options of the subjects that take it in
`subjects`; where values of rows depend on it, the oracle takes it by its name.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

import kldiv
from kldiv._kldiv import DIVERGENCES

from .case import DEFAULTS, Case, Option
from .contents import DTYPES, log_uniform
from .layouts import LAYOUTS

COMPILED = 0.002
"""The part of the cases that JAX compiles, which takes it a tenth of a second."""
AT_ONCE = ((1, 2), (1, 3), (2, 3), (2, 5))
"""Shapes of what JAX takes at once: a third of a second to compile the steps for one more."""
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
ISAS = tuple(kldiv.build_info()["isas"])


def near(random: Random, limit: float, side: float) -> float:
    """A number 1e-1 … 1e-15 from a limit."""
    return limit + side * float(10.0 ** -random.uniform(1, 15))


def _temperature(random: Random, _: Case) -> float | None:
    r = random.random()
    if r < 0.45:
        return None
    if r < 0.75:
        return random.choice((0.5, 2.0, 2.5, 4.0, random.uniform(0.2, 5)))
    if r < 0.92:
        return log_uniform(random, 1e-3, 1e3)
    return random.choice((1e-30, 1e30, *(log_uniform(random, 1e-30, 1e30) for _ in range(4))))


def _temperatures(random: Random, case: Case) -> Any:
    if not case.subject.pair:
        return _temperature(random, case) if case.space == "logits" else None
    spaces = case.space if isinstance(case.space, tuple) else (case.space,) * 2
    if "logits" not in spaces:
        return None
    one = _temperature(random, case)
    if random.random() < 0.7:
        return one
    other = one if random.random() < 0.1 else _temperature(random, case)
    pair = tuple(t or 1.0 for t in (one, other))
    return tuple(t if s == "logits" else 1.0 for t, s in zip(pair, spaces, strict=True))


def _alpha(random: Random, case: Case) -> float | None:
    """An order, or a number from 0 to 1 where the divergence takes no others."""
    name = case.options.get("divergence", case.subject.name)
    described = DIVERGENCES.get(name)
    if described is not None and described.parameter and described.parameter.high == 1.0:
        return _share(random, case)
    order = _order(random)
    if name == "alpha_divergence":
        # Its orders are any number.
        return 1.0 - order if random.random() < 0.4 else order
    return order


def _order(random: Random) -> float:
    return random.choice(
        (
            0.5,
            2.0,
            1.0,
            3.0,
            near(random, 1.0, 1.0),
            near(random, 1.0, -1.0),
            near(random, 0.0, 1.0),
            log_uniform(random, 0.1, 10.0),
            log_uniform(random, 1.0, 1e3),
            log_uniform(random, 1e-15, 1e15),
        )
    )


def _share(random: Random, _: Case) -> float | None:
    """A number from 0 to 1."""
    r = random.random()
    if r < 0.3:
        return None
    return random.choice(
        (
            0.0,
            1.0,
            random.random(),
            random.random(),
            near(random, 0.0, 1.0),
            near(random, 1.0, -1.0),
        )
    )


def _rate(random: Random, _: Case) -> float | None:
    """η of a weight e^(−η·Σ min(p, q))."""
    if random.random() < 0.3:
        return None
    return random.choice(
        (0.0, 1.0, log_uniform(random, 0.1, 30.0), log_uniform(random, 1e-15, 1e15))
    )


def _labels(random: Random, case: Case) -> Any:
    count, classes = case.shape
    numbers = [random.randrange(classes) for _ in range(count)]
    allowed = [name for name in INTEGERS if np.iinfo(name).max >= classes - 1]
    return np.array(numbers, random.choice((*allowed, "int64", "int64")))


def _ignore_index(random: Random, case: Case) -> Any:
    """An ignored class, of labels or beyond their dtype; some rows get it as their label."""
    labels = case.options["labels"]
    info = np.iinfo(labels.dtype)
    r = random.random()
    if r < 0.4:
        chosen = -100
    elif r < 0.5:
        return "none"
    elif r < 0.7:
        chosen = int(random.choice(list(labels)))
    elif r < 0.8:
        # What a label of a narrow dtype becomes where it is compared in that dtype.
        chosen = int(random.choice(list(labels))) + random.choice((1, -1)) * 2**info.bits
    else:
        chosen = random.choice((-1, 255, 256, -(2**31), 2**63 - 1, 300, int(info.max), -100, 44))
    if not -(2**63) <= chosen < 2**63:
        return None
    if info.min <= chosen <= info.max:
        labels = labels.copy()
        for row in range(len(labels)):
            if random.random() < 0.2:
                labels[row] = chosen
        case.options["labels"] = labels
    return None if chosen == -100 else chosen


def _where(random: Random, case: Case) -> Any:
    if random.random() < 0.7:
        return None
    count = case.shape[0]
    if random.random() < 0.1:
        return np.array(random.random() < 0.5)
    share = random.choice((0.2, 0.5, 0.9, 1.0))
    mask = np.array([random.random() < share for _ in range(count)])
    if "labels" in case.options and random.random() < 0.5:
        # Labels of rows that are left out may be anything.
        labels = case.options["labels"].copy()
        labels[~mask] = random.choice((int(np.iinfo(labels.dtype).max), 0))
        case.options["labels"] = labels
    return mask if random.random() < 0.6 else mask.astype(random.choice(INTEGERS))


def _weights(random: Random, case: Case) -> Any:
    if random.random() < 0.7:
        return None
    if random.random() < 0.1:
        return np.array(random.choice((0.5, 3.0)))
    return _numbers(random, case.shape[0])


def _numbers(random: Random, count: int) -> Any:
    """Non-negative numbers of some dtype."""
    dtype = random.choice(("float64", "float64", "float32", "float16", "bfloat16", "int64", "bool"))
    if dtype in ("int64", "bool"):
        dtype = random.choice((dtype, *INTEGERS))
        return np.array([random.choice((0, 1, 1)) for _ in range(count)], dtype)
    low, high = (0.1, 2.0) if dtype == "float16" or random.random() < 0.8 else (1e-9, 1e9)
    numbers = [log_uniform(random, low, high) * (random.random() < 0.9) for _ in range(count)]
    return np.array(numbers).astype(DTYPES[dtype])


def _class_weights(random: Random, case: Case) -> Any:
    if random.random() < 0.7:
        return None
    return _numbers(random, case.shape[1])


def _reduction(random: Random, case: Case) -> str | None:
    reduction = random.choice(("none", "none", "sum", "mean", "mean", "batchmean"))
    if reduction == "none" or (reduction == "batchmean" and not case.batch_shape):
        return None
    return reduction


def _denominator(random: Random, case: Case) -> Any:
    if case.reduction != "mean" or random.random() < 0.6:
        return None
    return random.choice(
        (random.randint(1, 9), random.uniform(0.1, 9), log_uniform(random, 1e-9, 1e9))
    )


def _batch(random: Random, case: Case) -> tuple[int, ...] | None:
    if random.random() < 0.7:
        return None
    count = case.shape[0]
    return random.choice(
        (() if count == 1 else (1, count), (count, 1), (2, 2) if count == 4 else (count,))
    )


def _axis(random: Random, case: Case) -> int | None:
    if random.random() < 0.7:
        return None
    dimensions = len(case.batch_shape) + 1
    return random.randrange(-dimensions, dimensions)


def _layouts(random: Random, case: Case) -> dict[str, str] | None:
    names = (*case.rows, "labels", "where", "weights", "class_weights", "grad_output", "out")
    found = {}
    for name in names:
        if random.random() < 0.15:
            found[name] = random.choice(LAYOUTS)
    return found or None


def _wrt(random: Random, case: Case) -> tuple[str, ...] | None:
    if random.random() < 0.25 or not case.subject.differentiable:
        return None
    if case.subject.name == "gather_log_probs" and case.front == "numpy":
        return None
    names = case.subject.differentiable
    chosen = random.choice([(name,) for name in names] + [names, names[::-1]])
    return tuple(dict.fromkeys(chosen))


def _grad_output(random: Random, case: Case) -> Any:
    if case.wrt is None or random.random() < 0.6:
        return None
    if case.reduction != "none" or random.random() < 0.2:
        return np.array(
            random.choice((2.0, -0.5, random.gauss(0, 1), log_uniform(random, 1e-9, 1e9)))
        )
    numbers = np.array([random.gauss(0, 1) for _ in range(case.shape[0])])
    return numbers.astype(DTYPES[random.choice(("float64", "float64", "float32", "bfloat16"))])


def _out(random: Random, case: Case) -> dict[str, Any] | None:
    """Where each gradient goes: a dict of ways, see `frontends.outputs_of`."""
    if random.random() < 0.5:
        return None
    names = case.wrt or (() if case.subject.differentiable else ("out",))
    if case.wrt is None and case.subject.differentiable:
        return None
    if not names or case.subject.name in ("compare", "gather_log_probs"):
        return None
    sides = [
        k
        for k in ("labels", "where", "weights", "class_weights", "grad_output")
        if k in case.options
    ]
    found = {}
    for name in names:
        ways: list[Any] = ["given", "given as argument", "in place", "in place"]
        if len(names) == 1:
            ways += [
                ("shifted", random.choice((1, 2, case.shape[1]))),
                ("other", random.choice(list(case.rows))),
            ]
            ways += [("over", side, random.choice((0, 0, 8, 3))) for side in sides]
        found[name] = random.choice(ways)
    return found


def _front(random: Random, case: Case) -> str | None:
    r = random.random()
    if case.subject.name == "distillation_loss":
        return "torch" if r < 0.8 else "torch.func"
    if not case.subject.has_classes:
        # Formulas, which every front end runs by itself.
        if r < 0.6:
            return None
        return (
            "torch"
            if r < 0.8
            else "jax"
            if r > 1 - case.subject.jax and case.shape[0] in (1, 4)
            else "torch.func"
        )
    if r < 0.88 or case.shape[0] * case.shape[1] > 1000:
        return None
    if case.subject.name == "compare":
        return None
    if case.subject.jax is None:
        if r >= 1 - COMPILED:
            return "jax"
    elif all(rows.shape in AT_ONCE for rows in case.rows.values()):
        return "jax" if r > 1 - case.subject.jax else "torch"
    return "torch" if r < 0.96 else "torch.func"


def _flag(random: Random, _: Case) -> bool | None:
    return random.random() < 0.3 or None


def _clamp(random: Random, _: Case) -> float | None:
    """A bound, now and then one that numbers are at."""
    if random.random() < 0.5:
        return None
    return random.choice(
        (1.0, 10.0, *(log_uniform(random, 0.01, 100.0) for _ in range(3)), 2.0**-20, 1e9 / 3)
    )


def _padding(random: Random, case: Case) -> dict[str, int] | None:
    """Numbers after the classes of some arrays."""
    if random.random() < 0.8:
        return None
    return {name: random.choice((1, 3, 16)) for name in case.rows if random.random() < 0.7} or None


def _id_dtype(random: Random, case: Case) -> str | None:
    if case.id_map is None or random.random() < 0.5:
        return None
    widest = max(rows.shape[1] for rows in case.rows.values())
    return random.choice([name for name in INTEGERS if np.iinfo(name).max >= widest])


def _support_as(random: Random, case: Case) -> tuple[str, str] | None:
    """What holds the classes named, and of which dtype."""
    if case.support is None:
        return None
    dtypes = [name for name in INTEGERS if np.iinfo(name).max >= case.shape[1]]
    return random.choice(("array", "array", "list", "TopK")), random.choice(dtypes)


def _fewer_ids(value: Any) -> list[Any]:
    count = len(value[0])
    return [
        tuple(side[:at] + side[at + 1 :] for side in value) for at in range(min(count, 8)) if count
    ]


def _rounder(value: float) -> list[float]:
    return [
        float(f"{value:.{digits}g}")
        for digits in (1, 2, 4)
        if float(f"{value:.{digits}g}") != value
    ]


def _without_one(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in value.items() if k != name} for name in value]


def _simpler_dtypes(value: dict[str, str]) -> list[dict[str, str]]:
    return [
        dict.fromkeys(value, "float64"),
        dict.fromkeys(value, "float32"),
        *({**value, name: dtype} for name in value for dtype in ("float64", "float32")),
    ]


def _simpler_sides(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [value[0], value[1], *((v, 1.0) for v in _rounder(value[0]) if v)]
    return _rounder(value)


def _simpler_array(value: Any) -> list[Any]:
    numbers = value.astype(np.float64)
    found = [np.ones_like(numbers), numbers, numbers.round(1), numbers.ravel()[:1].reshape(())]
    return [array for array in found if array.size]


_LIST = (
    # name, draw, default, simpler, keyword, of_numbers
    Option("dtypes", lambda *_: None, None, _simpler_dtypes, False, True),
    Option(
        "space", lambda *_: None, "logits", lambda v: v if isinstance(v, tuple) else (), True, True
    ),
    Option("temperature", _temperatures, 1.0, _simpler_sides, True, True),
    Option(
        "beta",
        lambda r, c: None if c.subject.own_classes else _share(r, c),
        0.5,
        _rounder,
        True,
        True,
    ),
    Option("alpha", _alpha, 0.5, _rounder, True, True),
    Option("mu", _share, 0.5, _rounder, True, True),
    Option("eta", _rate, 3.0, _rounder, True, True),
    Option("divergence", lambda *_: None, "kl", lambda _: ("kl",), True, True),
    Option("order", _alpha, 0.5, _rounder, True, True),
    Option(
        "scale_by_t_squared",
        lambda r, c: _flag(r, c),
        False,
        keyword=True,
        of_numbers=True,
    ),
    Option("mix", _share, 0.5, _rounder, True, True),
    Option(
        "label_smoothing",
        lambda r, c: _share(r, c) if r.random() < 0.4 else None,
        0.0,
        _rounder,
        True,
        True,
    ),
    Option("z_loss", lambda r, c: _z_loss(r, c), 0.0, _rounder, True, True),
    Option("softcap", lambda r, c: _softcap(r, c), None, _rounder, True, True),
    Option("class_weights", _class_weights, None, _simpler_array, True, True),
    Option("labels", _labels, None, lambda v: (np.zeros_like(v), v.astype(np.int64)), False, True),
    Option("ignore_index", _ignore_index, -100, lambda _: (), True),
    Option("kept", lambda *_: None, 0, lambda v: (1,) if v > 1 else (), False, True),
    Option("rule", lambda *_: None, None, lambda _: (), True, True),
    Option("id_map", lambda *_: None, None, _fewer_ids, True, True),
    Option("matched_weight", lambda *_: None, None, _rounder, True, True),
    Option("unmatched_weight", lambda *_: None, None, _rounder, True, True),
    Option("id_dtype", _id_dtype, "int64", lambda _: (), False),
    Option("support", lambda *_: None, None, lambda _: (), False, True),
    Option("support_as", _support_as, ("array", "int64"), lambda _: (), False),
    Option("top_k", lambda *_: None, None, lambda v: (1,) if v > 1 else (), True, True),
    Option("top_p", lambda *_: None, None, _rounder, True, True),
    Option("min_p", lambda *_: None, None, _rounder, True, True),
    Option("return_mass", lambda r, _: r.random() < 0.6 or None, False),
    Option("k", lambda *_: None, None, lambda v: (1, 2) if v > 2 else (), True, True),
    Option("seed", lambda *_: None, None, lambda v: (0, 7) if v > 7 else (), True, True),
    Option("first_row", lambda *_: None, 0, lambda v: (1,) if v > 1 else (), True, True),
    Option("power", lambda *_: None, 1.0, _rounder, True, True),
    Option("straight_through", _flag, False, keyword=True, of_numbers=True),
    Option("clamp_log_ratio", _clamp, None, _rounder, True, True),
    Option("clamp", _clamp, None, _rounder, True, True),
    Option("padding", _padding, None, _without_one, False),
    Option("batch", _batch, None, lambda _: (), False),
    Option("axis", _axis, -1, lambda _: ()),
    Option("where", _where, None, lambda v: (np.ones(v.shape, bool), v.astype(bool))),
    Option("weights", _weights, None, _simpler_array),
    Option("reduction", _reduction, "none", lambda _: ("sum",)),
    Option("denominator", _denominator, None, lambda _: (1.0, 2.0)),
    Option("wrt", _wrt, None, lambda v: [(name,) for name in v if len(v) > 1], False),
    Option("grad_output", _grad_output, None, _simpler_array, False),
    Option("out", _out, None, lambda v: (*_without_one(v), dict.fromkeys(v, "given")), False),
    Option("layouts", _layouts, None, _without_one, False),
    Option(
        "threads", lambda r, _: r.choice((2, 3)) if r.random() < 0.1 else None, 1, keyword=False
    ),
    Option("isa", lambda r, _: r.choice(ISAS), ISAS[0], keyword=False),
    Option("front", _front, "numpy", keyword=False),
    Option("flush", lambda r, _: r.random() < 0.03 or None, False, keyword=False),
    Option(
        "inplace",
        lambda r, _: r.choice((None, None, True, "shifted")),
        False,
        lambda v: (True,),
        False,
    ),
)


def _z_loss(random: Random, case: Case) -> float | None:
    if case.space != "logits" or random.random() < 0.7:
        return None
    return log_uniform(random, 1e-9, 10.0)


def _softcap(random: Random, case: Case) -> float | None:
    if case.space != "logits" or random.random() < 0.7:
        return None
    return random.choice(
        (30.0, 1.0, log_uniform(random, 1e-3, 1e3), log_uniform(random, 1e-30, 1e30))
    )


OPTIONS = {option.name: option for option in _LIST}
DEFAULTS.update({option.name: option.default for option in _LIST})
