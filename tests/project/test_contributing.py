"""What CONTRIBUTING.md says of a new divergence compiles as it stands there."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")
def test_the_example_compiles(tmp_path):
    code, line = re.findall(r"^```rust\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)[:2]
    name = re.match(r"// (\w+)\.rs\n", code)[1]
    for path in ("Cargo.toml", "Cargo.lock", "clippy.toml", "src", "benches", "tests"):
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, tmp_path / path)
    folder = tmp_path / "src/divergence"
    (folder / f"{name}.rs").write_text(code, encoding="utf-8")
    table = (folder / "mod.rs").read_text(encoding="utf-8")
    end = table.index("\n}\n", table.index("\ntable! {"))
    table = table[:end] + "\n" + line.rstrip() + table[end:]
    table = table.replace("mod total_variation;", f"mod {name};\nmod total_variation;", 1)
    (folder / "mod.rs").write_text(table, encoding="utf-8")
    # What is compiled for other tests is compiled for this one.
    environment = {**os.environ, "CARGO_TARGET_DIR": str(ROOT / "target/contributing")}
    done = subprocess.run(
        ["cargo", "clippy", "--quiet", "--lib", "--", "-D", "warnings"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
