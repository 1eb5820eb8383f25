"""Files of logits and of labels, read by blocks of rows so that they may be larger than memory.

A new format is one reader class, and its extension in `_READERS`.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import ml_dtypes
import numpy as np

from kldiv._arrays import Array


class LogitFileError(ValueError):
    """A file that does not hold what is asked of it; the message names it and says why."""


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

    def rows(self, start: int, stop: int) -> Array:
        """Rows of the flattened batch shape, as an array ``[stop - start, vocabulary]``."""


@dataclass(frozen=True)
class Content:
    """What is looked for in a file."""

    name: str
    """What it is called, in messages and as a tensor."""
    numbers: str
    dtypes: frozenset[str]


_BITS = (8, 16, 32, 64)
LOGITS = Content(
    "logits", "floating numbers", frozenset({"float64", "float32", "float16", "bfloat16"})
)
LABELS = Content(
    "labels", "integers", frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in _BITS)
)


@dataclass(frozen=True)
class MappedArray:
    """An array whose elements lie one after the other in a file."""

    name: str
    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    """Where the elements start, in bytes."""
    fortran_order: bool = False

    def check(self, content: Content) -> None:
        """Raise `LogitFileError` unless the file is whole and can be `content`."""
        if self.dtype.hasobject:
            raise LogitFileError(f"{self.name} holds pickled Python objects, not numbers")
        if self.dtype.name not in content.dtypes:
            raise LogitFileError(
                f"{self.name} has dtype {self.dtype.name}; {content.name} are {content.numbers}"
            )
        needed = self.offset + math.prod(self.shape) * self.dtype.itemsize
        present = self.path.stat().st_size
        if present < needed:
            raise LogitFileError(
                f"{self.path} is truncated: {present:,} bytes, but its header describes {needed:,}"
            )

    def all(self) -> Array:
        """Map the whole array."""
        if not math.prod(self.shape):
            return np.empty(self.shape, self.dtype)
        # A map has at least one dimension, and one written in Fortran order at least two.
        shape = self.shape or (1,)
        order: Literal["C", "F"] = "F" if self.fortran_order else "C"
        array: Array = np.memmap(self.path, self.dtype, "r", self.offset, shape, order)
        return array if self.shape else array.reshape(())

    def rows(self, start: int, stop: int) -> Array:
        """Rows of the flattened batch shape.

        Only these are mapped, and only as long as the array lives, so that what has been read
        does not count as memory of the process.
        """
        *batch, classes = self.shape
        if self.fortran_order and batch:
            whole = self.all()
            if len(batch) == 1:
                return whole[start:stop]
            rows: Array = whole[np.unravel_index(np.arange(start, stop), batch)]
            return rows
        offset = self.offset + start * classes * self.dtype.itemsize
        return np.memmap(self.path, self.dtype, "r", offset, (stop - start, classes))


class NpyFile(MappedArray):
    """NumPy's format for one array, as written by `numpy.save`."""

    def __init__(self, path: Path, tensor: str | None, content: Content) -> None:
        if tensor is not None:
            raise LogitFileError(f"{path} holds one array, without names to choose from")
        with path.open("rb") as file:
            try:
                version = np.lib.format.read_magic(file)
                read_header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, fortran_order, dtype = read_header(file)
            except (ValueError, KeyError):
                raise LogitFileError(f"{path} is not a readable .npy file") from None
            offset = file.tell()
        if dtype == np.dtype("V2"):
            # This is how numpy.save writes ml_dtypes.bfloat16.
            dtype = np.dtype(ml_dtypes.bfloat16)
        super().__init__(str(path), path, dtype, shape, offset, fortran_order and len(shape) > 1)
        self.check(content)


