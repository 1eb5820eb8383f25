"""What the most probable tokens alone say of two language models, and the truth beside it.

Servers give the K most probable tokens of a position, and the token of the text. Of those of a
reference and of a candidate `kldiv.evaluation.bounds` has a lower bound of KL in both directions
and an interval of total variation. Here every class is known, too, so that the bounds can be held
to the truth: SmolLM2-135M-Instruct against itself with its weight matrices rounded to int8 and to
int4, on topics of Python's documentation. Both sides are as a server gives them, each with its own
K tokens and its log-probabilities in float32; then one side is known in full. The script fails
where a bound is on the wrong side of the truth in a single row.

    python examples/top_k_bounds.py [--quick]
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
from kldiv.evaluation.bounds import bounds
from kldiv.evaluation.dumps.protocol import TopKBlock

TOKENS = (5, 20, 100)
"""K: 5 and 20 are what servers allow, unless told otherwise."""
BITS = (8, 4)
TOLERANCE = 1e-9
"""Of the truth, which `kldiv.compare` has to about 10⁻⁷ of itself."""
SIDES = ("top-k", "p in full", "q in full")
"""What is known of reference p and candidate q."""
PRINTED = ("weights", "K", "positions", "wrong", "ids shared", "KL ≥", "KL", "TV ≥", "TV", "TV ≤")
SHOWN = 20
"""K in the picture of single positions."""


@dataclass(frozen=True)
class Size:
    """How much is read."""

    passages: int
    length: int


FULL = Size(passages=40, length=256)
QUICK = Size(passages=2, length=96)


def served(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[int, TopKBlock]:
    """What a server gives with every K: the most probable tokens and the text's own, in float32."""
    log_probs = np.asarray(kldiv.log_softmax(logits), np.float32).astype(np.float64)
    most = max(TOKENS)
    rows = np.arange(len(log_probs))[:, None]
    top = np.argpartition(-log_probs, most, axis=1)[:, :most]
    top = top[rows, np.argsort(-log_probs[rows, top], axis=1, kind="stable")]
    found = {}
    for k in TOKENS:
        own = np.where((top[:, :k] == labels[:, None]).any(axis=1), -1, labels)
        ids = np.concatenate([top[:, :k], own[:, None]], axis=1)
        values = np.where(ids >= 0, log_probs[rows, np.maximum(ids, 0)], -np.inf)
        found[k] = TopKBlock(ids, values, ids[:, 0], values[:, k - 1])
    return found


def shared(p: TopKBlock, q: TopKBlock) -> NDArray[np.float64]:
    """Of every row the share of p's tokens that q has, too."""
    both = (p.ids[:, :, None] == q.ids[:, None, :]).any(axis=2) & (p.ids >= 0)
    return np.asarray(both.sum(axis=1) / (p.ids >= 0).sum(axis=1))


def wrong_rows(
    found: dict[str, NDArray[Any]], truth: dict[str, NDArray[np.float64]]
) -> NDArray[np.bool_]:
    """Rows of which a bound is on the wrong side of the truth."""
    slack = {name: TOLERANCE + 1e-6 * value for name, value in truth.items()}
    return np.asarray(
        (found["kl_lower"] > truth["kl"] + slack["kl"])
        | (found["reverse_kl_lower"] > truth["reverse_kl"] + slack["reverse_kl"])
        | (found["total_variation_lower"] > truth["total_variation"] + slack["total_variation"])
        | (found["total_variation_upper"] < truth["total_variation"] - slack["total_variation"])
    )


