"""Test a wheel as users get it: in fresh environments, without the repository.

``python tests/installed.py dist PYTHON…`` installs the wheel of a folder with each interpreter, and
runs ``kldiv demo`` and the fast tests of the sdist beside it in a bare folder, from which the
sources of the package are taken away. ``--sdist`` has pip build the sdist instead.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

TOOLS = ("gmpy2", "hypothesis", "ml-dtypes", "mpmath", "pytest", "scipy")
TESTS = ("functional", "estimators", "test_arrays.py", "test_errors.py", "test_plain.py")


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("dist", type=Path)
    parser.add_argument("pythons", nargs="+")
    parser.add_argument("--sdist", action="store_true", help="install the sdist, not the wheel")
    options = parser.parse_args()
    (sdist,) = options.dist.resolve().glob("kldiv-*.tar.gz")
    (wheel,) = options.dist.resolve().glob("kldiv-*-abi3-*.whl")
    for python in options.pythons:
        with tempfile.TemporaryDirectory() as folder:
            check(python, sdist if options.sdist else wheel, sdist, Path(folder))


def check(python: str, package: Path, sdist: Path, folder: Path) -> None:
    """Install, run the demo, and test."""
    environment = folder / "environment"
    run(python, "-m", "venv", str(environment), cwd=folder)
    binaries = environment / ("Scripts" if os.name == "nt" else "bin")
    own = str(binaries / "python")
    run(own, "-m", "pip", "install", "--quiet", f"kldiv[cli] @ {package.as_uri()}", cwd=folder)
    run(str(binaries / "kldiv"), "info", cwd=folder)
    run(str(binaries / "kldiv"), "demo", cwd=folder)
    run(own, "-m", "pip", "install", "--quiet", *TOOLS, cwd=folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (bare,) = folder.glob("kldiv-*")
    for sources in ("python", "src"):
        shutil.rmtree(bare / sources)
    tests = [f"tests/python/{name}" for name in TESTS]
    run(own, "-m", "pytest", "-m", "not slow", *tests, cwd=bare)


def run(*command: str, cwd: Path) -> None:
    """A command that must succeed, in a folder."""
    print("$", *command, flush=True)
    subprocess.run(command, cwd=cwd, check=True)


if __name__ == "__main__":
    main()
