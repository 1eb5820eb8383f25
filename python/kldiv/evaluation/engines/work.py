"""A directory that keeps the blocks of a run, so that it can go on after it was killed.

::

    run.json                 what was begun: the digests of inputs, and options
    block-000000.parquet     positions of a finished block, all candidates
    lock                     held while a run uses the directory

Files have their names once they are whole and on the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import IO, Any

from kldiv.evaluation.engines.errors import EngineError
from kldiv.evaluation.engines.finished import Finished
from kldiv.evaluation.engines.identity import BLOCK, difference
from kldiv.evaluation.engines.job import Block
from kldiv.evaluation.whole_file import PARTIAL, whole_file

RUN, LOCK = "run.json", "lock"
_FORM = 1


class WorkDirectory:
    """The directory of one run, which no other run can use meanwhile."""

    def __init__(self, path: str | os.PathLike[str], identity: dict[str, Any]) -> None:
        """Make it, or go on with what is in it.

        Raises
        ------
        EngineError
            For a directory of another run or of something else, and one that is in use.
        OSError
            For one that cannot be made or written.
        """
        self.path = Path(path)
        self._begun = False
        self._made = not self.path.exists()
        self._make()
        self._lock = self._locked()
        try:
            self._begin(identity)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def positions_of_a_block(path: str | os.PathLike[str]) -> int | None:
        """How many positions its blocks have, where a run was begun there."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            return int(json.loads((Path(path) / RUN).read_bytes())[BLOCK])
        return None

    def close(self) -> None:
        """Let another run use it. Nothing is left of a run that finished no block."""
        with contextlib.suppress(OSError):
            if self._begun and not self._blocks():
                (self.path / RUN).unlink(missing_ok=True)
                (self.path / LOCK).unlink()
                if self._made:
                    self.path.rmdir()
        self._lock.close()

    def find(self, block: Block) -> Finished | None:
        """A block that was finished before.

        Raises
        ------
        EngineError
            For a file that is not that.
        """
        path = self._file(block)
        if not path.exists():
            return None
        try:
            found, about = Finished.decode(path.read_bytes())
            if about["start"] != [block.start.sequences, block.start.positions]:
                raise ValueError("it begins at another sequence")
            if found.positions != block.positions:
                raise ValueError(f"it has {found.positions:,} positions, not {block.positions:,}")
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                f"{path} is not {block}: {error}; remove it, and it is scored again"
            ) from None
        return found

    def keep(self, block: Block, found: Finished, data: bytes | None = None) -> None:
        """Keep a finished block; `data` are its bytes, where there are some already."""
        start = [block.start.sequences, block.start.positions]
        data = found.encode(start=start) if data is None else data
        self._write(self._file(block), data)

    def _file(self, block: Block) -> Path:
        return self.path / f"block-{block.number:06}.parquet"

    def _blocks(self) -> list[Path]:
        return list(self.path.glob("block-*.parquet"))

    def _make(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise EngineError(f"{self.path} is a file; expected a directory to work in")
        if not self.path.absolute().parent.is_dir():
            raise EngineError(f"no such directory: {self.path.absolute().parent}")
        self.path.mkdir(exist_ok=True)
        others = sorted(entry.name for entry in self.path.iterdir() if not _is_ours(entry.name))
        if others:
            raise EngineError(
                f"{self.path} holds {others[0]}, which is no work of kldiv; expected a directory "
                "of a run, an empty one or none"
            )

    def _locked(self) -> IO[bytes]:
        file = (self.path / LOCK).open("ab")
        with contextlib.suppress(ImportError):
            import fcntl

            in_use = False
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another run may just have removed what was opened.
                in_use = not (self.path / LOCK).exists()
            except BlockingIOError:
                in_use = True
            except OSError:
                # A file system without locks; two runs would do the same work twice.
                pass
            if in_use:
                file.close()
                raise EngineError(
                    f"{self.path} is in use by another run; wait for it, or name another directory"
                )
        return file

    def _begin(self, identity: dict[str, Any]) -> None:
        for entry in self.path.iterdir():
            if entry.name.endswith(PARTIAL):
                entry.unlink()
        path = self.path / RUN
        blocks = self._blocks()
        if not path.exists() or not blocks:
            if blocks:
                raise EngineError(f"{min(blocks)} is there, but no {RUN}: of what run is it?")
            self._begun = True
            text = json.dumps({"form": _FORM, **identity}, indent=2, ensure_ascii=False)
            self._write(path, text.encode())
            return
        try:
            before = json.loads(path.read_bytes())
            form = before.pop("form")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise EngineError(f"{path} does not describe a run of kldiv") from None
        if form != _FORM:
            raise EngineError(f"{self.path} is of another version of kldiv")
        # As it comes back from JSON.
        if (reason := difference(before, json.loads(json.dumps(identity)))) is not None:
            raise EngineError(
                f"{self.path} holds the work of another run: {reason}; name another directory"
            )
        self._begun = True

    def _write(self, path: Path, data: bytes) -> None:
        with whole_file(path) as partial, partial.open("wb") as file:
            file.write(data)
            file.flush()
            # A name that outlives a crash of the machine has its bytes.
            os.fsync(file.fileno())


def _is_ours(name: str) -> bool:
    return (
        name in (RUN, LOCK)
        or name.endswith(PARTIAL)
        or (name.startswith("block-") and name.endswith(".parquet"))
    )
