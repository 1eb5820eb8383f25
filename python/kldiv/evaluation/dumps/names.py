"""Names of dumps, as people type them, and what is said of those that are not there."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import cast
from urllib.request import url2pathname

from kldiv.evaluation.dumps.protocol import DumpError

# Files that hold arrays by name, one of which can be chosen: FILE.npz:NAME.
_KEYED = ("safetensors", "npz", "zarr", "parquet", "index.json")
_WITH_KEY = rf"(.+\.(?:{'|'.join(map(re.escape, _KEYED))}))/?:(.+)"

# What others write, and the Python that reads {file} as an array.
CONVERSIONS = {
    **dict.fromkeys(
        (".pt", ".pth", ".bin"),
        "import numpy, torch; "
        'numpy.save({new}, torch.load({file}, map_location="cpu").float().numpy())',
    ),
    **dict.fromkeys(
        (".h5", ".hdf5"), 'import h5py, numpy; numpy.save({new}, h5py.File({file})["NAME"][:])'
    ),
    ".csv": 'import numpy; numpy.save({new}, numpy.loadtxt({file}, delimiter=","))',
}


def is_remote(name: str) -> bool:
    """Whether a name says where a file is that need not be on a disk: ``s3://…``."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::.*://)", name) is not None


def path_of(name: str) -> Path:
    """The file or directory of a name; of ``file://`` that on the disk."""
    if not is_remote(name):
        return Path(name)
    protocol, _, rest = name.partition("://")
    if protocol in ("file", "local"):
        return Path(url2pathname(rest))
    from kldiv.evaluation.dumps.remote import RemotePath

    # It does all that a reader asks of a path.
    return cast(Path, RemotePath.of(name))


def split_name(name: str) -> tuple[Path, str | None]:
    """Split into file and key the name ``FILE`` or ``FILE.safetensors:TENSOR``."""
    if is_remote(name):
        named = re.fullmatch(_WITH_KEY, name, re.DOTALL)
        return (path_of(named[1]), named[2]) if named else (path_of(name), None)
    named = re.fullmatch(_WITH_KEY, name, re.DOTALL)
    if named and not Path(name).exists():
        return Path(named[1]), named[2]
    return Path(name), None


def check_exists(path: Path, suffixes: tuple[str, ...]) -> None:
    """Raise `DumpError` for a path that is not there, with one that is like it."""
    if path.exists():
        return
    if path.is_symlink():
        raise DumpError(f"{path} is a link to {path.readlink()}, which is not there")
    raise DumpError(f"no such file: {path}{_suggestion(path, suffixes)}")


def conversion(path: Path, conversions: dict[str, str] = CONVERSIONS) -> str | None:
    """The line of Python that makes a ``.npy`` of a file that is not read, where there is one."""
    line = conversions.get(path.suffix.lower())
    if line is None:
        return None
    return line.format(file=repr(str(path)), new=repr(str(path.with_suffix(".npy"))))


def listed(names: list[str], most: int = 6) -> str:
    """Some names, as messages have them."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def _suggestion(path: Path, suffixes: tuple[str, ...]) -> str:
    try:
        entries = list(path.parent.iterdir())
    except OSError:
        return ""
    names = {
        entry.stem if entry.suffix in suffixes else entry.name: entry
        for entry in entries
        if entry.suffix in suffixes or (entry.is_dir() and not entry.name.startswith("."))
    }
    wanted = path.stem if path.suffix in suffixes else path.name
    close = difflib.get_close_matches(wanted, names, n=1)
    if not close and wanted != path.stem:
        close = difflib.get_close_matches(path.stem, names, n=1)
    return f" (did you mean {names[close[0]]}?)" if close else ""
