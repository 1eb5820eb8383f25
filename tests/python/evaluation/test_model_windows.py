"""Windows of a text: every next token once, with the context that was asked for."""

import itertools

import numpy as np
import pytest

from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.models.windows import chunks_of, describe, windows_of


def tokens(count, begin=100):
    return np.arange(begin, begin + count)


CASES = [
    (length, context, stride, beginning)
    for length, context, beginning in itertools.product((7, 8, 9, 23, 64), (4, 7), ((), (1,)))
    for stride in (None, 1, 3)
]


@pytest.mark.parametrize(("length", "context", "stride", "beginning"), CASES)
def test_every_next_token_is_scored_once(length, context, stride, beginning):
    text = tokens(length)
    documents = [("a", text), ("b", tokens(3, 500))]
    options = {"context": context, "stride": stride, "beginning": beginning}
    found = windows_of(documents, "text", **options)
    of_a = [window for window in found if window.document == "a"]
    # Without something that begins the text nothing is said of its first token.
    expected = text if beginning else text[1:]
    assert np.concatenate([window.labels for window in of_a]).tolist() == expected.tolist()
    most = context - len(beginning)
    for number, window in enumerate(found):
        assert tuple(window.inputs[: len(beginning)]) == beginning
        assert len(window.labels) == len(window) > 0
        own = window.tokens[len(beginning) :]
        assert (np.diff(own) == 1).all()
        assert len(window.inputs) <= context
        if window.document == "a":
            assert len(window.inputs) == min(context, length - 1 + len(beginning))
            assert window.name == f"a[{own[0] - 100}:{own[-1] - 100}]"
            if number:
                # More context than a window without overlap would give.
                assert window.first >= context - (stride or most)
    of_b = [window for window in found if window.document == "b"]
    assert np.concatenate([window.labels for window in of_b]).tolist() == (
        [500, 501, 502] if beginning else [501, 502]
    )


def test_windows_do_not_overlap_without_a_stride():
    found = windows_of([("a", tokens(17))], "text", context=8)
    assert [window.inputs.tolist() for window in found] == [
        list(range(100, 108)),
        list(range(108, 116)),
    ]
    assert [window.first for window in found] == [0, 0]
    # The last one ends with the text, which needs tokens of the one before.
    found = windows_of([("a", tokens(19))], "text", context=8)
    assert found[2].inputs.tolist() == list(range(110, 118))
    assert found[2].labels.tolist() == [117, 118]
    assert found[2].first == 6


def test_chunks_are_the_first_windows():
    documents = [("a", tokens(30)), ("b", tokens(30))]
    every = windows_of(documents, "text", context=8)
    some = windows_of(documents, "text", context=8, chunks=5)
    assert [window.name for window in some] == [window.name for window in every[:5]]
    said = describe(some, 8, None)
    assert said["windows"] == 5
    assert said["documents"] == 2
    assert said["positions"] == sum(map(len, some))
    assert said["tokens_sha256"] != describe(every, 8, None)["tokens_sha256"]


def test_chunks_as_llama_cpp_has_them():
    windows, ids = chunks_of([("a", tokens(20))], "text", context=6, beginning=(1,))
    # What begins the text is in the first chunk, and read in place of a token in the others.
    assert ids.tolist() == [
        [1, *range(100, 105)],
        list(range(105, 111)),
        list(range(111, 117)),
    ]
    assert [window.inputs.tolist() for window in windows] == [
        [1, *range(100, 104)],
        [1, *range(106, 110)],
        [1, *range(112, 116)],
    ]
    # llama.cpp's first = n_ctx / 2, and n_ctx − 1 − first rows.
    assert [window.labels.tolist() for window in windows] == [
        [103, 104],
        [109, 110],
        [115, 116],
    ]


@pytest.mark.parametrize(
    ("count", "options", "said"),
    [
        (5, {"context": 6}, "text is shorter than a window: it has 5 tokens, and the context is 6"),
        (0, {"context": 6}, "text has no token"),
        (9, {"context": 1}, "the context is 1; expected at least 2 tokens"),
        (9, {"context": 6, "stride": 7}, "the stride is 7; expected 1 to 6"),
        (9, {"context": 6, "stride": 6, "beginning": (1,)}, "expected 1 to 5, as a window has 6"),
    ],
)
def test_numbers_out_of_range(count, options, said):
    with pytest.raises(DumpError, match=said):
        windows_of([("a", tokens(count))], "text", **options)
