"""Measures the largest errors of kldiv against the oracle of the tests, and writes them down.

    python benches/accuracy.py           prints the tables
    python benches/accuracy.py --quick   narrow rows and one seed
    python benches/accuracy.py --save    keeps the run, of which `make docs` makes the tables

What is swept is stated here once: `cases` makes the inputs, `measure` the errors, and
``tests/python/functional/test_accuracy.py`` holds the same errors against their bounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import accuracy_tables
import kldiv
import runs
from kldiv import _kldiv
from kldiv._arrays import Operand, Rows, as_rows
from kldiv._reducer import Reducer
from kldiv._requests import CrossEntropyRequest

sys.path.insert(0, str(runs.ROOT / "tests"))

import oracle
from kldiv._kldiv import DIVERGENCES
from samples import USUAL

Array = NDArray[Any]

DTYPES: dict[str, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
ISAS: list[str] = _kldiv.build_info()["isas"]
EPSILONS = (1.0, 1e-2, 1e-4, 1e-6)
VALUE_FLOOR = {"float64": 1e-24, "float32": 1e-12, "float16": 1e-12, "bfloat16": 1e-12}
"""True values below it count as this large when an error is made relative.

A value v of rows close to each other belongs to a gradient, and to a total variation, of about √v:
for these two the floor is the square root.
"""


@dataclass(frozen=True)
class Case:
    """Two arrays of logits as stored, ``[rows, classes]``."""

    kind: str
    dtype: str
    p: Array
    q: Array
    temperature: float
    seed: int

    def __str__(self) -> str:
        """Name what `make_case` needs to make it again."""
        return (
            f"{self.kind}, {self.dtype}, shape {self.p.shape}, T={self.temperature}, "
            f"seed {self.seed}"
        )


@dataclass(frozen=True)
class Error:
    """The error of one row."""

    case: Case
    isa: str
    function: str
    quantity: str
    """"value", or "∂p", "∂q", "∂z" for a gradient."""
    row: int
    error: float
    got: float
    expected: float
    """The value, or the norm of the gradient."""

    def __str__(self) -> str:
        """Report it so that it can be found again."""
        return (
            f"{self.function} {self.quantity}: error {self.error:.2e} "
            f"(got {self.got:.17g}, expected {self.expected:.17g}) "
            f"on {self.isa}, row {self.row} of [{self.case}]"
        )


KINDS: dict[str, list[tuple[str, float]]] = {
    "independent": [("independent", 1.0), ("independent", 2.5)],
    "close": [*((f"eps={eps:g}", 1.0) for eps in EPSILONS), ("eps=0.01", 2.5)],
    "peaked": [("peaked", 1.0), ("peaked, eps=0.01", 1.0)],
    "shifted": [(f"shifted, {kind}", 1.0) for kind in ("independent", "eps=0.01", "eps=1e-06")],
}
"""Groups of kinds of pairs, each kind with its temperature."""


def make_case(
    kind: str, dtype: str, rows: int, classes: int, temperature: float, seed: int
) -> Case:
    """Make N(0, 3²) logits of the given kind, rounded to the dtype."""
    rng = np.random.default_rng([seed, classes])
    p = 3.0 * rng.standard_normal((rows, classes))
    noise = rng.standard_normal((rows, classes))
    eps = float(kind.split("eps=")[1]) if "eps=" in kind else None
    if kind.startswith("peaked"):
        p[np.arange(rows), rng.integers(classes, size=rows)] += 30.0
    # The student is noise on top of the teacher as stored, so that a small eps is not swamped by
    # the teacher's own rounding.
    p = p.astype(DTYPES[dtype])
    q = 3.0 * noise if eps is None else p.astype(np.float64) + eps * noise
    if kind.startswith("shifted"):
        q = q + 1e4
    return Case(kind, dtype, p, q.astype(DTYPES[dtype]), temperature, seed)


def cases(
    dtype: str, classes: int, rows: int, seed: int, groups: Sequence[str] = tuple(KINDS)
) -> Iterator[Case]:
    """Make the cases of some groups."""
    for group in groups:
        # 16-bit numbers near 1e4 are 8 or 64 apart: nothing of a row is left.
        if group == "shifted" and dtype in ("float16", "bfloat16"):
            continue
        for kind, temperature in KINDS[group]:
            yield make_case(kind, dtype, rows, classes, temperature, seed)


def demo_cases(dtype: str, rows: int) -> Iterator[Case]:
    """Take logits of a language model and two quantised copies, which are stored in float16."""
    folder = Path(kldiv.__file__).parent / "demo"
    reference = np.load(folder / "reference.npy")
    chosen = np.linspace(0, len(reference) - 1, rows).astype(int)
    for name in ("int8", "int4"):
        candidate = np.load(folder / f"{name}.npy")
        p, q = (array[chosen].astype(DTYPES[dtype]) for array in (reference, candidate))
        yield Case(f"demo {name}", dtype, p, q, 1.0, 0)


def labels_of(case: Case) -> NDArray[np.int64]:
    """Half of them the likeliest class, whose loss is small, and half any class."""
    rows, classes = case.p.shape
    labels: NDArray[np.int64] = np.random.default_rng(case.seed).integers(classes, size=rows)
    labels[::2] = case.p.astype(np.float64).argmax(-1)[::2]
    return labels


def measure(case: Case, isas: Sequence[str] = ISAS) -> Iterator[Error]:
    """Measure every function's value and gradients, on every row and instruction set."""
    truth = oracle.wide(case.p, case.q, temperature=case.temperature)
    for name, parameter in USUAL:
        label = f"{name}({next(iter(parameter.values()))})" if parameter else name
        value = truth.value(name, **parameter)
        gradients = tuple(truth.gradient(name, wrt, **parameter) for wrt in "pq")
        for isa in isas:
            alone, (fused, p_gradient, q_gradient) = compute_divergence(case, name, parameter, isa)
            yield from _values(case, isa, label, alone, value)
            yield from _values(case, isa, label, fused, value)
            yield from _gradients(case, isa, label, "∂p", p_gradient, gradients[0])
            yield from _gradients(case, isa, label, "∂q", q_gradient, gradients[1])
    yield from _measure_unary(case, isas)


