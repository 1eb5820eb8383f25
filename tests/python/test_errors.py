"""Refused calls: the right exception, what is wrong in its message, and outputs as they were."""

import numpy as np
import pytest

import kldiv

P = np.zeros((4, 5))
ROWS = [
    # arguments, options, exception, message
    ((P, np.zeros((4, 6))), {}, ValueError, r"p has shape \(4, 5\) but q has shape \(4, 6\)"),
    ((P, np.zeros(5)), {}, ValueError, r"\(4, 5\) but q has shape \(5,\)"),
    ((P.astype(int), P), {}, TypeError, "p has dtype int64"),
    ((P, P.astype(bool)), {}, TypeError, "q has dtype bool"),
    ((P.astype(complex), P), {}, TypeError, "complex128"),
    ((P.astype(np.longdouble), P), {}, TypeError, "float128|longdouble"),
    ((P.astype(object), P), {}, TypeError, "object"),
    ((np.array(["a"]), np.array([1.0])), {}, TypeError, "<U1"),
    (("a.npy", P), {}, TypeError, "p must be an array of numbers, got 'a.npy'"),
    ((None, P), {}, TypeError, "p must be an array of numbers, got None"),
    ((P, P), {"space": "logit"}, ValueError, "logits, log_probs, probs, got 'logit'"),
    ((P, P), {"space": ("logits",)}, ValueError, "pair"),
    ((P, P), {"space": ("logits", "prob")}, ValueError, "'prob'"),
    ((P, P), {"temperature": 0.0}, ValueError, "positive, from 1e-30 to 1e30, got 0"),
    ((P, P), {"temperature": -1.0}, ValueError, "got -1"),
    ((P, P), {"temperature": np.nan}, ValueError, "NaN"),
    ((P, P), {"temperature": np.inf}, ValueError, "inf"),
    ((P, P), {"temperature": "hot"}, TypeError, "temperature must be a number, got 'hot'"),
    ((P, P), {"temperature": (1.0, 2.0, 3.0)}, ValueError, "pair"),
    ((P, P), {"temperature": 2.0, "space": "probs"}, ValueError, "logits only"),
    ((P, P), {"temperature": (2.0, 1.0), "space": ("probs", "logits")}, ValueError, "logits only"),
    ((P, P), {"axis": 2}, ValueError, "axis 2 is out of bounds"),
    ((P, P), {"axis": 1.0}, TypeError, "axis must be an integer"),
    ((P, P), {"where": np.ones(3, bool)}, ValueError, r"where has shape \(3,\).*\(4,\)"),
    ((P, P), {"where": np.ones(4)}, TypeError, "where has dtype float64; expected bool"),
    ((P, P), {"weights": [1, 2]}, ValueError, r"weights has shape \(2,\)"),
    ((P, P), {"weights": [1, 2, -3, 4]}, ValueError, "element 2 is -3"),
    ((P, P), {"weights": [1, np.nan, 3, 4]}, ValueError, "element 1 is NaN"),
    ((P, P), {"weights": np.ones(4, complex)}, TypeError, "complex128"),
    ((P, P), {"reduction": "avg"}, ValueError, "none, sum, mean, batchmean, got 'avg'"),
    ((P[0], P[0]), {"reduction": "batchmean"}, ValueError, "batch axis"),
    ((P, P), {"denominator": 2.0}, ValueError, "reduction='mean'"),
    ((P, P), {"denominator": 0.0, "reduction": "mean"}, ValueError, "denominator must be positive"),
    ((P, P), {"denominator": np.nan, "reduction": "mean"}, ValueError, "denominator"),
    ((np.empty((4, 0)), np.empty((4, 0))), {}, ValueError, r"\(4, 0\)"),
]


@pytest.mark.parametrize(("arguments", "options", "exception", "message"), ROWS)
def test_divergences(arguments, options, exception, message):
    with pytest.raises(exception, match=message):
        kldiv.kl(*arguments, **options)
    out = np.full((4, 5), 7.0)
    with pytest.raises(exception, match=message):
        kldiv.value_and_grad(kldiv.kl, *arguments, out=out, **options)
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (kldiv.jensen_shannon, {"beta": 1.5}, "beta must be from 0 to 1, got 1.5"),
        (kldiv.jensen_shannon, {"beta": np.nan}, "beta"),
        (kldiv.renyi, {"alpha": 0}, "alpha must be from 1e-300 to 1e300"),
        (kldiv.renyi, {"alpha": -1}, "alpha"),
        (kldiv.renyi, {"alpha": np.inf}, "alpha"),
    ],
)
def test_parameters(function, options, message):
    with pytest.raises(ValueError, match=message):
        function(P, P, **options)


@pytest.mark.parametrize(
    ("call", "exception", "message"),
    [
        (lambda: kldiv.pairwise(P, P), TypeError, "takes a divergence of kldiv, got ndarray$"),
        (lambda: kldiv.value_and_grad(P, P), TypeError, "a value a row, not ndarray$"),
        (lambda: kldiv.set_num_threads(-1), ValueError, "from 1 to 256, got -1$"),
    ],
)
def test_what_was_given_is_named_in_a_line(call, exception, message):
    with pytest.raises(exception, match=message):
        call()


