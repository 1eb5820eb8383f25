"""One table of corners: what every front end has to give where formulas end.

A `Corner` is a call: a function, a batch of rows with a name each, options, and the arguments to
differentiate with respect to. What is right follows from `tests/oracle` (`tests/corner.py`);
rows that have a value in closed form name it too (`KNOWN`). `CORNERS` is the table,
`tests/python/test_corners.py` runs it.
"""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np

from corner import Corner
from oracle import INF, NAN, mp
from samples import ALL

F32, F64, F16, BF16 = np.float32, np.float64, np.float16, ml_dtypes.bfloat16
TINY = {F32: 1e-40, F64: 1e-310, F16: 3e-7, BF16: 1e-40}
"""A subnormal number of each dtype."""

ARGUMENT = {"entropy": "p", "logsumexp": "z", "log_softmax": "z"}

# --- Pairs of rows --------------------------------------------------------------------------------

_NO = -np.inf

LOGITS = {
    "identical": ([1.0, 2.0, 0.5, -3.0], [1.0, 2.0, 0.5, -3.0]),
    "a constant added": ([1.0, 2.0, 0.5, -3.0], [101.0, 102.0, 100.5, 97.0]),
    "p zero": ([1.0, _NO, 0.5, -1.0], [0.5, 1.0, 2.0, 0.0]),
    "q zero": ([0.5, 1.0, 2.0, 0.0], [1.0, _NO, 0.5, -1.0]),
    "both zero": ([0.5, 1.0, _NO, 0.0], [1.0, -0.5, _NO, 2.0]),
    "both zero, else identical": ([0.5, 1.0, _NO, 0.0], [0.5, 1.0, _NO, 0.0]),
    "nothing in common": ([0.0, _NO, _NO, _NO], [_NO, _NO, 0.0, _NO]),
    "one class each": ([_NO, 3.0, _NO, _NO], [_NO, -2.0, _NO, _NO]),
    "p without a class": ([_NO, _NO, _NO, _NO], [0.0, 1.0, 2.0, 3.0]),
    "q without a class": ([0.0, 1.0, 2.0, 3.0], [_NO, _NO, _NO, _NO]),
    "NaN in p": ([0.0, np.nan, 2.0, 3.0], [1.0, 1.0, 0.0, 0.0]),
    "inf in q": ([1.0, 1.0, 0.0, 0.0], [0.0, 1.0, np.inf, 3.0]),
    "200 apart": ([0.0, 200.0, 1.0, 0.0], [200.0, 0.0, 0.0, 1.0]),
    "1000 apart": ([0.0, 1000.0, 1.0, 0.0], [1000.0, 0.0, 0.0, 1.0]),
    "p underflows": ([0.0, -2000.0, 1.0, 0.0], [0.5, 2.0, 0.0, 1.0]),
    "p underflows, q zero": ([0.0, -2000.0, 1.0, 0.0], [0.5, _NO, 0.0, 1.0]),
}
"""Pairs of rows of logits."""

TAME = ("identical", "p zero", "q zero", "both zero", "1000 apart", "one class each")
"""Those that go through every parameter."""


def _probs(tiny):
    return {
        "identical": ([0.25, 0.5, 0.25, 0.0], [0.25, 0.5, 0.25, 0.0]),
        "p zero": ([0.5, 0.0, 0.25, 0.25], [0.125, 0.125, 0.5, 0.25]),
        "q zero": ([0.125, 0.125, 0.5, 0.25], [0.5, 0.0, 0.25, 0.25]),
        "both zero": ([0.5, 0.25, 0.0, 0.25], [0.125, 0.5, 0.0, 0.375]),
        "nothing in common": ([0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.75, 0.25]),
        "nothing in p": ([0.0, 0.0, 0.0, 0.0], [0.5, 0.25, 0.125, 0.125]),
        "negative": ([0.5, -0.25, 0.5, 0.25], [0.25, 0.25, 0.25, 0.25]),
        "NaN in q": ([0.25, 0.25, 0.25, 0.25], [0.5, 0.25, np.nan, 0.25]),
        "not normalised": ([2.0, 0.0, 3.0, 0.5], [0.25, 0.125, 4.0, 0.5]),
        "p subnormal": ([tiny, 0.5, 0.25, 0.25], [0.5, 0.25, 0.125, 0.125]),
        "q subnormal": ([0.5, 0.25, 0.125, 0.125], [tiny, 0.5, 0.25, 0.25]),
        "both subnormal": ([tiny, 0.5, 0.25, 0.25], [2 * tiny, 0.25, 0.5, 0.25]),
        "nothing but subnormal": ([tiny, 3 * tiny, 2 * tiny, 5 * tiny], [tiny, tiny, 4 * tiny, 0]),
        "p subnormal, q zero": ([tiny, 0.5, 0.25, 0.25], [0.0, 0.25, 0.25, 0.5]),
    }


