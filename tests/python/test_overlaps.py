"""Outputs over any input: the numbers are those of inputs of their own, or the call is refused."""

import ml_dtypes
import numpy as np
import pytest

import kldiv

ROWS, CLASSES = 6, 8
LABELS = np.array([3, 0, 5, 1, 2, 4])


def within(memory, array):
    """`array`, moved to the first bytes of `memory`."""
    view = memory.reshape(-1).view(np.uint8)[: array.nbytes].view(array.dtype)
    view = view.reshape(array.shape)
    view[...] = array
    return view


# Function, which of the arguments is moved, and the options that it is.
SIDES = {
    "weights": (kldiv.kl, {"weights": np.linspace(0.5, 2, ROWS)}),
    "where": (kldiv.renyi, {"where": LABELS > 1, "alpha": 0.5}),
    "where of integers": (kldiv.kl, {"where": (LABELS > 1).astype(np.int64)}),
    "grad_output": (kldiv.jensen_shannon, {"grad_output": np.linspace(-1, 2, ROWS)}),
    "one grad_output": (kldiv.kl, {"grad_output": np.array(2.5), "reduction": "mean"}),
    "class_weights": (kldiv.cross_entropy, {"class_weights": np.linspace(0.5, 2, CLASSES)}),
    "labels": (kldiv.cross_entropy, {"targets": LABELS}),
    "labels of int32": (kldiv.cross_entropy, {"targets": LABELS.astype(np.int32)}),
}


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("side", SIDES)
def test_outputs_over_what_is_beside_the_rows(rng, side, axis):
    function, options = SIDES[side]
    p, q = rng.normal(size=(2, ROWS, CLASSES))
    if axis == 0:
        p, q = p.T, q.T
    given = {"p": p, "q": q}
    if function is kldiv.cross_entropy:
        given = {"logits": q, "targets": LABELS}
    given |= options | {"axis": axis}
    value, gradient = kldiv.value_and_grad(function, **given)
    out = np.zeros(q.shape)
    moved = {
        name: within(out, array) if isinstance(array, np.ndarray) else array
        for name, array in options.items()
    }
    again, result = kldiv.value_and_grad(function, **{**given, **moved}, out=out)
    assert result is out
    assert np.array_equal(again, value)
    assert np.array_equal(out, gradient)


def test_log_softmax_over_its_mask(rng):
    z, where = rng.normal(size=(ROWS, CLASSES)), LABELS > 1
    out = np.zeros(z.shape)
    expected = kldiv.log_softmax(z, where=where)
    assert np.array_equal(kldiv.log_softmax(z, where=within(out, where), out=out), expected)


VIEWS = [
    lambda m: m[:48].reshape(6, 8),
    lambda m: m[24:72].reshape(6, 8),
    lambda m: m[:96].reshape(6, 16)[:, 8:],
    lambda m: m[:96].reshape(6, 16)[::-1, :8],
    lambda m: m[:48].reshape(6, 8)[:, ::-1],
    lambda m: m[:96].reshape(6, 8, 2)[..., 1],
    lambda m: m[4:52].reshape(8, 6).T,
]


@pytest.mark.parametrize("function", [kldiv.kl, kldiv.total_variation, kldiv.cross_entropy])
@pytest.mark.parametrize("wrt", [0, 1])
def test_outputs_over_rows(rng, function, wrt):
    names = ("logits", "targets") if function is kldiv.cross_entropy else ("p", "q")
    for first in VIEWS:
        for second in VIEWS:
            for over in VIEWS:
                memory = rng.uniform(0.1, 1, 96)
                apart = first(memory).copy(), second(memory).copy()
                value, gradient = kldiv.value_and_grad(function, *apart, wrt=names[wrt])
                out = over(memory)
                again, _ = kldiv.value_and_grad(
                    function, first(memory), second(memory), wrt=names[wrt], out=out
                )
                assert np.array_equal(again, value)
                assert np.array_equal(out, gradient)


def test_outputs_over_rows_of_another_dtype(rng):
    memory = rng.normal(size=(4, 32)).astype(ml_dtypes.bfloat16)
    p = memory[:, :16]
    q = memory.view(np.float16)[:, 8:24]
    out = memory[:, 16:].view(np.float32)
    narrow = rng.normal(size=(4, 8)).astype(np.float32)
    value, gradient = kldiv.value_and_grad(kldiv.kl, narrow, memory[:, 16:24].copy(), wrt="p")
    again, _ = kldiv.value_and_grad(kldiv.kl, narrow, memory[:, 16:24], wrt="p", out=out)
    assert np.array_equal(again, value)
    assert np.array_equal(out, gradient)
    value, gradient = kldiv.value_and_grad(kldiv.kl, p.copy(), q.copy())
    again, out = kldiv.value_and_grad(kldiv.kl, p, q, out=q)
    assert np.array_equal(again, value)
    assert np.array_equal(out, gradient.astype(np.float16))


def test_two_outputs_that_interleave(rng):
    p, q = rng.normal(size=(2, 5, 8))
    value, expected = kldiv.value_and_grad(kldiv.kl, p, q, wrt=("p", "q"))
    for memory in (np.empty((5, 2, 8)), np.empty((5, 8, 2)).swapaxes(1, 2)):
        out = (memory[:, 0], memory[:, 1])
        again, result = kldiv.value_and_grad(kldiv.kl, p, q, wrt=("p", "q"), out=out)
        assert np.array_equal(again, value)
        assert all(map(np.array_equal, result, expected))


def test_outputs_that_overlap_each_other_or_themselves_are_refused(rng):
    p, q = rng.normal(size=(2, 4, 8))
    memory = np.full(40, 7.0)
    out = (memory[:32].reshape(4, 8), memory[8:].reshape(4, 8))
    with pytest.raises(ValueError, match="out for 'p' and 'q' overlap in memory"):
        kldiv.value_and_grad(kldiv.kl, p, q, wrt=("p", "q"), out=out)
    # Over an input too, so that the gradient would be computed elsewhere first.
    for twice in (
        np.lib.stride_tricks.as_strided(memory, (4, 8), (8, 8)),
        np.lib.stride_tricks.as_strided(memory, (4, 8), (64, 0)),
    ):
        with pytest.raises(ValueError, match="elements of out overlap"):
            kldiv.value_and_grad(kldiv.kl, p, memory[:32].reshape(4, 8), out=twice)
        with pytest.raises(ValueError, match="elements of out overlap"):
            kldiv.log_softmax(memory[:32].reshape(4, 8), out=twice)
    assert (memory == 7).all()
