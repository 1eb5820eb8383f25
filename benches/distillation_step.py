"""A real distillation step with torch's losses and with kldiv's: wall time and peak memory.

    python benches/distillation_step.py [--batch 4] [--tokens 256] [--steps 5] [--save]

The teacher is SmolLM2-135M-Instruct (49,152 tokens), the student a Llama of 2 layers with its
vocabulary, the text the documentation of Python; the loss ½·KL(teacher‖student) at T = 2 times T²
plus ½·cross-entropy. Each loss has a process of its own. "Loss" is the loss and its gradient with
respect to the student's logits, the median of the steps; memory is the largest resident size
during a step, above that before its loss. Needs what `examples/distill_with_trainer.py` needs.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

import document
import kldiv.torch
import runs
import torch_formulas

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

TEMPERATURE, ALPHA = 2.0, 0.5
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def torch_loss(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """As one writes it in torch."""
    divergence = torch_formulas.kl(teacher / TEMPERATURE, student / TEMPERATURE).mean()
    loss = functional.cross_entropy(student.flatten(0, 1), labels.flatten())
    return ALPHA * TEMPERATURE**2 * divergence + (1 - ALPHA) * loss


def kldiv_loss(**options: Any) -> Loss:
    """The same by kldiv."""
    return kldiv.torch.DistillationLoss(
        temperature=TEMPERATURE, scale_by_t_squared=True, alpha=ALPHA, **options
    )


LOSSES: dict[str, Loss] = {
    "torch": torch_loss,
    "torch.compile": torch.compile(torch_loss),
    "kldiv": kldiv_loss(),
    "kldiv, in place": kldiv_loss(inplace=True),
}


def memory(field: str) -> int:
    """A size of this process in bytes."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return 1024 * int(found[1])


def run(name: str, batch: int, tokens: int, steps: int) -> dict[str, Any]:
    """Train for some steps with one loss."""
    import transformers

    import distill_with_trainer

    transformers.logging.set_verbosity_error()
    teacher, tokenizer = distill_with_trainer.load_teacher()
    distill_with_trainer.SEQUENCE = tokens
    data = [
        piece
        for piece in distill_with_trainer.sequences(tokenizer)
        if bool((piece["labels"] != -100).all())
    ]
    student = distill_with_trainer.student(teacher)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    seconds, loss_seconds, peaks, losses = [], [], [], []
    for step in range(steps + 1):
        pieces = [data[(step * batch + at) % len(data)] for at in range(batch)]
        input_ids, labels = (
            torch.stack([piece[key] for piece in pieces]) for key in ("input_ids", "labels")
        )
        start = time.perf_counter()
        with torch.no_grad():
            teacher_logits = teacher(input_ids).logits
        logits = student(input_ids).logits
        Path("/proc/self/clear_refs").write_text("5")
        before, started = memory("VmRSS"), time.perf_counter()
        loss = LOSSES[name](logits, teacher_logits, labels)
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        loss_seconds.append(time.perf_counter() - started)
        peaks.append(memory("VmHWM") - before)
        logits.backward(gradient)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
        del loss, gradient, logits, teacher_logits
    return {
        "step": statistics.median(seconds[1:]),
        "loss": statistics.median(loss_seconds[1:]),
        "memory": statistics.median(peaks[1:]),
        "losses": losses,
    }


def main() -> None:
    """Run every loss in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="keep the run in benches/results")
    parser.add_argument("--only", choices=LOSSES, help="run one loss here, and print JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(run(options.only, options.batch, options.tokens, options.steps)))
        return
    sizes = {option: getattr(options, option) for option in ("batch", "tokens", "steps")}
    arguments = [f"--{name}={number}" for name, number in sizes.items()]
    header = runs.header(
        " ".join(["python benches/distillation_step.py", *arguments]),
        versions={"torch": torch.__version__},
        **sizes,
    )
    found: runs.Run = {"header": header, "results": []}
    for name in LOSSES:
        command = [sys.executable, __file__, "--only", name, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        found["results"].append({"name": name, **json.loads(result.stdout.splitlines()[-1])})
    print("\n".join(document.distillation({"distillation": found})))
    if options.save:
        print(runs.save("distillation", found))


if __name__ == "__main__":
    main()