LOG_PROBS = {
    "identical": ([-1.5, -0.5, -2.0, _NO], [-1.5, -0.5, -2.0, _NO]),
    "p zero": ([-1.5, _NO, -0.5, -2.0], [-1.0, -0.75, -1.5, -3.0]),
    "q zero": ([-1.0, -0.75, -1.5, -3.0], [-1.5, _NO, -0.5, -2.0]),
    "both zero": ([-1.5, -0.5, _NO, -2.0], [-1.0, -0.75, _NO, -3.0]),
    "nothing in p": ([_NO, _NO, _NO, _NO], [-0.5, -1.0, -2.0, -3.0]),
    "NaN in p": ([np.nan, -1.0, -1.0, -1.0], [-1.0, -1.0, -2.0, -1.0]),
    "p underflows": ([-1000.0, -0.5, -1.0, -3.0], [-2.0, -1.0, -0.5, -3.0]),
    "q underflows": ([-2.0, -1.0, -0.5, -3.0], [-1000.0, -0.5, -1.0, -3.0]),
    "p underflows, q zero": ([-1000.0, -0.5, -1.0, -3.0], [_NO, -1.0, -0.5, -3.0]),
}

LN2 = mp.log(2)
KNOWN = {
    ("kl", "identical"): 0,
    ("kl", "nothing in common"): INF,
    ("kl", "q zero"): INF,
    ("kl", "one class each"): 0,
    ("kl", "p without a class"): NAN,
    ("kl", "NaN in p"): NAN,
    ("kl", "inf in q"): NAN,
    ("kl", "nothing in p"): 0,
    ("kl", "negative"): NAN,
    ("kl", "p underflows, q zero"): INF,
    ("kl", "p subnormal, q zero"): INF,
    ("reverse_kl", "p zero"): INF,
    ("reverse_kl", "nothing in common"): INF,
    ("jensen_shannon", "nothing in common"): LN2,
    ("total_variation", "nothing in common"): 1,
    ("renyi", "nothing in common"): INF,
}
"""Values in closed form, for default parameters; Jensen–Shannon with β = ½ and Rényi with α = ½."""


def _pairs(rows, dtype, names=None):
    names = tuple(rows if names is None else names)
    p, q = (np.array([rows[name][side] for name in names]).astype(dtype) for side in (0, 1))
    return {"p": p, "q": q}, names


MAIN = [
    *((name, variants[0]) for name, variants in ALL.items()),
    ("renyi", {"alpha": 2.0}),
]
TEMPERATURES = (1e-30, 1e-3, 1e3, 1e30, (2.0, 1.0), (1.0, 5.0), (1e-30, 1e30), (1e3, 1e-3))


def _name(dtype):
    return np.dtype(dtype).name


def _words(options):
    return ", ".join(f"{key}={value}" for key, value in options.items())


def divergence_corners():
    """Every divergence: spaces, parameters, temperatures."""
    for (function, options), dtype in itertools.product(MAIN, (F32, F64)):
        title = f"{function}({_words(options)}) {_name(dtype)}"
        arrays, names = _pairs(LOGITS, dtype)
        yield Corner(f"{title} logits", function, arrays, options, names)
        arrays, names = _pairs(LOG_PROBS, dtype)
        given = {**options, "space": "log_probs"}
        yield Corner(f"{title} log_probs", function, arrays, given, names)
        arrays, names = _pairs(_probs(TINY[dtype]), dtype)
        given = {**options, "space": "probs"}
        yield Corner(f"{title} probs", function, arrays, given, names)
        mixed = {
            name: (LOGITS[name][0], pair[1]) for name, pair in _probs(0).items() if name in TAME
        }
        arrays, names = _pairs(mixed, dtype)
        given = {**options, "space": ("logits", "probs"), "temperature": 5.0}
        yield Corner(f"{title} logits and probs at T = 5", function, arrays, given, names)
    for (function, options), dtype in itertools.product(MAIN, (F16, BF16)):
        arrays, names = _pairs(_probs(TINY[dtype]), dtype)
        given = {**options, "space": "probs"}
        title = f"{function}({_words(options)}) {_name(dtype)} probs"
        yield Corner(title, function, arrays, given, names)
    for function, variants in ALL.items():
        for options, dtype in itertools.product(variants[1:], (F32, F64)):
            arrays, names = _pairs(LOGITS, dtype, TAME)
            title = f"{function}({_words(options)}) {_name(dtype)} tame"
            yield Corner(title, function, arrays, options, names)
            probs = [name for name in _probs(0) if name in TAME]
            arrays, names = _pairs(_probs(0), dtype, probs)
            given = {**options, "space": "probs"}
            yield Corner(f"{title} probs", function, arrays, given, names)


