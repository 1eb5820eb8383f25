"""Read changed files: ``python -m fuzz_files --megabytes 100``."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

from .search import search, whole


def main(arguments: list[str] | None = None) -> int:
    """Search, and report."""
    from .subjects import SUBJECTS

    parser = argparse.ArgumentParser(prog="fuzz_files", description=__doc__)
    parser.add_argument("--megabytes", type=float, default=100.0, help="of changed files")
    parser.add_argument("--seed", type=int, default=None, help="a new one if left out")
    parser.add_argument("--case", type=int, default=None, help="one case of the seed")
    parser.add_argument(
        "--keep", type=Path, default=None, help="a folder for the files of the case"
    )
    parser.add_argument("--subject", action="append", default=[], help="a format, and no others")
    options = parser.parse_args(arguments)
    if unknown := set(options.subject) - {one.name for one in SUBJECTS}:
        parser.error(f"there is no subject {', '.join(sorted(unknown))}")
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    if options.case is not None:
        return _one(seed, options.case, tuple(options.subject), options.keep)
    print(f"seed {seed}, {options.megabytes:g} MB", flush=True)
    began = time.monotonic()
    found = search(seed, int(options.megabytes * 1e6), tuple(options.subject))
    for kind, times in found.kinds.most_common():
        print(f"\n## {kind}: {times} times\n{found.texts[kind]}")
    seconds = time.monotonic() - began
    print(f"\n{found.cases:,} files of {found.bytes:,} bytes in {seconds:.0f} s")
    print(f"{sum(found.kinds.values())} finds of {len(found.kinds)} kinds")
    return 1 if found.kinds else 0


def _one(seed: int, number: int, names: tuple[str, ...], keep: Path | None) -> int:
    from .case import make
    from .subjects import SUBJECTS

    subjects = tuple(one for one in SUBJECTS if not names or one.name in names)
    case = make(seed, number, subjects)
    print(f"{case.subject.name}, {case.subject.read[case.reader].__name__}: {case.changed}")
    if keep is not None:
        for name, data in case.tree.items():
            (keep / name).parent.mkdir(parents=True, exist_ok=True)
            (keep / name).write_bytes(data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "files"
        folder.mkdir()
        whole((case.subject,), folder)
        found = case.find(folder)
    print("nothing wrong" if found is None else f"{found.kind}\n{found.text}")
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main())
