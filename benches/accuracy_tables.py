"""What `accuracy.py` measured, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runs import Run

TITLES = {
    "logits": "Logits N(0, 3²), independent or teacher + ε·noise, and a language model's",
    "peaked": "The same with 30 added to one logit of the teacher",
    "shifted": "The same with 10⁴ added to every logit of the student",
}


def lines(run: Run) -> list[str]:
    """Lay everything out in Markdown."""
    return [*_header(run["header"]), *_largest(run["results"]), *_closeness(run)]


def _header(header: dict[str, Any]) -> list[str]:
    return [
        f"Measured by `{header['command']}` at commit {header['commit']}, on {header['machine']} "
        f"({', '.join(header['isas'])}), kldiv {header['kldiv']}, "
        f"NumPy {header['versions']['numpy']}, Python {header['python']}.",
        "",
    ]


def _largest(results: list[dict[str, Any]]) -> Iterator[str]:
    """By function and dtype, and by instruction set."""
    fields = ("by", "name", "quantity", "dtype", "group")
    worst = {
        tuple(each[field] for field in fields): each["error"] for each in results if "by" in each
    }
    for group, title in TITLES.items():
        dtypes = list(dict.fromkeys(key[3] for key in worst if key[4] == group))
        for by in ("function", "instruction set"):
            if by == "function":
                yield f"{title}; largest relative error of value / gradient:"
            else:
                yield "Of all functions, by instruction set:"
            yield from ("", f"| {by} | {' | '.join(dtypes)} |", "| --- " * (len(dtypes) + 1) + "|")
            for name in dict.fromkeys(key[1] for key in worst if (key[0], key[4]) == (by, group)):
                cells = []
                for dtype in dtypes:
                    found = [
                        worst.get((by, name, quantity, dtype, group))
                        for quantity in ("value", "gradient")
                    ]
                    cells.append(" / ".join("–" if e is None else f"{e:.1e}" for e in found))
                yield f"| {name} | {' | '.join(cells)} |"
            yield ""


def _closeness(run: Run) -> Iterator[str]:
    """Compare kl with torch's on the same rows, by how close they are."""
    versions, close = run["header"]["versions"], run["header"]["close"]
    found = [each for each in run["results"] if "eps" in each]
    names = list(found[0]["errors"])
    versus = f" and of torch {versions['torch']}" if "torch" in names else ""
    yield (
        f"Largest relative error of kl{versus} on the same {close['rows']} rows of "
        f"{close['classes']:,} classes, student = teacher + ε·noise. torch's is "
        "`kl_div(log_softmax(q), log_softmax(p), "
        'log_target=True, reduction="none").sum(-1)`, computed in that dtype:'
    )
    columns = ["ε", "KL", *(f"{name} float32" for name in names)]
    columns += ["KL, bfloat16", *(f"{name} bfloat16" for name in names)]
    yield from ("", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|")
    for eps in dict.fromkeys(each["eps"] for each in found):
        numbers = (
            number
            for each in found
            if each["eps"] == eps
            for number in (each["kl"], *each["errors"].values())
        )
        yield f"| {eps:g} | {' | '.join(f'{number:.1e}' for number in numbers)} |"
