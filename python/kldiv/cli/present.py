"""What `kldiv compare` prints of an evaluation, and writes as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kldiv.cli.errors import CommandError
from kldiv.cli.files import check_output, write_json
from kldiv.cli.output import show_table
from kldiv.cli.pages import Page
from kldiv.evaluation.evaluation import Evaluation
from kldiv.evaluation.statistics.bootstrap import SAMPLES
from kldiv.evaluation.statistics.percentiles import EXACT
from kldiv.evaluation.tables import TABLES
from kldiv.evaluation.tables.llama_cpp import llama_cpp_table
from kldiv.evaluation.wording import counted, shape_text

LLAMA_CPP = "llama.cpp"
FORMATS = (*TABLES, LLAMA_CPP)


@dataclass(frozen=True)
class Output:
    """What is made of an evaluation, as typed."""

    table: str | None = None
    """A format, plain without it."""
    json: str | None = None
    """A file; ``-`` is stdout, without the table."""
    positions: str | None = None
    html: str | None = None
    lang: str | None = None
    tokenizer: str | None = None
    bootstrap: int = SAMPLES
    exact: int = EXACT
    sampled_from: str | None = None

    def check(self, inputs: list[str]) -> None:
        """Raise `CommandError` unless all of it can be made, without harm to the `inputs`."""
        if self.table is not None:
            if self.table not in FORMATS:
                known = ", ".join(FORMATS)
                raise CommandError(f"--format is {self.table!r}; expected one of {known}")
            if self.json == "-":
                raise CommandError(
                    "--json - prints the numbers instead of the table; leave out "
                    f"--format {self.table}, or name a file"
                )
        if self.sampled_from not in (None, "p", "q"):
            raise CommandError(f"--sampled-from is {self.sampled_from!r}; expected p or q")
        if self.bootstrap == 1:
            raise CommandError("--bootstrap is 0, or at least 2 samples")
        if self.positions is not None and not self.positions.endswith(".parquet"):
            raise CommandError(
                f"--positions is {self.positions!r}; expected a name that ends in .parquet"
            )
        page = Page(self.html, self.lang, self.tokenizer)
        page.check()
        files = {
            "--positions": self.positions,
            "--html": self.html,
            "--json": None if self.json == "-" else self.json,
        }
        named: dict[str, str] = {}
        for option, name in files.items():
            if name is None:
                continue
            if name in named:
                raise CommandError(f"{named[name]} and {option} both name {name}")
            named[name] = option
            check_output(name, [*inputs, *([self.tokenizer] if self.tokenizer else [])])

    def show(self, result: Evaluation) -> None:
        """Write the files, and print the table.

        Files first: whoever reads the table may close the pipe after a few lines of it.
        """
        if not len(result):
            raise CommandError("there is no position to score")
        if self.sampled_from is not None and "nll_p" not in result.positions.columns:
            raise CommandError("--sampled-from is about tokens; give them by --labels")
        statistics = {
            "bootstrap": self.bootstrap,
            "exact": self.exact,
            "sampled_from": self.sampled_from,
        }
        table = self.table or "plain"
        # What cannot be said ends the command before a file is written.
        text = _llama_cpp(result) if table == LLAMA_CPP else result.table(table, **statistics)
        if self.positions is not None:
            result.write_positions(self.positions)
        Page(self.html, self.lang, self.tokenizer).write(result, statistics)
        if self.json is not None:
            write_json(self.json, result.as_dict(**statistics))
        if self.json != "-":
            _print(result, table, text)


def _print(result: Evaluation, table: str, text: str) -> None:
    if table == "plain":
        show_table(_heading(result.about), ("compared", ""))
        print()
    print(text, end="" if table == LLAMA_CPP else "\n")
    if table == "plain" and "seconds" in result.about:
        print()
        show_table(_speed(result.about))


def _llama_cpp(result: Evaluation) -> str:
    names = result.candidates
    text = ""
    for name in names:
        if len(names) > 1:
            text += f"\n{name}\n"
        try:
            text += llama_cpp_table(result[name].positions)
        except ValueError as error:
            raise CommandError(f"--format {LLAMA_CPP}: {error}") from None
    return text


def _heading(about: dict[str, Any]) -> list[tuple[str, str]]:
    """What was compared, a line each."""
    candidates = about.get("candidates", [])
    letters = ["q"] if len(candidates) == 1 else [f"q {i}" for i in range(1, len(candidates) + 1)]
    dumps = [("p", about.get("reference")), *zip(letters, candidates, strict=True)]
    lines = [(letter, _described(dump)) for letter, dump in dumps if dump]
    for name in ("head", "candidate_heads", "labels", "where"):
        if about.get(name):
            lines.append((name.replace("_", " "), str(about[name])))
    lines += _of_models(about)
    if (part := about.get("interrupted")) is not None:
        of = "" if part["of"] is None else f" of {part['of']:,}"
        lines.append(("interrupted after", f"{part['positions']:,}{of} positions"))
    if about.get("kept_positions"):
        lines.append(("found in the work directory", counted(about["kept_positions"], "position")))
    if about.get("vocab", "error") != "error":
        lines.append(("vocabularies that differ", about["vocab"]))
    given = [space for space in about.get("space", []) if space is not None]
    if given and set(given) != {"logits"}:
        lines.append(("space", ", ".join(dict.fromkeys(given))))
    if about.get("temperature", 1.0) != 1.0:
        lines.append(("temperature", f"{about['temperature']:g}"))
    return lines


def _of_models(about: dict[str, Any]) -> list[tuple[str, str]]:
    """What was read, where models ran."""
    if "windows" not in about:
        return []
    windows, models = about["windows"], about["models"]
    stride = "" if windows["stride"] is None else f", stride {windows['stride']:,}"
    begins = " ".join(about["tokenizer"]["begins_with"])
    lines = [
        ("text", f"{about['text']}, {counted(windows['documents'], 'document')}"),
        ("windows", f"{windows['windows']:,} of {windows['context']:,} tokens{stride}"),
        ("device", ", ".join(dict.fromkeys(model["device_name"] for model in models))),
    ]
    if begins:
        lines.append(("every window begins with", begins))
    if any(model["classes"] != about["kld_vocab_size"] for model in models):
        lines.append(("classes scored", f"{about['kld_vocab_size']:,}"))
    return lines


def _described(dump: dict[str, Any]) -> str:
    shape = shape_text(dump["shape"])
    measure = f", {dump['measure']}" if "measure" in dump else ""
    assumed = ", taken for logits as no name says it" if dump.get("kind_assumed") else ""
    return f"{dump['file']}  {dump['format']}, {dump['dtype']} {shape}".rstrip() + measure + assumed


def _speed(about: dict[str, Any]) -> list[tuple[str, str]]:
    rates = f"{about['positions_per_second']:,.0f} positions/s"
    if about.get("kept_positions") and not about["positions_per_second"]:
        rates = "all positions were found in the work directory"
    elif about.get("gigabytes_per_second") is not None:
        rates += f", {about['gigabytes_per_second']:.3g} GB/s"
    arithmetic = about["arithmetic"]
    return [
        ("time", f"{about['seconds']:.3g} s"),
        ("throughput", rates),
        ("arithmetic", f"{arithmetic['isa']}, {arithmetic['threads']} threads, nats"),
    ]
