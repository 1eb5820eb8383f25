"""What is given beside dumps: what each sequence belongs to, and the noise floor."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl

from kldiv._arrays import Array
from kldiv.evaluation.dumps.npy import NpyFile
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.safetensors import SafetensorsFile
from kldiv.evaluation.dumps.stored_arrays import Content
from kldiv.evaluation.parquet_tables import read_table

FLOOR = Content("kl", "floating numbers", frozenset({"float64", "float32", "float16"}))


def read_sequence_labels(name: str) -> list[str] | dict[str, str]:
    """A label for every sequence, in order or by its name.

    ``.json`` holds a list or an object, ``.csv`` and ``.tsv`` a name and a label a line, any other
    file a label a line.

    Raises
    ------
    DumpError
        For a file that holds something else.
    OSError
        For a file that cannot be read.
    """
    path = Path(name)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return _of_json(name, json.loads(text))
        if path.suffix in (".csv", ".tsv"):
            return _of_csv(name, text, "\t" if path.suffix == ".tsv" else ",")
    except UnicodeDecodeError:
        raise DumpError(f"{name} is not text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise DumpError(f"{name} is not JSON: line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError):
        # Of integers of too many digits, and what is nested too deeply.
        raise DumpError(f"{name} is no JSON that can be read") from None
    labels = text.split("\n")
    if labels and not labels[-1]:
        labels.pop()
    labels = [label.rstrip("\r") for label in labels]
    if "" in labels:
        raise DumpError(f"{name} has no label in line {labels.index('') + 1}")
    return labels


def read_floor(name: str) -> Array:
    """KL of two runs of one model, for every position in order.

    A table of positions as ``.parquet``, or numbers as ``.npy`` or the tensor ``kl`` of
    ``.safetensors``.

    Raises
    ------
    DumpError
        For a file that does not hold that.
    OSError
        For a file that cannot be read.
    """
    path = Path(name)
    if path.suffix == ".parquet":
        frame = read_table(str(path), name)
        if "kl" not in frame.columns:
            raise DumpError(f"{name} has no column kl")
        if "candidate" in frame.columns and frame["candidate"].n_unique() > 1:
            raise DumpError(f"{name} is of several candidates, a floor is of one")
        if not frame.schema["kl"].is_numeric():
            raise DumpError(f"{name} holds {frame.schema['kl']} in its column kl, not numbers")
        kl: Array = frame["kl"].cast(pl.Float64).to_numpy()
        return kl
    if path.suffix == ".npy":
        return NpyFile(path, None, FLOOR).all().reshape(-1)
    if path.suffix == ".safetensors":
        return SafetensorsFile(path, None, FLOOR).all().reshape(-1)
    raise DumpError(f"{name}: a floor is a .parquet, .npy or .safetensors file")


def _of_json(name: str, found: Any) -> list[str] | dict[str, str]:
    if isinstance(found, list) and all(isinstance(label, (str, int)) for label in found):
        return [str(label) for label in found]
    if isinstance(found, dict) and all(isinstance(label, (str, int)) for label in found.values()):
        return {key: str(label) for key, label in found.items()}
    raise DumpError(f"{name} holds no list of labels, and no object of them by sequence")


def _of_csv(name: str, text: str, delimiter: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for number, row in enumerate(csv.reader(text.splitlines(), delimiter=delimiter), 1):
        if len(row) != 2:
            raise DumpError(
                f"{name} has {len(row)} columns in line {number}; expected a name and a label"
            )
        if row[0] in labels:
            raise DumpError(
                f"{name} has sequence {row[0]!r} twice, the second time in line {number}"
            )
        labels[row[0]] = row[1]
    return labels
