"""Hidden states through an output layer, against dense logits in float64."""

import dataclasses
import json
import re
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import kldiv
from kldiv.evaluation import head
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.evaluate_dumps import evaluate
from kldiv.evaluation.head import Head, HeadPair, check_heads, check_one_head, pre_norm_warning

CLASSES, SIZE, ROWS = 3000, 192, 150
FIELDS = (
    *("kl", "reverse_kl", "jensen_shannon", "total_variation", "entropy_p", "entropy_q"),
    *("confidence_p", "confidence_q", "nll_p", "nll_q"),
)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def weights(rng, classes=CLASSES, size=SIZE, dtype=ml_dtypes.bfloat16):
    return (rng.standard_normal((classes, size)) * 0.05).astype(dtype)


def states(rng, rows=ROWS, size=SIZE):
    """Of rows that are nearly uniform to rows with one likely class."""
    return rng.standard_normal((rows, size)) * rng.uniform(1, 20, (rows, 1))


def labels_of(rng, logits):
    """The most probable class of every other row, any class of the others."""
    labels = rng.integers(0, logits.shape[1], len(logits))
    labels[::2] = logits[::2].argmax(axis=1)
    return labels


def check_fields(found, expected, tolerance=1e-6):
    for name in FIELDS:
        ours, theirs = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, err_msg=name)
    np.testing.assert_array_equal(found.top1_p, expected.top1_p)
    np.testing.assert_array_equal(found.top1_q, expected.top1_q)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("distance", [1e-6, 1e-3, 1.0])
def test_fields_of_dense_logits_in_float64(rng, dtype, distance):
    weight, p = weights(rng, dtype=dtype), states(rng)
    q = p * (1 + distance * rng.standard_normal(p.shape))
    own = weights(rng)
    for pair, w_q in (
        (HeadPair(Head.load(weight)), weight),
        (HeadPair(Head.load(weight), Head.load(own)), own),
    ):
        z_p, z_q = p @ weight.astype(float).T, q @ w_q.astype(float).T
        labels = labels_of(rng, z_p)
        expected = kldiv.compare(z_p, z_q, labels, temperature=1.3)
        check_fields(pair.compare_blocks(p, q, labels, temperature=1.3), expected)
    if distance == 1e-6:
        shared = HeadPair(Head.load(weight)).compare_blocks(p, q)
        assert shared.kl.min() < 1e-10


def test_a_model_against_itself(rng):
    weight, p = weights(rng), states(rng).astype(np.float32)
    for pair in (
        HeadPair(Head.load(weight)),
        HeadPair(Head.load(weight), Head.load(weight.copy())),
    ):
        found = pair.compare_blocks(p, p)
        for name in ("kl", "reverse_kl", "jensen_shannon", "total_variation"):
            assert not getattr(found, name).any(), name
        assert found.same_top.all()
        np.testing.assert_array_equal(found.entropy_p, found.entropy_q)


def test_same_bits_in_blocks_of_any_size_on_any_number_of_threads(rng, monkeypatch):
    pair, p = HeadPair(Head.load(weights(rng))), states(rng)
    q = p + 1e-4 * rng.standard_normal(p.shape)
    everything = pair.compare_blocks(p, q)
    threads = kldiv.get_num_threads()

    def check(rows, count):
        kldiv.set_num_threads(count)
        parts = [
            pair.compare_blocks(p[i : i + rows], q[i : i + rows]) for i in range(0, ROWS, rows)
        ]
        for name in (*FIELDS[:8], "top1_p", "top1_q"):
            values = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(values, getattr(everything, name), err_msg=name)

    try:
        check(7, 1)
        check(100, 3)
        # Logits of one row in memory, and of some that are no multiple of what is fast.
        for rows in (1, 10):
            monkeypatch.setattr(head, "LOGIT_BYTES", 16 * CLASSES * rows)
            assert pair.rows == rows
            check(ROWS, 2)
    finally:
        kldiv.set_num_threads(threads)


