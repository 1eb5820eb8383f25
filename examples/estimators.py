"""Bias and variance of the estimators of KL from sampled tokens, against the exact KL.

Trainers know of every token only its log-probability under the policy q that sampled it and under a
reference p, and estimate KL(q‖p) of these. Here both rows are known, so that nothing of it is left
to chance: the expectation and the variance of an estimator are sums over the 49,152 tokens that
could have been sampled. p is SmolLM2-135M-Instruct, q the same model with its weight matrices
rounded to int8 or int4, on topics of Python's documentation. Of every position

    value      Σ q k against KL(q‖p), and the standard deviation of k
    gradient   with respect to the logits of q: the expectation of what one token gives, as a loss
               (the derivative of k) and as a penalty taken off a reward (k ∇ ln q), against the
               gradient of KL(q‖p); its length, its cosine and its noise

Then tokens are sampled, and the estimates that they give are held to the exact numbers with bars
of three standard errors: those of the exact variance, and those that the samples themselves give.

    python examples/estimators.py [--quick]
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
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

BITS = (8, 4)
CHUNK = 4
"""Rows whose tokens are gone through at a time."""
CLAMPS = {
    "k1": ("k1", {}),
    "k2": ("k2", {}),
    "k3": ("k3", {}),
    "k3, ±10": ("k3", {"clamp": 10.0}),
}
"""Settings by name: those without clamps, and OpenRLHF's.