def _of_width(width):
    """Rows around the lanes' edges: plain, with a class that neither has, with one p lacks."""
    # Irregular, since at tiny temperatures a tie is decided by rounding.
    x, y = np.sin(1 + 3 * np.arange(width)), 2 * np.cos(5 + 7 * np.arange(width))
    yield "plain", (x, y)
    if width > 1:
        masked = x.copy(), y.copy()
        masked[0][-1] = masked[1][-1] = _NO
        yield "last class masked in both", masked
    if width > 2:
        lacking = x.copy(), y.copy()
        lacking[0][1] = _NO
        yield "p zero", lacking


WIDTHS = (1, 3, 8, 17)


def temperature_corners():
    """Temperatures at the ends of their domain, and pairs of them, with lanes past the end."""
    for (function, options), temperature in itertools.product(MAIN, TEMPERATURES):
        for width, dtype in ((1, F32), (3, F64), (8, F64), (17, F32)):
            arrays, names = _pairs(dict(_of_width(width)), dtype)
            given = {**options, "temperature": temperature}
            title = f"{function}({_words(given)}) {_name(dtype)} of {width}"
            yield Corner(title, function, arrays, given, names)


def batch_corners():
    """Masks, weights, empty batches."""
    rows = {
        "plain": ([0.0, 1.0, 2.0], [1.0, 0.0, 0.5]),
        "NaN": ([np.nan, 1.0, 2.0], [1.0, np.inf, 0.5]),
        "another": ([0.0, _NO, 2.0], [1.0, 0.0, 0.5]),
    }
    ends = np.array([True, False, True])
    keep = {
        "a mask": {"where": ends},
        "an integer mask": {"where": ends.astype(np.int64)},
        "an integer mask of bytes": {"where": ends.astype(np.uint8)},
        "weight 0": {"weights": np.array([2.0, 0.0, 0.5])},
        "boolean weights": {"weights": ends},
        "integer weights": {"weights": np.array([3, 0, 1])},
        "mask and weights": {"where": ends, "weights": np.array([2.0, 1.0, 0.5])},
        "nothing kept": {"where": np.array([False])},
    }
    arrays, names = _pairs(rows, F32)
    for (how, options), reduction in itertools.product(keep.items(), ("none", "mean")):
        given = {**options, "reduction": reduction}
        yield Corner(f"kl {reduction}, {how}", "kl", arrays, given, names)
    for function, more in MAIN[1:5]:
        given = {**more, **keep["an integer mask"], "reduction": "mean"}
        yield Corner(f"{function} mean, an integer mask", function, arrays, given, names)
    for reduction in ("none", "sum", "mean", "batchmean"):
        empty = {side: np.empty((0, 3), F32) for side in "pq"}
        yield Corner(f"kl {reduction} of no rows", "kl", empty, {"reduction": reduction})
        given = {"logits": np.empty((0, 3), F32), "targets": np.empty(0, np.int64)}
        options = {"reduction": reduction}
        yield Corner(
            f"cross_entropy {reduction} of no rows",
            "cross_entropy",
            given,
            options,
            (),
            ("logits",),
        )
    far = {"far": ([0.0, -50.0], [-3e38, 0.0])}
    arrays, names = _pairs(far, F32)
    options = {"temperature": 0.5}
    yield Corner("kl beyond float32", "kl", arrays, options, names, ("q",))
    arrays, names = _pairs({**far, "again": far["far"]}, F32)
    for reduction in ("sum", "mean"):
        options = {"reduction": reduction}
        yield Corner(f"kl {reduction} beyond float32", "kl", arrays, options, names, ("q",))


# --- Cross-entropy --------------------------------------------------------------------------------

