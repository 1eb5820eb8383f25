"""How the numbers came about: files and their digests, settings, arithmetic, version."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import kldiv
from kldiv.evaluation.report import numbers
from kldiv.evaluation.report.answer import clusters
from kldiv.evaluation.report.cells import EMPTY, Cell, Row, Table
from kldiv.evaluation.report.words import Words
from kldiv.evaluation.statistics.summary import EvaluationSummary
from kldiv.evaluation.wording import shape_text


def dumps(about: dict[str, Any], words: Words) -> Table:
    """What was compared, a row a file or directory."""
    described = [
        ("p", about.get("reference")),
        *(("q", one) for one in about.get("candidates", [])),
    ]
    rows = [
        Row(words[f"method.{side}"], _of_dump(one, words))
        for side, one in described
        if isinstance(one, dict)
    ]
    names = ("file", "format", "dtype", "shape", "bytes", "sha256")
    header = [words["method.role"], *(words[f"method.{name}"] for name in names)]
    return Table("dumps", words["method.dumps"], header, rows)


def settings(about: dict[str, Any], summaries: Sequence[EvaluationSummary], words: Words) -> Table:
    """Everything else that the numbers depend on."""
    rows = [
        Row(label, [Cell(value)])
        for label, value in (*_settings(about, words), *_statistics(about, summaries, words))
    ]
    return Table("settings", words["method.settings"], [words["method.settings"], ""], rows)


def _of_dump(described: dict[str, Any], words: Words) -> list[Cell]:
    digest = described.get("digest") or {}
    shape = shape_text(described.get("shape", []))
    note = None
    if digest and digest["read_bytes"] != digest["bytes"]:
        note = words("method.sampled", bytes=f"{digest['read_bytes']:,}")
    return [
        Cell(str(described.get("file", ""))),
        Cell(str(described.get("format", ""))),
        Cell(str(described.get("dtype", ""))),
        Cell(shape),
        Cell(f"{digest['bytes']:,}") if digest else EMPTY,
        Cell(digest["sha256"], note=note) if digest else EMPTY,
    ]


def _settings(about: dict[str, Any], words: Words) -> Iterator[tuple[str, str]]:
    yield words["method.direction"], words["method.direction.text"]
    yield from _of_models(about, words)
    candidates = [one for one in about.get("candidates", []) if isinstance(one, dict)]
    heads = [one["head"] for one in candidates if "head" in one]
    if heads:
        yield words["method.head"], str(heads[0])
    for one in candidates:
        if "measure" in one:
            yield words("method.measure", q=one["file"]), str(one["measure"])
        if "candidate_head" in one:
            yield words("method.candidate_head", q=one["file"]), str(one["candidate_head"])
    for name in ("labels", "where"):
        if about.get(name):
            yield words[f"method.{name}"], str(about[name])
    shape = [one or 0 for one in (about.get("reference") or {}).get("shape", [])]
    if about.get("rows") and about["rows"] != [0, math.prod(shape[:-1])]:
        yield words["method.rows"], "{:,}:{:,}".format(*about["rows"])
    if about.get("kld_vocab_size"):
        yield words["method.vocab_size"], f"{about['kld_vocab_size']:,}"
    if about.get("vocab", "error") != "error":
        yield words["method.vocab"], words[f"method.vocab.{about['vocab']}"]
    spaces = [one for one in about.get("space") or [] if one is not None]
    if spaces:
        yield words["method.space"], words["list.comma"].join(dict.fromkeys(spaces))
    if about.get("temperature", 1.0) != 1.0:
        yield words["method.temperature"], f"{about['temperature']:g}"


def _of_models(about: dict[str, Any], words: Words) -> Iterator[tuple[str, str]]:
    """What was read and where, where models ran."""
    if "windows" not in about:
        return
    windows = about["windows"]
    documents = words.count(windows["documents"], "document")
    yield words["method.text"], words("method.text.text", text=about["text"], documents=documents)
    lengths = {
        "windows": words.count(windows["windows"], "text"),
        "context": f"{windows['context']:,}",
        "stride": f"{windows['stride'] or windows['context']:,}",
    }
    yield words["method.windows"], words("method.windows.text", **lengths)
    begins = " ".join(about["tokenizer"]["begins_with"])
    yield words["method.begins"], begins or words["method.begins.nothing"]
    devices = dict.fromkeys(model["device_name"] for model in about["models"])
    yield words["method.device"], words["list.comma"].join(devices)


def _statistics(
    about: dict[str, Any], summaries: Sequence[EvaluationSummary], words: Words
) -> Iterator[tuple[str, str]]:
    first = summaries[0]
    counts = {
        "positions": words.count(first.counts.rows, "position"),
        "texts": words.count(first.counts.sequences, "text"),
    }
    yield words["method.positions"], words("method.positions.text", **counts)
    if first.kl.clusters > 1:
        errors = words("method.errors.text", clusters=clusters(first, words))
        yield words["method.errors"], errors
    for summary in summaries:
        found = summary.kl_bootstrap
        if found is not None and found.samples and found.clusters > 1:
            low, high = numbers.ends(found.ci95_low, found.ci95_high)
            label = words["method.bootstrap"]
            if len(summaries) > 1:
                label = words("chart.of", name=summary.candidate, said=label)
            yield (
                label,
                words(
                    "method.bootstrap.text",
                    samples=f"{found.samples:,}",
                    clusters=clusters(summary, words),
                    method=found.method,
                    low=low,
                    high=high,
                ),
            )
    percentiles = first.kl_percentiles
    if percentiles.method == "exact":
        yield words["method.percentiles"], words["method.percentiles.exact"]
    else:
        error = numbers.number(100 * percentiles.rank_error, 2)
        sketch = words("method.percentiles.sketch", method=percentiles.method, error=error)
        yield words["method.percentiles"], sketch
    if arithmetic := about.get("arithmetic"):
        yield words["method.arithmetic"], words("method.arithmetic.text", **arithmetic)
    if about.get("date"):
        yield words["method.date"], str(about["date"])
    if about.get("seconds"):
        rate = f"{about['positions_per_second']:,.0f}"
        seconds = numbers.number(about["seconds"])
        yield words["method.time"], words("method.time.text", seconds=seconds, rate=rate)
    yield words["method.version"], f"kldiv {about.get('kldiv', kldiv.__version__)}"
