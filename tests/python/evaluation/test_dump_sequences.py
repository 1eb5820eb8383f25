"""Dumps from Python, and dumps cut into other sequences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kldiv.evaluation.dumps.blocks import joined, part, regrouped
from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.memory import Blocks, of_memory
from kldiv.evaluation.dumps.protocol import DumpError, TopKBlock
from kldiv.evaluation.dumps.sequences import Lengths, cut, cut_like, read_lengths

WIDTH = 5


def read(dump, step=2):
    return [np.concatenate([b.copy() for b in s.read(step)]) for s in dump.sequences()]


def lengths(*values):
    return Lengths("lengths.txt", values, tuple(map(str, range(len(values)))))


@pytest.fixture
def arrays(rng):
    return [rng.normal(size=(rows, WIDTH)).astype(np.float32) for rows in (4, 1, 7)]


def in_blocks(array):
    """Blocks of lengths that differ, some empty, all in the same memory."""
    memory = np.empty_like(array)
    for start, stop in ((0, 3), (3, 3), (3, 4), (4, 9)):
        block = memory[: len(array[start:stop])]
        block[:] = array[start:stop]
        yield block


GIVEN = {
    "list": lambda arrays: arrays,
    "mapping": lambda arrays: dict(zip("abc", arrays, strict=True)),
    "tensors": lambda arrays: tuple(map(torch.from_numpy, arrays)),
    "generator": lambda arrays: (array for array in arrays),
    "generator of blocks": lambda arrays: (Blocks(in_blocks(array)) for array in arrays),
}


@pytest.mark.parametrize("given", GIVEN)
def test_sequences_from_python(arrays, given):
    for step in (1, 2, 3, 100):
        dump = of_memory(GIVEN[given](arrays), "reference", "log_probs")
        assert (dump.kind, dump.width, dump.dtype) == ("log_probs", WIDTH, np.float32)
        for found, array in zip(read(dump, step), arrays, strict=True):
            np.testing.assert_array_equal(found, array)
    names = [sequence.name for sequence in of_memory(GIVEN["mapping"](arrays), "p").sequences()]
    assert names == ["a", "b", "c"]


def test_an_array_and_blocks_of_one_sequence(arrays, rng):
    stack = rng.normal(size=(3, 4, WIDTH))
    for given in (stack, torch.from_numpy(stack), stack.tolist()):
        np.testing.assert_array_equal(read(of_memory(given, "p")), stack)
    (found,) = read(of_memory(Blocks(in_blocks(arrays[2])), "p"), 4)
    np.testing.assert_array_equal(found, arrays[2])
    (bfloat16,) = read(of_memory(torch.ones(2, WIDTH, dtype=torch.bfloat16), "p"))
    assert bfloat16.dtype.name == "bfloat16"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"p holds no sequence"),
        (iter(()), r"p gives no sequence"),
        (Blocks([]), r"p\[0\] gives no block"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], r"p\[1\] has rows of 4 numbers, but p\[0\] of 3"),
        (iter([np.zeros((2, 3)), np.zeros((2, 4))]), r"p\[1\] has shape \(2, 4\)"),
        (Blocks([np.zeros((2, 3)), np.zeros((2, 3), "f4")]), r"p\[0\] has .* dtype float32"),
        (np.zeros((2, 3), int), r"p has dtype int64; expected floating numbers"),
        ([np.zeros((0, 3))], r"p\[0\] has shape \(0, 3\), without a logit"),
        (iter([np.zeros((0, 3))]), r"p\[0\] has shape \(0, 3\), without a logit"),
        (17, r"p is int; expected arrays of logits"),
    ],
)
def test_errors_of_what_python_gives(value, message):
    with pytest.raises(DumpError, match=message):
        read(of_memory(value, "p"))


def test_what_comes_once_is_read_once(arrays):
    dump = of_memory(iter(arrays), "p")
    read(dump)
    with pytest.raises(DumpError, match="p is an iterator, which has been read"):
        dump.sequences()


@pytest.mark.parametrize("step", [1, 3, 4, 5, 100])
def test_a_dump_is_cut_across_its_files(tmp_path, arrays, step):
    labels = [np.arange(len(array)) + 10 * i for i, array in enumerate(arrays)]
    given = {f"logits_{i}": array for i, array in enumerate(arrays)}
    given |= {f"labels_{i}": labels[i] for i in (0, 2)}
    together = np.concatenate(arrays)
    expected_labels = np.concatenate([labels[0], [-100], labels[2]])
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **given)
        dump = cut(open_dump(tmp_path / "a.npz"), lengths(2, 6, 3, 1))
        pieces = np.split(together, [2, 8, 11])
        assert dump.count == 4
        for found, piece in zip(read(dump, step), pieces, strict=True):
            np.testing.assert_array_equal(found, piece)
        found = np.concatenate([sequence.labels for sequence in dump.sequences()])
        np.testing.assert_array_equal(found, expected_labels)
        # In any order, and after a sequence that was not read to its end.
        sequences = list(dump.sequences())
        for number in (1, 0, 3, 1):
            np.testing.assert_array_equal(next(sequences[number].read(step)), pieces[number][:step])


def test_a_dump_is_cut_like_another(arrays):
    one = of_memory(np.concatenate(arrays), "one")
    several = of_memory(dict(zip("abc", arrays, strict=True)), "several")
    like = cut_like(one, several)
    assert [sequence.name for sequence in like.sequences()] == ["a", "b", "c"]
    for found, array in zip(read(like), arrays, strict=True):
        np.testing.assert_array_equal(found, array)
    assert cut_like(several, several) is several
    with pytest.raises(DumpError, match=r"several describes 3 sequences of 12 .* but two has 2"):
        cut_like(of_memory(arrays[0][:2], "two"), several)
    with pytest.raises(DumpError, match="stream is a stream, which has not said"):
        cut_like(several, of_memory(iter(arrays), "stream"))
    stream = cut_like(of_memory(iter([np.concatenate(arrays)]), "stream"), several)
    for found, array in zip(read(stream), arrays, strict=True):
        np.testing.assert_array_equal(found, array)


FILES = {
    "a.txt": "# of the questions\n3 first one\n\n2\n",
    "a.json": "[3, 2]",
    "objects.json": '[{"length": 3, "name": "first one"}, {"length": 2}]',
    "names.json": '{"first one": 3, "1": 2}',
}


@pytest.mark.parametrize("name", FILES)
def test_lengths_from_files(tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    found = read_lengths(tmp_path / name)
    assert found.lengths == (3, 2)
    assert found.names == (("0" if name == "a.json" else "first one"), "1")
    np.save(tmp_path / "a.npy", np.array([3, 2], np.uint8))
    assert read_lengths(tmp_path / "a.npy").lengths == (3, 2)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "3\n-2\n", r"has '-2' in line 2; expected LENGTH \[NAME\]"),
        ("a.txt", "", "holds no length"),
        ("a.txt", "3\n0\n", "says that sequence 1 has 0 positions"),
        ("a.json", "[1.5]", "is no JSON list of lengths"),
        ("a.json", "{", "is no JSON list of lengths"),
        ("a.json", '[{"name": "a"}]', "is no JSON list of lengths"),
        ("a.json", "[true]", "is no JSON list of lengths"),
    ],
)
def test_files_that_hold_no_lengths(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DumpError, match=message):
        read_lengths(tmp_path / name)


def test_lengths_must_be_those_of_the_dump(arrays):
    with pytest.raises(DumpError, match="2 sequences of 11 positions in all, but p has 12"):
        cut(of_memory(arrays, "p"), lengths(10, 1))


def test_top_k_rows_are_cut_and_joined():
    def block(rows, k):
        ids = np.arange(rows * k).reshape(rows, k)
        return TopKBlock(ids, -ids.astype(float), ids[:, 0], -ids[:, -1].astype(float))

    one, other = block(3, 2), block(2, 4)
    together = joined([part(one, 1, 3), other])
    assert together.ids.tolist() == [[2, 3, -1, -1], [4, 5, -1, -1], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert together.log_probs[0].tolist() == [-2, -3, -np.inf, -np.inf]
    assert together.top1.tolist() == [2, 4, 0, 4]
    assert together.at_most.tolist() == [-3, -5, -3, -7]
    assert joined([one, replace(other, at_most=None)]).at_most is None
    assert [len(found) for found in regrouped(iter([one, other, one]), 3)] == [3, 3, 2]
