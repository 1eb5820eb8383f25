"""`kldiv.teachers`: what other projects keep, as they write it."""

import json
import math

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import kldiv
from kldiv import teachers

CLASSES, K = 1000, 12


@pytest.fixture
def best(rng):
    """The most probable of 7 rows by rank: ids and float32 log-probabilities."""
    log_probs = kldiv.log_softmax((rng.normal(size=(7, CLASSES)) * 3).astype(np.float32))
    ids = np.argsort(-log_probs, axis=1, kind="stable")[:, :K]
    return ids, np.take_along_axis(log_probs, ids, axis=1)


def entries(ids, log_probs):
    """As vLLM's server answers with return_tokens_as_token_ids."""
    return [
        [{"token": f"token_id:{i}", "logprob": float(x)} for i, x in zip(*row, strict=True)]
        for row in zip(ids, log_probs, strict=True)
    ]


def test_the_lists_that_axolotl_reads(best):
    ids, log_probs = best
    found = teachers.from_logprob_lists([None, *entries(ids, log_probs)], classes=CLASSES)
    assert found.counts.tolist() == [0] + [K] * 7
    assert found[1:] == kldiv.TopK.from_padded(ids, log_probs, classes=CLASSES)
    assert found.kind == "log_probs"
    for entry in ({"token": "cat", "logprob": -1.0}, {"token": "token_id:1"}, 7):
        with pytest.raises(ValueError, match="row 1 of logprobs has"):
            teachers.from_logprob_lists([[], [entry]], classes=CLASSES)


def test_axolotls_columns_are_not_normalised(best):
    ids, log_probs = best
    # Renormalised, tempered and renormalised, as it stores them; one position of padding before.
    tempered = log_probs / 2 - np.log(np.exp(log_probs / 2).sum(axis=1, keepdims=True))
    columns = (
        np.concatenate([[np.arange(K)], ids]),
        np.concatenate([np.full((1, K), -np.inf), tempered]),
        np.concatenate([[[0] * K], np.ones_like(ids)]),
    )
    # What the collator adds to a shorter sample of the batch.
    padding = (0, -1e9, 0)
    collated = [
        np.stack([column, np.full_like(column, fill)])
        for column, fill in zip(columns, padding, strict=True)
    ]
    found = teachers.from_axolotl(*map(torch.from_numpy, collated), classes=CLASSES)
    assert not found.is_normalized
    assert found.counts.tolist() == [0] + [K] * 7 + [0] * 8
    assert np.array_equal(found.ids, ids.reshape(-1))
    assert np.array_equal(found.values, tempered.reshape(-1).astype(found.values.dtype))
    mask = np.ones_like(ids)
    raw = teachers.from_axolotl(ids, log_probs, mask, classes=CLASSES, normalized=True)
    assert raw.is_normalized


def test_verls_arrays(best):
    ids, log_probs = best
    found = teachers.from_verl(ids, log_probs, classes=CLASSES)
    assert found == kldiv.TopK(ids, log_probs, classes=CLASSES)
    # Padding of ids by a token, of log-probabilities by 0, on both sides of a batch of one.
    pad = ((2, 3), (0, 0))
    padded = np.pad(ids, pad, constant_values=5)[None], np.pad(log_probs, pad)[None]
    with pytest.raises(ValueError, match=r"row \(0, 0\) of ids has the id 5 twice"):
        teachers.from_verl(*padded, classes=CLASSES)
    mask = np.pad(np.ones(7, bool), (2, 3))[None]
    assert teachers.from_verl(*padded, classes=CLASSES, mask=mask).counts.tolist() == (
        [0] * 2 + [K] * 7 + [0] * 3
    )


def test_nested_tensors_of_verl(best):
    ids, log_probs = map(torch.from_numpy, best)
    nested = [
        torch.nested.nested_tensor([array[:3], array[3:]], layout=torch.jagged)
        for array in (ids, log_probs)
    ]
    assert teachers.from_verl(*nested, classes=CLASSES) == teachers.from_verl(
        ids, log_probs, classes=CLASSES
    )


