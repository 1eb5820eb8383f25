"""Teach a model new text, and keep what it knows by KL to what it was.

SmolLM2-135M-Instruct knows English. It is trained further on a manual in Chinese, the Debian
Reference, three times from the same weights on the same text in the same order:

    new text only     cross-entropy of the Chinese text
    with KL           the same, and KL(original‖model) on Python's documentation, which it knows
    with known text   the same, and instead of KL cross-entropy of that documentation

What it learned is by how much the cross-entropy of held-out chapters in Chinese has fallen, what it
lost KL(original‖model) on held-out topics of the documentation, and on the same chapters in
English, a text that no loss has seen. More steps learn more and lose more, so the three are
compared where they have learned equally much.

    python examples/keep_what_it_knows.py [--quick]
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import torch
import transformers
from torch import Tensor
from tqdm import tqdm

import experiment
import kldiv.torch
import models
import train_gpt2
from experiment import Experiment
from train_gpt2 import pieces
from two_tasks import split

NEW, WITH_KL, WITH_TEXT = "new text only", "with KL", "with known text"
LOST = {"known": "documentation", "elsewhere": "manual in English"}
BATCH = 8
"""Sequences read at a time."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of what all have learned: where they are compared."""


@dataclass(frozen=True)
class Size:
    """How much is read, and how much of the model is trained."""

    chapters: int | None
    steps: int
    scored: int
    """Steps between two scores."""
    held_out: int
    """Sequences of each text."""
    length: int
    layers: int
    """The last blocks, which are trained; the others and the embedding stay."""
    learning_rate: float


FULL = Size(chapters=None, steps=40, scored=8, held_out=6, length=96, layers=10, learning_rate=2e-4)
QUICK = Size(chapters=2, steps=12, scored=6, held_out=2, length=24, layers=3, learning_rate=3e-4)


@dataclass(frozen=True)
class Text:
    """Sequences of tokens, the tokens that follow each, and the original's last hidden states.

    These are many times smaller than its logits, of which they have all.
    """

    inputs: Tensor
    labels: Tensor
    states: Tensor

    @classmethod
    @torch.no_grad()
    def read(cls, original: Any, sequences: Tensor) -> Text:
        """Let the original read sequences that are a token longer than its inputs."""
        inputs, labels = sequences[:, :-1], sequences[:, 1:]
        states = [original.model(rows).last_hidden_state for rows in inputs.split(BATCH)]
        return cls(inputs, labels, torch.cat(states))


@dataclass(frozen=True)
class Texts:
    """What is trained on, and what is held out."""

    new: Text
    known: Text
    held_out: dict[str, Text]
    """New, known and elsewhere."""


def read(original: Any, tokenizer: Any, size: Size, seed: int) -> Texts:
    """A sequence of the new and of the known text for each step, and held-out ones."""
    chinese, held_chinese = split("zh-cn", size.chapters, seed)
    _, held_english = split("en", size.chapters, seed)
    of_known = train_gpt2.Size(
        train=size.steps,
        held_out=size.held_out,
        length=size.length,
        epochs=1,
        embedding=1,
        layers=1,
    )
    known, held_known = train_gpt2.sequences(tokenizer, of_known, seed)
    new, held_new, elsewhere = (
        pieces(tokenizer, documents, count, size.length)
        for documents, count in (
            (chinese, size.steps),
            (held_chinese, size.held_out),
            (held_english, size.held_out),
        )
    )
    parts = [
        Text.read(original, part)
        for part in tqdm((new, known, held_new, held_known, elsewhere), desc="original reads")
    ]
    return Texts(parts[0], parts[1], dict(zip(("new", *LOST), parts[2:], strict=True)))


@torch.no_grad()
def score(model: Any, original: Any, held_out: dict[str, Text]) -> dict[str, float]:
    """Cross-entropy of each held-out text, and KL(original‖model) on it."""
    found = {}
    for name, text in held_out.items():
        compared = []
        for rows in torch.arange(len(text.inputs)).split(BATCH):
            before, after = original.lm_head(text.states[rows]), model(text.inputs[rows]).logits
            compared.append(kldiv.compare(before.numpy(), after.numpy(), text.labels[rows].numpy()))
        summary = kldiv.Summary.of(compared)
        assert summary.nll_q is not None
        found[f"CE {name}"] = summary.nll_q.mean
        found[f"KL {name}"] = summary.kl.mean
    return found


