"""Universal logit distillation: rows of different classes, by rank and by name."""

import ml_dtypes
import numpy as np
import pytest

import kldiv
import oracle

DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
BOUNDS = {"float64": 1e-13, "float32": 1e-6, "float16": 1e-6, "bfloat16": 1e-6}
IDS = [4, 0, 7, 2], [1, 3, 8, 0]


def rows(dtype=np.float64, width=(9, 14), count=2, seed=3):
    rng = np.random.default_rng(seed)
    return tuple((2 * rng.normal(size=(count, n))).astype(dtype) for n in width)


def in_space(z, space):
    if space == "logits":
        return z
    z = z.astype(np.float64)
    ln_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return ln_p if space == "log_probs" else np.exp(ln_p)


def error(found, expected):
    """‖error‖/‖expected‖."""
    expected = np.array(expected, np.float64)
    scale = np.linalg.norm(expected)
    return np.linalg.norm(np.asarray(found, np.float64) - expected) / (scale or 1.0)


OPTIONS = {
    "by rank": {},
    "two temperatures": {"temperature": (0.5, 3.0)},
    "shared": {"ids": IDS},
    "shared, beta 0.2": {"ids": IDS, "beta": 0.2, "weights": (0.7, 1.9)},
    "shared, kl": {"ids": IDS, "beta": 0.0, "temperature": (2.0, 1.0)},
    "shared, reverse_kl": {"ids": IDS, "beta": 1.0},
    "shared alone": {"ids": IDS, "weights": (1.0, 0.0)},
    "nothing shared": {"ids": ([], []), "weights": (1.0, 2.0)},
    "all of p shared": {"ids": (range(9), range(9)), "weights": (1.0, 0.5)},
}


def given(ids=None, weights=None, **options):
    """The options of the oracle as those of the function."""
    if ids is not None:
        options["id_map"] = tuple(list(side) for side in ids)
    if weights is not None:
        options["matched_weight"], options["unmatched_weight"] = weights
    return options


