"""What a dump is: what `kldiv info FILE` says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.blocks import is_read_once
from kldiv.evaluation.dumps.protocol import DENSE, Dump, Kind, TopKBlock

LOOKED_AT = 8  # sequences, the first rows of each
ROWS = 4
_UNITS = (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3), ("bytes", 0))
_KINDS: dict[Kind, str] = {
    "logits": "logits",
    "log_probs": "log-probabilities",
    "probs": "probabilities",
    "hidden_states": "hidden states",
    "top_k": "most probable classes",
}


def describe(dump: Dump) -> dict[str, Any]:
    """What a dump is, in numbers and strings that JSON has.

    A few rows of it are read, to say whether they are normalised; of a stream they are then gone.

    Returns
    -------
    dict
        ``name``, ``format``, ``kind``, ``sequences`` and ``positions`` (None of a stream),
        ``shortest`` and ``longest`` sequence, ``width``, ``dtype``, ``bytes``, ``labels`` (how
        many positions have one; None where there are no labels), ``head``, ``rows`` as
        `normalisation` finds them, and ``details`` of the format.

    Raises
    ------
    DumpError
        For rows that cannot be read.
    """
    known = not is_read_once(dump)
    lengths, labelled, has_labels = [], 0, False
    if known:
        for sequence in dump.sequences():
            lengths.append(sequence.positions)
            if sequence.labels is not None:
                has_labels = True
                labelled += int((sequence.labels >= 0).sum())
    counted = [length for length in lengths if length is not None]
    whole = bool(counted) and len(counted) == len(lengths)
    head = getattr(dump, "head", None)
    positions = sum(counted) if whole else None
    return {
        "name": dump.name,
        "format": dump.format,
        "kind": dump.kind,
        "sequences": len(lengths) if known else dump.count,
        "positions": positions,
        "shortest": min(counted) if whole else None,
        "longest": max(counted) if whole else None,
        "width": dump.width,
        "dtype": dump.dtype.name,
        "bytes": _bytes(dump, positions),
        "labels": labelled if has_labels else None,
        "head": None if head is None else str(head),
        "rows": normalisation(dump) if dump.kind in DENSE else None,
        "details": dump.details(),
    }


def normalisation(dump: Dump) -> dict[str, Any]:
    """Whether the rows of a dump sum to one, judged by a few of them.

    Returns
    -------
    dict
        ``looked_at``, how many; ``not_finite``, how many of them hold NaN or +∞, or nothing but −∞;
        ``lowest`` and ``highest`` log-sum-exp (of probabilities, sum) of the others;
        ``probabilities``, whether they are none below 0 that sum to 1, though the names say
        otherwise; ``normalised``, whether that is 0 (1) to what the dtype can hold. None for
        ``lowest``, ``highest`` and ``normalised`` where all rows are not finite.
    """
    found: list[float] = []
    sums_as_given: list[float] = []
    lowest: list[float] = []
    looked_at = broken = 0
    for rows in _some_rows(dump):
        numbers = rows.astype(np.float64)
        total = np.sum if dump.kind == "probs" else np.logaddexp.reduce
        with np.errstate(invalid="ignore"):
            sums = total(numbers, axis=-1)
            plain = np.sum(numbers, axis=-1)
        looked_at += len(sums)
        sums_as_given += plain.tolist()
        lowest.append(float(numbers.min(initial=0.0)))
        broken += int((~np.isfinite(sums)).sum())
        found += sums[np.isfinite(sums)].tolist()
    expected = 1.0 if dump.kind == "probs" else 0.0
    epsilon = {"bfloat16": 2.0**-7, "float16": 2.0**-10}.get(dump.dtype.name, 2.0**-13)
    as_probabilities = bool(sums_as_given) and min(lowest) >= 0
    return {
        "probabilities": dump.kind in ("logits", "log_probs")
        and as_probabilities
        and max(abs(x - 1) for x in sums_as_given) < 8 * epsilon,
        "looked_at": looked_at,
        "not_finite": broken,
        "lowest": min(found) if found else None,
        "highest": max(found) if found else None,
        # A log-probability of −10 is rounded by some epsilon.
        "normalised": max(abs(x - expected) for x in found) < 8 * epsilon if found else None,
    }


def lines(described: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people, a line each."""
    rows = described["rows"]
    head = described["head"]
    found: list[tuple[str, str]] = [
        ("file", described["name"]),
        ("format", described["format"]),
        ("numbers", f"{_KINDS[described['kind']]} in {described['dtype']}"),
        ("sequences", _number(described["sequences"])),
        ("positions", _number(described["positions"]) + _spread(described)),
    ]
    if described["width"] is not None:
        title = "width" if described["kind"] == "hidden_states" else "vocabulary"
        found.append((title, _number(described["width"])))
    if described["bytes"] is not None:
        found.append(("size", size(described["bytes"])))
    if described["labels"] is not None:
        found.append(("labels", f"{described['labels']:,} positions"))
    if rows is not None:
        found.append(("rows", _said_of_rows(rows, described["kind"])))
    if described["kind"] == "hidden_states":
        found.append(("output layer", "none found beside them" if head is None else head))
    found += [(str(name), _plain(value)) for name, value in described["details"].items()]
    return found


def size(count: int) -> str:
    """Bytes, for people."""
    unit, power = next((u, p) for u, p in _UNITS if count >= 10**p or not p)
    return f"{count / 10**power:.3g} {unit}"


def _some_rows(dump: Dump) -> Iterator[Array]:
    if dump.count is None or is_read_once(dump):
        chosen = {0}
    else:
        chosen = set(np.linspace(0, dump.count - 1, LOOKED_AT).astype(int).tolist())
    for number, sequence in enumerate(dump.sequences()):
        if number in chosen:
            block = next(sequence.read(ROWS), None)
            if block is not None and not isinstance(block, TopKBlock):
                yield block
        if number >= max(chosen):
            return


def _bytes(dump: Dump, positions: int | None) -> int | None:
    paths = dict.fromkeys(getattr(dump, "paths", ()) or [Path(dump.name)])
    files = [
        file
        for path in paths
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.is_file()
    ]
    if files:
        total: int = sum(file.stat().st_size for file in files)
        return total
    return None if positions is None else positions * dump.row_bytes


def _said_of_rows(rows: dict[str, Any], kind: str) -> str:
    looked = f"{rows['looked_at']} looked at"
    if rows["not_finite"]:
        looked += f", {rows['not_finite']} with NaN or infinity"
    if rows["normalised"] is None:
        return looked
    if rows["probabilities"]:
        return f"sum to 1, none below 0: probabilities? --space (space=) says so ({looked})"
    what = "sum" if kind == "probs" else "log-sum-exp"
    spread = f"{what} {rows['lowest']:.3g} to {rows['highest']:.3g}"
    said = "normalised" if rows["normalised"] else "not normalised"
    if rows["normalised"] and kind == "logits":
        said += ": log-probabilities"
    return f"{said} ({spread}; {looked})"


def _spread(described: dict[str, Any]) -> str:
    low, high = described["shortest"], described["longest"]
    if low is None or described["sequences"] == 1:
        return ""
    return f" ({low:,} each)" if low == high else f" ({low:,} to {high:,} each)"


def _number(value: int | None) -> str:
    return "not known before the end" if value is None else f"{value:,}"


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