def _measure_unary(case: Case, isas: Sequence[str]) -> Iterator[Error]:
    z, t, labels = case.p, case.temperature, labels_of(case)
    ln_p = oracle.wide_log_softmax(z, temperature=t)
    expected = {
        "cross_entropy": (
            oracle.wide_cross_entropy(z, labels, temperature=t),
            oracle.wide_cross_entropy_gradient(z, labels, temperature=t),
        ),
        "entropy": (
            oracle.wide_entropy(z, temperature=t),
            oracle.wide_entropy_gradient(z, temperature=t),
        ),
        "logsumexp": (oracle.wide_logsumexp(z, temperature=t), np.exp(ln_p) / t),
    }
    rows = as_rows("z", z, -1)
    reducer = _each_row(rows)
    loss = CrossEntropyRequest(
        {"logits": rows}, labels, None, "logits", t, 0.0, None, 0.0, None, reducer
    )
    for isa in isas:
        for name, (value, gradient) in expected.items():
            out = _output(case)
            if name == "cross_entropy":
                got = _kldiv.cross_entropy(
                    rows, labels, None, None, loss, reducer, None, out, None, isa
                )
            elif name == "entropy":
                got = _kldiv.entropy(rows, "logits", t, reducer, None, out, isa)
            else:
                got = _kldiv.logsumexp(rows, t, reducer, None, out, isa)
            # ln Σ crosses zero, where only its absolute error, the sum's relative one, is bounded.
            floor = 1.0 if name == "logsumexp" else None
            yield from _values(case, isa, name, got.astype(out.memory.dtype), value, floor)
            yield from _gradients(case, isa, name, "∂z", out.memory, gradient)
        out = _output(case)
        _kldiv.log_softmax(rows, t, None, out, isa)
        for row, (got, true) in enumerate(zip(out.memory, ln_p, strict=True)):
            error = np.abs(got - true) / np.maximum(np.abs(true), VALUE_FLOOR[case.dtype])
            at = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
            found = float(error[at]), float(got[at]), float(true[at])
            yield Error(case, isa, "log_softmax", "value", row, *found)