def test_rows_left_out_and_rows_without_a_label(rng):
    weight, p = weights(rng, 300, 32), states(rng, 12, 32).reshape(3, 4, 32)
    q = p + 0.1 * rng.standard_normal(p.shape)
    p[0, 1] = np.nan
    where = rng.random((3, 4)) < 0.6
    where[0, 1] = True
    labels = rng.integers(0, 300, (3, 4))
    labels[1] = -100
    labels[~where] = 999
    pair = HeadPair(Head.load(weight))
    z = [one @ weight.astype(float).T for one in (p, q)]
    for mask in (where, np.zeros((3, 4), bool)):
        found = pair.compare_blocks(p, q, labels, where=mask)
        expected = kldiv.compare(*z, labels, where=mask)
        names = [field.name for field in dataclasses.fields(expected) if field.name != "extra"]
        for name in names:
            ours, theirs = getattr(found, name), getattr(expected, name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, err_msg=name)
    assert np.isnan(pair.compare_blocks(p, q).kl).sum() == 1
    assert pair.compare_blocks(p[:0], q[:0]).kl.shape == (0, 4)


@pytest.mark.costly
def test_memory_is_the_head_and_some_rows(tmp_path, rng):
    classes, size = 65_536, 512
    weight = np.zeros((classes, size), np.uint16)
    weight[:] = rng.integers(0x3C00, 0x3D00, size)
    save_file({"lm_head.weight": weight.view(ml_dtypes.bfloat16)}, tmp_path / "head.safetensors")
    code = f"""
import sys, numpy as np
from kldiv.evaluation.head import Head, HeadPair
def peak():
    lines = open("/proc/self/status").read().split("VmHWM:")[1]
    return int(lines.split()[0]) >> 10
before = peak()
pair = HeadPair(Head.load(sys.argv[1]))
states = np.random.default_rng(0).standard_normal((260, {size}))
pair.compare_blocks(states, states)
print(peak() - before, pair.p.weight.dtype)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "head.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, dtype = done.stdout.split()
    assert dtype == "bfloat16"
    assert int(grown) < (classes * size * 2 >> 20) + 330


def write_heads(folder, weight):
    """The layouts that hold one head."""
    other = {"model.norm.weight": weight[0], "model.layers.0.mlp.weight": weight[:4, :4]}
    save_file({"weight": weight, **other}, folder / "weight.safetensors")
    save_file(
        {"model.embed_tokens.weight": weight[::-1].copy(), "lm_head.weight": weight, **other},
        folder / "both.safetensors",
    )
    save_file({"model.embed_tokens.weight": weight, **other}, folder / "tied.safetensors")
    save_file(
        {"model.language_model.lm_head.weight": weight, **other}, folder / "inner.safetensors"
    )
    save_file({"anything": weight, "norm": weight[0]}, folder / "single.safetensors")
    np.save(folder / "head.npy", weight)
    np.save(folder / "columns.npy", np.asfortranarray(weight))
    shards = folder / "shards"
    shards.mkdir()
    save_file(other, shards / "model-00001-of-00002.safetensors")
    save_file({"lm_head.weight": weight}, shards / "model-00002-of-00002.safetensors")
    yield from (
        folder / name for name in ("weight.safetensors", "both.safetensors", "tied.safetensors")
    )
    yield from (
        folder / name
        for name in ("inner.safetensors", "single.safetensors", "head.npy", "columns.npy")
    )
    yield f"{folder / 'both.safetensors'}:lm_head.weight"
    yield shards
    names = dict.fromkeys(other, "model-00001-of-00002.safetensors")
    index = shards / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": names | {"lm_head.weight": "model-00002-of-00002.safetensors"}})
    )
    yield shards
    yield index


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float32])
def test_heads_in_files(tmp_path, rng, dtype):
    weight = weights(rng, 40, 16, dtype)
    for name in write_heads(tmp_path, weight):
        loaded = Head.load(name)
        assert loaded.weight.dtype == dtype, name
        np.testing.assert_array_equal(loaded.weight, weight, err_msg=str(name))
    assert Head.load(tmp_path / "head.npy") is not Head.load(tmp_path / "columns.npy")
    first = Head.load(tmp_path / "head.npy", classes=30)
    np.testing.assert_array_equal(first.weight, weight[:30])
    kept = Head.load(tmp_path / "head.npy")
    assert Head.load(str(tmp_path / "head.npy")) is kept


BAD_HEADS = {
    "two candidates": (
        lambda folder, w: save_file({"a": w, "b": w}, folder / "x.safetensors"),
        "has no tensor weight, lm_head.weight, model.embed_tokens.weight, and 2 of two axes; "
        "choose the head as FILE:TENSOR; its tensors: a (F32 [4, 3]), b (F32 [4, 3])",
    ),
    "quantised": (
        lambda folder, w: save_file(
            {"lm_head.weight": w.astype(np.int8)}, folder / "x.safetensors"
        ),
        "x.safetensors:lm_head.weight has dtype int8; expected floating numbers as head",
    ),
    "a vector": (
        lambda folder, w: save_file({"weight": w[0]}, folder / "x.safetensors"),
        "x.safetensors:weight has shape (3,); expected a head [classes, size]",
    ),
    "not there": (lambda folder, w: None, "no such file"),
    "cut off": (
        lambda folder, w: (
            save_file({"weight": w}, folder / "x.safetensors"),
            (folder / "x.safetensors").write_bytes((folder / "x.safetensors").read_bytes()[:-8]),
        ),
        "x.safetensors is truncated",
    ),
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_files_without_a_head(tmp_path, name):
    write, message = BAD_HEADS[name]
    write(tmp_path, np.ones((4, 3), np.float32))
    with pytest.raises(DumpError, match=re.escape(message)):
        Head.load(tmp_path / "x.safetensors")


def test_arguments_that_do_not_fit(rng):
    pair = HeadPair(Head.load(weights(rng, 30, 16)))
    p = states(rng, 5, 16)
    cases = [
        (lambda: Head.load(p[0]), "head has shape (16,); expected [classes, size]"),
        (lambda: Head.load(p, classes=6), "head has 5 classes, expected at least 6 to score"),
        (
            lambda: pair.compare_blocks(p, p[:4]),
            "hidden_p has shape (5, 16) but hidden_q has shape (4, 16)",
        ),
        (
            lambda: pair.compare_blocks(p[:, :8], p[:, :8]),
            "hidden_p has shape (5, 8), but head has shape (30, 16): expected hidden states of 16",
        ),
        (
            lambda: pair.compare_blocks(p, p, [1, 2]),
            "labels has shape (2,) but hidden_p has shape (5, 16)",
        ),
        (
            lambda: HeadPair(pair.p, Head.load(p, name="other")).compare_blocks(p, p),
            "head has shape (30, 16) but other has shape (5, 16): expected as many classes",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
    with pytest.raises(TypeError, match=re.escape("head has dtype int64")):
        Head.load(np.ones((3, 3), np.int64))
    with pytest.raises(
        IndexError, match=re.escape("label 30 in row 3 is out of range for 30 classes")
    ):
        pair.compare_blocks(p, p, [1, -100, 2, 30, 31])


def test_trunk_and_deployed(tmp_path, rng):
    ours, theirs = weights(rng, 30, 16), weights(rng, 30, 16)
    paths = {}
    for name, weight in (("a", ours), ("same", ours), ("b", theirs)):
        paths[name] = tmp_path / f"{name}.safetensors"
        save_file({"weight": weight}, paths[name])
    a, same, b = paths.values()
    assert check_heads(a).measure == "trunk KLD"
    assert check_heads(found_p=a).measure == "trunk KLD"
    assert check_heads(a, a, found_q=b).measure == "trunk KLD"
    assert check_heads(ours, ours).measure == "trunk KLD"
    deployed = check_heads(a, b)
    assert deployed.measure == "deployed KLD"
    np.testing.assert_array_equal(deployed.q.weight, theirs)
    # The candidate's own, which is no other: one product will do.
    for pair in (
        check_heads(a, same),
        check_heads(found_p=a, found_q=same),
        check_heads(a, ours.copy()),
    ):
        assert pair.measure == "deployed KLD"
        assert pair.q.weight is pair.p.weight
    # One head is given, or none: no dump goes through another than its own unsaid.
    for first, second, given, found in (
        (a, b, (), (a, b)),
        (a, b, (a,), (a, b)),
        (a, b, (b,), (a, b)),
        (b, a, (a,), (b, a)),
        (b, a, (a,), (b, None)),
        (a, b, (None, b), (a, a)),
    ):
        message = (
            f"the heads {first}:weight and {second}:weight differ; give both (head=, "
            f"candidate_heads=): --head {first} --candidate-head {second} is the deployed KLD"
        )
        with pytest.raises(DumpError, match=re.escape(message)):
            check_heads(*given, found_p=found[0], found_q=found[1])
    # Both are given: the user's choice, called what it is.
    for given, found, measure in (
        ((a, b), (a, b), "deployed KLD"),
        ((a, same), (same, a), "deployed KLD"),
        ((a, a), (a, b), "trunk KLD"),
        ((b, b), (a, b), "trunk KLD"),
        ((a, a), (b, b), "KLD with a head of neither"),
        ((b, a), (a, b), "KLD with a head that is not its own"),
        ((a, b), (a, a), "KLD with a head that is not its own"),
    ):
        pair = check_heads(*given, found_p=found[0], found_q=found[1])
        assert pair.measure == measure, (given, found)
    assert check_one_head(None, a, ("p", "q")).measure == "deployed KLD"
    assert check_one_head(same, a, ("p", "q")).measure == "deployed KLD"
    assert check_one_head(b, a, ("p", "q")).measure == "KLD with a head that is not its own"
    with pytest.raises(DumpError, match="the reference holds hidden states, and no output layer"):
        check_heads(found_q=b)


def test_what_no_name_says_is_by_the_head(tmp_path, rng):
    weight = weights(rng, 30, 16, np.float32)
    states_p = [states(rng, 5, 16).astype(np.float32) for _ in range(2)]
    states_q = [one + 0.01 for one in states_p]

    def save(name, arrays, key="{}"):
        path = tmp_path / name
        save_file({key.format(n): one for n, one in enumerate(arrays)}, path)
        return path

    p, q = save("a.safetensors", states_p), save("b.safetensors", states_q)
    named = save("c.safetensors", states_p, "hidden_{}")
    by_file = save("hidden.safetensors", states_p)
    head = save("w.safetensors", [weight], "weight")
    turned = save("t.safetensors", [np.ascontiguousarray(weight.T)], "weight")
    rows = save("z.safetensors", [one @ weight.T for one in states_p])
    kl = evaluate(states_p, states_q, head=weight).positions["kl"]
    for reference in (p, named, by_file):
        found = evaluate(reference, q, head=head)
        np.testing.assert_array_equal(found.positions["kl"], kl)
        assert found.about["candidates"][0]["kind"] == "hidden_states"
    # Rows of as many numbers as the head has classes are logits.
    found = evaluate(rows, q, head=head)
    assert found.about["reference"]["kind"] == "logits"
    np.testing.assert_allclose(found.positions["kl"], kl, rtol=1e-2)
    # Without a head the width of the other's hidden states says it: no vocabularies that differ.
    with pytest.raises(DumpError, match=r"c\.safetensors holds hidden states, and no output layer"):
        evaluate(named, q)
    assert evaluate(p, q).about["reference"]["kind_assumed"]
    assert "kind_assumed" not in evaluate(p, q, space="logits").about["reference"]
    for reference in (p, named):
        with pytest.raises(DumpError, match="transposed"):
            evaluate(reference, q, head=turned)
    named_rows = save("y.safetensors", states_p, "logits_{}")
    with pytest.raises(DumpError, match="taken for logits by the name 'logits_0'; hidden"):
        evaluate(named_rows, named_rows, head=head)


def test_states_before_the_norm_are_told(rng):
    classes = 49_152
    sane = rng.gamma(1.0, 3.5, 1000)
    assert pre_norm_warning(sane, classes, "x") is None
    assert pre_norm_warning([np.nan, np.inf], classes, "x") is None
    said = pre_norm_warning(np.append(rng.gamma(4.0, 3.0, 1000), np.nan), classes, "states of q")
    assert re.search(
        r"is 1\d\.\d in states of q, where guessing among 49,152 classes has 10\.8", said
    )


def write_states(folder, blocks, weight=None):
    (folder / "hidden").mkdir(parents=True)
    for number, block in enumerate(blocks):
        save_file({"hidden_states": block}, folder / "hidden" / f"hidden_{number:04}.safetensors")
    if weight is not None:
        (folder / "lm-head").mkdir()
        save_file({"weight": weight}, folder / "lm-head" / "weight.safetensors")
    return folder


def test_dumps_of_hidden_states(tmp_path, rng):
    weight, own = weights(rng, 500, 32), weights(rng, 520, 32)
    own[:500] = (weight + 0.1 * own[:500]).astype(own.dtype)
    p = states(rng, 90, 32).astype(ml_dtypes.bfloat16).reshape(3, 30, 32)
    q = (p.astype(float) + 0.3 * rng.standard_normal(p.shape)).astype(ml_dtypes.bfloat16)
    reference = write_states(tmp_path / "reference", p, weight)
    candidate = write_states(tmp_path / "candidate", q)
    z_p, z_q = (one.astype(float).reshape(90, 32) @ weight.astype(float).T for one in (p, q))
    # Of a text that neither model finds improbable.
    labels = z_p[:, :400].argmax(axis=1)
    expected = kldiv.compare(z_p, z_q, labels)

    def check(found, expected):
        for name in FIELDS:
            np.testing.assert_allclose(found.positions[name], getattr(expected, name), rtol=1e-9)

    check(evaluate(str(reference), str(candidate), labels=labels), expected)
    check(evaluate(p, q, head=weight, labels=labels), expected)
    # Hidden states on one side, rows of classes on the other.
    logits = tmp_path / "logits.npy"
    np.save(logits, z_q.reshape(3, 30, 500))
    check(evaluate(str(reference), str(logits), labels=labels), expected)
    np.save(logits, z_p.reshape(3, 30, 500))
    check(evaluate(str(logits), str(candidate), head=weight, labels=labels), expected)
    # A head that is wider by 20 classes, cut to those of both or to the real ones.
    z_q = q.astype(float).reshape(90, 32) @ own.astype(float).T
    given = {"head": weight, "candidate_heads": own, "labels": labels}
    with pytest.raises(ValueError, match=r"500 classes and .* 520"):
        evaluate(str(reference), str(candidate), **given)
    found = evaluate(str(reference), str(candidate), vocab="renormalize", **given)
    check(found, kldiv.compare(z_p, z_q[:, :500], labels))
    lost = np.exp(kldiv.log_softmax(z_q))[:, 500:].sum(axis=1)
    np.testing.assert_allclose(found.positions["lost_q"], lost, rtol=1e-9)
    cut = evaluate(str(reference), str(candidate), classes=400, **given)
    check(cut, kldiv.compare(z_p[:, :400], z_q[:, :400], labels))
    with pytest.raises(
        DumpError, match=r"holds hidden states of 32, but head has shape \(500, 16\)"
    ):
        evaluate(str(reference), str(candidate), head=weight[:, :16])
    with pytest.warns(UserWarning, match="are these hidden states before the final norm"):
        evaluate(str(reference), str(candidate), labels=z_p.argmin(axis=1))