def measure(size: Size, given: Experiment) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Bounds and truth of every position, joined into one row of a table for each setting."""
    model, tokenizer = models.smollm2(given.models)
    candidates = {}
    for bits in BITS:
        candidates[f"int{bits}"] = copy.deepcopy(model)
        Weights(candidates[f"int{bits}"]).round_all(bits)
    source = iter(passages(tokenizer, size.length, given.seed))
    columns: dict[tuple[str, int, str], list[dict[str, NDArray[Any]]]] = {}
    for _ in tqdm(range(size.passages), desc="passages"):
        tokens = torch.tensor([next(source)])
        labels = tokens[0, 1:].numpy()
        reference = logits_of(model, tokens[:, :-1], len(labels))[0]
        for name, candidate in candidates.items():
            logits = logits_of(candidate, tokens[:, :-1], len(labels))[0]
            compared = kldiv.compare(reference, logits, labels)
            truth = {
                field: np.asarray(getattr(compared, field), np.float64)
                for field in ("kl", "reverse_kl", "total_variation")
            }
            first, second = served(reference, labels), served(logits, labels)
            for k in TOKENS:
                alike = shared(first[k], second[k])
                pairs = ((first[k], second[k]), (reference, second[k]), (first[k], logits))
                for sides, (p, q) in zip(SIDES, pairs, strict=True):
                    found = bounds(p, q, labels)
                    found |= truth | {"wrong": wrong_rows(found, truth), "shared": alike}
                    columns.setdefault((name, k, sides), []).append(found)
    joined = {
        key: {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for key, parts in columns.items()
    }
    return [row_of(*key, found) for key, found in joined.items()], joined


def row_of(name: str, k: int, sides: str, found: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Means over positions, and what there is to count."""
    return {
        "weights": name,
        "K": k,
        "known": sides,
        "positions": len(found["kl"]),
        "wrong": int(found["wrong"].sum()),
        "ids shared": float(found["shared"].mean()),
        "partly disjoint": float((found["shared"] < 1.0).mean()),
        "coverage": float(found["coverage_p"].mean()),
        "KL ≥": float(found["kl_lower"].mean()),
        "KL": float(found["kl"].mean()),
        "reverse KL ≥": float(found["reverse_kl_lower"].mean()),
        "reverse KL": float(found["reverse_kl"].mean()),
        "TV ≥": float(found["total_variation_lower"].mean()),
        "TV": float(found["total_variation"].mean()),
        "TV ≤": float(found["total_variation_upper"].mean()),
    }


def draw(table: list[dict[str, Any]], joined: dict[Any, dict[str, NDArray[Any]]]) -> Any:
    """How much of KL the bound has, the interval of total variation, and single positions."""
    figure, (of_kl, of_tv, single) = plt.subplots(1, 3, figsize=(15, 4.6))
    for name, marker in zip(dict.fromkeys(row["weights"] for row in table), "os", strict=True):
        for sides, style in zip(SIDES[:2], ("-", ":"), strict=True):
            rows = [row for row in table if (row["weights"], row["known"]) == (name, sides)]
            of_kl.plot(
                TOKENS,
                [x["KL ≥"] / x["KL"] for x in rows],
                marker + style,
                label=f"{name}, {sides}",
            )
        rows = [row for row in table if (row["weights"], row["known"]) == (name, SIDES[0])]
        truth = [row["TV"] for row in rows]
        gaps = [
            [x["TV"] - x["TV ≥"] for x in rows],
            [x["TV ≤"] - x["TV"] for x in rows],
        ]
        of_tv.errorbar(TOKENS, truth, gaps, fmt=marker, capsize=5, label=name)
        found = joined[name, SHOWN, SIDES[0]]
        single.plot(found["kl"], np.maximum(found["kl_lower"], 1e-8), ".", ms=2, label=name)
    of_kl.set(xlabel="K", ylabel="lower bound / KL, means", xscale="log", ylim=(0, 1))
    of_kl.set(title="(a) how much of KL is certain", xticks=TOKENS, xticklabels=TOKENS)
    of_kl.legend()
    of_tv.set(xlabel="K", ylabel="total variation", xscale="log", ylim=(0, None))
    of_tv.set(title="(b) the truth, and its interval", xticks=TOKENS, xticklabels=TOKENS)
    of_tv.legend()
    limits = (1e-5, 20.0)
    single.plot(limits, limits, "k-", lw=0.8)
    single.set(xlabel="KL, nats", ylabel="lower bound", xscale="log", yscale="log")
    single.set(xlim=limits, title=f"(c) single positions, K = {SHOWN}")
    single.legend(markerscale=6)
    figure.tight_layout()
    return figure


def main(given: Experiment) -> None:
    """Bound, hold to the truth, print and draw."""
    size = QUICK if given.quick else FULL
    table, joined = measure(size, given)
    for name in SIDES:
        rows = [{x: row[x] for x in PRINTED} for row in table if row["known"] == name]
        experiment.show_table(f"{name}: means over {rows[0]['positions']} positions, nats", rows)
    assert not any(row["wrong"] for row in table)
    given.save({"size": vars(size), "table": table}, draw(table, joined))


if __name__ == "__main__":
    main(experiment.start("top_k_bounds", __doc__))
