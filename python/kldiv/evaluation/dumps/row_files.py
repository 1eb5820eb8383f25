"""Labels and masks in files, one number for every row."""

from __future__ import annotations

import math

from kldiv._arrays import Array
from kldiv.evaluation.dumps.names import CONVERSIONS, check_exists, conversion, split_name
from kldiv.evaluation.dumps.npy import NpyFile
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.safetensors import SafetensorsFile
from kldiv.evaluation.dumps.stored_arrays import LABELS, MASK, Content, StoredArray

_READERS: dict[str, type[NpyFile] | type[SafetensorsFile]] = {
    ".npy": NpyFile,
    ".safetensors": SafetensorsFile,
}

# What others write, and the Python that reads {file} as an array.
_CONVERSIONS = {
    **CONVERSIONS,
    ".npz": 'import numpy; numpy.save({new}, numpy.load({file})["NAME"])',
    ".parquet": (
        'import numpy, pandas; numpy.save({new}, pandas.read_parquet({file}).to_numpy("float32"))'
    ),
}


def read_labels(name: str, batch_shape: tuple[int, ...] | None) -> Array:
    """Read a file of labels, one for every row, as a flat array.

    Without a shape, of a stream that has not said it, any number of them.

    Raises
    ------
    DumpError
        For a file that does not hold one integer for every row.
    OSError
        For a file that cannot be read.
    """
    return _one_a_row(name, LABELS, batch_shape)


def read_mask(name: str, batch_shape: tuple[int, ...] | None) -> Array:
    """Read a file of booleans or integers, one for every row, as a flat array.

    Raises
    ------
    DumpError
        For a file that does not hold one of them for every row.
    OSError
        For a file that cannot be read.
    """
    return _one_a_row(name, MASK, batch_shape)


def _one_a_row(name: str, content: Content, batch_shape: tuple[int, ...] | None) -> Array:
    file = _open(name, content)
    if batch_shape is None:
        return file.all().reshape(-1)
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
    check_exists(path, tuple(_READERS))
    if not path.is_file():
        raise DumpError(f"{path} is not a regular file")
    extension = path.suffix.lower()
    reader = _READERS.get(extension)
    if reader is None:
        known = " or ".join(_READERS)
        if (line := conversion(path, _CONVERSIONS)) is not None:
            raise DumpError(f"{path} is no {known}; this line of Python converts it: {line}")
        raise DumpError(f"{path} has the unknown extension {path.suffix!r}; expected {known}")
    if not path.stat().st_size:
        raise DumpError(f"{path} is empty")
    return reader(path, tensor, content)
