"""Cross-entropy and the functions of one batch, against the oracle and finite differences."""

import numpy as np
import pytest

import kldiv
import oracle
from conftest import DTYPES, WIDTHS, in_space, softmax

OPTIONS = [
    {},
    {"temperature": 2.5},
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0},
    {"class_weights": True},
    {"class_weights": True, "label_smoothing": 0.2},
    {"z_loss": 1e-2},
    {"softcap": 3.0},
    {
        "softcap": 3.0,
        "z_loss": 1e-2,
        "label_smoothing": 0.1,
        "class_weights": True,
        "temperature": 1.5,
    },
]


def with_weights(options, classes, rng):
    if not options.get("class_weights"):
        return options
    return {**options, "class_weights": rng.uniform(0, 2, classes)}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
@pytest.mark.parametrize("kind", ["labels", "distributions"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_gradients(isa, rng, options, kind, dtype):
    rows, classes = 3, 19
    options = with_weights(options, classes, rng)
    logits = rng.normal(0, 2, (rows, classes)).astype(DTYPES[dtype])
    if kind == "labels":
        targets = rng.integers(0, classes, rows)
    else:
        targets = softmax(rng.normal(0, 1, (rows, classes))).astype(DTYPES[dtype])
    value, gradient = kldiv.value_and_grad(kldiv.cross_entropy, logits, targets, **options)
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    for row in range(rows):
        expected = float(oracle.cross_entropy(logits[row], targets[row], **options))
        assert value[row] == pytest.approx(expected, rel=tolerance, abs=0)
        wanted = oracle.cross_entropy_gradient(logits[row], targets[row], **options)
        wanted = np.array([float(x) for x in wanted])
        assert np.linalg.norm(gradient[row] - wanted) <= tolerance * np.linalg.norm(wanted)


def test_widths(isa, rng):
    for width in WIDTHS:
        logits = rng.normal(0, 3, (2, width)).astype(np.float32)
        labels = np.array([0, width - 1])
        value, gradient = kldiv.value_and_grad(kldiv.cross_entropy, logits, labels)
        expected = oracle.wide_cross_entropy(logits, labels).astype(np.float64)
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-30)
        wanted = oracle.wide_cross_entropy_gradient(logits, labels).astype(np.float64)
        error = np.linalg.norm(gradient - wanted, axis=-1)
        assert (error <= 1e-6 * np.linalg.norm(wanted, axis=-1)).all()
        np.testing.assert_allclose(
            kldiv.gather_log_probs(logits, labels), -expected, rtol=1e-6, atol=1e-30
        )
        np.testing.assert_allclose(
            kldiv.logsumexp(logits), oracle.wide_logsumexp(logits).astype(float), rtol=1e-6
        )
        np.testing.assert_allclose(
            kldiv.log_softmax(logits),
            oracle.wide_log_softmax(logits).astype(float),
            rtol=1e-6,
            atol=1e-30,
        )
        np.testing.assert_allclose(
            kldiv.entropy(logits), oracle.wide_entropy(logits).astype(float), rtol=1e-6, atol=1e-30
        )


@pytest.mark.parametrize("space", ["log_probs", "probs"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_other_spaces(rng, space, smoothing):
    numbers = in_space(rng.normal(0, 1, (3, 7)), space)
    labels = np.array([0, 6, 3])
    common = {"space": space, "label_smoothing": smoothing, "reduction": "sum"}
    value, gradient = kldiv.value_and_grad(kldiv.cross_entropy, numbers, labels, **common)
    masses = np.full((3, 7), smoothing / 7)
    masses[np.arange(3), labels] += 1 - smoothing
    ln_q = numbers if space == "log_probs" else np.log(numbers)
    np.testing.assert_allclose(value, -(masses * ln_q).sum(), rtol=1e-13)
    expected = -masses if space == "log_probs" else -masses / numbers
    np.testing.assert_allclose(gradient, expected, rtol=1e-13)


def test_gradient_with_respect_to_distributions(rng):
    logits = rng.normal(0, 1, (3, 7))
    targets = softmax(rng.normal(0, 1, (3, 7)))
    common = {"label_smoothing": 0.1, "class_weights": rng.uniform(0.5, 2, 7)}
    _, (by_logits, by_targets) = kldiv.value_and_grad(
        kldiv.cross_entropy, logits, targets, wrt=("logits", "targets"), **common
    )
    expected = -0.9 * common["class_weights"] * kldiv.log_softmax(logits)
    np.testing.assert_allclose(by_targets, expected, rtol=1e-12)
    out = (logits.copy(), targets.copy())
    kldiv.value_and_grad(kldiv.cross_entropy, *out, wrt=("logits", "targets"), out=out, **common)
    assert np.array_equal(out[0], by_logits)
    assert np.array_equal(out[1], by_targets)


def test_one_hot_distributions_are_labels(isa, rng):
    logits = rng.normal(0, 3, (5, 33)).astype(np.float32)
    labels = rng.integers(0, 33, 5)
    one_hot = np.eye(33, dtype=np.float32)[labels]
    by_label = kldiv.value_and_grad(kldiv.cross_entropy, logits, labels)
    by_row = kldiv.value_and_grad(kldiv.cross_entropy, logits, one_hot)
    for a, b in zip(by_label, by_row, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("integer", "bhilBHILQ")
def test_labels_of_any_integer_dtype(rng, integer):
    logits = rng.normal(0, 1, (4, 100))
    labels = np.array([0, 99, 7, 50])
    expected = kldiv.cross_entropy(logits, labels)
    assert np.array_equal(kldiv.cross_entropy(logits, labels.astype(integer)), expected)
    assert np.array_equal(kldiv.gather_log_probs(logits, labels.astype(integer)), -expected)


def test_ignored_rows_count_for_nothing(rng):
    logits = rng.normal(0, 1, (4, 9))
    logits[1] = np.nan
    labels = np.array([3, -100, 0, -100])
    logits[3, 0] = np.inf
    value, gradient = kldiv.value_and_grad(kldiv.cross_entropy, logits, labels, reduction="mean")
    kept = kldiv.cross_entropy(logits[::2], labels[::2], reduction="mean")
    assert value == kept
    assert not gradient[1::2].any()
    assert gradient[::2].all()
    assert np.array_equal(kldiv.gather_log_probs(logits, labels)[1::2], [0, 0])


def test_mean_divides_by_the_class_weights_of_the_labels(rng):
    logits = rng.normal(0, 1, (4, 5))
    labels = np.array([0, 1, 2, -100])
    class_weights = np.array([1.0, 2.0, 0.5, 7.0, 7.0])
    mean = kldiv.cross_entropy(logits, labels, class_weights=class_weights, reduction="mean")
    each = kldiv.cross_entropy(logits, labels, class_weights=class_weights)
    assert mean == pytest.approx(each.sum() / 3.5, rel=1e-14, abs=0)


def test_loss_of_a_confident_row_keeps_its_digits(isa):
    # −ln q = ln(1 + e^-30) = 9.4e-14, below the spacing of float32 numbers near the log-sum-exp.
    logits = np.array([[30.0, 0.0, -200.0]], np.float32)
    value, gradient = kldiv.value_and_grad(kldiv.cross_entropy, logits, [0])
    assert value[0] == pytest.approx(np.log1p(np.exp(-30.0)), rel=1e-6, abs=0)
    assert gradient[0, 0] == pytest.approx(-np.exp(-30.0), rel=1e-6, abs=0)
    assert kldiv.entropy(logits)[0] == pytest.approx(31 * np.exp(-30.0), rel=1e-6, abs=0)


def test_softcap_leaves_masked_classes_masked():
    value, gradient = kldiv.value_and_grad(
        kldiv.cross_entropy, np.array([[1.0, -np.inf, 2.0]]), [2], softcap=5.0
    )
    expected, _ = kldiv.value_and_grad(
        kldiv.cross_entropy, np.array([[1.0, 2.0]]), [1], softcap=5.0
    )
    assert value == pytest.approx(expected, rel=1e-14, abs=0)
    assert gradient[0, 1] == 0.0


@pytest.mark.parametrize("function", ["entropy", "logsumexp"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradients_of_one_batch(isa, rng, function, temperature):
    z = rng.normal(0, 2, (3, 21))
    gradient_of = getattr(oracle, f"{function}_gradient")
    _, gradient = kldiv.value_and_grad(getattr(kldiv, function), z, temperature=temperature)
    for row in range(3):
        wanted = [float(x) for x in gradient_of(z[row], temperature=temperature)]
        np.testing.assert_allclose(gradient[row], wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("space", ["log_probs", "probs"])
def test_entropy_in_other_spaces(rng, space):
    numbers = in_space(rng.normal(0, 1, (3, 7)), space)
    value, gradient = kldiv.value_and_grad(kldiv.entropy, numbers, space=space)
    for row in range(3):
        assert value[row] == pytest.approx(
            float(oracle.entropy(numbers[row], space=space)), rel=1e-13, abs=0
        )
        wanted = [float(x) for x in oracle.entropy_gradient(numbers[row], space=space)]
        np.testing.assert_allclose(gradient[row], wanted, rtol=1e-12)