@pytest.mark.parametrize("space", ["logits", "log_probs", "probs", ("logits", "probs")], ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_spaces_and_options(name, space, isa):
    options = OPTIONS[name]
    if space != "logits" and "temperature" in options:
        pytest.skip("temperatures are for logits")
    p, q = rows()
    spaces = (space, space) if isinstance(space, str) else space
    p, q = in_space(p, spaces[0]), in_space(q, spaces[1])
    found, gradients = kldiv.value_and_grad(
        kldiv.uld, p, q, space=space, wrt=("p", "q"), **given(**options)
    )
    of_rows = list(zip(p, q, strict=True))
    assert error(found, [oracle.uld(*row, space=space, **options) for row in of_rows]) < 1e-13
    for side, gradient in zip("pq", gradients, strict=True):
        expected = [oracle.uld_gradient(*row, side, space=space, **options) for row in of_rows]
        assert error(gradient, expected) < 1e-13


@pytest.mark.parametrize("name", ["by rank", "shared, beta 0.2"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype, name):
    options = OPTIONS[name]
    p, q = rows(DTYPES[dtype])
    q[1, 5] = -np.inf
    found, gradient = kldiv.value_and_grad(kldiv.uld, p, q, **given(**options))
    assert found.dtype == gradient.dtype == (np.float64 if dtype == "float64" else np.float32)
    np.testing.assert_array_equal(kldiv.uld(p, q, **given(**options)), found)
    of_rows = list(zip(p, q, strict=True))
    assert error(found, [oracle.uld(*row, **options) for row in of_rows]) < BOUNDS[dtype]
    expected = [oracle.uld_gradient(*row, "q", **options) for row in of_rows]
    assert error(gradient, expected) < BOUNDS[dtype]
    out = np.empty_like(q)
    kldiv.value_and_grad(kldiv.uld, p, q, out=out, **given(**options))
    assert error(out, expected) < 4 * float(ml_dtypes.finfo(out.dtype).eps)


@pytest.mark.parametrize("gap", [1e-3, 1e-7, 1e-12])
def test_close_rows(gap):
    """What is left of the difference is right, however little that is."""
    rng = np.random.default_rng(1)
    p, q = rng.normal(size=(1, 200)) * 3, np.zeros((1, 210))
    q[:, rng.permutation(210)[:200]] = p + gap * rng.normal(size=p.shape)
    q[q == 0] = -np.inf
    found = kldiv.uld(p, q)[0]
    assert error(found, oracle.uld(p[0], q[0])) < 1e-13 + 1e-16 / gap


def test_wide_rows(threads):
    """Against NumPy's sort, in extended precision; the same bits for any number of threads."""
    p, q = rows(np.float32, (20_000, 140_000), count=3)
    wide = [z.astype(np.longdouble) for z in (p, q)]
    p_p, p_q = (np.exp(z - np.log(np.exp(z).sum(-1, keepdims=True))) for z in wide)
    padded = np.zeros_like(p_q)
    padded[:, : p_p.shape[1]] = -np.sort(-p_p, -1)
    order = np.argsort(-q, -1, kind="stable")
    difference = np.take_along_axis(p_q, order, -1) - padded
    slopes = np.empty_like(p_q)
    np.put_along_axis(slopes, order, np.sign(difference), -1)
    slopes = p_q * (slopes - (p_q * slopes).sum(-1, keepdims=True))
    ids = np.arange(5_000) * 4, np.arange(5_000) * 3
    seen = set()
    for count in (1, 2, 3):
        threads(count)
        found, gradient = kldiv.value_and_grad(kldiv.uld, p, q)
        mixed = kldiv.value_and_grad(kldiv.uld, p, q, id_map=ids, wrt="p")
        seen.add(b"".join(one.tobytes() for one in (found, gradient, *mixed)))
    assert len(seen) == 1
    assert error(found, np.abs(difference).sum(-1)) < 1e-7
    assert error(gradient, slopes) < 1e-6


def test_ties():
    """Of classes that tie the lower one is first, and equal probabilities have no slope."""
    p, q = [0.5, 0.25, 0.25], [0.4, 0.4, 0.2]
    value, (of_p, of_q) = kldiv.value_and_grad(kldiv.uld, p, q, space="probs", wrt=("p", "q"))
    assert value == pytest.approx(0.3)
    np.testing.assert_array_equal(of_p, [1, -1, 1])
    np.testing.assert_array_equal(of_q, [-1, 1, -1])
    p = np.array([1.0, -0.0, 3.0, 0.0, 2.0])
    value, gradient = kldiv.value_and_grad(kldiv.uld, p, p[[2, 4, 0, 3, 1]] + 7)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_rows_that_cannot_be_computed_with():
    nan, inf = np.nan, np.inf
    q = np.array([[0.0, nan], [inf, 0.0], [-inf, -inf], [0.0, -inf], [nan, 0.0]])
    p = np.zeros((5, 3))
    where = [True, True, True, True, False]
    for id_map in (None, ([1], [0])):
        value, gradients = kldiv.value_and_grad(
            kldiv.uld, p, q, id_map=id_map, where=where, wrt=("p", "q")
        )
        for found in (value[:, None], *gradients):
            assert np.isnan(found[:3]).all()
            assert np.isfinite(found[3]).all()
            assert not found[4].any()
        assert kldiv.uld(p, q, id_map=id_map, where=[False], reduction="mean") == 0
    kldiv._probabilities._shown.clear()
    with pytest.warns(kldiv.NegativeProbabilityWarning, match="q holds"):
        found = kldiv.uld([0.5, 0.5], [1.2, -0.2], space="probs")
    assert np.isnan(found)


def test_infinite_shared_classes():
    p, q = np.zeros((1, 3)), np.array([[-np.inf, 0.0]])
    options = {"id_map": ([1], [0]), "beta": 0.0}
    value, gradient = kldiv.value_and_grad(kldiv.uld, p, q, **options)
    assert value == np.inf
    assert np.isnan(gradient).all()
    left_out = kldiv.uld(p, q, matched_weight=0.0, unmatched_weight=1.0, **options)
    assert left_out == pytest.approx(1.0)


def trl(student, teacher, mapping, beta, weights):
    """The hybrid loss of TRL's GOLDTrainer for rows of probabilities, as it states it."""
    t, s = (np.array(one) for one in zip(*sorted(mapping.items()), strict=True))
    of_student, of_teacher = (
        np.log(np.maximum(one, 1e-8)) for one in (student[:, s], teacher[:, t])
    )

    def kl_div(inputs, targets):
        return (np.exp(targets) * (targets - inputs)).sum(-1)

    if beta == 0:
        jsd = kl_div(of_student, of_teacher)
    elif beta == 1:
        jsd = kl_div(of_teacher, of_student)
    else:
        m = np.logaddexp(of_student + np.log1p(-beta), of_teacher + np.log(beta))
        jsd = beta * kl_div(m, of_teacher) + (1 - beta) * kl_div(m, of_student)
    others = [np.delete(teacher, t, -1), np.delete(student, s, -1)]
    width = max(one.shape[-1] for one in others)
    ranked = [np.pad(-np.sort(-one, -1), ((0, 0), (0, width - one.shape[-1]))) for one in others]
    unmatched = np.abs(ranked[0] - ranked[1]).sum() / len(student)
    matched_weight, unmatched_weight = weights or (
        len(t) / teacher.shape[-1],
        1 - len(t) / teacher.shape[-1],
    )
    return matched_weight * jsd.mean() + unmatched_weight * unmatched


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("weights", [None, (0.6, 0.4)])
def test_the_hybrid_loss_of_trl(beta, weights):
    rng = np.random.default_rng(8)
    # Heads of a few likely tokens before a tail of all others, as language models have them.
    teacher, student = (
        rng.gumbel(size=(6, n)) - 0.8 * np.log1p(rng.permuted(np.arange(n))) for n in (1500, 1200)
    )
    mapping = dict(zip(rng.permutation(1500)[:900], rng.permutation(1200)[:900], strict=True))
    p, q = (in_space(z / t, "probs") for z, t in ((teacher, 2.0), (student, 1.5)))
    assert min(p.min(), q.min()) > 1e-8
    found = kldiv.uld(
        teacher,
        student,
        temperature=(2.0, 1.5),
        reduction="mean",
        **given((mapping.keys(), mapping.values()), weights, beta=beta),
    )
    assert found == pytest.approx(trl(q, p, mapping, beta, weights), rel=1e-12)


def test_axes_classes_and_outputs():
    p, q = rows()
    expected, (of_p, of_q) = kldiv.value_and_grad(
        kldiv.uld, p, q, wrt=("p", "q"), weights=[0.5, 2.0], grad_output=[3.0, 0.25]
    )
    found, turned = kldiv.value_and_grad(
        kldiv.uld, p.T, q.T, axis=0, wrt=("p", "q"), weights=[0.5, 2.0], grad_output=[3.0, 0.25]
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(turned[0].T, of_p)
    np.testing.assert_array_equal(turned[1].T, of_q)
    padded = np.full((2, 20), np.nan)
    padded[:, :14] = q
    value, gradient = kldiv.value_and_grad(
        kldiv.uld, p, padded, classes=(9, 14), reduction="batchmean"
    )
    assert value == pytest.approx(kldiv.uld(p, q).sum() / 2)
    assert not gradient[:, 14:].any()
    # Gradients over the rows, and over each other's.
    memory = np.concatenate([p, q], axis=1)
    over = memory[:, :14], memory[:, 14:]
    one, other = memory[:, :9], memory[:, 9:]
    _, written = kldiv.value_and_grad(
        kldiv.uld, one, other, wrt="q", out=over[0], weights=[0.5, 2.0], grad_output=[3.0, 0.25]
    )
    np.testing.assert_array_equal(written, of_q)
    kldiv.value_and_grad(kldiv.uld, p, q, wrt="q", out=q, weights=[0.5, 2], grad_output=[3, 0.25])
    np.testing.assert_array_equal(q, of_q)


def test_outputs_over_ids():
    p, q = rows(count=1)
    ids = np.array([3, 1], np.int64)
    memory = np.zeros(14)
    memory[:2] = ids.view(np.float64)
    options = {"matched_weight": 1.0, "unmatched_weight": 1.0}
    expected = kldiv.value_and_grad(kldiv.uld, p, q, id_map=(ids, ids), **options)[1]
    shared = memory[:2].view(np.int64)
    out = memory[None]
    kldiv.value_and_grad(kldiv.uld, p, q, id_map=(shared, shared), out=out, **options)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "uint32", "uint64"])
def test_ids_of_any_integers(dtype):
    p, q = rows()
    expected = kldiv.uld(p, q, id_map=IDS)
    np.testing.assert_array_equal(
        kldiv.uld(p, q, id_map=tuple(np.array(ids, dtype) for ids in IDS)), expected
    )


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"id_map": ([9], [0])}, ValueError, r"p_ids\[0\] is 9, out of range for 9 classes"),
        ({"id_map": ([1, 2], [0, -1])}, ValueError, r"q_ids\[1\] is -1, out of range"),
        ({"id_map": ([1, 2, 1], [0, 1, 2])}, ValueError, r"p_ids\[2\] is 1, which stands before"),
        ({"id_map": ([1, 2], [0])}, ValueError, r"shapes \(2,\) and \(1,\)"),
        ({"id_map": ([[1]], [[0]])}, ValueError, r"one axis"),
        ({"id_map": ([1.0], [0])}, TypeError, "p_ids of id_map has dtype float64"),
        ({"id_map": ([True], [0])}, TypeError, "p_ids of id_map has dtype bool"),
        ({"id_map": np.zeros((2, 2), int)}, TypeError, r"pairs\[:, 0\]"),
        ({"id_map": {1: 2, 3: 4}}, TypeError, "must be a pair"),
        ({"id_map": (np.array([2**63], np.uint64), [0])}, ValueError, "out of range"),
        ({"beta": 0.3}, ValueError, "beta applies with id_map only"),
        ({"matched_weight": 1.0}, ValueError, "apply with id_map only"),
        ({"id_map": IDS, "matched_weight": 1.0}, ValueError, "given together"),
        (
            {"id_map": IDS, "matched_weight": -1.0, "unmatched_weight": 1},
            ValueError,
            "matched_weight must be finite and not negative, got -1",
        ),
        ({"id_map": IDS, "beta": 1.5}, ValueError, "beta must be from 0 to 1, got 1.5"),
        ({"id_map": IDS, "beta": "0"}, TypeError, "beta must be a number"),
        ({"classes": (9, 15)}, ValueError, "classes is 15, but q has 14"),
        ({"temperature": 0.0}, ValueError, "temperature must be positive"),
    ],
)
def test_refused(options, kind, message):
    p, q = rows()
    out = np.full_like(q, 7.0)
    with pytest.raises(kind, match=message):
        kldiv.value_and_grad(kldiv.uld, p, q, out=out, **options)
    assert (out == 7.0).all()


def test_batches_are_of_one_shape():
    p, q = rows()
    with pytest.raises(ValueError, match=r"p has the batch shape \(2,\) but q \(1,\)"):
        kldiv.uld(p, q[:1])
    with pytest.raises(ValueError, match="without a class"):
        kldiv.uld(p, q[:, :0])
