"""What ran, where and on what: the manifest of a capture, and a part of every result."""

from __future__ import annotations

import platform
from importlib import metadata

import kldiv

LIBRARIES = ("torch", "transformers", "tokenizers", "gguf", "numpy")
NAME = "manifest.json"
FORMAT = "kldiv.capture.v1"


def versions() -> dict[str, str]:
    """Of this package and of what the models ran by."""
    found = {"kldiv": kldiv.__version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found
