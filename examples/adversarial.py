"""What a discriminator measures: the Jensen–Shannon divergence, and what samples show of it.

A generative adversarial network [1]_ has a discriminator D that tells samples of p from samples of
q by maximising V(D) = E_p ln D + E_q ln(1 − D). Of all functions D* = p/(p + q) is the best, and

    V(D*) = 2·JS(p, q) − 2 ln 2,    JS(p, q) = ln 2 − CE(D*),

where CE is the cross-entropy of D as a classifier of equally many samples of both. Every other D
has a larger one, by the mean of KL(D*‖D): ln 2 − CE(D) is below JS. Here p and q are histograms of
tokens of two real texts, so that JS is known exactly, from `kldiv.jensen_shannon`, and three
discriminators are trained on samples of them:

    table       a logit for each token of the vocabulary: it can become D*
    linear      linear in the 64 principal components of SmolLM2's embeddings: it cannot
    as trained  the table again, but scored on the samples it was trained on, without a held-out
                part that says when to stop: above JS, however different p and q are

Then the texts are a generator's: q is a softmax of logits, and follows the gradient of V(D) for
the best D, which is that of 2·JS, or for the table, trained on samples as a GAN's is.

    python examples/adversarial.py [--quick]

.. [1] I. Goodfellow et al., "Generative Adversarial Nets" (2014). :doi:`10.48550/arXiv.1406.2661`
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor
from tqdm import tqdm

import experiment
import kldiv.torch
import models
import texts
from cleaning import clean
from experiment import Experiment

Array = NDArray[np.float64]

LN_2 = math.log(2.0)
PATIENCE = 5
"""Scores on held-out samples that may be worse than the best before training stops."""
SCORED = 4
"""Steps between two such scores."""
COMPONENTS = 64
LEARNING_RATES = {"table": 0.05, "linear": 0.01}
GENERATOR_RATE = 0.05
"""Of Adam, on the generator's logits."""
DISCRIMINATOR_STEPS = 3
"""For each step of the generator."""
GENERATED = "two texts"
"""The pair whose second text the generator starts as."""


@dataclass(frozen=True)
class Size:
    """How many samples, how often drawn anew, and how long is trained."""

    chapters: int | None
    """Of the Debian Reference."""
    samples: tuple[int, ...]
    """Of p, and as many of q."""
    repeats: int
    steps: int
    generator_steps: int
    generator_samples: int


FULL = Size(
    chapters=None,
    samples=(100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000),
    repeats=3,
    steps=400,
    generator_steps=150,
    generator_samples=20_000,
)
QUICK = Size(
    chapters=2,
    samples=(1_000, 30_000),
    repeats=1,
    steps=100,
    generator_steps=20,
    generator_samples=5_000,
)


@dataclass(frozen=True)
class Pair:
    """Two distributions over the tokens, [vocabulary] each, exact or of samples."""

    p: Array
    q: Array

    @property
    def jensen_shannon(self) -> float:
        """What the best discriminator finds."""
        return float(kldiv.jensen_shannon(self.p, self.q, space="probs"))

    @property
    def tokens(self) -> NDArray[np.int64]:
        """The tokens that occur, which are the rows of what follows."""
        return np.flatnonzero(self.p + self.q)

    @property
    def weights(self) -> Array:
        """How often a token comes, where p and q give equally many."""
        return (self.p + self.q)[self.tokens] / 2

    @property
    def best(self) -> Array:
        """D* = p/(p + q) and 1 − D*: how often a token that comes is of p, and of q."""
        return np.stack([self.p, self.q], -1)[self.tokens] / (2 * self.weights)[:, None]

    def sampled(self, count: int, rng: np.random.Generator) -> Pair:
        """The shares of the tokens among some samples of each."""
        return Pair(rng.multinomial(count, self.p) / count, rng.multinomial(count, self.q) / count)


def histogram(tokenizer: Any, documents: list[str]) -> Array:
    """The shares of the tokens in some texts."""
    counts = np.zeros(len(tokenizer))
    for text in documents:
        counts += np.bincount(tokenizer(text)["input_ids"], minlength=len(counts))
    return counts / counts.sum()


def pairs_of_texts(tokenizer: Any, chapters: int | None) -> dict[str, Pair]:
    """Distributions of tokens that differ much, less, and little."""
    english, chinese = (
        histogram(tokenizer, [clean(page) for page in list(pages.values())[:chapters]])
        for pages in map(texts.debian_reference, ("en", "zh-cn"))
    )
    topics = texts.python_documentation()
    names = sorted(topics)
    python, even, odd = (
        histogram(tokenizer, [topics[name] for name in part])
        for part in (names, names[::2], names[1::2])
    )
    return {
        "two languages": Pair(english, chinese),
        GENERATED: Pair(python, english),
        "halves of a text": Pair(even, odd),
    }


def found_by(logits: Array, pair: Pair) -> float:
    """What a discriminator finds of JS, ln 2 − CE(D), from its logits for the pair's tokens."""
    cross_entropy = kldiv.cross_entropy(
        classes(logits), pair.best, weights=pair.weights, reduction="sum"
    )
    return LN_2 - float(cross_entropy)


