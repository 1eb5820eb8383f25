"""Run the tests of each front end with the versions that it is said to work with.

``python -m versions`` in ``tests`` makes an environment for each case of ``versions/matrix.py``
under ``build/versions``, installs a wheel of this checkout there, runs the fast tests, keeps what
came of it in ``versions/results.json``, and deletes the environment, which a torch makes several
GB. The exit status is 1 if a test failed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

from versions.matrix import CASES, EXTRAS, ROOT, TOOLS, Case
from versions.results import Result, save
from versions.table import DOCUMENT, text

FOLDER = ROOT / "build" / "versions"
MARKS = ("-m", "not slow")
# Old versions of one library use what new ones of another will take away.
DEPRECATIONS = ("-W", "default::DeprecationWarning")


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", default="", help="cases, by the beginnings of their names")
    parser.add_argument("--wheel", type=Path, help="a wheel of this checkout; else one is built")
    parser.add_argument("--keep", action="store_true", help="leave the environments")
    options = parser.parse_args()
    wheel = options.wheel.resolve() if options.wheel else build()
    failed = []
    for case in CASES:
        if not case.name.startswith(tuple(options.only.split())) and options.only:
            continue
        result = run(case, wheel, keep=options.keep)
        save(case.name, result)
        DOCUMENT.write_text(text(), encoding="utf-8")
        if result["failed"] or not result["passed"]:
            failed.append(case.name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def build() -> Path:
    """A wheel of this checkout."""
    folder = FOLDER / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    command = [
        "maturin",
        "build",
        "--release",
        "--interpreter",
        sys.executable,
        "--out",
        str(folder),
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def run(case: Case, wheel: Path, *, keep: bool) -> Result:
    """Install, test, and say what came of it."""
    print(f"== {case.name}: {' '.join(case.packages)}", flush=True)
    environment, report = FOLDER / case.name, FOLDER / f"{case.name}.xml"
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    install(python, *TOOLS, *(spelled(one, wheel) for one in case.packages))
    install(python, "--no-deps", str(wheel))
    report.unlink(missing_ok=True)
    options = (*MARKS, *DEPRECATIONS, f"--junitxml={report}", "--tb=short")
    command = [python, "-m", "pytest", *options, *case.tests]
    subprocess.run(command, cwd=ROOT, check=False)
    result = {
        "python": sys.version.split()[0],
        "versions": installed(environment),
        **counted(report),
        "command": " ".join(["pytest", MARKS[0], repr(MARKS[1]), *case.tests]),
        "date": dt.date.today().isoformat(),
    }
    if not keep:
        shutil.rmtree(environment)
    return result


def spelled(package: str, wheel: Path) -> str:
    """A requirement as pip takes it: that of kldiv is the wheel."""
    extra = package.removeprefix("kldiv[").removesuffix("]")
    return f"kldiv[{extra}] @ {wheel.as_uri()}" if extra in EXTRAS and "[" in package else package


def install(python: str, *packages: str) -> None:
    """By pip, of wheels only: to compile what has none is not what users do."""
    command = [python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", *packages]
    subprocess.run(command, check=True, env={**os.environ, "PIP_NO_CACHE_DIR": "1"})


def installed(environment: Path) -> dict[str, str]:
    """All packages with their versions."""
    (folder,) = (environment / "lib").glob("python*/site-packages")
    found = importlib.metadata.distributions(path=[str(folder)])
    named = {one.metadata["Name"].lower().replace("_", "-"): one.version for one in found}
    return {name: version for name, version in named.items() if not name.startswith("nvidia-")}


def counted(report: Path) -> dict[str, object]:
    """How many tests passed and failed, and how many were skipped for which reason."""
    skipped: Counter[str] = Counter()
    passed = failed = 0
    for test in ET.parse(report).iter("testcase"):
        outcomes = {child.tag: child for child in test}
        if outcomes.keys() & {"failure", "error"}:
            failed += 1
        elif "skipped" in outcomes:
            skipped[outcomes["skipped"].get("message", "")] += 1
        else:
            passed += 1
    return {"passed": passed, "failed": failed, "skipped": dict(skipped)}


if __name__ == "__main__":
    main()
