"""Which tokens of the context a prediction rests on, by KL.

SmolLM2-135M-Instruct reads paragraphs of Python's own documentation. A token of the context is
attributed

    KL(prediction‖prediction without the token)

in nats, where both are distributions of the next token and the context of the second has the token
left out, the rest closed up. All predictions of a paragraph are made again for every token left
out, so that a paragraph gives a triangle of attributions: a row for each prediction.

Whether these matter is seen where they were not computed: of a prediction the first few tokens of
highest attribution are left out together, and the loss, −ln q of the token that does follow, is
compared with that of the whole context. So it is with as many tokens at random, with the nearest
ones, and with those of least attribution. As most predictions rest on the nearest tokens most, all
this is done again with the last 4 tokens kept in the context. Means are over predictions, their
standard errors are by paragraph, as predictions from one context are not independent.

    python examples/attribution.py [--quick]
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
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
import texts
from experiment import Experiment

Array = NDArray[np.float64]

START = "<|endoftext|>"
"""What texts began with when SmolLM2 was trained. It stays in the context."""
BATCH = 8
"""Contexts read at a time."""
TOP, NEAREST, RANDOM, LEAST = "highest", "nearest", "random", "lowest"
"""Attribution; the nearest tokens; any; attribution."""
KEPT = {"any tokens": 0, "any but the last 4": 4}
"""How many of the nearest tokens always stay."""
FAR = 5
"""The distance from which on a token that a prediction rests on is worth a picture."""
SHOWN = 3
"""Predictions in the picture."""
LINE = 86
"""Characters of a line in the picture."""


@dataclass(frozen=True)
class Size:
    """How much is read, and what is left out of it."""

    passages: int
    length: int
    first: int
    """The first token whose prediction is made without others, and from it every `step`-th."""
    step: int
    counts: tuple[int, ...]
    """Of tokens left out together."""


FULL = Size(passages=12, length=48, first=16, step=6, counts=(1, 2, 4, 8))
QUICK = Size(passages=2, length=20, first=12, step=4, counts=(1, 4))


def paragraphs(tokenizer: Any, length: int, seed: int) -> Iterator[list[int]]:
    """The beginnings of paragraphs of prose, one a topic, after START."""
    topics = texts.python_documentation()
    names = sorted(topics)
    random.Random(seed).shuffle(names)
    start = tokenizer.convert_tokens_to_ids(START)
    for name in names:
        for paragraph in topics[name].split("\n\n"):
            # A sentence begins it; headings, grammar and code are short, indented or drawn.
            if re.match(r"[A-Z][a-z]* [a-z]", paragraph) and "   " not in paragraph:
                tokens = tokenizer(" ".join(paragraph.split()))["input_ids"]
                if len(tokens) >= length:
                    yield [start, *tokens[:length]]
                    break


@torch.inference_mode()
def logits_of(model: Any, contexts: list[list[int]], rows: int = 0) -> NDArray[np.float32]:
    """The logits after each token of contexts of one length, or after the last few."""
    logits = model(torch.tensor(contexts), logits_to_keep=rows).logits
    return np.asarray(logits.numpy())


def attributions(model: Any, tokens: list[int]) -> Array:
    """KL of the prediction of each token (row) when a token before it (column) is left out.

    NaN for tokens that do not come before the predicted one, and for START.
    """
    count = len(tokens)
    found = np.full((count, count), np.nan)
    whole = logits_of(model, [tokens[:-1]])[0]
    for start in range(1, count - 1, BATCH):
        left_out = range(start, min(start + BATCH, count - 1))
        without = logits_of(model, [tokens[:i] + tokens[i + 1 : -1] for i in left_out])
        for i, logits in zip(left_out, without, strict=True):
            # Row j predicts token j + 1; without token i, token j + 2.
            found[i + 1 :, i] = kldiv.kl(whole[i:], logits[i - 1 :])
    return found


def left_out(
    attribution: Array, kept: int, count: int, rng: np.random.Generator
) -> dict[str, list[int]]:
    """Tokens to leave out of the context of one prediction, by its row of attributions."""
    places = np.flatnonzero(~np.isnan(attribution))
    places = places[: len(places) - kept]
    by_attribution = places[np.argsort(-attribution[places], kind="stable")]
    chosen = {
        TOP: by_attribution[:count],
        NEAREST: places[-count:],
        RANDOM: rng.choice(places, count, replace=False),
        LEAST: by_attribution[-count:],
    }
    return {name: found.tolist() for name, found in chosen.items()}


def leave_out(
    model: Any, passages: list[list[int]], attribution: list[Array], size: Size, seed: int
) -> list[dict[str, Any]]:
    """The change of the loss, and KL, when tokens are left out together."""
    rng = np.random.default_rng(seed)
    rows = []
    predicted = range(size.first, size.length + 1, size.step)
    steps = [(place, count) for place in predicted for count in size.counts]
    for place, count in tqdm(steps, desc="tokens left out", disable=None):
        whole = logits_of(model, [tokens[:place] for tokens in passages], 1)[:, 0]
        labels = np.array([tokens[place] for tokens in passages])
        loss = kldiv.cross_entropy(whole, labels)
        chosen = [
            (k, of, name, places)
            for k, found in enumerate(attribution)
            for of, kept in KEPT.items()
            for name, places in left_out(found[place], kept, count, rng).items()
        ]
        for some in (chosen[i : i + BATCH] for i in range(0, len(chosen), BATCH)):
            contexts = [
                [token for i, token in enumerate(passages[k][:place]) if i not in places]
                for k, _, _, places in some
            ]
            logits = logits_of(model, contexts, 1)[:, 0]
            rows_of = [k for k, *_ in some]
            changes = kldiv.cross_entropy(logits, labels[rows_of]) - loss[rows_of]
            kls = kldiv.kl(whole[rows_of], logits)
            for (k, of, name, _), change, kl in zip(some, changes, kls, strict=True):
                rows.append(
                    {
                        "passage": k,
                        "predicted": place,
                        "of": of,
                        "count": count,
                        "left out": name,
                        "loss": float(change),
                        "moved by": abs(float(change)),
                        "KL": float(kl),
                    }
                )
    return rows


def by_passage(rows: list[dict[str, Any]], which: tuple[str, int, str], key: str) -> Array:
    """The mean over the predictions of each paragraph."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if (row["of"], row["count"], row["left out"]) == which:
            values.setdefault(row["passage"], []).append(row[key])
    return np.array([np.mean(values[k]) for k in sorted(values)])


