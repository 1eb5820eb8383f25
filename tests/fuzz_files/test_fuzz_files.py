"""The fuzzer of files: a fixed seed of it, and that it finds what it is there to find."""

import itertools
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from fuzz_files import limits, search
from fuzz_files.case import make
from fuzz_files.subjects import SUBJECTS, named
from kldiv.evaluation.dumps.protocol import DumpError

pytestmark = pytest.mark.filterwarnings("ignore")

SEED = 20261127


def seen(found):
    return "\n\n".join(f"{kind}\n{found.texts[kind]}" for kind in found.kinds)


@pytest.mark.costly
def test_the_first_files_of_a_seed():
    found = search.search(SEED, 1_500_000, seconds=60)
    assert not found.kinds, seen(found)
    assert found.cases > 3 * len(SUBJECTS)


@pytest.mark.slow
def test_a_fixed_seed_finds_nothing():
    found = search.search(SEED + 1, 10_000_000, seconds=240)
    assert not found.kinds, seen(found)


def test_whole_files_are_read(tmp_path):
    read = {subject.name: 0 for subject in SUBJECTS}
    for subject in SUBJECTS:
        for tree, reader in itertools.product(subject.trees, subject.read):
            folder = tmp_path / f"{subject.name} {sum(read.values())}"
            for name, data in tree.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
            try:
                reader(folder / named(tree, Path()))
                read[subject.name] += 1
            except (DumpError, ValueError):
                # Some hold what a reader refuses, as another kind.
                pass
    assert min(read.values()) > 0


def test_a_case_is_made_again_from_its_seed_and_number():
    for number in range(0, 100, 7):
        one, other = make(5, number), make(5, number)
        assert (one.tree, one.changed, one.reader) == (other.tree, other.changed, other.reader)
    assert make(5, 0).tree != make(6, 0).tree


def too_slow(path):
    end = time.process_time() + 3 * limits.SECONDS
    while time.process_time() < end:
        pass


def too_large(path):
    np.empty(2 * limits.MEMORY, np.uint8)


def refused(error):
    def read(path):
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (too_slow, "TooSlowError in "),
        (too_large, "MemoryError in "),
        (refused(KeyError("a.npy")), "KeyError in "),
        (refused(struct.error("a.npy")), "error in "),
        (refused(UnicodeDecodeError("utf-8", b"a.npy", 0, 1, "a.npy")), "UnicodeDecodeError in "),
        (refused(DumpError("it is broken")), "DumpError that names no file in "),
        (refused(ValueError("a.npy is\nbroken")), "ValueError of several lines, or "),
    ],
)
def test_what_is_not_documented_is_found(read, kind):
    assert limits.find(read, Path("a.npy"), ["a.npy"], 0).kind.startswith(kind)


def test_what_is_documented_is_no_find():
    for error in (DumpError("a.npy is broken"), ValueError("a.npy is broken")):
        assert limits.find(refused(error), Path("a.npy"), ["a.npy"], 0) is None
    assert limits.find(lambda path: None, Path("a.npy"), ["a.npy"], 0) is None


@pytest.mark.costly
def test_a_process_that_dies_is_found(monkeypatch):
    monkeypatch.setattr(search, "_work", _die)
    found = search.search(SEED, 1, seconds=60)
    assert found.kinds["npy: the process ended with -6"] == 1


def _die(pipe, seed, start, names, target):
    import os

    if start > 0:
        pipe.send(("end", target, None))
        pipe.send("done")
        return
    pipe.send(("begin", start, "npy"))
    os.abort()
