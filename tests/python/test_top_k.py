"""`kldiv.TopK`: what it holds, what it refuses, and what is made of it."""

import copy
import pickle

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch

import kldiv
from kldiv._top_k import checks

CLASSES = 40
BF16 = ml_dtypes.bfloat16


@pytest.fixture
def rows(rng):
    """Log-probabilities with ties, and the classes of each row by falling value, then id."""
    log_probs = kldiv.log_softmax(np.round(rng.normal(size=(6, 5, CLASSES)) * 2) / 2)
    return log_probs, np.argsort(-log_probs, axis=-1, kind="stable")


@pytest.fixture
def kept(rows):
    """Nine classes of each row, in no order of their values."""
    log_probs, order = rows
    ids = np.sort(order[..., :9], axis=-1)
    return kldiv.TopK(ids, np.take_along_axis(log_probs, ids, -1), classes=CLASSES)


def ragged(top_k):
    """The same rows, as those of different lengths are held."""
    offsets = np.arange(top_k.rows + 1) * top_k.ids.shape[-1]
    values = top_k.values.reshape(-1)
    return kldiv.TopK(top_k.ids.reshape(-1), values, classes=top_k.classes, offsets=offsets)


@pytest.mark.parametrize(
    "made",
    [
        np.asarray,
        lambda array: array.tolist(),
        torch.from_numpy,
        jnp.asarray,
        np.asfortranarray,
        lambda array: array.astype(array.dtype.newbyteorder(">")),
    ],
)
def test_any_array_is_taken(kept, made):
    ids, values = kept.ids.astype(np.int32), kept.values.astype(np.float32)
    found = kldiv.TopK(made(ids), made(values), classes=CLASSES)
    assert found == kldiv.TopK(ids, values, classes=CLASSES)
    assert found.ids.dtype.isnative
    assert found.values.dtype.isnative


@pytest.mark.parametrize("dtype", [np.float16, BF16, torch.float16, torch.bfloat16])
def test_sixteen_bits(kept, dtype):
    if isinstance(dtype, torch.dtype):
        values = torch.from_numpy(kept.values.copy()).to(dtype)
        expected = values.double().numpy()
    else:
        values = kept.values.astype(dtype)
        expected = values.astype(np.float64)
    found = kldiv.TopK(kept.ids, values, classes=CLASSES)
    assert found.values.dtype.itemsize == 2
    assert np.array_equal(found.flat().log_probs, expected.reshape(-1))


def test_what_is_read_of_it(rows, kept):
    log_probs, _ = rows
    masses = np.exp(kept.values).sum(axis=-1)
    assert np.allclose(kept.coverage(), masses, rtol=1e-15)
    assert np.allclose(kept.tail_mass(), 1 - masses, atol=1e-15)
    assert (len(kept), kept.rows, kept.batch_shape) == (6, 30, (6, 5))
    assert (kept.counts == 9).all()
    flat = kept.flat()
    assert (flat.ids.dtype, flat.log_probs.dtype, flat.offsets.dtype) == (
        np.int64,
        np.float64,
        np.int64,
    )
    assert flat.offsets.tolist() == list(range(0, 271, 9))
    assert np.array_equal(
        log_probs.reshape(30, -1)[np.arange(30).repeat(9), flat.ids], flat.log_probs
    )


def test_logits_and_their_normalizer(rng, kept):
    logits = rng.normal(size=(6, 5, CLASSES)) * 3 + 50
    of_kept = np.take_along_axis(logits, kept.ids, -1)
    bare = kldiv.TopK(kept.ids, logits=of_kept, classes=CLASSES)
    assert not bare.is_normalized
    assert not bare.flat().normalized
    assert np.array_equal(bare.flat().log_probs, of_kept.reshape(-1))
    with pytest.raises(ValueError, match="without a normalizer"):
        bare.coverage()
    normal = kldiv.TopK(
        kept.ids, logits=of_kept, normalizer=kldiv.logsumexp(logits), classes=CLASSES
    )
    assert normal.is_normalized
    expected = np.take_along_axis(kldiv.log_softmax(logits), kept.ids, -1)
    assert np.allclose(normal.flat().log_probs, expected.reshape(-1), atol=1e-13)


def test_nothing_of_it_changes(kept):
    ids, values = kept.ids.copy(), kept.values.copy()
    held = kldiv.TopK(ids, values, classes=CLASSES)
    ids[:], values[:] = 0, 7
    assert held == kept
    for copied in (pickle.loads(pickle.dumps(kept)), copy.deepcopy(kept), kept):
        assert copied == kept
        with pytest.raises(AttributeError):
            copied.ids = ids
        for array in (copied.ids, copied.values):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1


def test_rows_of_different_lengths():
    kept = kldiv.TopK([1, 2, 3], [-1, -2.0, -1], offsets=[0, 0, 2, 3], classes=4)
    assert kept.counts.tolist() == [0, 2, 1]
    assert np.allclose(kept.coverage(), [0, np.exp(-1) + np.exp(-2), np.exp(-1)])
    assert kept[1] == kldiv.TopK([1, 2], [-1, -2.0], classes=4)


