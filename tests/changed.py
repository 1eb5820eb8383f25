"""The tests that have the names of files that changed, as ``pytest -k`` takes them.

A function, a file and its tests have one name in all layers, so that names find most of what a
change may break. Signatures, documents and the table of divergences are always among them.
"""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALWAYS = ("test_signatures", "test_docs", "test_table")


def changed():
    """Files that differ from the last commit, new ones included."""
    found = []
    for command in ("diff --name-only HEAD", "ls-files --others --exclude-standard"):
        done = subprocess.run(
            ["git", *command.split()], cwd=ROOT, capture_output=True, text=True, check=True
        )
        found += done.stdout.splitlines()
    return [Path(name) for name in found]


def expression():
    """What ``-k`` takes."""
    names = {
        path.stem.strip("_") for path in changed() if path.suffix in (".py", ".pyi", ".md", ".rs")
    }
    # The name of a folder would take all tests in it.
    names -= {path.name for path in (ROOT / "tests").rglob("*") if path.is_dir()}
    return " or ".join(sorted({*ALWAYS, *(name for name in names if name.isidentifier())}))


if __name__ == "__main__":
    print(expression())