def missed_by(logits: Array, pair: Pair) -> float:
    """The mean of KL(D*‖D)."""
    kl = kldiv.kl(
        pair.best,
        classes(logits),
        space=("probs", "logits"),
        weights=pair.weights,
        reduction="sum",
    )
    return float(kl)


def classes(logits: Array) -> Array:
    """The logits of both classes, of which D is the softmax."""
    return np.stack([logits, np.zeros_like(logits)], -1)


def table(vocabulary: int) -> torch.nn.Module:
    """A discriminator with a logit for each token, 0 at first."""
    layer = torch.nn.Embedding(vocabulary, 1)
    torch.nn.init.zeros_(layer.weight)
    return layer


def linear(features: Tensor) -> torch.nn.Module:
    """A discriminator that is linear in the features of the token, 0 at first."""
    layer = torch.nn.Linear(features.shape[1], 1)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    return torch.nn.Sequential(torch.nn.Embedding.from_pretrained(features), layer)


def principal_components(embedding: Tensor) -> Tensor:
    """Those of the largest variance, each in units of its standard deviation."""
    centred = embedding - embedding.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    return (centred @ directions[:, -COMPONENTS:]) / variances[-COMPONENTS:].sqrt()


def logits_for(discriminator: torch.nn.Module, pair: Pair) -> Array:
    """The discriminator's logits for the tokens that occur."""
    with torch.no_grad():
        logits = discriminator(torch.from_numpy(pair.tokens))[:, 0]
    return np.asarray(logits.double().numpy())


def loss_of(discriminator: torch.nn.Module, pair: Pair) -> Tensor:
    """Mean KL(D*‖D), which has the gradient of CE(D), of −V(D)/2."""
    logits = discriminator(torch.from_numpy(pair.tokens))
    return kldiv.torch.kl(
        torch.from_numpy(pair.best),
        torch.cat([logits, torch.zeros_like(logits)], -1),
        space=("probs", "logits"),
        weights=torch.from_numpy(pair.weights),
        reduction="sum",
    )


def train(
    discriminator: torch.nn.Module, train: Pair, held_out: Pair | None, steps: int, rate: float
) -> None:
    """Train on samples, until held-out ones, where there are some, are told apart no better."""
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=rate)
    best, worse = -math.inf, 0
    kept = discriminator.state_dict()
    for step in range(steps):
        if held_out is not None and step % SCORED == 0:
            score = found_by(logits_for(discriminator, held_out), held_out)
            worse = 0 if score > best else worse + 1
            if score > best:
                best = score
                kept = {k: v.clone() for k, v in discriminator.state_dict().items()}
            elif worse == PATIENCE:
                break
        loss = loss_of(discriminator, train)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if held_out is not None:
        discriminator.load_state_dict(kept)


def optimum(pairs: dict[str, Pair]) -> list[dict[str, Any]]:
    """V(D*) by its definition, and JS by kldiv."""
    rows = []
    for name, pair in pairs.items():
        # x ln y is 0 for x = 0 whatever y.
        value = float(special.xlogy(np.stack([pair.p, pair.q], -1)[pair.tokens], pair.best).sum())
        js = pair.jensen_shannon
        assert abs(value - (2 * js - 2 * LN_2)) < 1e-12
        rows.append(
            {
                "texts": name,
                "tokens of p": int(np.count_nonzero(pair.p)),
                "tokens of q": int(np.count_nonzero(pair.q)),
                "JS": js,
                "V(D*)": value,
                "V(D*) − (2 JS − 2 ln 2)": value - (2 * js - 2 * LN_2),
            }
        )
    return rows


