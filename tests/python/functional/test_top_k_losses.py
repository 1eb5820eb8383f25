"""Losses from a `TopK`: every rule against its definition, and against the dense loss."""

import itertools

import ml_dtypes
import numpy as np
import pytest

import kldiv
import oracle
from kldiv._kldiv import DIVERGENCES, RULES
from samples import USUAL

CLASSES, K = 12, 5
DTYPES = {"float64": np.float64, "float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
BOUNDS = {"float64": 1e-13, "float32": 1e-6, "bfloat16": 1e-6}

LOSSES = [*USUAL, ("cross_entropy", {})]
SUMS_OF_TERMS = {"kl", "reverse_kl", "jeffreys", "jensen_shannon", "total_variation"}
SUMS_OF_TERMS |= {"skew_kl", "skew_reverse_kl", "chi_squared", "cross_entropy"}


def has_meaning(rule, loss, options):
    if rule == "sampled":
        return loss in ("kl", "cross_entropy")
    if rule == "truncate":
        return loss in SUMS_OF_TERMS
    if rule == "renormalize_p" and loss != "cross_entropy":
        described = DIVERGENCES[loss]
        parameter = options[described.parameter.name] if described.parameter else 0.0
        return not kldiv._kldiv.infinite_where(loss, parameter)[1]
    return True


CASES = [
    (rule, loss, options)
    for rule, (loss, options) in itertools.product(RULES, LOSSES)
    if has_meaning(rule, loss, options)
]
OTHERS = [case for case in itertools.product(RULES, LOSSES) if (case[0], *case[1]) not in CASES]


def call(loss, top_k, z, **options):
    if loss == "cross_entropy":
        return kldiv.cross_entropy(z, top_k, **options)
    return getattr(kldiv, loss)(top_k, z, **options)


def value_and_grad(loss, top_k, z, **options):
    if loss == "cross_entropy":
        return kldiv.value_and_grad(kldiv.cross_entropy, z, top_k, **options)
    return kldiv.value_and_grad(getattr(kldiv, loss), top_k, z, **options)


def largest(rng, rows, k):
    """Ids and log-probabilities of the k largest of each row, shuffled."""
    log_probs = kldiv.log_softmax(rows)
    ids = np.argsort(-log_probs, axis=-1, kind="stable")[..., :k]
    ids = rng.permuted(ids, axis=-1)
    return ids, np.take_along_axis(log_probs, ids, axis=-1)


def kept(rng, rows, k, weights=False):
    ids, log_probs = largest(rng, rows, k)
    drawn = rng.uniform(0, 0.5, ids.shape) if weights else None
    return kldiv.TopK(ids, log_probs, classes=rows.shape[-1], weights=drawn)


def error(found, expected):
    """‖error‖/‖expected‖."""
    expected = np.array(expected, np.float64)
    scale = np.linalg.norm(expected)
    return np.linalg.norm(np.asarray(found, np.float64) - expected) / (scale or 1.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rule", "loss", "options"), CASES)
def test_value_and_gradient_are_those_of_the_rule(rule, loss, options, dtype):
    rng = np.random.default_rng(5)
    teacher = (2 * rng.normal(size=(2, CLASSES))).astype(
        np.float64 if dtype == "float64" else np.float32
    )
    z = (2 * rng.normal(size=(2, CLASSES))).astype(DTYPES[dtype])
    if rule not in ("uniform_tail", "floor"):
        z[1, np.argmin(teacher[1])] = -np.inf  # a class that neither keeps
    top_k = kept(rng, teacher, K, rule == "sampled")
    found, gradient = value_and_grad(loss, top_k, z, rule=rule, temperature=(1.0, 1.25), **options)
    assert found.dtype == (np.float64 if dtype == "float64" else np.float32)
    np.testing.assert_array_equal(
        call(loss, top_k, z, rule=rule, temperature=(1.0, 1.25), **options), found
    )
    for row in range(2):
        arguments = (loss, top_k.ids[row].tolist(), top_k.values[row].astype(float).tolist())
        extra = {"temperature": (1, 1.25), **options}
        if rule == "sampled":
            extra["weights"] = top_k.weights[row].tolist()
        numbers = z[row].astype(float).tolist()
        assert (
            error(found[row], oracle.sparse_loss(*arguments, numbers, rule, **extra))
            <= (BOUNDS[dtype])
        )
        if DIVERGENCES.get(loss) and DIVERGENCES[loss].detached:
            continue
        expected = oracle.sparse_gradient(*arguments, numbers, rule, **extra)
        assert error(gradient[row], expected) <= BOUNDS[dtype]


@pytest.mark.parametrize(("rule", "loss"), OTHERS, ids=str)
def test_a_rule_that_gives_a_loss_no_meaning_is_refused(rule, loss):
    loss, options = loss
    rng = np.random.default_rng(5)
    top_k = kept(rng, rng.normal(size=(2, CLASSES)), K, rule == "sampled")
    with pytest.raises(ValueError, match=f'rule "{rule}" gives .* no meaning'):
        call(loss, top_k, np.zeros((2, CLASSES)), rule=rule, **options)


def test_all_classes_kept_are_the_dense_loss():
    rng = np.random.default_rng(6)
    teacher, z = rng.normal(size=(2, 3, 700)) * 3
    top_k = kept(rng, teacher, 700)
    for rule in sorted(set(RULES) - {"sampled"}):
        for loss, options in LOSSES:
            if (rule, loss, options) not in CASES and rule != "renormalize_p":
                continue
            if loss == "cross_entropy":
                dense = kldiv.cross_entropy, z, np.exp(kldiv.log_softmax(teacher))
            else:
                dense = getattr(kldiv, loss), kldiv.log_softmax(teacher), z
                options = options | {"space": ("log_probs", "logits")}
            value, gradient = kldiv.value_and_grad(*dense, **options)
            options.pop("space", None)
            found, slopes = value_and_grad(loss, top_k, z, rule=rule, **options)
            np.testing.assert_allclose(found, value, rtol=1e-12, err_msg=f"{rule} {loss}")
            assert error(slopes, gradient) < 1e-12, (rule, loss)


@pytest.mark.costly
@pytest.mark.parametrize(
    "rule", ["renormalize", "tail", "truncate", "renormalize_p", "uniform_tail"]
)
@pytest.mark.parametrize("noise", [1.0, 1e-3])
def test_rows_of_several_blocks(rule, noise, isa):
    """In f32 lanes, also where student and teacher are close outside of the classes kept too."""
    rng = np.random.default_rng(7)
    teacher = (3 * rng.normal(size=(2, 9000))).astype(np.float32)
    z = (teacher + noise * rng.normal(size=teacher.shape)).astype(np.float32)
    top_k = kept(rng, teacher, 40)
    found, gradient = value_and_grad("kl", top_k, z, rule=rule)
    assert found.dtype == np.float32
    wide, slopes = value_and_grad("kl", top_k, z.astype(np.float64), rule=rule)
    assert error(gradient, slopes) <= 1e-6
    for row in range(2):
        arguments = ("kl", top_k.ids[row].tolist(), top_k.values[row].tolist(), z[row].tolist())
        expected = oracle.sparse_loss(*arguments, rule)
        assert abs(found[row] - expected) <= 1e-6 * abs(expected)
        assert abs(wide[row] - expected) <= 1e-11 * abs(expected)


@pytest.mark.parametrize("kept_logit", [6e18, -1e9, -1e5])
def test_a_uniform_tail_beside_a_kept_logit_far_from_the_others(kept_logit, isa):
    z = (3 * np.random.default_rng(0).standard_normal((1, 1_000))).astype(np.float32)
    z[0, 500] = kept_logit
    top_k = kldiv.TopK([[7, 500]], np.log([[0.9, 1e-12]]).astype(np.float32), classes=1_000)
    found = value_and_grad("kl", top_k, z, rule="uniform_tail")
    expected = value_and_grad("kl", top_k, z.astype(np.float64), rule="uniform_tail")
    for one, other in zip(found, expected, strict=True):
        assert error(one, other) <= 1e-6


@pytest.mark.parametrize("dtype", [*DTYPES, "float16"])
def test_the_same_bits_for_any_threads_and_alone(dtype):
    rng = np.random.default_rng(8)
    z = (3 * rng.normal(size=(5, 20_000))).astype(DTYPES.get(dtype, np.float16))
    top_k = kept(rng, (3 * rng.normal(size=z.shape)).astype(np.float32), 64)
    threads = kldiv.get_num_threads()
    for rule in sorted(set(RULES) - {"sampled"}):
        value, gradient = value_and_grad("kl", top_k, z, rule=rule)
        try:
            kldiv.set_num_threads(1)
            one = value_and_grad("kl", top_k, z, rule=rule)
        finally:
            kldiv.set_num_threads(threads)
        alone = kldiv.TopK(top_k.ids[2], top_k.values[2], classes=z.shape[1])
        of_alone = value_and_grad("kl", alone, z[2], rule=rule)
        np.testing.assert_array_equal(one[0], value)
        np.testing.assert_array_equal(one[1], gradient)
        assert of_alone[0] == value[2]
        np.testing.assert_array_equal(of_alone[1], gradient[2])
        out = z.copy()
        in_place = value_and_grad("kl", top_k, out, rule=rule, out=out)
        np.testing.assert_array_equal(in_place[0], value)
        np.testing.assert_array_equal(out, gradient.astype(z.dtype))


def test_temperatures_of_a_teacher():
    rng = np.random.default_rng(9)
    top_k = kept(rng, rng.normal(size=(1, CLASSES)) * 2, K)
    z = rng.normal(size=(1, CLASSES)) * 2
    arguments = ("kl", top_k.ids[0].tolist(), top_k.values[0].tolist(), z[0].tolist())
    for rule in sorted(set(RULES) - {"sampled"}):
        tempered = {"temperature": 2.0, "temper_after": True}
        found = kldiv.kl(top_k, z, rule=rule, **tempered)
        expected = oracle.sparse_loss(*arguments, rule, temperature=(2, 2), temper_after=True)
        assert abs(found[0] - expected) <= 1e-13 * abs(expected)
        if rule in ("renormalize", "renormalize_p"):
            assert kldiv.kl(top_k, z, rule=rule, temperature=2.0) == found
        else:
            with pytest.raises(ValueError, match="not known at another temperature than 1"):
                kldiv.kl(top_k, z, rule=rule, temperature=2.0)


def test_logits_without_a_normalizer():
    rng = np.random.default_rng(10)
    z = rng.normal(size=(1, CLASSES))
    ids, log_probs = largest(rng, rng.normal(size=(1, CLASSES)), K)
    bare = kldiv.TopK(ids, logits=log_probs + 7.0, classes=CLASSES)
    whole = kldiv.TopK(ids, logits=log_probs + 7.0, normalizer=[7.0], classes=CLASSES)
    stated = kldiv.TopK(ids, log_probs, classes=CLASSES)
    for rule in sorted(set(RULES) - {"sampled"}):
        expected = kldiv.kl(stated, z, rule=rule)
        np.testing.assert_allclose(kldiv.kl(whole, z, rule=rule), expected, rtol=1e-12)
        if RULES[rule].needs_normalizer:
            with pytest.raises(ValueError, match="logits without a normalizer"):
                kldiv.kl(bare, z, rule=rule)
        else:
            np.testing.assert_allclose(kldiv.kl(bare, z, rule=rule), expected, rtol=1e-12)


def test_ragged_rows_and_rows_without_a_class():
    rng = np.random.default_rng(11)
    z = rng.normal(size=(3, CLASSES))
    ids, log_probs = largest(rng, rng.normal(size=(3, CLASSES)), K)
    ragged = kldiv.TopK(
        np.concatenate([ids[0], ids[2, :2]]),
        np.concatenate([log_probs[0], log_probs[2, :2]]),
        offsets=[0, K, K, K + 2],
        classes=CLASSES,
    )
    for rule in sorted(set(RULES) - {"sampled"}):
        found, gradient = value_and_grad("kl", ragged, z, rule=rule)
        for row, k in ((0, K), (2, 2)):
            one = kldiv.TopK(ids[row, :k], log_probs[row, :k], classes=CLASSES)
            value, slopes = value_and_grad("kl", one, z[row], rule=rule)
            assert found[row] == value
            np.testing.assert_array_equal(gradient[row], slopes)
        if rule in ("renormalize", "renormalize_p"):
            assert np.isnan(found[1])
            assert np.isnan(gradient[1]).all()
        elif rule in ("tail", "truncate"):
            assert found[1] == 0
            assert not gradient[1].any()
    masked, gradient = value_and_grad("kl", ragged, z, rule="renormalize", where=ragged.counts > 0)
    assert masked[1] == 0
    assert not gradient[1].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "p is a TopK: rule says what its other classes are taken for"),
        ({"rule": "tails"}, "rule must be one of 'renormalize', 'tail'"),
        ({"rule": ("tail", 1.0)}, "rule 'tail' has no parameter"),
        ({"rule": ("floor", 1.0)}, "floor must be a log-probability"),
        ({"rule": "tail", "space": "probs"}, "a TopK says itself what it holds"),
        ({"rule": "tail", "temper_after": 1}, "temper_after must be True or False"),
        ({"rule": "sampled"}, "the teacher has no weights"),
    ],
)
def test_what_is_refused(options, message):
    rng = np.random.default_rng(12)
    top_k = kept(rng, rng.normal(size=(2, CLASSES)), K)
    out = np.ones((2, CLASSES))
    with pytest.raises((ValueError, TypeError), match=message):
        kldiv.value_and_grad(kldiv.kl, top_k, np.zeros((2, CLASSES)), out=out, **options)
    assert (out == 1).all()