HALF = np.log(0.5)
SEVERAL = [[1, 2], [3, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": [[1, 2], [3, 3]]}, "row 1 of ids has the id 3 twice"),
        ({"ids": [[1, 2], [4, 0]]}, "row 1 of ids has the id 4; expected 0 to 3"),
        ({"ids": [[1, -2], [4, 0]]}, "row 0 of ids has the id -2; expected 0 to 3"),
        ({"log_probs": [[-1, -2], [-1, np.nan]]}, "row 1 of log_probs has nan at id 0"),
        ({"log_probs": [[-1, -2], [0.002, -9]]}, "row 1 of log_probs has 0.002 at id 3"),
        ({"log_probs": [[-1, -2], [-0.1, -0.2]]}, "row 1 .* add up to 1.72.* at id 3"),
        ({"log_probs": [[-1, -2]]}, r"log_probs has shape \(1, 2\) but ids has shape \(2, 2\)"),
        ({"classes": 1}, "ids has 2 classes a row, but classes is 1"),
        ({"classes": 0}, "classes is 0"),
        ({"log_probs": None}, "either log_probs or logits, got neither"),
        ({"logits": [[1, 2], [3, 4]]}, "either log_probs or logits, got both"),
        ({"normalizer": [1.0, 1.0]}, "normalizer goes with logits"),
        ({"weights": [[1, 1], [1, -1]]}, "row 1 of weights has -1 at id 0"),
        ({"weights": [[1, 1], [np.inf, 1]]}, "row 1 of weights has inf at id 3"),
        ({"offsets": [0, 1, 2]}, r"ids has shape \(2, 2\); with offsets"),
        (
            {"log_probs": None, "logits": [[1, 2], [3, np.inf]]},
            "row 1 of logits has inf at id 0",
        ),
        (
            {"log_probs": None, "logits": SEVERAL, "normalizer": [9, 2.0]},
            "row 1 of logits less the normalizer .* at id 3",
        ),
        (
            {"log_probs": None, "logits": SEVERAL, "normalizer": [9, np.inf]},
            "normalizer is inf at row 1",
        ),
        (
            {"log_probs": None, "logits": SEVERAL, "normalizer": [[9, 9.0]]},
            r"normalizer has shape \(1, 2\); expected \(2,\)",
        ),
    ],
)
def test_rows_that_are_refused(arguments, message):
    given = {"ids": SEVERAL, "log_probs": [[-1, -2.0], [-1, -2]], "classes": 4} | arguments
    with pytest.raises(ValueError, match=message):
        kldiv.TopK(**given)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 3, 2, 4], "offsets fall from 3 to 2 at row 1"),
        ([0, 2, 5], "offsets end with 5, but ids has 4 elements"),
        ([1, 4], "offsets begins with 1; expected 0"),
        ([], "offsets is empty"),
        ([0, 1, 4], "row 1 of ids has the id 3 twice"),
        ([0, 4], "row 0 of ids has the id 3 twice"),
    ],
)
def test_offsets_that_do_not_fit(offsets, message):
    with pytest.raises(ValueError, match=message):
        kldiv.TopK([1, 2, 3, 3], [-2.0] * 4, offsets=offsets, classes=9)


def test_a_fault_is_named_in_every_chunk(monkeypatch, kept):
    monkeypatch.setattr(checks, "_CHUNK", 25)
    ids, values = kept.ids.copy(), kept.values.copy()
    ids[4, 1, 3] = ids[4, 1, 0]
    with pytest.raises(ValueError, match=rf"row \(4, 1\) of ids has the id {ids[4, 1, 0]} twice"):
        kldiv.TopK(ids, values, classes=CLASSES)
    values[3, 2, 8] = 0.5
    with pytest.raises(ValueError, match=r"row \(3, 2\) of log_probs has 0.5"):
        kldiv.TopK(kept.ids, values, classes=CLASSES)
    offsets = np.arange(31) * 9
    with pytest.raises(ValueError, match=r"row 17 of log_probs has 0.5"):
        kldiv.TopK(kept.ids.ravel(), values.ravel(), offsets=offsets, classes=CLASSES)


def test_rounding_to_sixteen_bits_is_no_fault():
    halves = np.log([0.5, 0.5])
    assert kldiv.TopK([0, 1], halves.astype(BF16), classes=2).coverage() > 1.001
    with pytest.raises(ValueError, match="add up to"):
        kldiv.TopK([0, 1], np.float32([HALF, HALF + 0.003]), classes=2)


@pytest.mark.parametrize("form", [lambda top_k: top_k, ragged])
def test_thin_keeps_the_most_probable(rows, kept, form):
    _, order = rows
    thin = form(kept).thin(4)
    assert np.array_equal(thin.ids.reshape(6, 5, 4), order[..., :4])
    assert form(kept).thin(CLASSES).counts.sum() == 9 * 30
    for k in (0, CLASSES + 1):
        with pytest.raises(ValueError, match="expected 1 to 40"):
            kept.thin(k)