SCORES = {
    "plain": ([0.5, 1.0, 2.0, 0.0], 1),
    "label masked": ([0.5, _NO, 2.0, 0.0], 1),
    "another class masked": ([0.5, 1.0, _NO, 0.0], 1),
    "nothing but the label": ([_NO, 1.0, _NO, _NO], 1),
    "no class": ([_NO, _NO, _NO, _NO], 1),
    "NaN": ([0.5, 1.0, np.nan, 0.0], 1),
    "inf": ([0.5, np.inf, 2.0, 0.0], 1),
    "likely": ([0.0, 60.0, 2.0, 0.0], 1),
    "unlikely": ([1000.0, 0.0, 2.0, 0.0], 1),
    "ignored": ([np.nan, np.inf, _NO, 0.0], -100),
}
LOSSES = (
    {},
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0},
    {"z_loss": 0.01},
    {"class_weights": np.array([1.0, 0.5, 0.0, 2.0])},
    {"class_weights": np.array([1.0, 0.0, 3.0, 2.0])},
    {"softcap": 1e-30},
    {"softcap": 0.125},
    {"softcap": 5.0},
    {"softcap": 1e30},
    {"softcap": 5.0, "z_loss": 0.01, "label_smoothing": 0.1, "temperature": 2.0},
)


def cross_entropy_corners():
    """Class indices."""
    logits, labels = zip(*SCORES.values(), strict=True)
    finite = [name for name in SCORES if _NO not in SCORES[name][0] or name == "label masked"]
    for loss, dtype in itertools.product(LOSSES, (F32, F64)):
        arrays = {"logits": np.array(logits).astype(dtype), "targets": np.array(labels)}
        title = f"cross_entropy({_words(loss)}) {_name(dtype)}"
        yield Corner(title, "cross_entropy", arrays, loss, tuple(SCORES), ("logits",))
        if not loss or "class_weights" in loss:
            kept = [i for i, name in enumerate(SCORES) if name in (*finite, "ignored")]
            kept = [i for i in kept if list(SCORES)[i] not in ("NaN", "inf", "label masked")]
            arrays = {key: array[kept] for key, array in arrays.items()}
            options = {**loss, "reduction": "mean"}
            yield Corner(f"{title} mean", "cross_entropy", arrays, options, (), ("logits",))
    for space, dtype in itertools.product(("probs", "log_probs"), (F32, F64)):
        tiny = TINY[dtype]
        rows = [[0.5, 0.25, 0.25], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, tiny, 0.5], [-1, 1, 1]]
        if space == "log_probs":
            rows = [[-1.0, -2.0, -0.5], [-1.0, _NO, -0.5], [_NO, 0.0, _NO], [-1.0, -1e3, -2.0]]
        for loss in ({}, {"label_smoothing": 0.1}):
            arrays = {"logits": np.array(rows, dtype), "targets": np.ones(len(rows), np.int64)}
            options = {**loss, "space": space}
            title = f"cross_entropy({_words(options)}) {_name(dtype)}"
            yield Corner(title, "cross_entropy", arrays, options, (), ("logits",))
    for temperature, dtype in itertools.product((1e-30, 1e-3, 1e3, 1e30), (F32, F64)):
        for width in WIDTHS:
            rows = dict(_of_width(width))
            arrays = {
                "logits": np.array([x for x, _ in rows.values()]).astype(dtype),
                "targets": np.zeros(len(rows), np.int64),
            }
            for loss in ({}, {"label_smoothing": 0.25}) if width in (1, 17) else ({},):
                options = {**loss, "temperature": temperature}
                title = f"cross_entropy({_words(options)}) {_name(dtype)} of {width}"
                yield Corner(title, "cross_entropy", arrays, options, tuple(rows), ("logits",))


def label_corners():
    """Labels of every dtype against every `ignore_index`."""
    logits = np.linspace(-2.0, 2.0, 3 * 160).reshape(3, 160).astype(F32)
    for name in ("uint8", "int8", "int32", "uint64"):
        # In eight bits 156 is −100 and 44 is 300.
        labels = np.array([44, 100, 100 if name == "int8" else 156], name)
        for ignore_index in (-100, 300, 100, None) if name in ("uint8", "int8") else (-100, 100):
            options = {"ignore_index": ignore_index}
            arrays = {"logits": logits, "targets": labels}
            title = f"cross_entropy of {name} labels, ignore_index={ignore_index}"
            yield Corner(title, "cross_entropy", arrays, options, (), ("logits",))
        arrays = {"z": logits, "labels": labels}
        title = f"gather_log_probs of {name} labels"
        yield Corner(title, "gather_log_probs", arrays, {}, (), ("z",))
    arrays = {"logits": logits, "targets": np.array([-100, 7, -100], np.int8)}
    options = {"reduction": "mean"}
    yield Corner("one int8 label kept", "cross_entropy", arrays, options, (), ("logits",))
    arrays = {"logits": logits * np.nan, "targets": np.array([-100, -100, -100])}
    yield Corner("no label kept", "cross_entropy", arrays, options, (), ("logits",))


