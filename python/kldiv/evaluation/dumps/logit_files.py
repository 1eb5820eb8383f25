"""Files of logits, labels and masks; logits by blocks, so that they may be larger than memory.

A new format is one reader class in `stored_arrays`, and its extension in `_READERS`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.stored_arrays import Content, NpyFile, SafetensorsFile, StoredArray


class LogitFile(Protocol):
    """Logits of shape ``[..., vocabulary]`` in a file, read as rows."""

    @property
    def name(self) -> str:
        """The file, and the tensor where it holds several, as `open_logits` takes them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape stored, the vocabulary last."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype stored, bfloat16 as that of ml_dtypes."""

    @property
    def block_bytes(self) -> int:
        """How many bytes of rows it takes to read them fast."""

    def blocks(self, rows: range, step: int) -> Iterator[Array]:
        """Rows of the flattened batch shape, `step` at a time, as arrays ``[step, vocabulary]``.

        A block lasts until the next is asked for.
        """


_INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
LOGITS = Content(
    "logits", "floating numbers", frozenset({"float64", "float32", "float16", "bfloat16"})
)
LABELS = Content("labels", "integers", _INTEGERS)
MASK = Content("where", "booleans, or integers 0 and 1", _INTEGERS | {"bool"})

_READERS: dict[str, type[NpyFile] | type[SafetensorsFile]] = {
    ".npy": NpyFile,
    ".safetensors": SafetensorsFile,
}

# What others write, and the Python that reads {file} as an array.
_CONVERSIONS = {
    **dict.fromkeys(
        (".pt", ".pth", ".bin"),
        "import numpy, torch; "
        'numpy.save({new}, torch.load({file}, map_location="cpu").float().numpy())',
    ),
    ".npz": 'import numpy; numpy.save({new}, numpy.load({file})["NAME"])',
    ".parquet": (
        'import numpy, pandas; numpy.save({new}, pandas.read_parquet({file}).to_numpy("float32"))'
    ),
    **dict.fromkeys(
        (".h5", ".hdf5"), 'import h5py, numpy; numpy.save({new}, h5py.File({file})["NAME"][:])'
    ),
    ".csv": 'import numpy; numpy.save({new}, numpy.loadtxt({file}, delimiter=","))',
}


def open_logits(name: str) -> LogitFile:
    """Open a file of logits, ``FILE`` or ``FILE.safetensors:TENSOR``.

    Raises
    ------
    DumpError
        For a file that does not hold logits with at least one row and one class.
    OSError
        For a file that cannot be read.
    """
    file = _open(name, LOGITS)
    if not file.shape:
        raise DumpError(f"{file.name} has shape (), without a vocabulary axis")
    if not math.prod(file.shape):
        raise DumpError(f"{file.name} has shape {file.shape}, without a logit")
    return file


def read_labels(name: str, batch_shape: tuple[int, ...]) -> Array:
    """Read a file of labels, one for every row, as a flat array.

    Raises
    ------
    DumpError
        For a file that does not hold one integer for every row.
    OSError
        For a file that cannot be read.
    """
    return _one_a_row(name, LABELS, batch_shape)


def read_mask(name: str, batch_shape: tuple[int, ...]) -> Array:
    """Read a file of booleans or integers, one for every row, as a flat array.

    Raises
    ------
    DumpError
        For a file that does not hold one of them for every row.
    OSError
        For a file that cannot be read.
    """
    return _one_a_row(name, MASK, batch_shape)


def split_name(name: str) -> tuple[Path, str | None]:
    """Split into file and tensor the name ``FILE`` or ``FILE.safetensors:TENSOR``."""
    named = re.fullmatch(r"(.+\.safetensors):(.+)", name, re.DOTALL)
    if named and not Path(name).exists():
        return Path(named[1]), named[2]
    return Path(name), None


def _one_a_row(name: str, content: Content, batch_shape: tuple[int, ...]) -> Array:
    file = _open(name, content)
    rows = math.prod(batch_shape)
    if file.shape not in (batch_shape, (rows,)):
        expected = " or ".join(str(shape) for shape in dict.fromkeys((batch_shape, (rows,))))
        raise DumpError(
            f"{file.name} has shape {file.shape}; expected one number for every row: {expected}"
        )
    return file.all().reshape(-1)


def _open(name: str, content: Content) -> StoredArray:
    path, tensor = split_name(name)
    if path.is_dir():
        raise DumpError(f"{path} is a directory; expected a file of {content.numbers}")
    if not path.exists():
        raise DumpError(f"no such file: {path}{_suggestion(path)}")
    if not path.is_file():
        raise DumpError(f"{path} is not a regular file")
    extension = path.suffix.lower()
    reader = _READERS.get(extension)
    if reader is None:
        known = " or ".join(_READERS)
        if extension in _CONVERSIONS:
            new = repr(str(path.with_suffix(".npy")))
            line = _CONVERSIONS[extension].format(file=repr(str(path)), new=new)
            raise DumpError(f"{path} is no {known}; this line of Python converts it: {line}")
        raise DumpError(f"{path} has the unknown extension {path.suffix!r}; expected {known}")
    if not path.stat().st_size:
        raise DumpError(f"{path} is empty")
    return reader(path, tensor, content)


def _suggestion(path: Path) -> str:
    try:
        names = {entry.stem: entry for entry in path.parent.iterdir() if entry.suffix in _READERS}
    except OSError:
        return ""
    close = difflib.get_close_matches(path.stem, names, n=1)
    return f" (did you mean {names[close[0]]}?)" if close else ""
