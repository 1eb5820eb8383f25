"""`capture`: what a model says of a text, kept on disk in a layout that `kldiv compare` reads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps import directory, llama_cpp_writer
from kldiv.evaluation.dumps.convert import convert
from kldiv.evaluation.dumps.describe import size
from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.llama_cpp import Header
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.safetensors import DTYPES
from kldiv.evaluation.dumps.writing import Source, write_bytes
from kldiv.evaluation.models import top_k_writer
from kldiv.evaluation.models.dump import ModelDump
from kldiv.evaluation.models.language_model import LanguageModel
from kldiv.evaluation.models.manifest import FORMAT, NAME, versions
from kldiv.evaluation.models.reading import CONTEXT, Given, Reading, Text
from kldiv.evaluation.models.windows import Window
from kldiv.evaluation.whole_file import whole_directory

Layout = Literal["hidden", "logits", "kld", "top_k"]
DUMP = {"hidden": "", "logits": "", "kld": "base.kld", "top_k": "top_k.jsonl"}
"""What of the directory `kldiv compare` is given, beside its name."""
TOP_K_FILE = "top_k.safetensors"
ENTRY_BYTES = 83  # of a token of a position in JSON, about, and its id and number


@dataclass(frozen=True)
class Captured:
    """What was written."""

    path: Path
    """What `kldiv compare` and `open_dump` take."""
    manifest: dict[str, Any]


def capture(
    model: Given,
    text: Text,
    out: str | os.PathLike[str],
    *,
    layout: Layout = "hidden",
    k: int | None = None,
    context: int = CONTEXT,
    stride: int | None = None,
    chunks: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> Captured:
    """Run a language model over a text, and keep what it says of every window.

    The directory `out` is there once it is whole. In it lie

    * ``hidden``: ``capture/hidden_000000.safetensors`` … (what the output layer is given, of each
      window), and the output layer in ``head/weight.safetensors``; some 60 times smaller than
    * ``logits``: ``capture/logits_000000.safetensors`` …;
    * ``kld``: ``base.kld``, llama.cpp's base file: whole chunks of which the second half is kept,
      in 16 bits, with BOS in the place of a chunk's first token where the tokenizer has one;
    * ``top_k``: ``top_k.jsonl``, the `k` most probable tokens as vLLM answers, and the same in
      ``top_k.safetensors`` for `kldiv.TopK.load`;

    beside them ``panel/tokens/context-000000.json`` … (of hidden states and logits: the token
    ids of each window and the next one; the others hold them), ``documents.json`` (what each
    window is of: ``--clusters``), and ``manifest.json``.

    Parameters
    ----------
    model, text, context, stride, chunks, device, dtype
        As of `kldiv.evaluate_models`. Of ``kld`` a stride is refused.
    out
        A directory that is not there, or is empty.
    layout : {"hidden", "logits", "kld", "top_k"}
        What is kept.
    k : int
        How many tokens of ``top_k``.
    overwrite : bool
        Whether to replace a directory that a capture wrote.
    progress : callable
        Called with the number of positions just written.

    Raises
    ------
    DumpError, ValueError, OSError
        As `kldiv.evaluate_models`; for a directory that is there or cannot be written, and a disk
        without the space. Nothing is left then.

    Examples
    --------
    >>> from kldiv.evaluation.models import capture
    >>> capture("SmolLM2-135M", "wiki.txt", "reference", chunks=20).path  # doctest: +SKIP
    PosixPath('reference')
    """
    check_layout(layout, k, stride)
    target = check_target(out, overwrite=overwrite)
    if chunks is not None and chunks < 1:
        raise ValueError(f"chunks must be at least 1, got {chunks}")
    reading = Reading.of(
        (model,),
        text,
        context=context,
        stride=stride,
        chunks=chunks,
        device=device,
        dtype=dtype,
        llama_cpp=layout == "kld",
    )
    return write(reading, target, layout, k, progress)


def check_layout(layout: str, k: int | None, stride: int | None) -> None:
    """Raise `ValueError` for a layout that is none, or what does not go with it."""
    if layout not in get_args(Layout):
        raise ValueError(f"layout is {layout!r}; expected one of {', '.join(get_args(Layout))}")
    if (layout == "top_k") != (k is not None):
        raise ValueError("k goes with the layout top_k, and that with k")
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if layout == "kld" and stride is not None:
        raise ValueError("a base file of llama.cpp has chunks one after the other: no stride")


def check_target(out: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """The directory to write, which is not there, is empty, or may be replaced.

    Raises
    ------
    DumpError
        Otherwise, and where it cannot be written.
    """
    path = Path(out)
    if path.name in ("", ".."):
        path = path.resolve()
    if path.exists() and not path.is_dir():
        raise DumpError(f"{out} is a file; expected a directory to write")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise DumpError(f"{out} is there already; --overwrite (overwrite=True) replaces it")
        if not _is_capture(path):
            raise DumpError(f"{out} holds other things than a capture: not replaced")
    if not path.parent.is_dir():
        raise DumpError(f"no such directory: {Path(out).parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DumpError(f"{out} cannot be written: permission denied")
    return path


def write(
    reading: Reading,
    target: Path,
    layout: Layout,
    k: int | None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Captured:
    """`capture` of what has been read."""
    model = reading.models.load(0)
    windows = reading.windows
    if layout == "hidden":
        model.check_head(windows[0])
    _check_space(target, _expected_bytes(model, windows, layout, k, reading))
    manifest = {
        "format": FORMAT,
        "layout": layout,
        **({} if k is None else {"k": k}),
        "model": model.describe(),
        **reading.describe(),
        "versions": versions(),
    }
    with whole_directory(target) as folder:
        if layout in ("hidden", "logits"):
            _write_rows(folder, model, windows, layout, progress)
            _write_tokens(folder / "panel" / "tokens", windows)
        elif layout == "kld":
            dump = ModelDump(model, windows, tokens=reading.tokens, advance=progress)
            llama_cpp_writer.write(folder / DUMP[layout], dump)
        else:
            dump = ModelDump(model, windows, advance=progress)
            file = folder / DUMP[layout]
            top_k_writer.write(file, dump, windows, k or 1, reading.models.tokenizer)
            convert(open_dump(file), folder / TOP_K_FILE, classes=dump.width)
        _write_json(folder / "documents.json", [window.document for window in windows])
        _write_json(folder / NAME, manifest)
    return Captured(target / DUMP[layout], manifest)


def _write_rows(
    folder: Path,
    model: LanguageModel,
    windows: list[Window],
    layout: Layout,
    progress: Callable[[int], None],
) -> None:
    """A file for every window; of hidden states the output layer beside them."""
    if layout == "logits":
        directory.write(Source(ModelDump(model, windows), progress), folder / "capture")
        return
    rows = ModelDump(model, windows, kind="hidden_states", rows_of=model.head_inputs)
    directory.write(Source(rows, progress), folder / "capture")
    (folder / "head").mkdir()
    _write_head(folder / "head" / "weight.safetensors", model.head_weight())


def _write_head(path: Path, weight: Array) -> None:
    dtype = next(name for name, known in DTYPES.items() if known == weight.dtype)
    entry = {"dtype": dtype, "shape": list(weight.shape), "data_offsets": [0, weight.nbytes]}
    header = json.dumps({"weight": entry}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        write_bytes(file, np.ascontiguousarray(weight))


def _expected_bytes(
    model: LanguageModel, windows: list[Window], layout: Layout, k: int | None, reading: Reading
) -> int:
    rows = sum(map(len, windows))
    if layout == "kld":
        return Header("_logits_", reading.context, model.width, len(windows)).file_bytes
    if layout == "top_k":
        return rows * ENTRY_BYTES * ((k or 1) + 1)
    if layout == "logits":
        return rows * model.width * model.dtype.itemsize
    weight = model.head_weight()
    return int((rows * weight.shape[1] + weight.size) * weight.dtype.itemsize)


def _check_space(target: Path, expected: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if expected > free:
        raise DumpError(
            f"{target} would take about {size(expected)}, and {size(free)} are free there: no "
            "space left on the disk"
        )


def _is_capture(path: Path) -> bool:
    try:
        found = json.loads((path / NAME).read_bytes())
        return isinstance(found, dict) and found.get("format") == FORMAT
    except (OSError, ValueError, RecursionError):
        return False


def _write_tokens(folder: Path, windows: list[Window]) -> None:
    folder.mkdir(parents=True)
    for number, window in enumerate(windows):
        content = {"token_ids": window.tokens.tolist(), "name": window.name, "first": window.first}
        _write_json(folder / f"context-{number:06}.json", content)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
