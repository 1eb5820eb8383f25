"""Tables and pictures of measured numbers in the documents are those of the runs that are kept."""

import re
import sys

import pytest

import document
import peers
import report
import runs

TABLES = dict(document.tables(runs.newest()))


@pytest.mark.parametrize("path", TABLES)
def test_tables_are_made_of_the_runs(path):
    written = (runs.ROOT / path).read_text(encoding="utf-8")
    assert written == TABLES[path], "run `make docs`"


def test_every_table_that_is_made_is_shown():
    shown = [name for text in TABLES.values() for name, _ in document.BLOCK.findall(text)]
    assert sorted(shown) == sorted(document.BLOCKS)


@pytest.mark.parametrize("path", TABLES)
def test_no_table_of_times_is_written_by_hand(path):
    by_hand = document.BLOCK.sub("", TABLES[path])
    by_hand = re.sub(r"^## What was tried$.*?^## ", "", by_hand, flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"^\|.*\| [\d.]+ (?:µs|ms|s) \|.*$", by_hand, re.MULTILINE)


@pytest.mark.costly
def test_pictures_are_made_of_the_runs():
    mpl = pytest.importorskip("matplotlib")
    for path, text in document.pictures(runs.newest()):
        written = (runs.ROOT / path).read_text(encoding="utf-8")
        if f"Matplotlib v{mpl.__version__}" not in written:
            pytest.skip("another version of matplotlib lays them out differently")
        (words, numbers), (made, made_numbers) = map(taken_apart, (written, text))
        assert words == made, f"{path}: run `make docs`"
        assert numbers == pytest.approx(made_numbers, abs=0.01), f"{path}: run `make docs`"


def taken_apart(svg):
    """What does not depend on the last digits of a coordinate, as the hashes do, and numbers."""
    svg = re.sub(r"\b[mp][0-9a-f]{10}\b", "#", svg)
    number = re.compile(r"-?\d+\.\d+")
    return number.sub("", svg), [float(each) for each in number.findall(svg)]


@pytest.mark.parametrize("path", sorted(runs.FOLDER.glob("*")), ids=lambda path: path.name)
def test_runs_say_how_they_came_about(path):
    kept = runs.read(path)
    assert path.read_text(encoding="utf-8") == runs.dumps(kept)
    for run in kept.values():
        assert runs.file_of(run) == path
        assert run["header"].keys() >= {"command", "commit", "kldiv"}


def run_of(date, machine="A (tm) 9", result=0):
    return {"header": {"date": date, "machine": machine}, "results": [result]}


def test_the_newest_run_of_each_name_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    runs.save("x", run_of("2026-02-01", result=1))
    runs.save("y", run_of("2026-02-01", result=2))
    runs.save("x", run_of("2026-01-31", result=3))
    runs.save("y", run_of("2026-02-01", result=4))
    assert {name: run["results"] for name, run in runs.newest().items()} == {"x": [1], "y": [4]}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2026-01-31-a-tm-9.json",
        "2026-02-01-a-tm-9.json",
    ]


SMALL = {
    "family": "--shapes 2x17",
    "top_k": "--shapes 2x17 --dtypes float32,bfloat16",
    "main": "--shapes 2x17 --dtypes float32,bfloat16 --peers torch,numpy --threads 1",
    "shapes": "--shapes 1x17,2x17 --dtypes float32 --peers torch,scipy --threads 1",
    "close": "--shapes 2x17 --dtypes float32 --peers torch --threads 1",
    "small": "--shapes 1x17 --dtypes float32 --threads 1",
    "autograd": "--shapes 1x17 --dtypes float32 --peers torch --threads 1",
    "jax": "--shapes 4x17 --dtypes float32 --threads 1 "
    "--jobs kl+grad,cross_entropy,kl+weighted,kl+vmap,cross_entropy+scan",
    "rows": "--shapes 1x17,2x17",
    "classes": "--shapes 2x3,2x17",
    "threads": "--shapes 2x17 --threads 1,2",
}
"""The runs of the documents, with fewer shapes, and libraries that need not compile."""


@pytest.fixture
def jax_as_it_was():
    """The contender of JAX sets its precision for the whole process."""
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.costly
@pytest.mark.usefixtures("jax_as_it_was")
def test_runs_become_tables_and_pictures(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    monkeypatch.setattr(peers, "PAUSE", 0.0)
    monkeypatch.setattr(peers, "SAMPLE", 0.0)
    assert SMALL.keys() == peers.NAMED.keys()
    for name, options in SMALL.items():
        bench(monkeypatch, f"--run {name} {options} --repeats 1 --save")
    (path,) = tmp_path.iterdir()
    found = runs.newest()
    assert found.keys() == SMALL.keys()
    for name in (
        "main",
        "family",
        "close",
        "speed",
        "speed-zh",
        "times",
        "libraries",
        "small",
        "autograd",
        "jax",
    ):
        header, _, *lines = [line for line in document.BLOCKS[name](found) if line.startswith("|")]
        assert lines
        assert {line.count("|") for line in lines} == {header.count("|")}
    assert [svg.count("<svg") for _, svg in document.pictures(found)] == [1, 1]
    capsys.readouterr()
    bench(monkeypatch, f"--from {path} --run threads")
    assert "2 × 17, threads: 1" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="one of main, family"):
        bench(monkeypatch, f"--from {path}")


def bench(monkeypatch, options):
    monkeypatch.setattr(sys, "argv", ["peers.py", *options.split()])
    peers.main()


@pytest.mark.parametrize(
    ("number", "text"),
    [(25.66, "26"), (9.94, "9.9"), (9.96, "10"), (0.996, "1.0"), (0.0983, "0.098"), (273.0, "270")],
)
def test_two_digits(number, text):
    assert report.significant(number) == text
