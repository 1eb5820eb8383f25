"""Documents and docstrings: their examples run, and what they name exists."""

import contextlib
import doctest
import inspect
import io
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kldiv
import kldiv.dask
import kldiv.jax
import kldiv.torch
from kldiv._signatures import NUMPY_ONLY

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "README.md",
    "README.zh.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/article.md",
    "docs/estimators.md",
    "docs/evaluation.md",
    "docs/report.md",
    "docs/safety.md",
    "docs/scale.md",
    "docs/teachers.md",
    "docs/torch.md",
    "examples/README.md",
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A name in backticks with a folder or an extension of ours.
PATH = re.compile(r"`([\w.-]*(?:/[\w.*-]*)+|\w[\w.-]*\.(?:rs|py|pyi|md|toml|json|lock))`")


def blocks(language, document=README):
    """Fenced blocks of a document, each with the ``text`` block after it, if there is one."""
    found = [match.groups() for match in FENCE.finditer(document)] + [("", "")]
    return [
        (code, after[1] if after[0] == "text" else None)
        for (kind, code), after in itertools.pairwise(found)
        if kind == language
    ]


EXAMPLES = [
    block
    for document in (
        *("README.md", "README.zh.md", "docs/article.md", "docs/torch.md"),
        *("docs/estimators.md", "docs/evaluation.md", "docs/report.md", "docs/scale.md"),
        "docs/teachers.md",
    )
    for block in blocks("python", (ROOT / document).read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("code", "output"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_print_what_they_show(code, output):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    if output is None:
        return
    # Instruction sets differ in the last digits.
    number = re.compile(r"\d+\.\d+(?:e-?\d+)?")
    shown, got = ([float(x) for x in number.findall(text)] for text in (output, printed.getvalue()))
    assert number.sub("#", printed.getvalue()) == number.sub("#", output)
    assert got == pytest.approx(shown, rel=1e-3, abs=0)


def test_readme_shows_the_examples_of_the_crate():
    # Its doc tests; that of a feature begins with an attribute.
    crate = (ROOT / "src/lib.rs").read_text(encoding="utf-8")
    start = r"(?://! ```|#!\[cfg_attr\(not\(.*?\), doc = \"```ignore\"\)\])"
    commented = re.findall(rf"^{start}\n(.*?)^//! ```", crate, re.MULTILINE | re.DOTALL)
    examples = [re.sub(r"^//! ?", "", one, flags=re.MULTILINE) for one in commented]
    assert examples == [code for code, _ in blocks("rust")]


def test_readme_lists_every_public_name():
    tables = "\n".join(line for line in README.splitlines() if line.startswith("| `"))
    missing = [name for name in kldiv.__all__ if not re.search(rf"`{name}\b", tables)]
    assert not missing


def test_torch_and_jax_have_every_function_of_rows():
    functions = {name for name in kldiv.__all__ if inspect.isfunction(getattr(kldiv, name))}
    functions -= {"compare", *NUMPY_ONLY}
    assert functions - {"cross_entropy"} <= set(kldiv.torch.__all__)
    assert functions <= set(kldiv.jax.__all__)
    assert functions <= set(kldiv.dask.__all__)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_named_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    prose = FENCE.sub("", text)
    named = PATH.findall(prose) + re.findall(r"\]\((?!https?:)([^)#]+)", prose)
    assert named
    # These stand for every file of the name.
    kinds = {"mod.rs", "__init__.py"}
    beside = (ROOT / document).parent
    missing = [
        name
        for name in named
        if name not in kinds and not any(ROOT.glob(name)) and not (beside / name).exists()
    ]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_sections_linked_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", text):
        beside = (ROOT / document).parent / file if file else ROOT / document
        target = beside.read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", FENCE.sub("", target), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
        assert anchor in anchors


def documented():
    """Every public function and class that can be called, of the package and its companions."""
    estimators = (kldiv.estimators, kldiv.torch.estimators, kldiv.jax.estimators)
    for module in (kldiv, kldiv.torch, kldiv.jax, kldiv.dask, *estimators):
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isfunction(found) or (module is kldiv.torch and inspect.isclass(found)):
                yield pytest.param(name, found, id=f"{module.__name__}.{name}")


# The functions are wrapped, so that doctest.testmod would pass over them.
@pytest.mark.parametrize(("name", "found"), list(documented()))
def test_docstrings(name, found):
    docstring = inspect.getdoc(found)
    assert "Examples\n--------\n" in docstring
    test = doctest.DocTestParser().get_doctest(docstring, {}, name, None, None)
    assert test.examples
    report = io.StringIO()
    assert not doctest.DocTestRunner().run(test, out=report.write).failed, report.getvalue()


@pytest.mark.parametrize("script", ["make_models", "make_dumps"])
def test_scripts_of_the_readme_need_no_more_than_it_installs(script):
    # What only the extra examples has is not there.
    code = (
        "import runpy, sys; sys.modules |= dict.fromkeys(('polib', 'bs4'));"
        f"sys.argv = ['{script}.py', '--help']; sys.path.insert(0, 'examples');"
        f"runpy.run_path('examples/{script}.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--output" in done.stdout