def loss_of(how: str, model: Any, original: Any, texts: Texts, step: int) -> Tensor:
    """Cross-entropy of a sequence of the new text and, where it is to be kept, what keeps it."""
    if how == NEW:
        logits = model(texts.new.inputs[step][None]).logits
        return kldiv.torch.cross_entropy(logits[0], texts.new.labels[step])
    logits = model(torch.stack([texts.new.inputs[step], texts.known.inputs[step]])).logits
    learning = kldiv.torch.cross_entropy(logits[0], texts.new.labels[step])
    if how == WITH_TEXT:
        return learning + kldiv.torch.cross_entropy(logits[1], texts.known.labels[step])
    with torch.no_grad():
        before = original.lm_head(texts.known.states[step])
    return learning + kldiv.torch.kl(before, logits[1], reduction="mean")


def train(
    how: str, original: Any, texts: Texts, size: Size, before: dict[str, float]
) -> list[dict[str, float]]:
    """Train a copy of the original, whose scores are given, and score it every few steps."""
    model = copy.deepcopy(original)
    trained = model.model.layers[-size.layers :].requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=size.learning_rate)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, size.steps // 10, size.steps)
    curve = [{"step": 0, **before}]
    for step in tqdm(range(size.steps), desc=how, disable=None):
        loss = loss_of(how, model, original, texts, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % size.scored == 0:
            curve.append({"step": step + 1, **score(model, original, texts.held_out)})
    for row in curve:
        row["learned"] = curve[0]["CE new"] - row["CE new"]
    return curve


def lost_at(curve: list[dict[str, float]], learned: float, key: str) -> float:
    """What was lost when the curve first reached what was learned, between two scores linearly."""
    for before, after in itertools.pairwise(curve):
        if after["learned"] >= learned:
            share = (learned - before["learned"]) / (after["learned"] - before["learned"])
            return before[key] + share * (after[key] - before[key])
    raise ValueError(f"learned {curve[-1]['learned']:.3f} at last, not {learned:.3f}")


def draw(curves: dict[str, list[dict[str, float]]], common: float) -> Any:
    """What is lost against what is learned, and what is learned against steps."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    for name, style in zip(curves, ("^-", "o-", "s--"), strict=True):
        learned, steps = ([row[key] for row in curves[name]] for key in ("learned", "step"))
        axes[0].plot(steps, learned, style, ms=4, label=name)
        for axis, key in zip(axes[1:], LOST, strict=True):
            axis.plot(learned, [row[f"KL {key}"] for row in curves[name]], style, ms=4, label=name)
    axes[0].set(title="(a) learned: Chinese, held-out chapters", xlabel="step")
    axes[0].set_ylabel("cross-entropy has fallen by (nats)")
    for axis, letter, name in zip(axes[1:], "bc", LOST.values(), strict=True):
        axis.axvline(common, color="0.6", ls=":", label="learned by all")
        axis.set(title=f"({letter}) lost: {name}", xlabel="learned (nats)")
        axis.set_ylabel("KL(original‖model) (nats)")
    for axis in axes:
        axis.legend()
    return figure


def main(given: Experiment) -> None:
    """Train three times, and compare what is lost at equal learning."""
    size = QUICK if given.quick else FULL
    original, tokenizer = models.smollm2(given.models)
    texts = read(original, tokenizer, size, given.seed)
    before = score(original, original, texts.held_out)
    # Its logits, from what was kept of it, are its own.
    assert before["KL known"] < 1e-6
    curves = {how: train(how, original, texts, size, before) for how in (NEW, WITH_KL, WITH_TEXT)}
    common = min(max(row["learned"] for row in curve) for curve in curves.values())
    for how, curve in curves.items():
        rows = [{k: v for k, v in row.items() if k != "KL new"} for row in curve]
        experiment.show_table(f"{how}; held-out texts, nats", rows)
    rows = []
    for share in SHARES:
        for how, curve in curves.items():
            row: dict[str, Any] = {"learned": share * common, "trained": how}
            for key, name in LOST.items():
                row[f"KL {name}"] = lost_at(curve, share * common, f"KL {key}")
            rows.append(row)
    experiment.show_table("lost where as much is learned, nats", rows)
    given.save({"curves": curves, "equal learning": rows}, draw(curves, common))


if __name__ == "__main__":
    main(experiment.start("keep_what_it_knows", __doc__))
