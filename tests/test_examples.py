"""The scripts in `examples/` that need no more than the tests do."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.slow
def test_generalised_jsd_equals_the_formula_of_trl():
    # It compares for itself, and fails where they differ.
    script = [sys.executable, EXAMPLES / "generalised_jsd.py"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
