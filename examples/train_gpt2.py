"""Train a GPT-2 from scratch with cross-entropy, with KL to a teacher, and with both.

The architecture is GPT-2 (`transformers.GPT2LMHeadModel`), small and with random weights; the
teacher SmolLM2-135M-Instruct, whose tokenizer and vocabulary (49,152 tokens) the student shares;
the text Python's own documentation. Ten epochs. Held out are whole topics that training never
sees. The same runs are done again with torch's losses, and their curves are held to kldiv's.

    python examples/train_gpt2.py [--quick]
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

import experiment
import kldiv.torch
import models
import texts
from experiment import Experiment

BATCH = 2
"""Sequences a step: on little text many small steps come further than few large ones."""
LEARNING_RATE = 1e-3
ALPHAS = {"cross-entropy": 0.0, "KL": 1.0, "mix": 0.5}
"""The share of KL(teacher‖student) in the loss; the rest is cross-entropy on the next tokens."""


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    train: int
    held_out: int
    length: int
    epochs: int
    embedding: int
    layers: int


FULL = Size(train=40, held_out=12, length=128, epochs=10, embedding=128, layers=2)
QUICK = Size(train=8, held_out=4, length=64, epochs=3, embedding=64, layers=1)


@dataclass(frozen=True)
class Data:
    """Sequences of tokens, the tokens that follow each, and the teacher's logits for those."""

    inputs: Tensor
    labels: Tensor
    teacher: np.memmap[Any, np.dtype[np.float16]]

    def batches(self, order: Tensor) -> Any:
        """Inputs, teacher's logits and labels of some sequences at a time."""
        for rows in order.split(BATCH):
            yield self.inputs[rows], torch.from_numpy(self.teacher[rows.numpy()]), self.labels[rows]


@dataclass(frozen=True)
class Scores:
    """What a model scores on text it was not trained on."""

    perplexity: float
    kl: float


@dataclass
class Run:
    """The course of one training."""

    loss: list[float]
    held_out: list[Scores]
    seconds: float


def sequences(tokenizer: Any, size: Size, seed: int) -> tuple[Tensor, Tensor]:
    """Pieces of documentation, each one token longer than the model reads; train and held out."""
    topics = texts.python_documentation()
    names = sorted(topics)
    random.Random(seed).shuffle(names)
    quarter = len(names) // 4
    held_out, train = ([topics[n] for n in part] for part in (names[:quarter], names[quarter:]))
    return (
        pieces(tokenizer, train, size.train, size.length),
        pieces(tokenizer, held_out, size.held_out, size.length),
    )


def pieces(tokenizer: Any, documents: list[str], count: int, length: int) -> Tensor:
    """The first tokens of documents that end in a token of their own, [count, length + 1]."""
    end = tokenizer.eos_token_id
    tokens = [token for text in documents for token in (*tokenizer(text)["input_ids"], end)]
    return torch.tensor([tokens[i * length : (i + 1) * length + 1] for i in range(count)])


def with_teacher(sequences: Tensor, teacher: Any, folder: Path) -> Data:
    """Let the teacher read all inputs once, and keep its logits in a file of float16."""
    inputs, labels = sequences[:, :-1], sequences[:, 1:]
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(inputs.numpy().tobytes()).hexdigest()[:16]
    path = folder / f"{name}.npy"
    if not path.exists():
        shape = (*inputs.shape, teacher.config.vocab_size)
        logits = np.lib.format.open_memmap(
            path.with_suffix(".part"), mode="w+", dtype=np.float16, shape=shape
        )
        with torch.inference_mode():
            for rows in tqdm(
                torch.arange(len(inputs)).split(BATCH), desc="teacher reads", disable=None
            ):
                logits[rows.numpy()] = teacher(inputs[rows]).logits.half().numpy()
        logits.flush()
        path.with_suffix(".part").rename(path)
    return Data(inputs, labels, np.load(path, mmap_mode="r"))


def gpt2(vocabulary: int, size: Size, seed: int) -> Any:
    """A GPT-2 with random weights, the same for the same seed."""
    transformers.set_seed(seed)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=vocabulary,
            n_positions=2 * size.length,
            n_embd=size.embedding,
            n_layer=size.layers,
            n_head=4,
            # None, so that losses of training and of held-out text are of the same model.
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def kldiv_loss(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """α KL(teacher‖student) + (1−α) cross-entropy, in one read of both logits."""
    if alpha == 0.0:
        return kldiv.torch.cross_entropy(student.flatten(0, 1), labels.flatten())
    return kldiv.torch.distillation_loss(student, teacher, labels, alpha=alpha)


def torch_loss(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """The same of torch's functions."""
    student = student.flatten(0, 1)
    loss = torch.zeros(())
    if alpha < 1.0:
        loss = loss + (1.0 - alpha) * functional.cross_entropy(student, labels.flatten())
    if alpha > 0.0:
        log_q = student.log_softmax(-1)
        log_p = teacher.flatten(0, 1).to(student.dtype).log_softmax(-1)
        kl = functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        loss = loss + alpha * kl
    return loss


@torch.inference_mode()
def score(model: Any, data: Data) -> Scores:
    """Perplexity of the text, and mean KL(teacher‖model), in one read of both logits."""
    model.eval()
    compared = [
        kldiv.compare(teacher.numpy(), model(inputs).logits.numpy(), labels.numpy())
        for inputs, teacher, labels in data.batches(torch.arange(len(data.inputs)))
    ]
    summary = kldiv.Summary.of(compared)
    assert summary.nll_q is not None
    return Scores(perplexity=math.exp(summary.nll_q.mean), kl=summary.kl.mean)


def train(model: Any, data: Data, held_out: Data, loss_of: Any, alpha: float, epochs: int) -> Run:
    """Train, and score on the held-out text before the first epoch and after each."""
    steps = epochs * math.ceil(len(data.inputs) / BATCH)
    # All 49,152 rows of the embedding move at every step; with β₂ = 0.999 losses jump.
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95))
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    run = Run([], [score(model, held_out)], 0.0)
    progress = tqdm(total=steps, disable=None)
    for epoch in range(epochs):
        model.train()
        losses = []
        started = time.perf_counter()
        for inputs, teacher, labels in data.batches(torch.randperm(len(data.inputs))):
            loss = loss_of(model(inputs).logits, teacher, labels, alpha)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            progress.update()
        run.seconds += time.perf_counter() - started
        run.loss.append(sum(losses) / len(losses))
        run.held_out.append(score(model, held_out))
        progress.set_description(f"epoch {epoch + 1}, loss {run.loss[-1]:.3f}")
    progress.close()
    return run


