"""One student for English and Chinese, with KL to the teacher of each in the loss.

The text is a book in two languages, the Debian Reference. SmolLM2-135M-Instruct reads both as the
teacher, English well and Chinese mostly byte by byte. The student, a GPT-2 of its vocabulary with
random weights, is so small that it cannot follow the teacher in either. Its loss is

    w·KL(teacher‖student) of English + (1 − w)·KL(teacher‖student) of Chinese

of one sequence each a step, in one call: `weights` gives the rows of a task theirs. For each w a
student is trained from the same weights, on the same sequences in the same order. Held out are
whole chapters, the same ones in both languages. What one task gains by its weight the other loses;
w = 0 and 1 show what is learned of a language by reading only the other.

    python examples/two_tasks.py [--quick]
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers
from tqdm import tqdm

import experiment
import kldiv.torch
import models
import texts
import train_gpt2
from cleaning import clean
from experiment import Experiment
from prepare_text import sections
from train_gpt2 import Data, gpt2, pieces, with_teacher

LANGUAGES = {"English": "en", "Chinese": "zh-cn"}


@dataclass(frozen=True)
class Size:
    """How much is trained, and with which weights of English."""

    chapters: int | None
    student: train_gpt2.Size
    """Its sequences are of each language."""
    learning_rate: float
    weights: tuple[float, ...]


FULL = Size(
    chapters=None,
    student=train_gpt2.Size(train=24, held_out=12, length=96, epochs=8, embedding=128, layers=2),
    learning_rate=1e-3,
    weights=(0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
)
QUICK = Size(
    chapters=4,
    student=train_gpt2.Size(train=8, held_out=3, length=32, epochs=5, embedding=48, layers=1),
    learning_rate=2e-3,
    weights=(0.0, 0.5, 1.0),
)


def split(language: str, chapters: int | None, seed: int) -> tuple[list[str], list[str]]:
    """Sections of the Debian Reference to train on and those of held-out chapters, a quarter."""
    pages = texts.debian_reference(language)
    names = list(pages)[:chapters]
    random.Random(seed).shuffle(names)
    quarter = max(len(names) // 4, 1)
    train, held_out = (
        [clean(section) for name in part for section in sections(pages[name])]
        for part in (names[quarter:], names[:quarter])
    )
    # However little is read of them, it is of all chapters.
    for part in (train, held_out):
        random.Random(seed).shuffle(part)
    return train, held_out


@torch.inference_mode()
def score(model: Any, data: Data) -> dict[str, float]:
    """Mean KL(teacher‖model), and cross-entropy of the text for both."""
    model.eval()
    compared = [
        kldiv.compare(teacher.numpy(), model(inputs).logits.numpy(), labels.numpy())
        for inputs, teacher, labels in data.batches(torch.arange(len(data.inputs)))
    ]
    summary = kldiv.Summary.of(compared)
    assert summary.nll_p is not None
    assert summary.nll_q is not None
    return {
        "KL": summary.kl.mean,
        "cross-entropy": summary.nll_q.mean,
        "of the teacher": summary.nll_p.mean,
    }


def train(model: Any, tasks: dict[str, Data], weights: dict[str, float], size: Size) -> list[float]:
    """Train with the weighted KLs of a sequence of each task a step; mean loss of each epoch."""
    used = {name: data for name, data in tasks.items() if weights[name] > 0.0}
    count = len(next(iter(used.values())).inputs)
    epochs = size.student.epochs
    # See train_gpt2.py for β₂.
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.learning_rate, betas=(0.9, 0.95))
    schedule = transformers.get_cosine_schedule_with_warmup(
        optimizer, epochs * count // 10, epochs * count
    )
    losses = []
    model.train()
    for _ in range(epochs):
        of_epoch = []
        for i in torch.randperm(count).tolist():
            logits = model(torch.stack([data.inputs[i] for data in used.values()])).logits
            teacher = torch.from_numpy(np.stack([data.teacher[i] for data in used.values()]))
            of_rows = torch.tensor([weights[name] for name in used])[:, None]
            loss = kldiv.torch.kl(
                teacher, logits, weights=of_rows.expand(logits.shape[:-1]), reduction="mean"
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            of_epoch.append(loss.item())
        losses.append(sum(of_epoch) / len(of_epoch))
    return losses


def draw(rows: list[dict[str, Any]], untrained: dict[str, float]) -> Any:
    """KL of each task against its weight, and of one against the other."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    weights = [row["w"] for row in rows]
    for color, marker, name in zip(("C0", "C3"), "os", LANGUAGES, strict=True):
        left.plot(weights, [row[name] for row in rows], f"{marker}-", color=color, label=name)
        left.axhline(untrained[name], color=color, ls=":", label=f"{name}, untrained")
    left.plot(weights, [row["mean"] for row in rows], "--", color="0.5", label="mean of both")
    left.set(xlabel="w, the weight of English", ylabel="held-out KL(teacher‖student) (nats)")
    left.set(title="(a) each task against the weight")
    left.legend()
    english, chinese = ([row[name] for row in rows] for name in LANGUAGES)
    right.plot(english, chinese, "o-", color="C2")
    for row in rows:
        right.annotate(
            f"w = {row['w']:g}",
            (row["English"], row["Chinese"]),
            (7, 5) if row["w"] >= 0.5 else (-10, -15),
            textcoords="offset points",
        )
    right.margins(0.15)
    right.set(xlabel="KL of English (nats)", ylabel="KL of Chinese (nats)")
    right.set(title="(b) what one task gains the other loses")
    return figure


def main(given: Experiment) -> None:
    """Let the teacher read both languages, and train a student for each weight."""
    size = QUICK if given.quick else FULL
    shape = size.student
    teacher, tokenizer = models.smollm2(given.models)
    tasks: dict[str, Data] = {}
    held_out: dict[str, Data] = {}
    for name, language in LANGUAGES.items():
        parts = split(language, size.chapters, given.seed)
        tasks[name], held_out[name] = (
            with_teacher(
                pieces(tokenizer, part, count, shape.length), teacher, given.output / "teacher"
            )
            for part, count in zip(parts, (shape.train, shape.held_out), strict=True)
        )
    vocabulary = teacher.config.vocab_size
    start = gpt2(vocabulary, shape, given.seed)
    untrained = {name: score(start, data) for name, data in held_out.items()}
    rows = []
    for w in tqdm(size.weights, desc="weights"):
        student = gpt2(vocabulary, shape, given.seed)
        weights = dict(zip(LANGUAGES, (w, 1.0 - w), strict=True))
        losses = train(student, tasks, weights, size)
        found = {name: score(student, data) for name, data in held_out.items()}
        kls = {name: scores["KL"] for name, scores in found.items()}
        rows.append(
            {
                "w": w,
                **kls,
                "mean": float(np.mean(list(kls.values()))),
                "worse": max(kls.values()),
                **{f"CE {name}": scores["cross-entropy"] for name, scores in found.items()},
                "loss": losses,
            }
        )
    experiment.show_table(
        "held out, before training, nats",
        [
            {"task": name, **{k.replace("of the", "CE of the"): v for k, v in scores.items()}}
            for name, scores in untrained.items()
        ],
    )
    experiment.show_table(
        "held-out KL(teacher‖student) and cross-entropy by the weight of English, nats",
        [{k: v for k, v in row.items() if k != "loss"} for row in rows],
    )
    given.save(
        {"untrained": untrained, "weights": rows},
        draw(rows, {name: scores["KL"] for name, scores in untrained.items()}),
    )


if __name__ == "__main__":
    main(experiment.start("two_tasks", __doc__))
