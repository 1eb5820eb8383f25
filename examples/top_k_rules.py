"""How wrong a teacher is of which only k classes are kept, by the rule for the others.

The dense loss is KL(teacher‖student). Of a teacher kept as its k most probable tokens rules make
other losses, and of k tokens drawn from it one that is right on average. Here
the whole teacher is known, so that value and gradient of each can be held to those of the dense
loss: SmolLM2-135M-Instruct with its weights in float32 is the teacher, on topics of Python's
documentation, and the students are

    int8        the same model with its weight matrices rounded to 8 bits: a student at its goal
    int4        to 4 bits: one on the way
    untrained   all tokens alike, as a model begins
    teacher     itself, where the dense gradient is 0 and what a rule still pulls is its bias

Gradients are with respect to the student's logits, those of all positions taken as one vector:
its length and its cosine to that of the dense loss, and its error, the length of the difference.
Of the mean over positions, which is the gradient of an output layer's bias, the error says what
does not average out. The variance of drawn tokens is exact, a sum over the 49,152 tokens that a
draw may give, for draws with probability ∝ p^power; one drawing by `kldiv.sample_k` with power 1
stands beside it. Then files of every k are written, and their bytes counted.

    python examples/top_k_rules.py [--quick]
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import experiment
import kldiv
import models
from compress import Weights, logits_of, passages
from experiment import Experiment

Numbers = NDArray[np.float64]
Logits = NDArray[np.float32]

KEPT = (1, 4, 16, 64, 256)
RULES = ("renormalize", "tail", "truncate", "renormalize_p", "uniform_tail")
"""The sixth, floor, is truncate here: what it has more is of weight e^−100."""
SAMPLED = "sampled"
POWERS = (0.5, 0.8, 1.0, 1.25)
BITS = (8, 4)
TEACHER = "teacher"
CHUNK = 8
"""Rows whose gradients, and whose classes in float64, are held at a time."""
SIGMAS = 3
SEED_OF_DRAWS = 7


@dataclass(frozen=True)
class Size:
    """How much is read."""

    passages: int
    length: int


FULL = Size(passages=6, length=96)
QUICK = Size(passages=1, length=16)


class Dense:
    """The loss of whole rows, for some of them."""

    def __init__(self, teacher: Logits, student: Logits) -> None:
        value, self.gradient = kldiv.value_and_grad(kldiv.kl, teacher, student)
        self.value = np.asarray(value, np.float64)
        self.length = squared(self.gradient)
        self.sum = self.gradient.sum(0, dtype=np.float64)


class Sums:
    """Of all positions so far: value, and the gradient against that of the dense loss."""

    def __init__(self) -> None:
        self.rows = self.negative = 0
        self.value = self.dense = self.squares = 0.0
        self.length = self.along = self.error = self.of_dense = 0.0
        self.sum: Numbers | float = 0.0
        self.sum_of_dense: Numbers | float = 0.0

    def add(self, value: Any, gradient: Any, dense: Dense) -> None:
        """Take some rows."""
        value = np.asarray(value, np.float64)
        self.rows += len(value)
        self.negative += int((value < 0).sum())
        self.value += value.sum()
        self.dense += dense.value.sum()
        self.squares += ((value - dense.value) ** 2).sum()
        self.length += squared(gradient)
        self.along += float(gradient.ravel() @ dense.gradient.ravel())
        self.of_dense += dense.length
        gradient -= dense.gradient
        self.error += squared(gradient)
        self.sum = self.sum + gradient.sum(0, dtype=np.float64)
        self.sum_of_dense = self.sum_of_dense + dense.sum

    def line(self) -> dict[str, Any]:
        """Relative to the dense loss, where that is not 0."""
        line: dict[str, Any] = {
            "KL": self.dense / self.rows,
            "value": self.value / self.rows,
            "off by": math.sqrt(self.squares / self.rows),
            "negative": self.negative / self.rows,
        }
        if self.of_dense < 1e-12 * self.rows:
            return line | {"pull": math.sqrt(self.length / self.rows)}
        return line | {
            "bias": (self.value - self.dense) / self.dense,
            "length": math.sqrt(self.length / self.of_dense),
            "cosine": self.along / math.sqrt(self.length * self.of_dense) if self.length else None,
            "error": math.sqrt(self.error / self.of_dense),
            "error of the mean": math.sqrt(squared(self.sum) / squared(self.sum_of_dense)),
        }


def squared(vector: Any) -> float:
    """Its length, squared."""
    flat = np.ravel(vector)
    return float(flat @ flat)


class Noise:
    """Variances of one draw with each power, added up over positions."""

    def __init__(self) -> None:
        self.value = dict.fromkeys(POWERS, 0.0)
        self.gradient = dict.fromkeys(POWERS, 0.0)

    def add(self, teacher: Logits, student: Logits) -> None:
        """Take some rows: E[X²] − E[X]² of what a token of probability π gives times p/π."""
        ln_p, ln_q = (
            np.asarray(kldiv.log_softmax(z.astype(np.float64))) for z in (teacher, student)
        )
        p, q = np.exp(ln_p), np.exp(ln_q)
        ratio = ln_p - ln_q
        # Of the gradient (p/π)(q − e) with the unit vector e of the token.
        lengths = 1.0 - 2.0 * q + (q**2).sum(-1, keepdims=True)
        of_mean = squared((p * ratio).sum(-1)), squared(q - p)
        for power in POWERS:
            # p²/π with π = p^power / Σ p^power.
            normalizer = np.asarray(kldiv.logsumexp(power * ln_p))[:, None]
            weights = np.exp((2.0 - power) * ln_p + normalizer)
            self.value[power] += float((weights * ratio**2).sum()) - of_mean[0]
            self.gradient[power] += float((weights * lengths).sum()) - of_mean[1]


def students_of(given: Experiment) -> tuple[Any, Any, dict[str, Any]]:
    """The teacher, its tokenizer, and the students that are models."""
    model, tokenizer = models.smollm2(given.models)
    rounded = {}
    for bits in BITS:
        rounded[f"int{bits}"] = copy.deepcopy(model)
        Weights(rounded[f"int{bits}"]).round_all(bits)
    return model, tokenizer, rounded


def chunks_of(size: Size, given: Experiment) -> Iterator[tuple[int, Logits, dict[str, Logits]]]:
    """Logits of the teacher and of every student, some rows at a time, with the first's number."""
    model, tokenizer, rounded = students_of(given)
    source = iter(passages(tokenizer, size.length, given.seed))
    first = 0
    for _ in tqdm(range(size.passages), desc="passages"):
        inputs = torch.tensor([next(source)[:-1]])
        teacher = logits_of(model, inputs, size.length)[0]
        found = {name: logits_of(one, inputs, size.length)[0] for name, one in rounded.items()}
        found |= {"untrained": np.zeros_like(teacher), TEACHER: teacher}
        for start in range(0, size.length, CHUNK):
            rows = slice(start, start + CHUNK)
            yield first, teacher[rows], {name: z[rows] for name, z in found.items()}
            first += len(teacher[rows])