def _each_row(rows: Rows) -> Reducer:
    """The value of each row, not rounded to float32."""
    return Reducer(rows, None, None, "none", None, np.dtype("float64"), "float64")


def _output(case: Case) -> Operand:
    name = "float64" if case.dtype == "float64" else "float32"
    return Operand(np.full(case.p.shape, np.nan, name), name)


def compute_divergence(
    case: Case, name: str, parameter: dict[str, float], isa: str | None
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Compute the value alone, and the value with both gradients."""
    p, q = as_rows("p", case.p, -1), as_rows("q", case.q, -1)
    number = next(iter(parameter.values()), 0.0)
    spaces, temperatures = ("logits", "logits"), (case.temperature, case.temperature)
    call = (name, number, p, q, spaces, temperatures, _each_row(p), None)
    of_p, of_q = _output(case), _output(case)
    alone = _kldiv.divergence(*call, None, None, isa)
    fused = _kldiv.divergence(*call, of_p, of_q, isa)
    dtype = of_p.memory.dtype
    return alone.astype(dtype), (fused.astype(dtype), of_p.memory, of_q.memory)


def _values(
    case: Case, isa: str, function: str, got: Array, expected: Array, floor: float | None = None
) -> Iterator[Error]:
    least = VALUE_FLOOR[case.dtype] if floor is None else floor
    name = function.partition("(")[0]
    if name in DIVERGENCES and DIVERGENCES[name].kinked:
        least = least**0.5
    same = np.all(case.p == case.q, axis=-1) & (expected == 0)
    for row in range(len(expected)):
        scale = max(abs(expected[row]), least)
        error = float(abs(got[row] - expected[row]) / scale)
        if (same[row] and got[row] != 0) or np.isnan(error) or (floor is None and got[row] < 0):
            error = np.inf  # identical rows have value 0 exactly, and none is negative
        found = float(got[row]), float(expected[row])
        yield Error(case, isa, function, "value", row, error, *found)


def _gradients(
    case: Case, isa: str, function: str, quantity: str, got: Array, expected: Array
) -> Iterator[Error]:
    difference = got - expected
    for row in range(len(expected)):
        norm, off = (float(np.sqrt(np.square(x[row]).sum())) for x in (expected, difference))
        error = off / max(norm, VALUE_FLOOR[case.dtype] ** 0.5)
        if np.isnan(error) or (off > 0 and np.array_equal(case.p[row], case.q[row]) and norm == 0):
            error = np.inf  # identical rows have gradient 0 exactly
        found = float(np.sqrt(np.square(got[row].astype(np.float64)).sum())), norm
        yield Error(case, isa, function, quantity, row, error, *found)


# --- The run ------------------------------------------------------------------------------------

SIZES = [(1, 64), (2, 256), (3, 256), (17, 128), (1000, 8), (4097, 2), (50257, 1), (262144, 1)]
"""Classes, and rows for each seed."""
QUICK = [(2, 64), (17, 64), (1000, 4), (4097, 1)]


def sweep(quick: bool) -> Iterator[Error]:
    """Measure everything that goes into the tables."""
    for dtype in DTYPES:
        for classes, rows in QUICK if quick else SIZES:
            if classes > 100_000 and dtype in ("float16", "bfloat16"):
                continue  # widened exactly, they are float32 rows
            for seed in range(3 if classes < 1000 and not quick else 1):
                # The widest rows cost the oracle seconds each: only the kinds the promise is about.
                groups = tuple(KINDS) if classes < 10_000 else ("independent", "close")
                for case in cases(dtype, classes, rows, seed, groups):
                    if classes < 10_000 or case.temperature == 1.0:
                        yield from measure(case)
        for case in demo_cases(dtype, 1 if quick else 2):
            yield from measure(case)


def main() -> None:
    """Measure; print the tables, and keep the run if asked to."""
    parser = argparse.ArgumentParser(description="Measure the accuracy of kldiv.")
    parser.add_argument("--quick", action="store_true", help="narrow rows and one seed")
    parser.add_argument("--save", action="store_true", help="keep the run in benches/results")
    options = parser.parse_args()
    if options.save and options.quick:
        parser.error("--save keeps whole runs, without --quick")
    start = time.perf_counter()
    run = measured(options.quick)
    if options.save:
        print(runs.save("accuracy", run))
    else:
        print("\n".join(accuracy_tables.lines(run)))
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)


def measured(quick: bool) -> runs.Run:
    """Measure everything, and keep the largest error of each cell of the tables."""
    worst: dict[tuple[str, ...], Error] = {}
    for error in sweep(quick):
        quantity = "value" if error.quantity == "value" else "gradient"
        group = group_of(error.case)
        for key in (
            ("function", error.function, quantity, error.case.dtype, group),
            ("instruction set", error.isa, quantity, error.case.dtype, group),
        ):
            if key not in worst or error.error > worst[key].error:
                worst[key] = error
    fields = ("by", "name", "quantity", "dtype", "group")
    results: list[dict[str, Any]] = [
        {**dict(zip(fields, key, strict=True)), "error": error.error, "found": str(error)}
        for key, error in worst.items()
    ]
    command = "python benches/accuracy.py" + (" --quick" if quick else "")
    versions = {"numpy": np.__version__}
    classes, rows = (4097, 2) if quick else (131072, 2)
    functions = {"kldiv": kldiv_kl}
    try:
        import torch
    except ModuleNotFoundError:
        pass
    else:
        versions["torch"] = torch.__version__
        functions["torch"] = torch_kl
    results += closeness(functions, rows, classes)
    more = {"isas": ISAS, "versions": versions, "close": {"rows": rows, "classes": classes}}
    return {"header": runs.header(command, **more), "results": results}


def group_of(case: Case) -> str:
    """Name the column group of a case: rows as the promise has them, or harder ones."""
    for group in ("peaked", "shifted"):
        if case.kind.startswith(group):
            return group
    return "logits"


def closeness(
    functions: dict[str, Callable[[Case], Array]], rows: int, classes: int
) -> Iterator[dict[str, Any]]:
    """Measure kl by several functions on the same rows, by how close they are."""
    for eps in EPSILONS:
        for dtype in ("float32", "bfloat16"):
            case = make_case(f"eps={eps:g}", dtype, rows, classes, 1.0, 0)
            expected = oracle.wide(case.p, case.q).value("kl")
            # Rows that rounding made identical have no relative error.
            scale = np.where(expected > 0, expected, 1)
            errors = {
                name: float((np.abs(function(case) - expected) / scale).max())
                for name, function in functions.items()
            }
            yield {"eps": eps, "dtype": dtype, "kl": float(expected.mean()), "errors": errors}


def kldiv_kl(case: Case) -> Array:
    """Compute kl with this library."""
    result: Array = np.asarray(kldiv.kl(case.p, case.q))
    return result


def torch_kl(case: Case) -> Array:
    """Compute kl as torch has it."""
    import torch

    import torch_formulas

    torch.set_num_threads(1)
    dtype = getattr(torch, case.dtype)
    p, q = (torch.from_numpy(rows.astype(np.float32)).to(dtype) for rows in (case.p, case.q))
    result: Array = torch_formulas.kl(p, q).to(torch.float64).numpy()
    return result


if __name__ == "__main__":
    main()