def test_samples_are_not_thinned(kept):
    sampled = kldiv.TopK(kept.ids, kept.values, classes=CLASSES, weights=np.ones(kept.ids.shape))
    assert np.array_equal(sampled.flat().weights, np.ones(270))
    with pytest.raises(ValueError, match="these are samples"):
        sampled.thin(2)


@pytest.mark.parametrize("form", [lambda top_k: top_k, ragged])
def test_dense_rows(rows, kept, form):
    log_probs, order = rows
    expected = np.full(log_probs.shape, -np.inf)
    best = order[..., :9]
    np.put_along_axis(expected, best, np.take_along_axis(log_probs, best, -1), -1)
    found = form(kept).to_dense(fill=-np.inf)
    assert np.array_equal(found.reshape(expected.shape), expected)
    assert form(kept).to_dense(fill=-100, dtype=BF16).dtype == BF16


@pytest.mark.parametrize(
    "index", [2, -1, slice(1, 4), slice(None, None, -2), [4, 1, 1], (2, 3), (Ellipsis, 0)]
)
def test_some_rows(kept, index):
    values = kept.values[index if isinstance(index, tuple) else (index,)]
    if index == (Ellipsis, 0):
        values = kept.values[:, 0]
    found = kept[index]
    assert np.array_equal(found.values, values)
    assert found.batch_shape == values.shape[:-1]


@pytest.mark.parametrize("index", [slice(3, 7), [9, 0, 9], slice(5, 5)])
def test_some_rows_of_different_lengths(rng, kept, index):
    mask = rng.integers(0, 2, size=kept.ids.shape)
    rows = kldiv.TopK.from_padded(kept.ids, kept.values, classes=CLASSES, mask=mask)
    expected = [rows[int(i)] for i in np.arange(30)[index]]
    found = rows[index]
    assert list(found) == expected
    with pytest.raises(IndexError):
        rows[30]


def test_rows_are_joined(kept):
    assert kldiv.TopK.concatenate([kept[:2], kept[2:]]) == kept
    thin = kept[0].thin(3)
    mixed = kldiv.TopK.concatenate([ragged(kept), thin])
    assert mixed.counts.tolist() == [9] * 30 + [3] * 5
    assert mixed[30:] == thin
    with pytest.raises(ValueError, match=r"part 1 .* classes, 41 and 40"):
        kldiv.TopK.concatenate([kept, kldiv.TopK(kept.ids, kept.values, classes=41)])
    with pytest.raises(ValueError, match="such rows have one axis"):
        kldiv.TopK.concatenate([kept, kept.thin(2)])


def test_padding_is_left_out(rng, kept):
    mask = rng.integers(0, 2, size=kept.ids.shape)
    ids, values = np.where(mask, kept.ids, -7), np.where(mask, kept.values, np.nan)
    found = kldiv.TopK.from_padded(ids, values, classes=CLASSES, mask=torch.from_numpy(mask))
    assert np.array_equal(found.counts, mask.sum(axis=-1).reshape(-1))
    assert np.array_equal(found.values, kept.values[mask.astype(bool)])
    of_rows = kldiv.TopK.from_padded(kept.ids, kept.values, classes=CLASSES, mask=mask[..., 0])
    assert np.array_equal(of_rows.counts, 9 * mask[..., 0].reshape(-1))
    with pytest.raises(ValueError, match="integers 0 and 1"):
        kldiv.TopK.from_padded(ids, values, classes=CLASSES, mask=mask * 2)
    with pytest.raises(ValueError, match="mask has shape"):
        kldiv.TopK.from_padded(ids, values, classes=CLASSES, mask=mask[0])


def test_ids_beyond_a_vocabulary_are_refused_or_dropped(kept):
    with pytest.raises(ValueError, match="expected 0 to 29"):
        kldiv.TopK.from_padded(kept.ids, kept.values, classes=30)
    found = kldiv.TopK.from_padded(kept.ids, kept.values, classes=30, outside="drop")
    assert np.array_equal(found.ids, kept.ids[kept.ids < 30])
    with pytest.raises(ValueError, match="-1"):
        kldiv.TopK.from_padded([[-1, 2]], [[-1.0, -2]], classes=30, outside="drop")


@pytest.mark.parametrize("shape", [(3, 0), (0, 4), (2, 0, 3), (0,)])
def test_no_class_or_no_row(tmp_path, shape):
    empty = kldiv.TopK(np.zeros(shape, int), np.zeros(shape), classes=5)
    assert np.shape(empty.coverage()) == shape[:-1]
    assert empty.thin(2).batch_shape == shape[:-1]
    assert empty.to_dense(fill=-1).shape == (*shape[:-1], 5)
    for end in (".safetensors", ".parquet"):
        empty.save(tmp_path / f"a{end}")
        assert kldiv.TopK.load(tmp_path / f"a{end}") == empty
    if len(shape) > 1:
        assert kldiv.TopK.concatenate([empty[:1], empty[1:]]) == empty
