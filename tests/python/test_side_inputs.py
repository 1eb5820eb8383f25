"""Masks, weights, labels and upstream gradients as people hold them, and options of any size."""

import fractions
import sys
import warnings

import ml_dtypes
import numpy as np
import pytest

import kldiv

ROWS, CLASSES = 6, 8
LABELS = np.array([3, 0, 5, 1, 2, 4])
KEPT = np.array([True, False, True, True, False, True])
HUGE = 10**400


def unaligned(array):
    view = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def strided(array):
    # The field of a packed record: unaligned too.
    record = np.empty(array.shape, [("other", np.uint8), ("field", array.dtype)])
    record["field"] = array
    return record["field"]


def swapped(array):
    return array.astype(array.dtype.newbyteorder("S"))


LAYOUTS = [unaligned, strided, swapped, lambda x: x[::-1].copy()[::-1]]


@pytest.fixture
def pair(rng):
    return rng.normal(size=(2, ROWS, CLASSES))


def value_and_gradient(function, *arguments, **options):
    return np.concatenate(
        [np.ravel(x) for x in kldiv.value_and_grad(function, *arguments, **options)]
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=["unaligned", "record", "swapped", "reversed"])
def test_every_layout(pair, layout):
    p, q = pair
    for name, array in {
        "weights": np.linspace(0.5, 2, ROWS),
        "grad_output": np.linspace(-1, 2, ROWS),
        "where": KEPT,
    }.items():
        given, expected = (
            value_and_gradient(kldiv.kl, p, q, **{name: x}) for x in (layout(array), array)
        )
        assert np.array_equal(given, expected), name
    for options in ({"targets": LABELS}, {"class_weights": np.linspace(0.5, 2, CLASSES)}):
        moved = {name: layout(array) for name, array in options.items()}
        given, expected = (
            value_and_gradient(kldiv.cross_entropy, **{"logits": q, "targets": LABELS, **x})
            for x in (moved, options)
        )
        assert np.array_equal(given, expected), options
    assert np.array_equal(
        kldiv.gather_log_probs(q, layout(LABELS)), kldiv.gather_log_probs(q, LABELS)
    )
    moved, expected = (kldiv.compare(p, q, x) for x in (layout(LABELS), LABELS))
    assert np.array_equal(moved.nll_q, expected.nll_q)


INTEGERS = [np.dtype(code) for code in "bBhHiIlLqQ"]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_labels_and_masks_of_every_integer_dtype(pair, dtype):
    p, q = pair
    expected = kldiv.kl(p, q, where=KEPT)
    assert np.array_equal(kldiv.kl(p, q, where=KEPT.astype(dtype)), expected)
    assert np.array_equal(kldiv.kl(p, q, weights=KEPT.astype(dtype)), expected)
    expected = kldiv.cross_entropy(q, LABELS)
    limits = np.iinfo(dtype)
    for ignored in (-100, -1, limits.min, limits.max, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), HUGE):
        labels = LABELS.astype(dtype)
        for options in ({}, {"where": KEPT}):
            loss = kldiv.cross_entropy(q, labels, ignore_index=ignored, **options)
            keep = options.get("where", np.ones(ROWS, bool)) & (ignored != LABELS)
            assert np.array_equal(loss, np.where(keep, expected, 0)), ignored
        if limits.min <= ignored <= limits.max:
            labels[2] = ignored
            loss = kldiv.cross_entropy(q, labels, ignore_index=ignored)
            assert np.array_equal(loss, np.where(labels == ignored, 0, expected)), ignored
    # What is ignored is that index and no other that is out of range.
    for ignored in (2**63 - 1, 2**64 - 1, None):
        labels = LABELS.astype(dtype)
        labels[3] = limits.max - 1
        with pytest.raises(IndexError, match=r"in row 3 .* mask the row with where"):
            kldiv.cross_entropy(q, labels, ignore_index=ignored)


def test_labels_beyond_every_dtype(pair):
    q = pair[1]
    labels = [*LABELS[:-1].tolist(), 2**70]
    expected = kldiv.cross_entropy(q, LABELS)
    expected[-1] = 0
    assert np.array_equal(kldiv.cross_entropy(q, labels, ignore_index=2**70), expected)
    for options in ({}, {"ignore_index": 2**63 - 1}, {"ignore_index": HUGE}):
        for refused in (
            lambda: kldiv.cross_entropy(q, labels, **options),  # noqa: B023
            lambda: kldiv.gather_log_probs(q, labels, **options),  # noqa: B023
            lambda: kldiv.compare(q, q, labels, **options),  # noqa: B023
        ):
            with pytest.raises(IndexError, match=f"label {2**70} in row 5"):
                refused()
    # The first of all that are out of range is named; those left out may be anything.
    with pytest.raises(IndexError, match="label 99 in row 0"):
        kldiv.cross_entropy(q, [99, *labels[1:]])
    kept = kldiv.cross_entropy(q, labels, weights=[1.0] * (len(labels) - 1) + [0.0])
    assert np.array_equal(kept, expected)


