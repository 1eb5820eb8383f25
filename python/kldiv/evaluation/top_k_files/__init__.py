"""Files of top-k rows: written as a stream, read whole or some rows at a time."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from kldiv._top_k.container import TopK
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.top_k_files import parquet, safetensors
from kldiv.evaluation.top_k_files.layout import head_of, pieces_of
from kldiv.evaluation.whole_file import whole_file

FORMATS: dict[str, ModuleType] = {module.SUFFIX: module for module in (safetensors, parquet)}


def format_of(path: Path) -> ModuleType:
    """The format that the end of a name says.

    Raises
    ------
    DumpError
        For another end.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise DumpError(
            f"{path} ends with {path.suffix!r}; top-k rows are written as {' or '.join(FORMATS)}"
        )
    return found


def save(top_k: TopK, name: str | os.PathLike[str], *, overwrite: bool) -> None:
    """`TopK.save`."""
    path = Path(name)
    module = format_of(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already; overwrite=True replaces it")
    with whole_file(path) as partial:
        module.write(partial, head_of(top_k), pieces_of(top_k))


def load(name: str | os.PathLike[str]) -> TopK:
    """`TopK.load`."""
    path = Path(name)
    said, arrays = format_of(path).load(path)
    values = arrays.pop("values")
    try:
        return TopK._of(values=values, kind=said.kind, classes=said.classes, **arrays)
    except ValueError as error:
        raise DumpError(f"{path}: {error}") from None