def measure(size: Size, given: Experiment) -> dict[str, list[dict[str, Any]]]:
    """Every rule, every k and every power against the dense loss."""
    rules: dict[tuple[str, str, int], Sums] = {}
    noise: dict[str, Noise] = {}
    coverage: dict[int, list[Numbers]] = {k: [] for k in KEPT}
    counts: dict[tuple[float, int], list[Numbers]] = {}
    files: dict[str, list[kldiv.TopK]] = {}
    for first, teacher, students in chunks_of(size, given):
        top = kldiv.top_k(teacher, KEPT[-1])
        kept = {k: top.thin(k) for k in KEPT}
        drawn = {}
        for k, one in kept.items():
            coverage[k].append(one.coverage())
            files.setdefault(f"top {k}", []).append(one)
            for power in POWERS:
                samples = kldiv.sample_k(
                    teacher, k, power=power, seed=SEED_OF_DRAWS, first_row=first
                )
                counts.setdefault((power, k), []).append(samples.counts)
                if power == 1.0:
                    drawn[k] = samples
                    files.setdefault(f"{k} draws", []).append(samples)
        for name, student in students.items():
            dense = Dense(teacher, student)
            noise.setdefault(name, Noise()).add(teacher, student)
            for k in KEPT:
                for rule in (*RULES, SAMPLED):
                    of = drawn[k] if rule == SAMPLED else kept[k]
                    found = kldiv.value_and_grad(kldiv.kl, of, student, rule=rule)
                    rules.setdefault((name, rule, k), Sums()).add(*found, dense)
    return {
        "rules": [
            {"student": name, "rule": rule, "k": k} | sums.line()
            for (name, rule, k), sums in rules.items()
        ],
        "draws": [
            {"student": name, "power": power, "k": k}
            | noise_of(noise[name], power, k, rules[name, SAMPLED, k])
            | {"classes": float(np.concatenate(counts[power, k]).mean())}
            for name in noise
            for power in POWERS
            for k in KEPT
        ],
        "coverage": [
            {"k": k, "mean": float(np.mean(found)), "worst": float(np.min(found))}
            for k, found in ((k, np.concatenate(parts)) for k, parts in coverage.items())
        ],
        "bytes": [bytes_of(name, parts) for name, parts in files.items()],
    }