class SafetensorsFile(MappedArray):
    """The format of the package safetensors: a JSON header, then the tensors.

    It is read here because the package gives copies, and bfloat16 in its newer versions only.
    """

    DTYPES: ClassVar[dict[str, np.dtype[Any]]] = {
        "F64": np.dtype("<f8"),
        "F32": np.dtype("<f4"),
        "F16": np.dtype("<f2"),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "I64": np.dtype("<i8"),
        "I32": np.dtype("<i4"),
        "I16": np.dtype("<i2"),
        "I8": np.dtype("i1"),
        "U64": np.dtype("<u8"),
        "U32": np.dtype("<u4"),
        "U16": np.dtype("<u2"),
        "U8": np.dtype("u1"),
    }
    MAX_HEADER = 100_000_000  # bytes, the format's own limit

    def __init__(self, path: Path, tensor: str | None, content: Content) -> None:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= self.MAX_HEADER:
                raise LogitFileError(f"{path} is not a safetensors file")
            header = file.read(length)
        if len(header) < length:
            raise LogitFileError(f"{path} is not a safetensors file, or it is truncated")
        try:
            tensors = json.loads(header)
            tensors.pop("__metadata__", None)
            dtypes = {name: str(entry["dtype"]) for name, entry in tensors.items()}
            name = self._choose(path, dtypes, tensor, content)
            shape = tuple(int(size) for size in tensors[name]["shape"])
            begin, end = (int(position) for position in tensors[name]["data_offsets"])
        except LogitFileError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise LogitFileError(f"{path} has no readable safetensors header") from None
        dtype = self.DTYPES.get(dtypes[name])
        if dtype is None:
            raise LogitFileError(f"tensor {name!r} of {path} has the unknown dtype {dtypes[name]}")
        if (
            begin < 0
            or min(shape, default=0) < 0
            or (end - begin != math.prod(shape) * dtype.itemsize)
        ):
            raise LogitFileError(f"{path} has no readable safetensors header")
        super().__init__(f"{path}:{name}", path, dtype, shape, 8 + length + begin)
        self.check(content)

    @classmethod
    def _choose(
        cls, path: Path, dtypes: dict[str, str], tensor: str | None, content: Content
    ) -> str:
        listed = ", ".join(f"{name} ({dtype})" for name, dtype in dtypes.items()) or "none"
        if tensor is not None:
            if tensor in dtypes:
                return tensor
            raise LogitFileError(f"{path} has no tensor {tensor!r}; its tensors: {listed}")
        fitting = [
            name
            for name, stored in dtypes.items()
            if (dtype := cls.DTYPES.get(stored)) is not None and dtype.name in content.dtypes
        ]
        if content.name in fitting:
            return content.name
        if len(fitting) == 1:
            return fitting[0]
        problem = (
            f"several tensors of {content.numbers} and none named {content.name!r}; "
            f"choose one as {path.name}:NAME"
            if fitting
            else f"no tensor of {content.numbers}"
        )
        raise LogitFileError(f"{path} has {problem}; its tensors: {listed}")


_READERS: dict[str, type[NpyFile] | type[SafetensorsFile]] = {
    ".npy": NpyFile,
    ".safetensors": SafetensorsFile,
}


def open_logits(name: str) -> LogitFile:
    """Open a file of logits, ``FILE`` or ``FILE.safetensors:TENSOR``.

    Raises
    ------
    LogitFileError
        For a file that does not hold logits with at least one row and one class.
    OSError
        For a file that cannot be read.
    """
    file = _open(name, LOGITS)
    if not file.shape:
        raise LogitFileError(f"{file.name} has shape (), without a vocabulary axis")
    if not math.prod(file.shape):
        raise LogitFileError(f"{file.name} has shape {file.shape}, without a logit")
    return file


def read_labels(name: str, batch_shape: tuple[int, ...], classes: int) -> Array:
    """Read a file of labels, one for every row, as a flat array.

    Raises
    ------
    LogitFileError
        For a file that does not hold one class index for every row.
    OSError
        For a file that cannot be read.
    """
    file = _open(name, LABELS)
    rows = math.prod(batch_shape)
    if file.shape not in (batch_shape, (rows,)):
        expected = " or ".join(str(shape) for shape in dict.fromkeys((batch_shape, (rows,))))
        raise LogitFileError(
            f"{file.name} has shape {file.shape}; expected one label for every row: {expected}"
        )
    labels = file.all().reshape(-1)
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        row = int(outside.argmax())
        raise LogitFileError(
            f"{file.name} has label {labels[row]} in row {row}, "
            f"out of range for {classes:,} classes"
        )
    return labels


def split_name(name: str) -> tuple[Path, str | None]:
    """Split into file and tensor the name ``FILE`` or ``FILE.safetensors:TENSOR``."""
    named = re.fullmatch(r"(.+\.safetensors):(.+)", name)
    if named and not Path(name).exists():
        return Path(named[1]), named[2]
    return Path(name), None


def _open(name: str, content: Content) -> MappedArray:
    path, tensor = split_name(name)
    if path.is_dir():
        raise LogitFileError(f"{path} is a directory; expected a file of {content.name}")
    if not path.exists():
        raise LogitFileError(f"no such file: {path}{_suggestion(path)}")
    if not path.is_file():
        raise LogitFileError(f"{path} is not a regular file")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise LogitFileError(
            f"{path} has the unknown extension {path.suffix!r}; expected {' or '.join(_READERS)}"
        )
    if not path.stat().st_size:
        raise LogitFileError(f"{path} is empty")
    return reader(path, tensor, content)


def _suggestion(path: Path) -> str:
    try:
        names = {entry.stem: entry for entry in path.parent.iterdir() if entry.suffix in _READERS}
    except OSError:
        return ""
    close = difflib.get_close_matches(path.stem, names, n=1)
    return f" (did you mean {names[close[0]]}?)" if close else ""