def test_masks(pair):
    p, q = pair
    every = np.arange(ROWS, dtype=np.uint8).view(np.bool_)  # bytes 0 to 5
    assert np.array_equal(kldiv.kl(p, q, where=every), kldiv.kl(p, q, where=np.arange(ROWS) > 0))
    assert np.array_equal(kldiv.kl(p, q, weights=every), kldiv.kl(p, q, where=np.arange(ROWS) > 0))
    kept = kldiv.compare(p, q, where=every).where
    assert kept.view(np.uint8).tolist() == [0, 1, 1, 1, 1, 1]
    assert kldiv.compare(p, q, where=[1, 0, 1, 1, 0, 1]).where.tolist() == KEPT.tolist()
    for function in (
        lambda where: kldiv.kl(p, q, where=where),
        lambda where: kldiv.log_softmax(p, where=where),
        lambda where: kldiv.gather_log_probs(p, LABELS, where=where),
        lambda where: kldiv.compare(p, q, where=where),
    ):
        with pytest.raises(ValueError, match=r"where is a mask .* holds 2 at index 4"):
            function(np.array([0, 1, 1, 0, 2, 3]))
        with pytest.raises(TypeError, match="where has dtype float32; expected bool, or integers"):
            function(np.ones(ROWS, np.float32))
    where = np.array([[1, 0, 1], [1, -1, 1]])
    with pytest.raises(ValueError, match=r"holds -1 at index \(1, 1\)"):
        kldiv.kl(p.reshape(2, 3, -1), q.reshape(2, 3, -1), where=where)