@pytest.mark.parametrize("row", [0, 4, 6])
def test_ranks_that_do_not_fall(best, row):
    ids, log_probs = (array.copy() for array in best)
    log_probs[row, [2, 3]] = log_probs[row, [3, 2]]
    message = rf"row {row} of teacher_logprobs rises .* id {ids[row, 2]} .* at id {ids[row, 3]};"
    with pytest.raises(ValueError, match=message):
        teachers.from_verl(ids, log_probs, classes=CLASSES)


def test_tinkers_weights_are_known_up_to_a_factor():
    weights = [[0.5, 0.25, 0.25], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]
    found = teachers.from_tinker([[7, 1, 2]] * 3, torch.tensor(weights), classes=8)
    assert found.kind == "logits"
    assert not found.is_normalized
    assert found.counts.tolist() == [3, 0, 2]
    assert found.ids.tolist() == [7, 1, 2, 7, 2]
    assert np.allclose(found.values, np.log([0.5, 0.25, 0.25, 1, 1]))
    with pytest.raises(ValueError, match="row 0 of weights has -1 at id 1"):
        teachers.from_tinker([[7, 1]], [[1.0, -1.0]], classes=8)


def pack(numbers, bits):
    """Numbers of so many bits one after the other, the highest first, padded to bytes."""
    text = "".join(f"{number:0{bits}b}" for number in numbers)
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


def written(folder, samples):
    """A file with the columns of DistillKit, of samples of (ids, bytes of values) a position."""
    lists = pa.list_(pa.list_(pa.uint8()))
    bits = (CLASSES - 1).bit_length()
    columns = {
        "input_ids": pa.array([[1] * len(s) for s in samples], pa.list_(pa.uint64())),
        "compressed_logprobs": pa.array([[list(b) for _, b in s] for s in samples], lists),
        "bytepacked_indices": pa.array([[pack(i, bits) for i, _ in s] for s in samples], lists),
    }
    pq.write_table(pa.table(columns), folder / "samples.parquet")
    return folder / "samples.parquet"


