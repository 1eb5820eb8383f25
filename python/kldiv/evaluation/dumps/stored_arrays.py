"""Arrays in files, read by pieces: each format is one class that finds where its elements lie.

Pieces are read into memory, not mapped: a file that is cut off meanwhile gives an error, where a
map would end the process, and elements at odd offsets become aligned.
"""

from __future__ import annotations

import json
import math
import operator
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import DumpError

# Of rows held at a time: few enough that they are still in the cache when they are computed with.
BLOCK_BYTES = 4 << 20
# Where each column is to be read by itself, 1 µs apiece, rows are worth collecting.
COLUMN_BLOCK_BYTES = 64 << 20
BAND_BYTES = 8 << 20  # of columns that lie beside each other, read at a time


@dataclass(frozen=True)
class Content:
    """What is looked for in a file."""

    name: str
    """What it is called, in messages and as a tensor."""
    numbers: str
    dtypes: frozenset[str]


@dataclass(frozen=True)
class StoredArray:
    """An array whose elements lie one after the other in a file.

    Errors while it is read are `DumpError` too.
    """

    name: str
    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    """Where the elements start, in bytes."""
    fortran_order: bool = False

    def check(self, content: Content) -> None:
        """Raise `DumpError` unless the file is whole and can be `content`."""
        if self.dtype.hasobject:
            raise DumpError(f"{self.name} holds pickled Python objects, not numbers")
        if self.dtype.name not in content.dtypes:
            raise DumpError(
                f"{self.name} has dtype {self.dtype.name}; expected {content.numbers} "
                f"as {content.name}{self._conversion(content)}"
            )
        needed = self.offset + math.prod(self.shape) * self.dtype.itemsize
        present = self.path.stat().st_size
        if present < needed:
            raise DumpError(
                f"{self.path} is truncated: {present:,} bytes, but its header describes {needed:,}"
            )

    def _conversion(self, content: Content) -> str:
        """How integers, as counts are, become the floating numbers that are expected."""
        if self.dtype.kind not in "iub" or "float64" not in content.dtypes:
            return ""
        if self.path.suffix.lower() != ".npy":
            return "; convert it to float64"
        new = self.path.with_name(f"{self.path.stem}-float64.npy")
        return (
            "; this line of Python converts it: import numpy; "
            f'numpy.save({str(new)!r}, numpy.load({str(self.path)!r}).astype("float64"))'
        )

    def all(self) -> Array:
        """The whole array."""
        elements = np.empty(math.prod(self.shape), self.dtype)
        with self.path.open("rb", buffering=0) as file:
            self._read_into(file, 0, elements)
        return elements.reshape(self.shape, order="F" if self.fortran_order else "C")

    @property
    def block_bytes(self) -> int:
        """How many bytes of rows it takes to read them fast."""
        return COLUMN_BLOCK_BYTES if self.fortran_order else BLOCK_BYTES

    def blocks(self, rows: range, step: int) -> Iterator[Array]:
        """Rows of the flattened batch shape, `step` at a time, as arrays ``[step, classes]``.

        All blocks are in the same memory: a block lasts until the next is asked for.
        """
        *batch, classes = self.shape
        memory = np.empty((min(step, len(rows)), classes), self.dtype)
        with self.path.open("rb", buffering=0) as file:
            for start in rows[::step]:
                stop = min(start + step, rows.stop)
                block = memory[: stop - start]
                if self.fortran_order:
                    self._read_columns(file, batch, np.arange(start, stop), block)
                else:
                    self._read_into(file, start * classes, block.reshape(-1))
                yield block

    def _read_columns(self, file: FileIO, batch: list[int], rows: Array, block: Array) -> None:
        """Rows of a file that holds the first class of every row, then the second, and so on."""
        count, classes = math.prod(batch), self.shape[-1]
        places = np.ravel_multi_index(np.unravel_index(rows, batch), batch, order="F")
        first, last = int(places.min()), int(places.max()) + 1
        width = max(1, BAND_BYTES // ((last - first) * self.dtype.itemsize))
        for begin in range(0, classes, width):
            end = min(begin + width, classes)
            band = np.empty((end - begin, last - first), self.dtype)
            if last - first == count:
                self._read_into(file, begin * count, band.reshape(-1))
            else:
                for column in range(begin, end):
                    self._read_into(file, column * count + first, band[column - begin])
            block[:, begin:end] = band[:, places - first].T

    def _read_into(self, file: FileIO, start: int, elements: Array) -> None:
        """Fill a contiguous array with the elements from `start` on."""
        file.seek(self.offset + start * self.dtype.itemsize)
        left = elements.view(np.uint8).data
        while left:
            # A system reads up to 2 GiB at once.
            if not (length := file.readinto(left)):
                raise DumpError(f"{self.path} was truncated while it was read")
            left = left[length:]


class NpyFile(StoredArray):
    """NumPy's format for one array, as written by `numpy.save`."""

    def __init__(self, path: Path, tensor: str | None, content: Content) -> None:
        if tensor is not None:
            raise DumpError(f"{path} holds one array, without names to choose from")
        with path.open("rb") as file:
            try:
                version = np.lib.format.read_magic(file)
                read_header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                    # Differs in how names of fields are encoded, which numbers do not have.
                    (3, 0): np.lib.format.read_array_header_2_0,
                }[version]
                with warnings.catch_warnings():
                    # Of headers that Python 2 wrote.
                    warnings.simplefilter("ignore")
                    shape, fortran_order, dtype = read_header(file)
                if min(shape, default=0) < 0:
                    raise ValueError("a negative length")
            except OSError:
                raise
            except Exception:
                # A header is a Python literal, and may raise whatever parsing one can.
                raise DumpError(f"{path} is not a readable .npy file") from None
            offset = file.tell()
        if dtype == np.dtype("V2"):
            # This is how numpy.save writes ml_dtypes.bfloat16.
            dtype = np.dtype(ml_dtypes.bfloat16)
        super().__init__(str(path), path, dtype, shape, offset, fortran_order and len(shape) > 1)
        self.check(content)


class SafetensorsFile(StoredArray):
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
        "BOOL": np.dtype("?"),
    }
    MAX_HEADER = 100_000_000  # bytes, the format's own limit

    def __init__(self, path: Path, tensor: str | None, content: Content) -> None:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= self.MAX_HEADER:
                raise DumpError(f"{path} is not a safetensors file")
            header = file.read(length)
        if len(header) < length:
            raise DumpError(f"{path} is not a safetensors file, or it is truncated")
        try:
            tensors = json.loads(header)
            tensors.pop("__metadata__", None)
            dtypes = {name: str(entry["dtype"]) for name, entry in tensors.items()}
            name = self._choose(path, dtypes, tensor, content)
            shape = tuple(map(operator.index, tensors[name]["shape"]))
            begin, end = map(operator.index, tensors[name]["data_offsets"])
        except DumpError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise DumpError(f"{path} has no readable safetensors header") from None
        dtype = self.DTYPES.get(dtypes[name])
        if dtype is None:
            raise DumpError(f"tensor {name!r} of {path} has the unknown dtype {dtypes[name]}")
        if (
            begin < 0
            or min(shape, default=0) < 0
            or (end - begin != math.prod(shape) * dtype.itemsize)
        ):
            raise DumpError(f"{path} has no readable safetensors header")
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
            raise DumpError(f"{path} has no tensor {tensor!r}; its tensors: {listed}")
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
        raise DumpError(f"{path} has {problem}; its tensors: {listed}")