verl's, which has log-ratios to ±20 before, gives the same numbers: k3 of these is beyond 10.
"""
GRADIENTS = {
    "k1, loss": "k1",
    "k2, loss": "k2",
    "k3, loss": "k3",
    "k1, penalty": "k1",
    "k3, penalty": "k3",
}
"""A straight-through loss has the gradient of k2."""
SIGMAS = 3


@dataclass(frozen=True)
class Size:
    """How much is read, and how many tokens are sampled of a position."""

    passages: int
    length: int
    samples: int


FULL = Size(passages=6, length=96, samples=32)
QUICK = Size(passages=1, length=24, samples=32)


def exact(p: Numbers, q: Numbers) -> dict[str, dict[str, Numbers]]:
    """Of every row of logits: what is expected of one token sampled from q, and its variance."""
    log_p, log_q = (np.asarray(kldiv.log_softmax(z)) for z in (p, q))
    probabilities = np.exp(log_q)
    kl, gradient = kldiv.value_and_grad(kldiv.reverse_kl, p, q)
    along = gradient - (probabilities * gradient).sum(-1, keepdims=True)
    lengths = 1.0 - 2.0 * probabilities + (probabilities**2).sum(-1, keepdims=True)
    found = {"": {"kl": kl, "gradient²": (gradient**2).sum(-1)}}
    weights: dict[str, Numbers] = {}
    for name, (estimator, options) in CLAMPS.items():
        value, slope = kldiv.value_and_grad(
            getattr(kldiv.estimators, estimator), log_p, log_q, **options
        )
        mean = (probabilities * value).sum(-1)
        squares = (probabilities * (value - mean[:, None]) ** 2).sum(-1)
        found[name] = {"mean": mean, "variance": squares}
        weights |= {f"{name}, loss": slope, f"{name}, penalty": value}
    for name in GRADIENTS:
        weight = weights[name]
        expected = probabilities * (weight - (probabilities * weight).sum(-1, keepdims=True))
        squares = (probabilities * weight**2 * lengths).sum(-1)
        found[name] = {
            "aligned": (expected * gradient).sum(-1),
            "aligned variance": (probabilities * (weight * along) ** 2).sum(-1)
            - (expected * gradient).sum(-1) ** 2,
            "length²": (expected**2).sum(-1),
            "error²": ((expected - gradient) ** 2).sum(-1),
            "variance": squares - (expected**2).sum(-1),
        }
    other = kldiv.value_and_grad(kldiv.kl, p, q)[1]
    found["∇ KL(p‖q)"] = {
        "aligned": (other * gradient).sum(-1),
        "length²": (other**2).sum(-1),
        "error²": ((other - gradient) ** 2).sum(-1),
        "variance": np.zeros(len(p)),
    }
    return found


def sampled(
    p: Numbers, q: Numbers, samples: int, generator: np.random.Generator
) -> dict[str, Numbers]:
    """Of every row and each of its sampled tokens: values, and gradients along the exact one."""
    gradient = kldiv.value_and_grad(kldiv.reverse_kl, p, q)[1]
    cumulative = np.exp(np.asarray(kldiv.log_softmax(q))).cumsum(-1)
    draws = generator.random((samples, len(q))) * cumulative[:, -1]
    tokens = np.array(
        [
            [row.searchsorted(u, "right") for row, u in zip(cumulative, us, strict=True)]
            for us in draws
        ]
    )
    # (eₓ − q)·∇KL of each token x; the gradient of KL sums to 0 over the classes.
    along = gradient[np.arange(len(q)), tokens] - (np.exp(kldiv.log_softmax(q)) * gradient).sum(-1)
    log_p, log_q = (
        np.array([kldiv.gather_log_probs(z, labels) for labels in tokens]) for z in (p, q)
    )
    found: dict[str, Numbers] = {}
    for name, (estimator, options) in CLAMPS.items():
        value, slope = kldiv.value_and_grad(
            getattr(kldiv.estimators, estimator), log_p, log_q, **options
        )
        found[name] = value
        found |= {f"{name}, loss": slope * along, f"{name}, penalty": value * along}
    return {name: values.T for name, values in found.items()}


def measure(size: Size, given: Experiment) -> dict[str, dict[str, dict[str, Numbers]]]:
    """By weights and by setting: columns with a number a row, and with one a sampled token."""
    model, tokenizer = models.smollm2(given.models)
    candidates = {}
    for bits in BITS:
        candidates[f"int{bits}"] = copy.deepcopy(model)
        Weights(candidates[f"int{bits}"]).round_all(bits)
    source = iter(passages(tokenizer, size.length, given.seed))
    generator = np.random.default_rng(given.seed)
    parts: dict[tuple[str, str, str], list[Numbers]] = {}
    for _ in tqdm(range(size.passages), desc="passages"):
        inputs = torch.tensor([next(source)[:-1]])
        reference = logits_of(model, inputs, size.length)[0]
        for name, candidate in candidates.items():
            policy = logits_of(candidate, inputs, size.length)[0]
            for start in range(0, size.length, CHUNK):
                rows = slice(start, start + CHUNK)
                p, q = (np.asarray(z[rows], np.float64) for z in (reference, policy))
                for setting, columns in exact(p, q).items():
                    for column, values in columns.items():
                        parts.setdefault((name, setting, column), []).append(values)
                for setting, values in sampled(p, q, size.samples, generator).items():
                    parts.setdefault((name, setting, "samples"), []).append(values)
    joined: dict[str, dict[str, dict[str, Numbers]]] = {}
    for (name, setting, column), values in parts.items():
        joined.setdefault(name, {}).setdefault(setting, {})[column] = np.concatenate(values)
    return joined


def of_values(name: str, found: dict[str, dict[str, Numbers]]) -> list[dict[str, Any]]:
    """A line for each setting: bias and noise of its values, relative to KL."""
    kl = found[""]["kl"]
    lines = []
    for setting in CLAMPS:
        one = found[setting]
        tokens = one["samples"]
        bars = bars_of(tokens, one["variance"], kl.mean())
        lines.append(
            {
                "weights": name,
                "estimator": setting,
                "KL(q‖p)": float(kl.mean()),
                "expected": float(one["mean"].mean()),
                "bias": float((one["mean"] - kl).mean() / kl.mean()),
                "σ of a token": float(np.sqrt(one["variance"].mean()) / kl.mean()),
                "sampled": float(tokens.mean() / kl.mean()),
                **bars,
            }
        )
    return lines


def of_gradients(name: str, found: dict[str, dict[str, Numbers]]) -> list[dict[str, Any]]:
    """A line for each gradient: what is expected of it, relative to that of KL, and its noise."""
    squares = found[""]["gradient²"]
    lines = []
    for setting in (*GRADIENTS, "∇ KL(p‖q)"):
        one = found[setting]
        line = {
            "weights": name,
            "gradient": setting,
            "length": float(np.sqrt(one["length²"].sum() / squares.sum())),
            "cosine": float(one["aligned"].sum() / np.sqrt(one["length²"].sum() * squares.sum()))
            if one["length²"].sum() > 1e-20 * squares.sum()
            else None,
            "error": float(np.sqrt(one["error²"].sum() / squares.sum())),
            "σ of a token": float(np.sqrt(one["variance"].mean() / squares.mean())),
            "along": float(one["aligned"].sum() / squares.sum()),
        }
        if "samples" in one:
            tokens = one["samples"]
            line["sampled"] = float(tokens.mean() / squares.mean())
            line |= bars_of(tokens, one["aligned variance"], squares.mean())
        lines.append(line)
    return lines


def bars_of(tokens: Numbers, variance: Numbers, unit: float) -> dict[str, float]:
    """Bars of the mean over rows, by the exact variance of a token of each, and by its samples'."""
    rows, samples = tokens.shape
    known = {
        f"{SIGMAS}σ": variance,
        f"{SIGMAS}σ of the samples": tokens.var(axis=1, ddof=1),
    }
    return {
        name: float(SIGMAS * np.sqrt(one.sum() / samples) / rows / unit)
        for name, one in known.items()
    }


