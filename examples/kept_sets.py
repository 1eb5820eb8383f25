"""Importance ratios of a trainer to an engine that samples with top-p or top-k, and their bias.

An engine draws a token from what its sampler keeps, and reports the log-probability that it was
drawn with: renormalised over the classes kept. A trainer that normalises over all of them gets the
ratio of their probabilities wrong by the mass kept, S, at every position: which is read as a policy
that has moved (`huggingface/trl#7269 <https://github.com/huggingface/trl/pull/7269>`_).

Here the engine is SmolLM2-135M-Instruct with weights and logits rounded to bfloat16, and the
samplers of transformers; the trainer is the same model in float32. At every position of topics of
Python's documentation one token is drawn. The policy has not moved: ratios other than 1 are the
noise of bfloat16, of which the row without truncation has nothing else, and the bias. The trainer
removes it with the classes that the engine kept (``support=``), or with the rule (``top_p=``),
where a token may be just outside of the trainer's own set: that has the log-probability −inf.

    python examples/kept_sets.py [--quick]
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm
from transformers import TopKLogitsWarper, TopPLogitsWarper

import experiment
import kldiv
import models
from compress import logits_of, passages
from experiment import Experiment

SAMPLERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "top_p = 0.8": (TopPLogitsWarper(0.8), {"top_p": 0.8}),
    "top_k = 20": (TopKLogitsWarper(20), {"top_k": 20}),
    "none": (TopPLogitsWarper(1.0), {"top_p": 1.0}),
}
"""The engine's, and the rule as kldiv has it."""
WAYS = ("all classes", "support", "rule")
OFF = 0.1
"""Ratios further than this from 1 are off."""


@dataclass(frozen=True)
class Size:
    """How much is read."""

    passages: int
    length: int


FULL = Size(passages=8, length=256)
QUICK = Size(passages=4, length=96)


def rounded(model: Any) -> Any:
    """The model as an engine has it: weights in bfloat16."""
    engine = copy.deepcopy(model)
    for weights in engine.parameters():
        weights.copy_(weights.to(torch.bfloat16).to(weights.dtype))
    return engine


def drawn(kept: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A token of every row, and the log-probability that the engine reports."""
    log_probs = kept.log_softmax(-1)
    tokens = torch.multinomial(log_probs.exp(), 1, generator=generator)
    return tokens[:, 0], log_probs.gather(1, tokens)[:, 0]


def ratios(
    trainer: NDArray[np.float32], engine: Tensor, name: str, generator: torch.Generator
) -> dict[str, NDArray[np.float64]]:
    """The trainer's probability over the engine's of the tokens drawn, and the mass kept."""
    warper, rule = SAMPLERS[name]
    # Warpers of transformers look at no token.
    kept = warper(torch.empty(0), engine)
    tokens, reported = drawn(kept, generator)
    support = [row.nonzero()[:, 0].numpy() for row in kept > -torch.inf]
    labels, found = tokens.numpy(), {}
    found["all classes"] = kldiv.gather_log_probs(trainer, labels)
    found["support"] = kldiv.gather_log_probs(trainer, labels, support=support)
    found["rule"], mass = kldiv.gather_log_probs(trainer, labels, return_mass=True, **rule)
    found = {way: np.exp(value - reported.numpy()) for way, value in found.items()}
    return {"mass": np.asarray(mass), **found}


def measure(size: Size, given: Experiment) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Ratios at every position, by sampler."""
    model, tokenizer = models.smollm2(given.models)
    engine, source = rounded(model), iter(passages(tokenizer, size.length, given.seed))
    generator = torch.Generator().manual_seed(given.seed)
    parts: dict[str, list[dict[str, NDArray[np.float64]]]] = {name: [] for name in SAMPLERS}
    for _ in tqdm(range(size.passages), desc="passages"):
        tokens = torch.tensor([next(source)])[:, :-1]
        ours, theirs = (logits_of(one, tokens, tokens.shape[1])[0] for one in (model, engine))
        coarse = torch.tensor(theirs).to(torch.bfloat16).float()
        for name, found in parts.items():
            found.append(ratios(ours, coarse, name, generator))
    return {
        name: {column: np.concatenate([one[column] for one in found]) for column in found[0]}
        for name, found in parts.items()
    }


def row_of(name: str, way: str, found: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Means, and the share of ratios that are off."""
    ratio = found[way]
    return {
        "sampler": name,
        "trainer's sum over": way,
        "positions": len(ratio),
        "mass kept": float(found["mass"].mean()),
        "mean ratio": float(ratio.mean()),
        "median": float(np.median(ratio)),
        "off by > 10 %": float((np.abs(ratio - 1) > OFF).mean()),
        "outside": float((ratio == 0).mean()),
    }


def draw(table: list[dict[str, Any]], found: dict[str, dict[str, NDArray[np.float64]]]) -> Any:
    """The ratios with top-p in order, and the shares that are off."""
    figure, (of_ratios, of_shares) = plt.subplots(1, 2, figsize=(11, 4.2))
    name = next(iter(SAMPLERS))
    share = np.linspace(0, 1, len(found[name]["mass"]))
    for way in WAYS:
        of_ratios.plot(share, np.sort(found[name][way]), label=way)
    of_ratios.axhspan(1 - OFF, 1 + OFF, color="0.9")
    of_ratios.set(xlabel="share of positions", ylabel="ratio", ylim=(0.6, 1.4))
    of_ratios.set(title=f"(a) ratios in order, {name}")
    of_ratios.legend()
    for place, way in enumerate(WAYS):
        off = [row["off by > 10 %"] for row in table if row["trainer's sum over"] == way]
        of_shares.bar(np.arange(len(off)) + 0.27 * (place - 1), off, 0.25, label=way)
    of_shares.set_xticks(range(len(SAMPLERS)), list(SAMPLERS))
    of_shares.set(ylabel="share of ratios off by more than 10 %", title="(b) before and after")
    of_shares.legend()
    figure.tight_layout()
    return figure


def main(given: Experiment) -> None:
    """Draw, score, print and draw."""
    size = QUICK if given.quick else FULL
    found = measure(size, given)
    table = [row_of(name, way, one) for name, one in found.items() for way in WAYS]
    experiment.show_table("ratios of trainer to engine, whose policies are the same", table)
    given.save({"size": vars(size), "table": table}, draw(table, found))


if __name__ == "__main__":
    main(experiment.start("kept_sets", __doc__))
