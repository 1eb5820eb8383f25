"""What `kldiv compare` prints of an evaluation, and writes as JSON."""

from __future__ import annotations

from typing import Any

import kldiv
from kldiv.cli.compare import write_json
from kldiv.cli.errors import CommandError
from kldiv.cli.output import show_table
from kldiv.evaluation.evaluation import Evaluation
from kldiv.evaluation.tables import TABLES
from kldiv.evaluation.tables.llama_cpp import llama_cpp_table

LLAMA_CPP = "llama.cpp"
FORMATS = (*TABLES, LLAMA_CPP)


def check_format(name: str) -> None:
    """Raise `CommandError` for a table that is none."""
    if name not in FORMATS:
        raise CommandError(f"--format is {name!r}; expected one of {', '.join(FORMATS)}")


def present(
    result: Evaluation, *, table: str, json: str | None, statistics: dict[str, Any]
) -> None:
    """Print the table, and write the numbers to `json`; ``-`` is stdout, without the table.

    `statistics` are the keywords of `Evaluation.summary`.
    """
    if not len(result):
        raise CommandError("there is no position to score")
    if statistics["sampled_from"] is not None and "nll_p" not in result.positions.columns:
        raise CommandError("--sampled-from is about tokens; give them by --labels")
    if json != "-":
        if table == LLAMA_CPP:
            _print_llama_cpp(result)
        else:
            if table == "plain":
                show_table(_heading(result.about), ("compared", ""))
                print()
            print(result.table(table, **statistics))
            if table == "plain" and "seconds" in result.about:
                print()
                show_table(_speed(result.about))
    if json is not None:
        write_json(json, _numbers(result, statistics))


def _print_llama_cpp(result: Evaluation) -> None:
    names = result.candidates
    for name in names:
        if len(names) > 1:
            print(f"\n{name}")
        try:
            print(llama_cpp_table(result[name].positions), end="")
        except ValueError as error:
            raise CommandError(f"--format {LLAMA_CPP}: {error}") from None


def _heading(about: dict[str, Any]) -> list[tuple[str, str]]:
    """What was compared, a line each."""
    candidates = about.get("candidates", [])
    letters = ["q"] if len(candidates) == 1 else [f"q {i}" for i in range(1, len(candidates) + 1)]
    dumps = [("p", about.get("reference")), *zip(letters, candidates, strict=True)]
    lines = [(letter, _described(dump)) for letter, dump in dumps if dump]
    for name in ("head", "candidate_heads", "labels", "where"):
        if about.get(name):
            lines.append((name.replace("_", " "), str(about[name])))
    if about.get("vocab", "error") != "error":
        lines.append(("vocabularies that differ", about["vocab"]))
    given = [space for space in about.get("space", []) if space is not None]
    if given and set(given) != {"logits"}:
        lines.append(("space", ", ".join(dict.fromkeys(given))))
    if about.get("temperature", 1.0) != 1.0:
        lines.append(("temperature", f"{about['temperature']:g}"))
    return lines


def _described(dump: dict[str, Any]) -> str:
    shape = "×".join("?" if length is None else f"{length:,}" for length in dump["shape"])
    measure = f", {dump['measure']}" if "measure" in dump else ""
    return f"{dump['file']}  {dump['format']}, {dump['dtype']} {shape}{measure}"


def _speed(about: dict[str, Any]) -> list[tuple[str, str]]:
    rates = f"{about['positions_per_second']:,.0f} positions/s"
    if about.get("gigabytes_per_second") is not None:
        rates += f", {about['gigabytes_per_second']:.3g} GB/s"
    arithmetic = about["arithmetic"]
    return [
        ("time", f"{about['seconds']:.3g} s"),
        ("throughput", rates),
        ("arithmetic", f"{arithmetic['isa']}, {arithmetic['threads']} threads, nats"),
    ]


def _numbers(result: Evaluation, statistics: dict[str, Any]) -> dict[str, Any]:
    """Everything but the positions."""
    found = result.as_dict(**statistics)
    about = found.pop("about")
    numbers: dict[str, Any] = {"kldiv": kldiv.__version__, **about}
    if "seconds" in about:
        numbers["throughput"] = {
            "seconds": about["seconds"],
            "rows_per_second": about["positions_per_second"],
            "gigabytes_per_second": about["gigabytes_per_second"],
            "threads": about["arithmetic"]["threads"],
            "isa": about["arithmetic"]["isa"],
        }
    if len(result.candidates) == 1:
        # The numbers of the one candidate stand at the top, too, under the names of the field.
        [only] = found["candidates"]
        described = about.get("candidates") or [None]
        numbers |= only | {"candidate": described[0]}
        if "kl" in result.positions.columns:
            numbers["summary"] = result.comparison().summary().as_dict()
    return numbers | {"candidates": found["candidates"], "pairs": found["pairs"]}