NUMBERS = {
    "temperature": kldiv.kl,
    "denominator": kldiv.kl,
    "beta": kldiv.jensen_shannon,
    "alpha": kldiv.renyi,
    "label_smoothing": kldiv.cross_entropy,
    "z_loss": kldiv.cross_entropy,
    "softcap": kldiv.cross_entropy,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_beyond_float64(pair, name):
    arguments = (pair[0], LABELS) if NUMBERS[name] is kldiv.cross_entropy else pair
    for number in (HUGE, -HUGE, fractions.Fraction(HUGE)):
        with pytest.raises(ValueError, match=name):
            NUMBERS[name](*arguments, **{name: number}, reduction="mean")
    for number in (np.array([1.0]), np.complex128(1), np.True_, "1"):
        with pytest.raises(TypeError, match=f"{name} must be a number"):
            NUMBERS[name](*arguments, **{name: number})


def test_integers_beyond_int64(pair):
    for axis in (2**40, -(2**40), 2**64, HUGE):
        with pytest.raises(ValueError, match="axis"):
            kldiv.kl(*pair, axis=axis)
    for name in ("weights", "class_weights", "grad_output"):
        numbers = [1] * 5 + [HUGE]
        if name == "class_weights":
            with pytest.raises(ValueError, match=r"class_weights.*inf"):
                kldiv.cross_entropy(pair[0], LABELS, class_weights=[*numbers, 1, 1])
        elif name == "weights":
            with pytest.raises(ValueError, match=r"weights.*element 5 is inf"):
                kldiv.kl(*pair, weights=numbers)
        else:
            _, gradient = kldiv.value_and_grad(kldiv.kl, *pair, grad_output=numbers)
            assert np.isinf(gradient[5]).any()


def test_logits_in_lists_of_integers(pair):
    for given in ([[1, 0, 3], [4, 5, 6]], ((1, 0, 3), (4, 5, 6))):
        assert np.array_equal(kldiv.entropy(given), kldiv.entropy(np.array(given, float)))
    with pytest.raises(TypeError, match=r"p has dtype int64; .*p\.astype"):
        kldiv.entropy(np.array([[1, 2, 3]]))


def test_tensors_that_require_a_gradient():
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(2, 3, requires_grad=True)
    for call in (
        lambda: kldiv.kl(tensor, tensor),
        lambda: kldiv.compare(np.zeros((2, 3)), tensor),
        lambda: kldiv.kl(np.zeros((2, 3)), np.zeros((2, 3)), weights=tensor[:, 0]),
    ):
        with pytest.raises(TypeError, match=r"is a tensor that requires a gradient.*kldiv\.torch"):
            call()
    mask = torch.tensor([1, 0])
    assert kldiv.kl(np.eye(2), np.eye(2)[::-1], where=mask)[1] == 0


def test_no_warning_comes_out():
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for lowest in (np.finfo(np.float32).min, np.float32(-1e-38)):
            z = np.zeros((2, 4), np.float32)
            z[:, 0] = lowest
            for reduction in ("sum", "mean"):
                kldiv.cross_entropy(z, np.array([0, 0]), reduction=reduction)
                kldiv.kl(z, z[:, ::-1], reduction=reduction)
            kldiv.gather_log_probs(z, [0, 0], temperature=0.1)
            summary = kldiv.compare(z, z[:, ::-1], [0, 0], temperature=0.5).summary()
            assert "rows compared" in str(summary)
        assert kldiv.cross_entropy(z, [0, 0], weights=[1e308, 1], reduction="sum") == np.inf
        tiny = kldiv.entropy(np.array([[0.0, -200.0]], np.float32), reduction="sum")
        assert 0 <= tiny < 1e-38
        kldiv.kl(z, z, weights=np.array([1, 1], np.longdouble))


@pytest.fixture
def warn_again(monkeypatch):
    monkeypatch.setattr(sys.modules["kldiv._probabilities"], "_shown", set())


@pytest.mark.usefixtures("warn_again")
@pytest.mark.parametrize(
    "call",
    [
        lambda p, z: kldiv.kl(z, p),
        lambda p, z: kldiv.value_and_grad(kldiv.kl, p, z),
        lambda p, z: kldiv.renyi(z, p, alpha=2, space=("log_probs", "logits")),
        lambda p, z: kldiv.cross_entropy(p, LABELS),
        lambda p, z: kldiv.entropy(p),
        lambda p, z: kldiv.compare(p, z),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, ml_dtypes.bfloat16])
def test_probabilities_where_logits_are_expected(call, pair, dtype):
    z = pair[0].astype(dtype)
    p = (np.exp(pair[1]) / np.exp(pair[1]).sum(-1, keepdims=True)).astype(dtype)
    with pytest.warns(kldiv.ProbabilitiesAsLogitsWarning, match='space="probs"') as caught:
        [call(p, z) for _ in range(2)]
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.filterwarnings("error::kldiv.ProbabilitiesAsLogitsWarning")
@pytest.mark.usefixtures("warn_again")
def test_logits_that_are_no_probabilities(pair):
    z = pair[0]
    for logits in (z, np.zeros((3, 5)), np.full((3, 1), 1.0), np.full((2, 4), 0.3), z[:0]):
        kldiv.entropy(logits)
    p = np.full((3, 4), 0.25)
    p[2] = [0.5, 0.5, 0.5, 0.0]
    kldiv.entropy(p)
    kldiv.entropy(np.full((3, 4), 0.25), space="probs")
    kldiv.logsumexp(np.full((3, 4), 0.25))


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("warn_again")
def test_a_look_at_half_rows_with_nan_is_silent():
    z = np.full((2, 100), 0.5, ml_dtypes.bfloat16)
    z[:, 50] = np.nan
    assert np.isnan(kldiv.entropy(z)).all()


@pytest.mark.usefixtures("warn_again")
def test_negative_probabilities_are_named():
    p = np.full((4, 4), 0.25)
    q = p.copy()
    q[1, 2], q[2, 0] = -0.5, -0.125
    where = np.array([True, False, True, True])
    named = r"q holds the negative probability -0\.125 in row 2, whose result is NaN"
    with pytest.warns(kldiv.NegativeProbabilityWarning, match=named) as caught:
        values = [
            kldiv.kl(p, q, space="probs", where=where, reduction="sum"),
            kldiv.kl(p, q, space="probs", where=where)[2],
        ]
    assert np.isnan(values).all()
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.filterwarnings("error::kldiv.NegativeProbabilityWarning")
@pytest.mark.usefixtures("warn_again")
def test_other_results_that_are_nan_are_not_negative_probabilities():
    p = np.full((2, 4), 0.25)
    q = p.copy()
    q[0, 0], q[1, 0] = -0.5, np.nan
    assert np.isnan(kldiv.kl(p, q, space="probs", weights=[0.0, 1.0])[1])
    assert np.isnan(kldiv.kl(p, q, space=("probs", "logits"))[1])


def test_rows_that_do_not_sum_to_one(rng):
    # The bounds that the docstrings state.
    p, q = rng.uniform(0, 2, (2, 500, 3))
    sums = p.sum(-1), q.sum(-1)
    assert (kldiv.kl(p, q, space="probs") >= sums[0] * np.log(sums[0] / sums[1]) - 1e-12).all()
    for beta in (0.1, 0.5):
        value = kldiv.jensen_shannon(p, q, beta=beta, space="probs")
        most = -sums[0] * beta * np.log(beta) - sums[1] * (1 - beta) * np.log(1 - beta)
        assert ((value >= 0) & (value <= most)).all()
    value = kldiv.total_variation(p, q, space="probs")
    assert (value >= abs(sums[0] - sums[1]) / 2 - 1e-12).all()
    assert (value <= (sums[0] + sums[1]) / 2).all()