def noise_of(noise: Noise, power: float, k: int, dense: Sums) -> dict[str, Any]:
    """Standard deviations with k draws: of a position, of the mean of all, and of the gradient.

    Relative to the dense gradient, or of a position where that is 0.
    """
    value, gradient = (one[power] / k for one in (noise.value, noise.gradient))
    unit = dense.of_dense if dense.of_dense > 1e-12 * dense.rows else dense.rows
    return {
        "σ of a value": math.sqrt(max(value, 0.0) / dense.rows),
        "3σ of the mean": SIGMAS * math.sqrt(max(value, 0.0)) / dense.rows,
        "σ of the gradient": math.sqrt(gradient / unit),
    }


def bytes_of(name: str, parts: list[kldiv.TopK]) -> dict[str, Any]:
    """Bytes a position of the file of a teacher, as it comes and with its values in float16."""
    whole = kldiv.TopK.concatenate(parts)
    halved = kldiv.TopK(
        whole.ids,
        whole.values.astype(np.float16),
        classes=whole.classes,
        offsets=whole.offsets,
        weights=None if whole.weights is None else whole.weights.astype(np.float16),
    )
    line: dict[str, Any] = {"kept": name, "classes": float(whole.counts.mean())}
    with tempfile.TemporaryDirectory() as folder:
        for title, one, end in (
            ("safetensors", whole, "safetensors"),
            ("float16", halved, "safetensors"),
            ("Parquet", whole, "parquet"),
        ):
            path = Path(folder, f"{title}.{end}")
            one.save(path)
            line[title] = path.stat().st_size / whole.rows
    return line


def draw(found: dict[str, list[dict[str, Any]]]) -> Any:
    """Bias of the value, error and direction of the gradient, against k; and what sampling adds."""
    figure, axes = plt.subplots(2, 3, figsize=(15, 8.4))
    for row, student in zip(axes, ("int4", "untrained"), strict=True):
        of_value, of_gradient, of_mean = row
        for number, rule in enumerate((*RULES, SAMPLED)):
            lines = [x for x in found["rules"] if (x["student"], x["rule"]) == (student, rule)]
            style = {"color": f"C{number}", "marker": "o", "ms": 4, "label": rule}
            if rule == SAMPLED:
                style |= {"color": "k", "ls": "--"}
            of_value.plot(KEPT, [x["bias"] for x in lines], **style)
            of_gradient.plot(KEPT, [x["error"] for x in lines], **style)
            of_mean.plot(KEPT, [x["error of the mean"] for x in lines], **style)
        of_value.set(ylabel=f"student: {student}\n(value − KL) / KL")
        of_value.set_yscale("symlog", linthresh=0.1)
        of_gradient.set(ylabel="‖g − ∇KL‖ / ‖∇KL‖", yscale="log")
        of_mean.set(ylabel="the same of the mean over positions", yscale="log")
    for axis, title in zip(
        axes[0],
        ("(a) value", "(b) error of the gradient", "(c) what does not average out"),
        strict=True,
    ):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set_xscale("log", base=4)
        axis.set_xticks(KEPT, KEPT)
    for axis in axes[:, 0]:
        axis.axhline(0.0, color="grey", lw=0.8)
    for axis in axes[1]:
        axis.set_xlabel("k")
    axes[0, 1].legend(fontsize=8)
    figure.tight_layout()
    return figure


def main(given: Experiment) -> None:
    """Measure, print and draw."""
    size = QUICK if given.quick else FULL
    found = measure(size, given)
    positions = size.passages * size.length
    for name in ("int4", "untrained"):
        for title in ("rules", "draws"):
            lines = [x for x in found[title] if x["student"] == name]
            experiment.show_table(f"{title}, {positions} positions, student: {name}", lines)
    experiment.show_table("mass kept", found["coverage"])
    experiment.show_table("bytes a position", found["bytes"])
    given.save({"size": vars(size), "positions": positions} | found, draw(found))


if __name__ == "__main__":
    main(experiment.start("top_k_rules", __doc__))
