"""The layers of the crate: a module imports from those below it only."""

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"

# From below. Modules of one line do not know each other, unless the order in it says so.
LAYERS = [
    "error",
    "element memory",
    "simd",
    "divergence rows",
    "threads",
    "row::two_floats row::runs row::scratch",
    "row::distribution",
    "row::pair",
    "row::gradients row::top_k",
    "row::kl",
    "row::divergence",
    "row::random",
    "row::clipped_kl row::coded row::comparison row::cross_entropy row::entropy row::pairwise",
    "row::distillation row::kept_set row::sample row::sparse row::uld",
    "reduction",
    "batch",
    "python",
]
RANK = {module: rank for rank, line in enumerate(LAYERS) for module in line.split()}
# Public names that are re-exported at the root, for the top layer.
ROOT = {"python"}


def module_of(path):
    """The layer that a file belongs to."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    names = ["::".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((name for name in names if name in RANK), None)


def imported(path):
    """Layers that a file names by a path, outside of its tests and its comments."""
    text = path.read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests {")[0]
    code = re.sub(r"//[^\n]*", "", text)
    parent = path.relative_to(SOURCE).parent
    if path.stem == "mod":
        parent = parent.parent
    above = "".join(f"{part}::" for part in parent.parts)
    code = re.sub(r"\bsuper::(?!super)", f"crate::{above}", code)
    for found in re.findall(r"\bcrate::((?:\w+::)*(?:\w+|\{[^}]*\}))", code):
        head, _, group = found.partition("{")
        for tail in re.split(r"[,\s]+", group.rstrip("}")) if group else [""]:
            names = (head + tail).split("::")
            known = (n for n in ("::".join(names[:2]), names[0]) if n in RANK)
            yield next(known, "::".join(names))


FILES = [
    path
    for path in sorted(SOURCE.rglob("*.rs"))
    if "tests" not in path.parts
    and path.stem not in ("tests", "lib")
    and path != SOURCE / "row/mod.rs"
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_from_below(path):
    own = module_of(path)
    assert own is not None, f"{path} has no layer: add one to LAYERS"
    for other in imported(path):
        if own in ROOT and other not in RANK:
            continue
        assert other in RANK, f"{path} imports {other}, which has no layer"
        below = RANK[other] < RANK[own] or other == own
        assert below, f"{path} of layer {own} imports {other}, which is not below it"


def test_every_layer_is_there():
    assert set(RANK) == {module_of(path) for path in FILES}


def test_names_that_torch_does_not_document_are_in_one_file():
    package = SOURCE.parent / "python" / "kldiv" / "torch"
    private = re.compile(
        r"\b(?:torch|forward_ad|functorch)(?:\.\w+)*\._[a-zA-Z]|\._(?:base|version|C|assert_async)\b"
        r"|from torch\S* import (?:.*, )?_"
    )
    users = {path.name for path in package.rglob("*.py") if private.search(path.read_text())}
    assert users == {"private.py"}


def test_types_are_asked_for_by_tuples_where_torch_compiles():
    """``isinstance(x, A | B)`` stops `torch.compile` up to 2.9."""
    package = SOURCE.parent / "python" / "kldiv" / "torch"
    union = re.compile(r"isinstance\([^()]*\|")
    assert not [path.name for path in package.rglob("*.py") if union.search(path.read_text())]