def draw(values: list[dict[str, Any]], gradients: list[dict[str, Any]]) -> Any:
    """What samples give with their bars: the value, and the gradient along that of KL; noise."""
    figure, (of_value, of_gradient, noise) = plt.subplots(1, 3, figsize=(15, 4.6))
    names = list(dict.fromkeys(line["weights"] for line in values))
    for shift, (name, colour) in enumerate(zip(names, ("C0", "C1"), strict=True)):
        for axes, lines, key, expected in (
            (of_value, values, "estimator", lambda x: x["expected"] / x["KL(q‖p)"]),
            (of_gradient, gradients, "gradient", lambda x: x["along"]),
        ):
            shown = [x for x in lines if x["weights"] == name and "sampled" in x]
            at = np.arange(len(shown)) + 0.2 * shift - 0.1
            axes.errorbar(
                at,
                [x["sampled"] for x in shown],
                [x[f"{SIGMAS}σ"] for x in shown],
                fmt="o",
                color=colour,
                capsize=4,
                label=name,
            )
            axes.plot(at, [expected(x) for x in shown], "_", color="k", ms=14)
            axes.set_xticks(range(len(shown)), [x[key] for x in shown], rotation=20)
        shown = [x for x in values if x["weights"] == name]
        shown += [x for x in gradients if x["weights"] == name and "sampled" in x]
        labels = [x.get("estimator", "") or f"∇ {x['gradient']}" for x in shown]
        noise.barh(
            np.arange(len(shown)) + 0.4 * shift - 0.2,
            [x["σ of a token"] for x in shown],
            0.4,
            color=colour,
            label=name,
        )
        noise.set_yticks(range(len(shown)), labels)
    for axes, title in (
        (of_value, f"(a) sampled value / KL(q‖p), {SIGMAS}σ; black: expected"),
        (of_gradient, "(b) sampled gradient along ∇ KL(q‖p), relative"),
    ):
        axes.axhline(1.0, color="grey", lw=0.8)
        axes.set_title(title, fontsize=10)
        axes.legend()
    of_gradient.axhline(0.0, color="grey", lw=0.8)
    noise.set(xscale="log")
    noise.set_title("(c) σ of one token, relative to KL or its gradient", fontsize=10)
    noise.invert_yaxis()
    noise.legend()
    figure.tight_layout()
    return figure


def main(given: Experiment) -> None:
    """Enumerate, sample, print and draw."""
    size = QUICK if given.quick else FULL
    found = measure(size, given)
    values = [line for name, one in found.items() for line in of_values(name, one)]
    gradients = [line for name, one in found.items() for line in of_gradients(name, one)]
    positions = size.passages * size.length
    experiment.show_table(f"values, {positions} positions, nats and relative to KL", values)
    experiment.show_table("gradients with respect to the logits of q, relative to KL's", gradients)
    results = {"size": vars(size), "positions": positions}
    given.save(results | {"values": values, "gradients": gradients}, draw(values, gradients))


if __name__ == "__main__":
    main(experiment.start("estimators", __doc__))
