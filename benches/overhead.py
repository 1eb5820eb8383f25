"""Small calls of kldiv, on NumPy arrays and on torch tensors, against torch eager.

    python benches/overhead.py [--classes 1000] [--repeats 400]

All three are interleaved in one process on the same numbers; each time is the median of
`--repeats` runs of five calls, in µs. Gradients are written to new memory on both sides.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

import kldiv
from accuracy import commit, cpu_name
from kldiv._arrays import as_array

CALLS = 5
Job = tuple[str, Callable[..., object], tuple[torch.Tensor, ...], Callable[..., torch.Tensor]]


def torch_kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL of every row, as one writes it in torch."""
    terms = functional.kl_div(
        q.log_softmax(-1), p.log_softmax(-1), reduction="none", log_target=True
    )
    return terms.sum(-1)


def torch_gradient(
    loss: Callable[[torch.Tensor], torch.Tensor], q: torch.Tensor
) -> Callable[[], torch.Tensor]:
    """Value, and gradient with respect to q."""

    def run() -> torch.Tensor:
        q.grad = None
        value = loss(q)
        value.sum().backward()
        return value.detach()

    return run


def torch_jensen_shannon(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Jensen–Shannon divergence of every row, as one writes it in torch."""
    ln_p, ln_q = p.log_softmax(-1), q.log_softmax(-1)
    ln_m = torch.logaddexp(ln_p, ln_q) - float(np.log(2))
    terms = [
        functional.kl_div(ln_m, side, reduction="none", log_target=True) for side in (ln_p, ln_q)
    ]
    return 0.5 * (terms[0] + terms[1]).sum(-1)


def torch_cross_entropy(q: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every row."""
    return functional.cross_entropy(q, labels, reduction="none")


def jobs(rows: int, classes: int, dtype: torch.dtype) -> list[Job]:
    """Name, kldiv's function, its tensors, and torch's function of them."""
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(rows, classes, generator=generator).mul(3).to(dtype) for _ in range(2))
    labels = torch.randint(classes, (rows,), generator=generator)
    return [
        ("KL", kldiv.kl, (p, q), torch_kl),
        ("cross-entropy", kldiv.cross_entropy, (q, labels), torch_cross_entropy),
        ("Jensen–Shannon", kldiv.jensen_shannon, (p, q), torch_jensen_shannon),
    ]


def with_gradient(job: Job) -> Job:
    """The job with the gradient with respect to q."""
    name, function, tensors, torch_function = job
    place = 0 if function is kldiv.cross_entropy else 1
    leaf = tensors[place].clone().requires_grad_()
    others = tensors[1 - place]

    def loss(z: torch.Tensor) -> torch.Tensor:
        return torch_function(*((z, others) if place == 0 else (others, z)))

    run = torch_gradient(loss, leaf)
    return (
        f"{name} and gradient",
        lambda *arrays: kldiv.value_and_grad(function, *arrays),
        tensors,
        lambda *_: run(),
    )


def measure(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median µs of each call, interleaved."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for each, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            each.append((time.perf_counter() - start) / CALLS)
    # The first runs warm up.
    return [1e6 * statistics.median(each[repeats // 10 :]) for each in times]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(kldiv.get_num_threads())
    print(
        f"{cpu_name()}, {kldiv.isa()}, {kldiv.get_num_threads()} threads, kldiv "
        f"{kldiv.__version__} at {commit()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}; µs, median of {options.repeats}\n"
    )
    print("| shape | dtype | call | kldiv, NumPy | kldiv, tensors | torch eager | ratios |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for rows in (1, 8):
        for dtype in (torch.float32, torch.bfloat16):
            values = jobs(rows, options.classes, dtype)
            for name, function, tensors, torch_function in values + list(
                map(with_gradient, values)
            ):
                arrays = [as_array(name, tensor) for tensor in tensors]
                ours, with_tensors, theirs = measure(
                    [
                        lambda f=function, a=arrays: f(*a),
                        lambda f=function, a=tensors: f(*a),
                        lambda f=torch_function, a=tensors: f(*a),
                    ],
                    options.repeats,
                )
                print(
                    f"| {rows} × {options.classes:,} | {str(dtype)[6:]} | {name} | {ours:.1f} "
                    f"| {with_tensors:.1f} | {theirs:.1f} "
                    f"| {theirs / ours:.1f}, {theirs / with_tensors:.1f} × |"
                )


if __name__ == "__main__":
    main()