def learned(name: str, pair: Pair, features: Tensor, size: Size, seed: int) -> list[dict[str, Any]]:
    """What discriminators trained on more and more samples find of JS."""
    rng = np.random.default_rng(seed)
    rows = []
    drawings = [(count, i) for count in size.samples for i in range(size.repeats)]
    for count, _ in tqdm(drawings, desc=name, disable=None):
        held_out = pair.sampled(max(count // 5, 1), rng)
        sample = pair.sampled(count - count // 5, rng)
        row: dict[str, Any] = {"texts": name, "samples": count}
        for kind, discriminator in (("table", table(len(pair.p))), ("linear", linear(features))):
            train(discriminator, sample, held_out, size.steps, LEARNING_RATES[kind])
            logits = logits_for(discriminator, pair)
            row[kind] = found_by(logits, pair)
            assert abs(pair.jensen_shannon - row[kind] - missed_by(logits, pair)) < 1e-9
        memorising = table(len(pair.p))
        train(memorising, sample, None, size.steps, LEARNING_RATES["table"])
        row["as trained"] = found_by(logits_for(memorising, sample), sample)
        rows.append(row)
    return rows


def generated(pair: Pair, size: Size, seed: int) -> dict[str, Any]:
    """JS of p and a generator along its training, by the best D and by one that is trained."""
    rng = np.random.default_rng(seed)
    p = torch.from_numpy(pair.p)
    # A softmax has every token.
    start = torch.from_numpy(np.log(0.99 * pair.q + 0.01 / len(pair.q)))
    curves: dict[str, list[float]] = {}
    apart = 0.0
    for name in ("best", "trained"):
        theta = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([theta], lr=GENERATOR_RATE)
        discriminator = table(len(pair.p))
        of_discriminator = torch.optim.Adam(discriminator.parameters(), lr=LEARNING_RATES["table"])
        curves[name] = []
        for step in tqdm(range(size.generator_steps + 1), desc=f"D {name}", disable=None):
            q = theta.softmax(-1)
            now = Pair(pair.p, q.detach().numpy())
            js = kldiv.torch.jensen_shannon(p, theta, space=("probs", "logits"))
            curves[name].append(js.item())
            if name == "best":
                loss = 2 * js
                if step == 0:
                    # The same from V, whose D* is held fast as the generator moves.
                    value = (q * torch.from_numpy(now.best[:, 1]).log()).sum()
                    by_value, by_js = (
                        torch.autograd.grad(x, theta, retain_graph=True)[0] for x in (value, loss)
                    )
                    apart = float((by_value - by_js).abs().max() / by_js.abs().max())
            else:
                sample = now.sampled(size.generator_samples, rng)
                for _ in range(DISCRIMINATOR_STEPS):
                    of_discriminator.zero_grad()
                    loss_of(discriminator, sample).backward()
                    of_discriminator.step()
                loss = (
                    q * torch.nn.functional.logsigmoid(-discriminator.weight[:, 0].detach())
                ).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {"JS": curves, "gradients apart by": apart}


def draw(pairs: dict[str, Pair], rows: list[dict[str, Any]], generator: dict[str, Any]) -> Any:
    """What is found of JS against samples, and JS along a generator's training."""
    figure, axes = plt.subplots(1, len(pairs) + 1, figsize=(16, 4.4), layout="constrained")
    labels = {
        "as trained": "table, on its own samples",
        "table": "table",
        "linear": "linear in embeddings",
    }
    for axis, (name, pair) in zip(axes, pairs.items(), strict=False):
        of_pair = [row for row in rows if row["texts"] == name]
        counts = sorted({row["samples"] for row in of_pair})
        axis.axhline(pair.jensen_shannon, color="k", ls="--", label="JS of the texts")
        for color, (kind, label) in zip(("C3", "C0", "C1"), labels.items(), strict=True):
            values = np.array([[r[kind] for r in of_pair if r["samples"] == n] for n in counts])
            axis.plot(counts, values.mean(1), "o-", ms=4, color=color, label=label)
            axis.fill_between(counts, values.min(1), values.max(1), color=color, alpha=0.2, lw=0)
        axis.set(title=name, xlabel="samples of each text", xscale="log", ylim=(-0.02, LN_2 + 0.02))
    axes[0].set_ylabel("ln 2 − cross-entropy of the discriminator (nats)")
    axes[-2].legend()
    for label, curve in generator["JS"].items():
        axes[-1].plot(curve, label=f"{label} discriminator")
    axes[-1].set(
        title=f"a generator that starts as q of “{GENERATED}”",
        xlabel="steps of the generator",
        ylabel="JS(p, generator) (nats)",
        yscale="log",
    )
    axes[-1].legend()
    return figure


def main(given: Experiment) -> None:
    """Measure the optimum, train on samples, and train a generator."""
    size = QUICK if given.quick else FULL
    model, tokenizer = models.smollm2(given.models)
    features = principal_components(model.get_input_embeddings().weight)
    pairs = pairs_of_texts(tokenizer, size.chapters)
    best = optimum(pairs)
    rows = [
        row
        for name, pair in pairs.items()
        for row in learned(name, pair, features, size, given.seed)
    ]
    generator = generated(pairs[GENERATED], size, given.seed)
    experiment.show_table("the best discriminator, nats", best)
    means = [
        {
            "texts": name,
            "samples": count,
            "JS": pair.jensen_shannon,
            **{
                kind: float(
                    np.mean([r[kind] for r in rows if (r["texts"], r["samples"]) == (name, count)])
                )
                for kind in ("table", "linear", "as trained")
            },
        }
        for name, pair in pairs.items()
        for count in size.samples
    ]
    experiment.show_table("found of JS by discriminators trained on samples, nats", means)
    experiment.show_table(
        "JS of p and the generator, nats",
        [
            {"discriminator": name, "first": curve[0], "least": min(curve), "last": curve[-1]}
            for name, curve in generator["JS"].items()
        ],
    )
    apart = generator["gradients apart by"]
    print(f"gradients of V(D*) and of 2 JS: apart by {apart:.1e} of the largest")
    given.save(
        {"best": best, "means": means, "drawn": rows, "generator": generator},
        draw(pairs, rows, generator),
    )


if __name__ == "__main__":
    main(experiment.start("adversarial", __doc__))