def seconds_of_losses(model: Any, data: Data, alpha: float, rounds: int = 5) -> dict[str, float]:
    """Median time of a loss with its gradient for one batch, in turns."""
    inputs, teacher, labels = next(data.batches(torch.arange(BATCH)))
    with torch.no_grad():
        logits = model(inputs).logits
    times: dict[str, list[float]] = {"kldiv": [], "torch": []}
    for _ in range(rounds):
        for name, loss_of in (("kldiv", kldiv_loss), ("torch", torch_loss)):
            leaf = logits.detach().requires_grad_()
            started = time.perf_counter()
            loss_of(leaf, teacher, labels, alpha).backward()
            times[name].append(time.perf_counter() - started)
    return {name: float(np.median(seconds)) for name, seconds in times.items()}


def draw(runs: dict[str, Run], torchs: dict[str, Run], teacher: float) -> Any:
    """Losses in training, and both scores on the held-out text, against epochs."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    for name, run in runs.items():
        epochs = range(1, len(run.loss) + 1)
        line = axes[0].plot(epochs, run.loss, label=name)[0]
        axes[0].plot(epochs, torchs[name].loss, "x", color=line.get_color())
        for axis, field in ((axes[1], "perplexity"), (axes[2], "kl")):
            axis.plot([getattr(scores, field) for scores in run.held_out], label=name)
    axes[0].plot([], [], "kx", label="with torch's losses")
    axes[1].axhline(teacher, color="grey", linestyle=":", label="teacher")
    axes[0].set(title="training", ylabel="loss (nats)")
    axes[1].set(title="held-out topics", ylabel="perplexity", yscale="log")
    axes[2].set(title="held-out topics", ylabel="KL(teacher‖student) (nats)", yscale="log")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.legend()
    figure.tight_layout()
    return figure


def main(given: Experiment) -> None:
    """Train the three, compare with torch, and save and load what was trained."""
    size = QUICK if given.quick else FULL
    teacher, tokenizer = models.smollm2(given.models)
    data, held_out = (
        with_teacher(part, teacher, given.output / "teacher")
        for part in sequences(tokenizer, size, given.seed)
    )
    with torch.inference_mode():
        of_teacher = score(teacher, held_out)
    runs: dict[str, Run] = {}
    torchs: dict[str, Run] = {}
    rows = []
    for name, alpha in ALPHAS.items():
        for loss_of, found in ((kldiv_loss, runs), (torch_loss, torchs)):
            model = gpt2(teacher.config.vocab_size, size, given.seed)
            found[name] = train(model, data, held_out, loss_of, alpha, size.epochs)
            if loss_of is kldiv_loss:
                folder = given.models / f"gpt2-{name}"
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
                loaded = transformers.GPT2LMHeadModel.from_pretrained(folder)
                assert score(loaded, held_out) == found[name].held_out[-1]
        ours, theirs, seconds = runs[name], torchs[name], seconds_of_losses(model, data, alpha)
        apart = max(abs(a / b - 1.0) for a, b in zip(ours.loss, theirs.loss, strict=True))
        rows.append(
            {
                "loss": name,
                "first epoch": ours.loss[0],
                "last epoch": ours.loss[-1],
                "falls": ours.loss == sorted(ours.loss, reverse=True),
                "perplexity": ours.held_out[-1].perplexity,
                "KL to teacher": ours.held_out[-1].kl,
                "s": ours.seconds,
                "torch: time ×": theirs.seconds / ours.seconds,
                "of the loss ×": seconds["torch"] / seconds["kldiv"],
                "apart by": apart,
            }
        )
    untrained = runs["mix"].held_out[0]
    experiment.show_table(
        f"{size.train * size.length} tokens; on held-out topics: untrained perplexity "
        f"{untrained.perplexity:.0f}, KL {untrained.kl:.2f}; teacher {of_teacher.perplexity:.2f}",
        rows,
    )
    given.save(
        {
            "size": vars(size),
            "teacher": vars(of_teacher),
            "untrained": vars(untrained),
            "losses": rows,
            "runs": {
                name: {"loss": run.loss, "held out": [vars(s) for s in run.held_out]}
                for name, run in runs.items()
            },
            "runs with torch's losses": {name: run.loss for name, run in torchs.items()},
        },
        draw(runs, torchs, of_teacher.perplexity),
    )


if __name__ == "__main__":
    main(experiment.start("train_gpt2", __doc__))