@pytest.mark.parametrize("deltas", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_distillkits_exact_values(tmp_path, best, dtype, deltas):
    ids, log_probs = best
    stored = log_probs.astype(np.float64)
    if deltas:
        stored = np.diff(stored, axis=1, prepend=0)
    stored = stored.astype(dtype)
    config = {
        "d": CLASSES,
        "k": K,
        "exact_k": K,
        "exact_dtype": np.dtype(dtype).name,
        "residual_bins": [],
        "delta_encoding": deltas,
    }
    rows = list(zip(ids.tolist(), [row.tobytes() for row in stored], strict=True))
    (tmp_path / "compression_config.yaml").write_text(yaml.safe_dump(config))
    file = written(tmp_path, [rows[:3], rows[3:]])
    first, second = teachers.from_distillkit(file, tmp_path / "compression_config.yaml")
    assert (first.batch_shape, second.batch_shape) == ((3,), (4,))
    found = kldiv.TopK.concatenate([first, second])
    assert np.array_equal(found.ids, ids)
    expected = np.cumsum(stored.astype(np.float64), axis=1) if deltas else stored
    assert np.allclose(found.values, expected, rtol=0, atol=1e-5)


def test_distillkits_curve_and_bins(tmp_path):
    """Two exact values, 0.5·√t − 1·t of the ranks, and residuals of 4 bits and of 1."""
    config = {
        "d": CLASSES,
        "k": 9,
        "exact_k": 2,
        "exact_dtype": "float16",
        "polynomial_terms": ["sqrt", 1, 0],
        "term_dtype": "bfloat16",
        "residual_bins": [
            {"scale_dtype": "float32", "element_bits": 4, "num_elements": 3},
            {"scale_dtype": "float16", "element_bits": 1, "num_elements": 2},
        ],
        "delta_encoding": False,
    }
    data = (
        np.float16([-0.5, -2]).tobytes()
        + np.array([0.5, -1, -3], ml_dtypes.bfloat16).tobytes()
        + np.float32([0.25]).tobytes()
        + bytes(pack([0, 15, 8], 4))
        + np.float16([0.125]).tobytes()
        + bytes(pack([1, 0], 1))
    )
    ids = [999, 0, 5, 4, 3, 2, 1, 512, 511]
    [found] = teachers.from_distillkit(written(tmp_path, [[(ids, data)]]), config)
    residuals = [-8 * 0.25, 7 * 0.25, 0, 0.125, -0.125, 0, 0]
    curve = [0.5 * math.sqrt(t) - t - 3 for t in range(7)]
    expected = [-0.5, -2, *(c + r for c, r in zip(curve, residuals, strict=True))]
    assert found.ids.tolist() == [ids]
    # Each of three terms is rounded to bfloat16, and their sum.
    assert np.allclose(found.values, [expected], rtol=0, atol=0.04)
    assert np.array_equal(found.values[0, :2], [-0.5, -2])


def test_distillkits_rows_as_they_are(tmp_path, best):
    ids, log_probs = best
    columns = {"token_ids": [ids.tolist()], "top_values": [log_probs.tolist()]}
    pq.write_table(pa.table(columns), tmp_path / "raw.parquet")
    [found] = teachers.from_distillkit(tmp_path / "raw.parquet", {"d": CLASSES})
    assert found == kldiv.TopK(ids, log_probs, classes=CLASSES)


SIMPLE = {"d": CLASSES, "k": 2, "exact_k": 2, "delta_encoding": False}


@pytest.mark.parametrize(
    ("position", "config", "message"),
    [
        (([1, 2], np.float32([-2, -1])), {}, "sample 0: row 0 of compressed_logprobs rises"),
        (([1, 1], np.float32([-1, -2])), {}, "sample 0: row 0 of ids has the id 1 twice"),
        (([1, 1001], np.float32([-1, -2])), {}, "sample 0: row 0 of ids has the id 1001"),
        (([1, 2], np.float32([-1])), {}, "compressed_logprobs has 4 elements; expected 8"),
        (([1, 2], np.float32([-1, -2])), {"k": 3}, "row 0 of bytepacked_indices has 3 elem"),
        (([1, 2], np.float32([-1, -2])), {"exact_k": 3}, "no distribution is compressed by"),
        (([1, 2], np.float32([-1, -2])), {"exact_dtype": "int8"}, "names the dtype 'int8'"),
        (([1, 2], np.float32([-0.1, -0.2])), {}, "sample 0: row 0 of log_probs .* add up"),
    ],
)
def test_what_distillkit_does_not_write(tmp_path, position, config, message):
    ids, values = position
    file = written(tmp_path, [[(ids, values.tobytes())]])
    with pytest.raises(ValueError, match=message):
        list(teachers.from_distillkit(file, SIMPLE | config))


def test_quantised_values_need_not_be_normalised(tmp_path):
    file = written(tmp_path, [[([1, 2], np.float32([-0.1, -0.2]).tobytes())]])
    [found] = teachers.from_distillkit(file, SIMPLE, normalized=False)
    assert found.kind == "logits"
    pq.write_table(pa.table({"packed_indices": [[1]], "coeffs": [[1.0]]}), file)
    with pytest.raises(ValueError, match="its older compression"):
        list(teachers.from_distillkit(file, SIMPLE))


def test_texts_of_a_server(tmp_path, best):
    ids, log_probs = best
    file = tmp_path / "answers.jsonl"
    positions = [
        [[int(i), float(x)] for i, x in zip(*row, strict=True)]
        for row in zip(ids, log_probs, strict=True)
    ]
    answers = [{"topk_prompt_logprobs": [None, *some]} for some in (positions[:3], positions[3:])]
    file.write_text("\n".join(map(json.dumps, answers)))
    found = list(teachers.from_server_json(file, classes=CLASSES))
    assert [len(text) for text in found] == [3, 4]
    expected = kldiv.TopK.from_padded(ids, log_probs.astype(np.float64), classes=CLASSES)
    assert kldiv.TopK.concatenate(found).thin(K) == expected
    with pytest.raises(ValueError, match=r"answers.jsonl:1: row 0 of ids has the id"):
        list(teachers.from_server_json(file, classes=100))
