"""Documents and docstrings: their examples run, and what they name exists."""

import contextlib
import doctest
import inspect
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import typer.main

import kldiv
import kldiv.dask
import kldiv.jax
import kldiv.torch
from kldiv._signatures import NUMPY_ONLY
from kldiv.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "docs/*/*.md", "examples/README.md", ".github/*.md")
    for path in ROOT.glob(pattern)
)
"""All of them."""
FROM_BEGINNING_TO_END = [
    name for name in DOCUMENTS if name == "docs/tutorial.md" or name.startswith("docs/how-to/")
]
"""Documents whose blocks go on from one another."""
TRAINED = {"docs/tutorial.md": 0.15, "docs/how-to/jax.md": 0.05}
"""How far numbers of a training may be from those shown: its sums differ from CPU to CPU."""
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A name in backticks with a folder or an extension of ours.
PATH = re.compile(r"`([\w.-]*(?:/[\w.*-]*)+|\w[\w.-]*\.(?:rs|py|pyi|md|toml|json|lock))`")


def blocks(language, document):
    """Fenced blocks of a document, each with the ``text`` block after it, if there is one."""
    found = [match.groups() for match in FENCE.finditer(document)] + [("", "")]
    return [
        (code, after[1] if after[0] == "text" else None)
        for (kind, code), after in itertools.pairwise(found)
        if kind == language
    ]


def parts(text):
    """Lines without the width of their columns and decimal numbers, each with these numbers."""
    number = re.compile(r"\d+\.\d+(?:e-?\d+)?")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [(number.sub("#", line), [float(x) for x in number.findall(line)]) for line in lines]


def check_printed(shown, printed, rel=1e-3, shortened=False):
    """What a document shows is what was printed; if it is shortened, of some lines, in order.

    Instruction sets differ in the last digits.
    """
    found = parts(printed)
    if not shortened:
        assert [words for words, _ in parts(shown)] == [words for words, _ in found]
    lines = iter(found)
    for words, numbers in parts(shown):
        got = next((values for line, values in lines if line == words), None)
        assert got is not None, f"not printed, or not in this order: {words}"
        assert got == pytest.approx(numbers, rel=rel, abs=0)


EXAMPLES = [
    pytest.param(*block, id=f"{document}-{place}")
    for document in DOCUMENTS
    if document not in FROM_BEGINNING_TO_END
    for place, block in enumerate(blocks("python", (ROOT / document).read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
def test_examples_print_what_they_show(code, output):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    if output is not None:
        check_printed(output, printed.getvalue())


@pytest.mark.slow
@pytest.mark.parametrize("document", FROM_BEGINNING_TO_END)
def test_pages_run_from_beginning_to_end(document, tmp_path):
    # One thread: torch's wait for each other where a machine is busy, and sum in another order.
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "200",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "tests/project/run_page.py", ROOT / document],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    found = [match.groups() for match in FENCE.finditer((ROOT / document).read_text("utf-8"))]
    shown = [
        (kind, after[1] if after[0] == "text" else None)
        for (kind, _), after in itertools.pairwise([*found, ("", "")])
        if kind in ("python", "sh")
    ]
    for (kind, output), text in zip(shown, printed, strict=True):
        if output is not None:
            # Tables are shown in part.
            shortened = kind == "sh" or "rows compared" in output
            check_printed(output, text, TRAINED.get(document, 1e-3), shortened)


def shell_commands():
    """Every command of the shell blocks, as its words."""
    for document in DOCUMENTS:
        for code, _ in blocks("sh", (ROOT / document).read_text(encoding="utf-8")):
            for line in code.replace("\\\n", " ").splitlines():
                for command in re.split(r"&&|[|&;]", line.partition(" #")[0]):
                    if words := shlex.split(command, comments=True):
                        yield pytest.param(words, id=f"{document}-{' '.join(words)[:40]}")


COMMANDS = list(shell_commands())


@pytest.mark.parametrize("words", [one for one in COMMANDS if one.values[0][0] == "kldiv"])
def test_commands_have_the_options_shown(words):
    command = typer.main.get_command(app).commands[words[1]]
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    shown = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
    assert shown <= known


@pytest.mark.parametrize("words", [one for one in COMMANDS if one.values[0][0] in ("pip", "make")])
def test_extras_and_targets_shown_exist(words):
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in words[1:] if "=" not in word]
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"(?:^\.|\bkldiv)\[(.*?)\]", " ".join(words[2:])):
        assert set(extras.split(",")) <= project["optional-dependencies"].keys()


def test_the_readme_is_for_the_first_five_minutes():
    for document in ("README.md", "README.zh.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        assert text.count("\n") < 150
        assert text.count("![") == 1


def sections(document):
    """Sections of a document without what is in a language: code, names, numbers and links."""
    text = (ROOT / document).read_text(encoding="utf-8")
    # What was measured stands between markers, is held to the runs, and has words in its table.
    text = re.sub(r"<!-- ([\w-]+): begin -->.*?<!-- \1: end -->", "", text, flags=re.DOTALL)
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        prose = FENCE.sub("", section)
        code = [re.sub(r" *#.*", "", block) for _, block in FENCE.findall(section)]
        names = Counter(re.findall(r"`([^`]+)`", prose))
        numbers = Counter(
            re.findall(r"[\d.,⁰¹²³⁴-⁹⁻]*[\d⁰¹²³⁴-⁹]", re.sub(r"\]\(.*?\)", "", prose))
        )
        rows = [
            re.findall(r"`([^`]+)`|\]\((.*?)\)", row)
            for row in prose.splitlines()
            if row[:1] == "|"
        ]
        yield code, names, numbers, rows


def test_the_readmes_say_the_same():
    for english, chinese in zip(sections("README.md"), sections("README.zh.md"), strict=True):
        code, names, numbers, rows = english
        assert chinese[0] == code
        assert chinese[3] == rows
        assert not names - chinese[1], "named in English only"
        assert chinese[1] - names <= Counter({"--lang zh": 1}), "named in Chinese only"
        assert chinese[2] == numbers


def test_the_examples_of_the_crate_are_shown():
    # Its doc tests; that of a feature begins with an attribute.
    crate = (ROOT / "src/lib.rs").read_text(encoding="utf-8")
    page = (ROOT / "docs/rust.md").read_text(encoding="utf-8")
    start = r"(?://! ```|#!\[cfg_attr\(not\(.*?\), doc = \"```ignore\"\)\])"
    commented = re.findall(rf"^{start}\n(.*?)^//! ```", crate, re.MULTILINE | re.DOTALL)
    examples = [re.sub(r"^//! ?", "", one, flags=re.MULTILINE) for one in commented]
    assert examples == [code for code, _ in blocks("rust", page)]


@pytest.mark.parametrize("document", ["README.md", "docs/functions.md"])
def test_every_public_name_is_listed(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    tables = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    assert not [name for name in kldiv.__all__ if not re.search(rf"`{name}\b", tables)]


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
    assert named or not re.search(r"\]\((?!https?:)", prose)
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


@pytest.mark.costly
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