def test_shapes_that_do_not_fit():
    rng = np.random.default_rng(13)
    top_k = kept(rng, rng.normal(size=(2, CLASSES)), K)
    with pytest.raises(ValueError, match=f"of rows of {CLASSES} classes, but q has {CLASSES + 4}"):
        kldiv.kl(top_k, np.zeros((2, CLASSES + 4)), rule="tail")
    padded = np.full((2, CLASSES + 4), 3.0)
    padded[:, :CLASSES] = 0.0
    assert (kldiv.kl(top_k, padded, rule="tail", classes=CLASSES) > 0).all()
    with pytest.raises(ValueError, match=r"batch shape \(2,\) but q, without its classes, \(3,\)"):
        kldiv.kl(top_k, np.zeros((3, CLASSES)), rule="tail")
    with pytest.raises(ValueError, match=r"apply where p is a kldiv\.TopK"):
        kldiv.kl(np.zeros((2, CLASSES)), np.zeros((2, CLASSES)), rule="tail")
    with pytest.raises(ValueError, match="label_smoothing does not apply"):
        kldiv.cross_entropy(np.zeros((2, CLASSES)), top_k, rule="tail", label_smoothing=0.1)
    with pytest.raises(ValueError, match="wrt must be one or several of 'q'"):
        kldiv.value_and_grad(kldiv.kl, top_k, np.zeros((2, CLASSES)), wrt="p", rule="tail")