def summary(rows: list[dict[str, Any]], counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Means over paragraphs and their standard errors, and how much more than random ones."""
    found = []
    for of, count, name in itertools.product(KEPT, counts, (TOP, NEAREST, RANDOM, LEAST)):
        row: dict[str, Any] = {"of": of, "count": count, "left out": name}
        columns = {
            key: by_passage(rows, (of, count, name), key) for key in ("loss", "moved by", "KL")
        }
        columns["more"] = columns["moved by"] - by_passage(rows, (of, count, RANDOM), "moved by")
        for key, values in columns.items():
            row[key] = float(values.mean())
            row[f"{key} s.e."] = float(values.std(ddof=1) / np.sqrt(len(values)))
        found.append(row)
    return found


def shown(tokenizer: Any, token: int) -> str:
    """A token as it stands in a line."""
    return str(tokenizer.decode([token])).replace("\n", "⏎")


def most(words: list[str], row: Array, count: int) -> str:
    """The tokens of highest attribution, and these."""
    order = np.argsort(-np.nan_to_num(row))[:count]
    return ", ".join(f"“{words[i].strip()}” {row[i]:.2f}" for i in order)


def far_reaching(found: Array, first: int) -> list[int]:
    """The predictions that rest most on a token that is not near, in their order."""
    strongest = [
        np.nanmax(row[: max(place - FAR, 2)]) if place >= first else -np.inf
        for place, row in enumerate(found)
    ]
    return sorted(np.argsort(strongest)[-SHOWN:].tolist())


def draw_text(axis: Any, words: list[str], found: Array, places: list[int]) -> None:
    """The context of some predictions, each token shaded by its attribution."""
    axis.axis("off")
    axis.set(xlim=(0, LINE), title="(b) what three predictions rest on: the darker, the more")
    line = 0.0
    for place in places:
        column = 0
        row = found[place]
        for i, word in enumerate(words[1 : place + 1], 1):
            if column + len(word) > LINE:
                line, column = line + 1, 0
            share = 0.0 if i == place else row[i] / np.nanmax(row)
            axis.text(
                column + len(word) - len(word.lstrip()),
                -line,
                word.strip() or word,
                family="monospace",
                fontsize=8,
                va="center",
                parse_math=False,
                bbox={
                    "facecolor": plt.get_cmap("Reds")(0.8 * share),
                    "edgecolor": "k" if i == place else "none",
                    "pad": 1.2,
                },
            )
            column += len(word)
        note = f"the boxed token; most: {most(words, row, 3)} nats"
        axis.text(0, -line - 1.1, note, fontsize=8, va="center", color="C0", parse_math=False)
        line += 2.6
    axis.set_ylim(-line + 1, 1)


def draw(words: list[str], found: Array, places: list[int], table: list[dict[str, Any]]) -> Any:
    """The attributions in one paragraph, three of its predictions, and what leaving out does."""
    figure = plt.figure(figsize=(15, 8.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1), height_ratios=(1, 1.1))
    triangle = figure.add_subplot(grid[:, 0])
    # The first token has no context but START, and the last is in none.
    image = triangle.imshow(
        np.sqrt(found[2:, 1:-1]), cmap="Reds", aspect="auto", interpolation="nearest"
    )
    for axis, tokens in ((triangle.xaxis, words[1:-1]), (triangle.yaxis, words[2:])):
        axis.set_ticks(range(len(tokens)), tokens, fontsize=7, parse_math=False)
    triangle.tick_params(axis="x", rotation=90)
    triangle.set(xlabel="token left out", ylabel="token predicted")
    triangle.set_title("(a) KL of a prediction when one token is left out of its context")
    ticks = np.array([0.0, 0.1, 0.5, 1, 2, 4, 8, 16])
    bar = figure.colorbar(image, ax=triangle, location="top", shrink=0.6, aspect=40)
    ticks = ticks[ticks <= np.nanmax(found)]
    bar.set_ticks(np.sqrt(ticks), labels=[f"{tick:g}" for tick in ticks])
    bar.set_label("nats")

    draw_text(figure.add_subplot(grid[0, 1]), words, found, places)

    below = grid[1, 1].subgridspec(1, 2)
    curves = below.subplots()
    for axis, of in zip(curves, KEPT, strict=True):
        for name, style in ((TOP, "o-"), (NEAREST, "s--"), (RANDOM, "^-"), (LEAST, "v:")):
            rows = [row for row in table if (row["of"], row["left out"]) == (of, name)]
            counts, values, errors = (
                [row[key] for row in rows] for key in ("count", "moved by", "moved by s.e.")
            )
            axis.errorbar(counts, values, errors, fmt=style, ms=4, capsize=3, label=name)
        axis.set(xlabel="tokens left out together", xscale="log", ylim=(0, None), title=of)
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.set_xticks([], minor=True)
    curves[0].set(ylabel="the loss moves by (nats)", title=f"(c) {next(iter(KEPT))}")
    curves[0].legend(title="left out", loc="center left", bbox_to_anchor=(0.02, 0.45))
    return figure


def main(given: Experiment) -> None:
    """Attribute, leave tokens out by their attribution, and draw one paragraph."""
    size = QUICK if given.quick else FULL
    model, tokenizer = models.smollm2(given.models)
    source = paragraphs(tokenizer, size.length, given.seed)
    passages = [next(source) for _ in range(size.passages)]
    found = [attributions(model, tokens) for tokens in tqdm(passages, desc="paragraphs")]
    rows = leave_out(model, passages, found, size, given.seed)
    table = summary(rows, size.counts)
    experiment.show_table(
        f"{size.passages} paragraphs; loss: its change, moved by: the size of that, nats",
        [{k: v for k, v in row.items() if k not in ("loss s.e.", "KL s.e.")} for row in table],
    )

    # Of all paragraphs the one with the farthest reaching predictions.
    reach = [np.nanmax(np.tril(each, -FAR)[size.first :, 1:]) for each in found]
    best = int(np.argmax(reach))
    words = [shown(tokenizer, token) for token in passages[best]]
    places = far_reaching(found[best], size.first)
    for place in places:
        print(f"\n{''.join(words[1:place])} → {words[place]!r}")
        print(f"  {most(words, found[best][place], 5)}")
    given.save(
        {
            "table": table,
            "paragraphs": ["".join(shown(tokenizer, t) for t in p[1:]) for p in passages],
            "tokens shown": words,
            "attributions shown": [
                [float(f"{x:.4g}") for x in row[1:j]] for j, row in enumerate(found[best])
            ],
        },
        draw(words, found[best], places, table),
    )


if __name__ == "__main__":
    main(experiment.start("attribution", __doc__))