SOFT = {
    "plain": ([0.5, 1.0, 2.0, 0.0], [0.25, 0.5, 0.125, 0.125]),
    "no mass on a masked class": ([0.5, _NO, 2.0, 0.0], [0.5, 0.0, 0.25, 0.25]),
    "a mass on a masked class": ([0.5, _NO, 2.0, 0.0], [0.5, 0.25, 0.25, 0.0]),
    "the tiniest mass on a masked class": ([0.5, _NO, 2.0, 0.0], [0.5, 0.0, 0.25, 0.25]),
    "no mass": ([0.5, 1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]),
    "NaN in the target": ([0.5, 1.0, 2.0, 0.0], [0.5, np.nan, 0.25, 0.25]),
    "no class": ([_NO, _NO, _NO, _NO], [0.25, 0.25, 0.25, 0.25]),
    "unlikely": ([1000.0, 0.0, 2.0, 0.0], [0.25, 0.5, 0.125, 0.125]),
}


def soft_target_corners():
    """Distributions as targets."""
    logits, targets = (np.array(side) for side in zip(*SOFT.values(), strict=True))
    both = ("logits", "targets")
    for loss, dtype in itertools.product(
        ({}, {"label_smoothing": 0.1}, {"label_smoothing": 1.0}, {"temperature": 1e-30}), (F32, F64)
    ):
        arrays = {"logits": logits.astype(dtype), "targets": targets.astype(dtype)}
        arrays["targets"][3, 1] = np.finfo(dtype).smallest_subnormal
        title = f"cross_entropy({_words(loss)}) of distributions, {_name(dtype)}"
        yield Corner(title, "cross_entropy", arrays, loss, tuple(SOFT), both)
    for temperature, width in itertools.product((1e-30, 1e30), WIDTHS):
        rows = dict(_of_width(width))
        for dtype in (F32, F64):
            z = np.array([x for x, _ in rows.values()]).astype(dtype)
            arrays = {"logits": z, "targets": np.where(z > _NO, 1 / width, 0).astype(dtype)}
            options = {"temperature": temperature}
            title = f"cross_entropy({_words(options)}) of distributions, {_name(dtype)} of {width}"
            yield Corner(title, "cross_entropy", arrays, options, tuple(rows), both)


# --- One row --------------------------------------------------------------------------------------


def single_corners():
    """Entropy, log-sum-exp, log-softmax."""
    rows = {name: pair[0] for name, pair in LOGITS.items()}
    for (function, wrt), dtype in itertools.product(ARGUMENT.items(), (F32, F64)):
        arrays = {wrt: np.array(list(rows.values())).astype(dtype)}
        title = f"{function} {_name(dtype)}"
        yield Corner(title, function, arrays, {}, tuple(rows), (wrt,))
        large = {wrt: (np.array([[0.0, 1.0, -2.0, 30.0]]) + 1e4).astype(dtype)}
        yield Corner(f"{title} of large logits", function, large, {}, (), (wrt,))
        for temperature, width in itertools.product((1e-30, 1e-3, 1e3, 1e30), WIDTHS):
            some = {name: pair[0] for name, pair in _of_width(width)}
            arrays = {wrt: np.array(list(some.values())).astype(dtype)}
            options = {"temperature": temperature}
            named = f"{title} of {width} at T = {temperature}"
            yield Corner(named, function, arrays, options, tuple(some), (wrt,))
    for dtype in (F32, F64, F16, BF16):
        rows = {name: pair[0] for name, pair in _probs(TINY[dtype]).items()}
        arrays = {"p": np.array(list(rows.values())).astype(dtype)}
        title = f"entropy {_name(dtype)}"
        yield Corner(f"{title} probs", "entropy", arrays, {"space": "probs"}, tuple(rows), ("p",))
    for dtype in (F32, F64):
        rows = {name: pair[0] for name, pair in LOG_PROBS.items()}
        arrays = {"p": np.array(list(rows.values())).astype(dtype)}
        options = {"space": "log_probs"}
        title = f"entropy {_name(dtype)} log_probs"
        yield Corner(title, "entropy", arrays, options, tuple(rows), ("p",))


CORNERS = (
    *divergence_corners(),
    *temperature_corners(),
    *batch_corners(),
    *cross_entropy_corners(),
    *label_corners(),
    *soft_target_corners(),
    *single_corners(),
)
"""The table."""
