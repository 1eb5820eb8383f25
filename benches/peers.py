"""kldiv against torch eager, interleaved in one process on the same inputs.

    python benches/peers.py [--rows 256] [--classes 128256] [--repeats 9]

For each job: the median time of both after two warm-ups, their ratio, and the largest relative
error of a row's value against float64, found by kldiv on the widened inputs (whose own error is
below 1e-13, see docs/numerics.md).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import ml_dtypes
import numpy as np
import torch
from torch.nn import functional

import kldiv
from accuracy import commit, cpu_name

Job = tuple[str, Callable[[], np.ndarray], Callable[[], torch.Tensor], np.ndarray]


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


def jobs(rows: int, classes: int) -> list[Job]:
    """Name, kldiv's call, torch's call, and the true values."""
    rng = np.random.default_rng(0)
    result: list[Job] = []
    for name, dtype in (("float32", np.float32), ("bfloat16", ml_dtypes.bfloat16)):
        p, q = (rng.normal(0, 3, (rows, classes)).astype(dtype) for _ in range(2))
        out = np.zeros_like(q)
        labels = rng.integers(0, classes, rows)
        torch_dtype = getattr(torch, name)
        tp, tq = (torch.from_numpy(x.astype(np.float32)).to(torch_dtype) for x in (p, q))
        leaf = tq.clone().requires_grad_()
        targets = torch.from_numpy(labels)
        parts = [slice(start, start + 16) for start in range(0, rows, 16)]
        kl = np.concatenate([kldiv.kl(p[s].astype(float), q[s].astype(float)) for s in parts])
        loss = np.concatenate([kldiv.cross_entropy(q[s].astype(float), labels[s]) for s in parts])

        def cross_entropy(z: torch.Tensor, targets: torch.Tensor = targets) -> torch.Tensor:
            return functional.cross_entropy(z, targets, reduction="none")

        result += [
            (f"KL, {name}", lambda p=p, q=q: kldiv.kl(p, q), lambda p=tp, q=tq: torch_kl(p, q), kl),
            (
                f"KL and ∂q, {name}",
                lambda p=p, q=q, out=out: kldiv.value_and_grad(kldiv.kl, p, q, out=out)[0],
                torch_gradient(lambda z, p=tp: torch_kl(p, z), leaf),
                kl,
            ),
            (
                f"cross-entropy and ∂z, {name}",
                lambda q=q, y=labels, out=out: kldiv.value_and_grad(
                    kldiv.cross_entropy, q, y, out=out
                )[0],
                torch_gradient(cross_entropy, leaf),
                loss,
            ),
        ]
    return result


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--classes", type=int, default=128_256)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(kldiv.get_num_threads())
    print(
        f"{cpu_name()}, {kldiv.isa()}, {kldiv.get_num_threads()} threads, kldiv "
        f"{kldiv.__version__} at {commit()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}; {options.rows} × {options.classes:,}, "
        f"median of {options.repeats}\n"
    )
    print("| job | kldiv | torch eager | ratio | error of kldiv | error of torch |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, ours, theirs, truth in jobs(options.rows, options.classes):
        times: tuple[list[float], list[float]] = ([], [])
        values = (ours(), theirs())
        ours()
        for _ in range(options.repeats):
            for each, call in zip(times, (ours, theirs), strict=True):
                start = time.perf_counter()
                call()
                each.append(time.perf_counter() - start)
        mine, yours = (1e3 * statistics.median(each) for each in times)
        found = (values[0].astype(float), values[1].double().numpy())
        errors = [np.max(np.abs(value - truth) / truth) for value in found]
        print(
            f"| {name} | {mine:.1f} ms | {yours:.0f} ms | {yours / mine:.1f} × "
            f"| {errors[0]:.1e} | {errors[1]:.1e} |"
        )


if __name__ == "__main__":
    main()