LABELS = np.array([0, 1, 2, 3])
LOSSES = [
    ((P, np.array([0, 1, 5, 9])), {}, IndexError, "label 5 in row 2 is out of range for 5 classes"),
    ((P, np.array([0, -1, 2, 3])), {}, IndexError, r"label -1 in row 1.*ignore_index is -100"),
    ((P, np.array([0, 1, 2, -100])), {"ignore_index": None}, IndexError, "label -100 in row 3"),
    ((P, np.array([0, 1, 2, 2**64 - 1], np.uint64)), {}, IndexError, f"label {2**64 - 1} in row 3"),
    ((P, LABELS[:3]), {}, ValueError, r"targets has shape \(3,\) but logits has shape \(4, 5\)"),
    ((P, LABELS[:, None]), {}, ValueError, r"\(4, 1\)"),
    ((P, LABELS > 1), {}, TypeError, "has dtype bool; class indices are integers"),
    ((P, LABELS.astype(float)), {}, ValueError, "float64 and the batch shape.*are integers"),
    ((P, P[:, :3]), {}, ValueError, r"\(4, 3\)"),
    ((P, P), {"ignore_index": 3}, ValueError, "class indices only"),
    ((P, LABELS), {"ignore_index": 1.5}, TypeError, "ignore_index|integer|index"),
    ((P, LABELS), {"label_smoothing": 1.1}, ValueError, "label_smoothing must be from 0 to 1"),
    ((P, LABELS), {"label_smoothing": -0.1}, ValueError, "label_smoothing"),
    ((P, LABELS), {"class_weights": np.ones(4)}, ValueError, r"class_weights has shape \(4,\)"),
    ((P, LABELS), {"class_weights": [1, 1, -1, 1, 1]}, ValueError, "element 2 is -1"),
    ((P, LABELS), {"class_weights": list("abcde")}, TypeError, "class_weights"),
    ((P, LABELS), {"z_loss": -1.0}, ValueError, "z_loss"),
    ((P, LABELS), {"z_loss": 1.0, "space": "log_probs"}, ValueError, "logits only"),
    ((P, LABELS), {"softcap": 0.0}, ValueError, "softcap must be from 1e-30 to 1e30"),
    ((P, LABELS), {"softcap": 3.0, "space": "probs"}, ValueError, "logits only"),
    ((P, LABELS), {"temperature": 2.0, "space": "log_probs"}, ValueError, "logits only"),
    ((P, LABELS), {"space": ("logits", "probs")}, ValueError, "space must be one of"),
    ((P, LABELS), {"temperature": 0}, ValueError, "temperature"),
]


@pytest.mark.parametrize(("arguments", "options", "exception", "message"), LOSSES)
def test_cross_entropy(arguments, options, exception, message):
    out = np.full((4, 5), 7.0)
    with pytest.raises(exception, match=message):
        kldiv.value_and_grad(kldiv.cross_entropy, *arguments, out=out, **options)
    assert (out == 7).all()


def test_labels_of_rows_left_out_may_be_anything():
    labels = np.array([0, 77, -5, 3])
    where = np.array([True, False, False, True])
    assert np.isfinite(kldiv.cross_entropy(P, labels, where=where)).all()
    assert np.isfinite(kldiv.gather_log_probs(P, labels, where=where)).all()
    assert np.isfinite(kldiv.compare(P, P, labels, where=where).kl).all()


@pytest.mark.parametrize(
    ("options", "exception", "message"),
    [
        ({"wrt": "x"}, ValueError, "'p', 'q', got 'x'"),
        ({"wrt": ()}, ValueError, "wrt"),
        ({"wrt": 1}, ValueError, "wrt must be one or several of 'p', 'q', got 1"),
        ({"wrt": [["p"]]}, ValueError, "wrt"),
        ({"wrt": ("q", "q")}, ValueError, "wrt"),
        ({"out": np.zeros((4, 6))}, ValueError, r"out has shape \(4, 6\) but q has shape \(4, 5\)"),
        ({"out": np.zeros((4, 5), int)}, TypeError, "out has dtype int64; expected float64"),
        ({"out": np.zeros((4, 5), np.float32)}, TypeError, "float32"),
        ({"out": [[0.0] * 5] * 4}, TypeError, "out must be a NumPy array, got list"),
        ({"out": np.broadcast_to(0.0, (4, 5))}, ValueError, "read-only"),
        (
            {"wrt": ("p", "q"), "out": (np.zeros((4, 5)),)},
            ValueError,
            "1 arrays for the 2 gradients",
        ),
        ({"wrt": ("p", "q"), "out": (P.copy(),) * 2}, ValueError, "overlap"),
        ({"grad_output": np.ones(3)}, ValueError, r"grad_output has shape \(3,\)"),
        (
            {"grad_output": np.ones(4), "reduction": "sum"},
            ValueError,
            r"grad_output has shape \(4,\)",
        ),
    ],
)
def test_value_and_grad(options, exception, message):
    with pytest.raises(exception, match=message):
        kldiv.value_and_grad(kldiv.kl, P, P, **options)


def test_functions_without_a_gradient():
    for function in (kldiv.log_softmax, np.sum, "kl"):
        with pytest.raises(TypeError, match="value_and_grad differentiates"):
            kldiv.value_and_grad(function, P)


def test_outputs_whose_rows_overlap():
    memory = np.zeros(8)
    out = np.lib.stride_tricks.as_strided(memory, (4, 5), (8, 8))
    with pytest.raises(ValueError, match="overlap"):
        kldiv.value_and_grad(kldiv.kl, P, P + 1, out=out)
    assert not memory.any()


@pytest.mark.parametrize("count", [0, -1, 257])
def test_thread_counts(count):
    with pytest.raises(ValueError, match="from 1 to 256"):
        kldiv.set_num_threads(count)
    with pytest.raises(TypeError):
        kldiv.set_num_threads(1.5)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("KLDIV_ISA", "sse9"), ("KLDIV_NUM_THREADS", "many"), ("KLDIV_NUM_THREADS", "0")],
)
def test_environment(variable, value):
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", "import kldiv"],
        env={**os.environ, variable: value},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f'ValueError: {variable}="{value}"' in done.stderr.splitlines()[-1]
