"""A small student learns from a file of its teacher's top-k alone, by three rules, and from draws.

The teacher, SmolLM2-135M-Instruct, reads the text once. Of every position a file keeps its 16 most
probable tokens (`kldiv.top_k`, `TopK.save`), another 16 tokens drawn from it (`kldiv.sample_k`);
`kldiv capture MODEL --top-k 16` writes the first from a shell. Then a GPT-2 of random weights is
trained on each file, without the teacher, with `kldiv.torch.DistillationLoss(rule=…)`, and on the
teacher's whole rows for comparison. What counts is KL(teacher‖student) of all 49,152 tokens on
topics that training never sees. Of every kind there are two students; those of different kinds
begin with the same weights and see the same batches.

    python examples/distill_from_file.py [--quick]
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers
from torch import Tensor
from tqdm import tqdm

import experiment
import kldiv
import kldiv.torch
import models
from experiment import Experiment
from train_gpt2 import BATCH, Data, Size, gpt2, score, sequences, with_teacher

KEPT = 16
TOP, DRAWN, DENSE = "top_k.safetensors", "sampled.safetensors", "all classes"
RUNS = {
    DENSE: None,
    "tail": TOP,
    "renormalize_p": TOP,
    "renormalize": TOP,
    "sampled": DRAWN,
}
"""What each student learns from; names are rules."""
LEARNING_RATE = 2e-3
STARTS = 2
"""Students of each kind: other weights to begin with, and another order of the text."""
FULL = Size(train=24, held_out=8, length=64, epochs=6, embedding=64, layers=1)
QUICK = Size(train=6, held_out=3, length=32, epochs=3, embedding=32, layers=1)


def dump(data: Data, folder: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Write both files, a batch of sequences at a time, and say how large they are."""
    parts: dict[str, list[kldiv.TopK]] = {TOP: [], DRAWN: []}
    seconds = dict.fromkeys(parts, 0.0)
    first = 0
    for _, teacher, _ in data.batches(torch.arange(len(data.inputs))):
        logits = teacher.flatten(0, 1).numpy()
        for name, keep in (
            (TOP, lambda z: kldiv.top_k(z, KEPT)),
            (DRAWN, lambda z, row=first: kldiv.sample_k(z, KEPT, seed=seed, first_row=row)),
        ):
            started = time.perf_counter()
            parts[name].append(keep(logits))
            seconds[name] += time.perf_counter() - started
        first += len(logits)
    found = {}
    for name, part in parts.items():
        started = time.perf_counter()
        kept = kldiv.TopK.concatenate(part)
        kept.save(folder / name, overwrite=True)
        found[name] = {
            "file": name,
            "positions": kept.rows,
            "classes": float(kept.counts.mean()),
            "mass": float(kept.coverage().mean()),
            "bytes": (folder / name).stat().st_size,
            "bytes a position": (folder / name).stat().st_size / kept.rows,
            "s": seconds[name] + time.perf_counter() - started,
        }
    return found


def train(
    rule: str, kept: kldiv.TopK | None, data: Data, held_out: Data, size: Size, seed: int
) -> Any:
    """A student's held-out scores before the first epoch and after each, and its time."""
    model = gpt2(data.teacher.shape[-1], size, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95))
    steps = size.epochs * -(-len(data.inputs) // BATCH)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    loss_of = kldiv.torch.DistillationLoss(alpha=1.0, rule=None if kept is None else rule)
    order = torch.Generator().manual_seed(seed)
    scores, losses, seconds = [score(model, held_out)], [], 0.0
    for _ in range(size.epochs):
        model.train()
        started = time.perf_counter()
        for chosen in torch.randperm(len(data.inputs), generator=order).split(BATCH):
            teacher = rows_of(kept, data, chosen)
            loss = loss_of(model(data.inputs[chosen]).logits.flatten(0, 1), teacher)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        seconds += time.perf_counter() - started
        scores.append(score(model, held_out))
    return {
        "KL": [one.kl for one in scores],
        "perplexity": [one.perplexity for one in scores],
        "loss": float(np.mean(losses[-len(losses) // size.epochs :])),
        "s": seconds,
    }


def mean_of(name: str, runs: list[dict[str, Any]]) -> float:
    """Of some runs."""
    return float(np.mean([run[name] for run in runs]))


def rows_of(kept: kldiv.TopK | None, data: Data, chosen: Tensor) -> Any:
    """The teacher of some sequences: from the file, or its whole rows."""
    if kept is None:
        return torch.from_numpy(data.teacher[chosen.numpy()]).flatten(0, 1)
    length = data.inputs.shape[1]
    return kept[(chosen.numpy()[:, None] * length + np.arange(length)).ravel()]


def draw(runs: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """Held-out KL against epochs, and at the end, with the bytes that it took."""
    figure, (of_epochs, of_kinds) = plt.subplots(1, 2, figsize=(12, 4.6))
    for number, (name, run) in enumerate(runs.items()):
        style = {"color": "k", "ls": "--"} if name == DENSE else {"color": f"C{number}"}
        curves = np.array([one["KL"] for one in run])
        of_epochs.plot(curves.mean(0), label=name, **style)
        of_epochs.fill_between(
            range(curves.shape[1]), curves.min(0), curves.max(0), color=style["color"], alpha=0.2
        )
        row = next(row for row in rows if row["learns from"] == name)
        of_kinds.barh(number, row["KL"], xerr=row["±"], color=style["color"], alpha=0.4, capsize=3)
        of_kinds.text(
            0.1,
            number,
            f"{row['KL']:.2f}, {row['bytes a position']:,.0f} bytes a position",
            va="center",
        )
    of_epochs.set(xlabel="epoch", ylabel="KL(teacher‖student), nats", title="held-out topics")
    of_epochs.legend()
    of_kinds.set(xlabel="KL after training", title="two students of each kind")
    of_kinds.set_yticks(range(len(runs)), list(runs))
    of_kinds.invert_yaxis()
    figure.tight_layout()
    return figure


def main(given: Experiment) -> None:
    """Dump, train, print and draw."""
    size = QUICK if given.quick else FULL
    teacher, tokenizer = models.smollm2(given.models)
    data, held_out = (
        with_teacher(part, teacher, given.output / "teacher")
        for part in sequences(tokenizer, size, given.seed)
    )
    del teacher
    files = dump(data, given.output, given.seed)
    positions = data.inputs.numel()
    runs, rows = {}, []
    for name, file in tqdm(RUNS.items(), desc="students"):
        kept = None if file is None else kldiv.TopK.load(given.output / file)
        runs[name] = [
            train(name, kept, data, held_out, size, given.seed + start) for start in range(STARTS)
        ]
        last = [run["KL"][-1] for run in runs[name]]
        rows.append(
            {
                "learns from": name,
                "bytes a position": data.teacher.nbytes / positions
                if file is None
                else files[file]["bytes a position"],
                "loss": mean_of("loss", runs[name]),
                "KL": float(np.mean(last)),
                "±": (max(last) - min(last)) / 2,
                "perplexity": float(np.mean([run["perplexity"][-1] for run in runs[name]])),
                "s": mean_of("s", runs[name]),
            }
        )
    experiment.show_table(f"files of {positions} positions", list(files.values()))
    experiment.show_table(f"held-out topics; untrained KL {runs[DENSE][0]['KL'][0]:.2f}", rows)
    given.save(
        {"size": vars(size), "files": list(files.values()), "students": rows, "runs": runs},
        draw(runs, rows),
    )


if __name__ == "__main__":
    main(experiment.start("distill_from_file", __doc__))
