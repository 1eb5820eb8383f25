"""`kldiv demo`: the logits that come with the package, compared and explained."""

from __future__ import annotations

import json
import math
import shlex
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len

import kldiv
from kldiv import Comparison
from kldiv.cli.output import show_table, show_text

BITS = {"int8": 8, "int4": 4}
CONTEXT_CELLS = 22
# What "close" means in the text: at most 5 % of the probability on other tokens.
CLOSE_TOTAL_VARIATION = 0.05


def show() -> None:
    """Compare both candidates, show the table and the rows, and explain them."""
    # The extension module beside them keeps the package's files on disk, never in an archive.
    folder = Path(str(files("kldiv"))) / "demo"
    reference, labels = folder / "reference.npy", folder / "labels.npy"
    logits, truth = np.load(reference), np.load(labels)
    results = {name: kldiv.compare(logits, np.load(folder / f"{name}.npy"), truth) for name in BITS}
    vocabulary = logits.shape[-1]
    contexts = json.loads((folder / "contexts.json").read_text(encoding="utf-8"))

    rounded = " and ".join(f"to {bits} bits ({name})" for name, bits in BITS.items())
    show_text(
        f"p is the language model {contexts['model']}; q is the same model with its weights "
        f"rounded {rounded}. A row holds the logits of all {vocabulary:,} tokens "
        "that could come next after a text, and its label is the token that does."
    )
    print()
    _show_summaries(results)
    print("\nThe rows by KL of int4, and the probability of the token that follows:\n")
    _show_rows(results, contexts["rows"])
    print("\nWhat the numbers mean\n")
    texts = len({row["source"] for row in contexts["rows"]})
    for paragraph in _explanation(results, vocabulary, texts):
        show_text(paragraph)
        print()
    show_text("The same on files of your own (.npy, .safetensors, …, [rows, vocabulary]):")
    print()
    inputs = [str(reference), str(folder / "int4.npy")]
    print(shlex.join(["kldiv", "compare", *inputs, "--labels", str(labels)]))
    sys.stdout.flush()


def _show_summaries(results: dict[str, Comparison]) -> None:
    columns = {name: dict(result.summary().lines()) for name, result in results.items()}
    # So few rows have no percentiles worth a line, but for the median, and where all have the same
    # top-1 its standard error is 0, which says too much: the text counts them.
    lines = dict.fromkeys(
        line
        for column in columns.values()
        for line in column
        if not line.endswith(" %") and line != "same top-1"
    )
    show_table(
        [(line, *(column.get(line, "") for column in columns.values())) for line in lines],
        ("divergences in nats", *columns),
    )


def _show_rows(results: dict[str, Comparison], contexts: list[dict[str, Any]]) -> None:
    int8, int4 = results["int8"], results["int4"]
    lines = []
    for row in np.argsort(-int4.kl):
        losses = (nll[row] for nll in (int4.nll_p, int8.nll_q, int4.nll_q) if nll is not None)
        probabilities = (f"{math.exp(-loss):.2%}" for loss in losses)
        lines.append(
            (
                f"{int8.kl[row]:.4f}",
                f"{int4.kl[row]:.4f}",
                *probabilities,
                f'"{contexts[row]["next_token"]}"',
                _end(contexts[row]["context"]),
            )
        )
    header = ("KL int8", "KL int4", "by p", "by int8", "by int4", "next token", "after")
    show_table(lines, header)


def _end(context: str) -> str:
    text = " ".join(context.split())
    while cell_len(text) > CONTEXT_CELLS:
        text = text[1:]
    return f"…{text.lstrip()}"


def _explanation(results: dict[str, Comparison], vocabulary: int, texts: int) -> list[str]:
    int8, int4 = (results[name].summary().kl for name in ("int8", "int4"))
    in_every_row = np.all(results["int4"].kl > results["int8"].kl)
    rows = len(results["int4"])
    paragraphs = [
        "KL(p‖q) is what q loses, in nats per token, on text that p itself would write. 0 means "
        "equal probabilities. Its exponential is the factor on the perplexity of such text: "
        f"×{math.exp(int8.mean):.4f} for int8 and ×{math.exp(int4.mean):.4f} for int4."
    ]
    paragraphs += [_verdict(name, result) for name, result in results.items()]
    paragraphs.append(
        f"{rows} tokens of {texts} texts are an example, not a verdict, and the errors are wide, "
        "those of the perplexity above all: it looks at one token a row, where KL compares the "
        f"probabilities of all {vocabulary:,}."
    )
    if in_every_row and int4.mean - 3 * int4.standard_error > int8.mean + 3 * int8.standard_error:
        paragraphs[-1] += (
            f" The mean KL of int4 is {int4.mean / int8.mean:,.0f} times that of int8, far beyond "
            "the errors of both, and int4 differs more in every row."
        )
    return paragraphs


def _verdict(name: str, result: Comparison) -> str:
    summary = result.summary()
    ratio = summary.nll_difference
    assert ratio is not None
    low, factor, high = (
        math.exp(ratio.mean + errors * ratio.standard_error) for errors in (-2, 0, 2)
    )
    same = int(result.same_top.sum())
    close = summary.total_variation.mean <= CLOSE_TOTAL_VARIATION and low <= 1
    chance = "cannot be told from" if low <= 1 <= high else "is not"
    harm = f"harmless as far as {summary.rows} tokens show" if close else "not harmless"
    return (
        f"{name} is {harm}: it moves {summary.total_variation.mean:.1%} of the probability to "
        f"other tokens and keeps the most probable token in {same} of {summary.rows} rows. Its "
        f"perplexity on the tokens that really follow is ×{factor:.3f} that of p (two standard "
        f"errors: {low:.3f} to {high:.3f}), which {chance} no change."
    )
