"""Files of top-k rows: written and read by the libraries of their formats, and as dumps."""

import json
import os

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import server_json
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_for_torch

import kldiv
from kldiv.cli import main
from kldiv.evaluation.dumps.convert import convert
from kldiv.evaluation.dumps.describe import describe
from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.server_json import files
from kldiv.evaluation.top_k_files import layout

CLASSES, K = 300, 9
ENDS = (".safetensors", ".parquet")


@pytest.fixture
def kept(rng):
    """The most probable classes of a batch of (4, 5)."""
    logits = (rng.normal(size=(4, 5, CLASSES)) * 3).astype(np.float32)
    ids = np.argsort(-logits, axis=-1, kind="stable")[..., :K]
    of_kept = np.take_along_axis(logits, ids, -1)
    return ids, of_kept, kldiv.logsumexp(logits)


def of_kind(kept, kind, rng):
    ids, logits, normalizer = kept
    log_probs = logits - normalizer[..., None]
    mask = rng.integers(0, 2, size=ids.shape)
    return {
        "log_probs": lambda: kldiv.TopK(ids, log_probs, classes=CLASSES),
        "float16": lambda: kldiv.TopK(ids, log_probs.astype(np.float16), classes=CLASSES),
        "logits": lambda: kldiv.TopK(ids, logits=logits, classes=CLASSES),
        "normalizer": lambda: kldiv.TopK(
            ids, logits=logits, normalizer=normalizer.astype(np.float64), classes=CLASSES
        ),
        "weights": lambda: kldiv.TopK(
            ids, log_probs, weights=rng.random(ids.shape), classes=CLASSES
        ),
        "ragged": lambda: kldiv.TopK.from_padded(
            ids, logits=logits, normalizer=normalizer, mask=mask, classes=CLASSES
        ),
        "one row": lambda: kldiv.TopK(ids[0, 0], log_probs[0, 0], classes=CLASSES),
        "no row": lambda: kldiv.TopK([], [], offsets=[0], classes=CLASSES),
    }[kind]()


KINDS = ("log_probs", "float16", "logits", "normalizer", "weights", "ragged", "one row", "no row")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_loaded(tmp_path, rng, kept, monkeypatch, kind, end):
    # Several pieces of some rows each.
    monkeypatch.setattr(layout, "PIECE_ELEMENTS", 30)
    top_k = of_kind(kept, kind, rng)
    top_k.save(tmp_path / f"a{end}")
    found = kldiv.TopK.load(tmp_path / f"a{end}")
    assert found == top_k
    assert found.values.dtype == top_k.values.dtype
    assert (found.batch_shape, found.offsets is None) == (top_k.batch_shape, top_k.offsets is None)
    assert os.listdir(tmp_path) == [f"a{end}"]
    with pytest.raises(FileExistsError, match="overwrite=True replaces it"):
        top_k.save(tmp_path / f"a{end}")
    top_k.save(str(tmp_path / f"a{end}"), overwrite=True)


def test_the_library_of_safetensors_reads_it(tmp_path, kept):
    ids, logits, normalizer = kept
    top_k = kldiv.TopK(ids, logits=logits, normalizer=normalizer, classes=CLASSES)
    top_k.save(tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")
    assert {name: array.dtype.name for name, array in found.items()} == {
        "ids": "uint16",
        "logits": "float32",
        "normalizer": "float32",
    }
    assert np.array_equal(found["ids"], ids)
    assert np.array_equal(found["logits"], logits)
    with safe_open(tmp_path / "a.safetensors", "np") as file:
        said = json.loads(file.metadata()["kldiv"])
    assert said == {
        "format": "TopK",
        "version": 1,
        "kind": "logits",
        "classes": CLASSES,
        "batch_shape": [4, 5],
        "ragged": False,
    }


def test_bfloat16_is_kept_in_safetensors_alone(tmp_path, kept):
    ids, logits, normalizer = kept
    values = (logits - normalizer[..., None]).astype(ml_dtypes.bfloat16)
    top_k = kldiv.TopK(ids, values, classes=CLASSES)
    top_k.save(tmp_path / "a.safetensors")
    assert kldiv.TopK.load(tmp_path / "a.safetensors") == top_k
    by_torch = load_for_torch(tmp_path / "a.safetensors")["log_probs"]
    assert np.array_equal(by_torch.float().numpy(), values.astype(np.float32))
    with pytest.raises(ValueError, match="Parquet holds no bfloat16"):
        top_k.save(tmp_path / "a.parquet")
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize(
    ("classes", "dtype"), [(256, "uint8"), (257, "uint16"), (65537, "int32"), (1 << 32, "int64")]
)
def test_ids_take_no_more_than_they_need(tmp_path, classes, dtype):
    top_k = kldiv.TopK([[classes - 1, 0]], [[-1.0, -2]], classes=classes)
    for end in ENDS:
        top_k.save(tmp_path / f"a{end}")
        assert kldiv.TopK.load(tmp_path / f"a{end}") == top_k
    assert load_file(tmp_path / "a.safetensors")["ids"].dtype.name == dtype
    schema = pq.read_schema(tmp_path / "a.parquet")
    assert str(schema.field("ids").type.value_type) == dtype


def test_a_write_that_fails_leaves_nothing(tmp_path, kept, monkeypatch):
    top_k = kldiv.TopK(kept[0], logits=kept[1], classes=CLASSES)

    def broken(_):
        yield next(layout.pieces_of(top_k))
        raise KeyboardInterrupt

    monkeypatch.setattr("kldiv.evaluation.top_k_files.pieces_of", broken)
    for end in ENDS:
        with pytest.raises(KeyboardInterrupt):
            top_k.save(tmp_path / f"a{end}")
    assert not os.listdir(tmp_path)


def tampered(path, change):
    """The tensors and metadata of a file, changed and written by the library."""
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        said = json.loads(file.metadata()["kldiv"])
    change(tensors, said)
    save_file(tensors, path, {"kldiv": json.dumps(said)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, said: t["ids"].__setitem__((2, 1, 3), 300), r"row \(2, 1\) .* the id 300"),
        (lambda t, said: t["ids"].__setitem__((2, 1, 3), t["ids"][2, 1, 0]), r"\(2, 1\) .* twice"),
        (lambda t, said: t["log_probs"].__setitem__((3, 4, 0), 0.5), r"row \(3, 4\) .* has 0.5"),
        (lambda t, said: said.update(version=2), "of version 2; this kldiv reads version 1"),
        (lambda t, said: said.update(classes=0), "says of its top-k rows what none are"),
        (lambda t, said: said.update(batch_shape=[5, 5]), "holds ids of shape"),
        (lambda t, said: said.update(ragged=True), "lacks the tensor 'offsets'"),
        (lambda t, said: t.pop("ids"), "lacks the tensor 'ids'"),
        (lambda t, said: t.update(ids=t["ids"] * 1.0), "holds F64 as 'ids'"),
        (lambda t, said: t.update(weights=np.ones((4, 5))), r"'weights' of shape \(4, 5\)"),
        (lambda t, said: said.update(format="x"), "holds no top-k rows that kldiv wrote"),
    ],
)
def test_files_that_hold_no_such_rows(tmp_path, rng, kept, change, message):
    path = tmp_path / "a.safetensors"
    of_kind(kept, "log_probs", rng).save(path)
    tampered(path, change)
    with pytest.raises(ValueError, match=message) as raised:
        kldiv.TopK.load(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("end", ENDS)
def test_files_that_are_cut_off(tmp_path, rng, kept, end):
    path = tmp_path / f"a{end}"
    of_kind(kept, "log_probs", rng).save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"truncated|no readable Parquet"):
        kldiv.TopK.load(path)
    with pytest.raises(ValueError, match=r"ends with '\.npz'"):
        kldiv.TopK.load(tmp_path / "a.npz")


def test_columns_of_other_lengths(tmp_path, rng, kept):
    path = tmp_path / "a.parquet"
    of_kind(kept, "log_probs", rng).save(path)
    metadata = {b"kldiv": pq.read_metadata(path).metadata[b"kldiv"]}
    rows = pq.read_table(path).to_pylist()
    rows[7]["ids"] = rows[7]["ids"][1:]
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(metadata), path)
    with pytest.raises(ValueError, match="row 7 has another number of 'log_probs' than of ids"):
        kldiv.TopK.load(path)


@pytest.fixture
def answers(tmp_path, rng):
    """A server's answers for three texts, and the logits they are of."""
    texts = []
    with (tmp_path / "a.jsonl").open("w") as file:
        for length in (5, 9, 3):
            logits = rng.normal(size=(length, CLASSES)) * 3
            tokens = rng.integers(0, CLASSES, size=length + 1)
            texts.append((logits, tokens))
            file.write(json.dumps(server_json.vllm(logits, tokens, 4, ids=True)) + "\n")
    return tmp_path / "a.jsonl", texts


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.filterwarnings("ignore::kldiv.evaluation.ImprobableTextWarning")
def test_a_servers_answers_as_a_file(tmp_path, answers, rng, end):
    path, texts = answers
    done = convert(open_dump(path), tmp_path / f"b{end}", classes=CLASSES)
    assert (done.sequences, done.positions, done.lost) == (3, 17, ())
    found = kldiv.TopK.load(done.path)
    logits = np.concatenate([logits for logits, _ in texts])
    own = np.concatenate([tokens[1:] for _, tokens in texts])
    expected = kldiv.log_softmax(logits)
    for row, label, all_of_row in zip(found, own, expected, strict=True):
        best = np.argsort(-all_of_row, kind="stable")[:4]
        assert set(row.ids.tolist()) == {*best.tolist(), int(label)}
        assert np.allclose(row.values, all_of_row[row.ids], atol=1e-6)
    described = describe(open_dump(done.path))
    assert (described["sequences"], described["positions"], described["labels"]) == (3, 17, 17)
    assert described["details"]["vocabulary"] == CLASSES
    # The file says of another dump what the answers say.
    np.save(tmp_path / "q.npy", logits + rng.normal(size=logits.shape))
    lengths = [len(logits) for logits, _ in texts]
    of_json = kldiv.evaluate(path, tmp_path / "q.npy", sequences=lengths).positions
    of_file = kldiv.evaluate(done.path, tmp_path / "q.npy", sequences=lengths).positions
    assert of_file.equals(of_json)


@pytest.mark.parametrize(("end", "other"), [ENDS, ENDS[::-1]])
@pytest.mark.parametrize("kind", KINDS[:-2])
def test_one_format_as_the_other(tmp_path, rng, kept, kind, end, other):
    top_k = of_kind(kept, kind, rng)
    top_k.save(tmp_path / f"a{end}")
    convert(open_dump(tmp_path / f"a{end}"), tmp_path / f"b{other}")
    assert kldiv.TopK.load(tmp_path / f"b{other}") == top_k
    top_k.save(tmp_path / f"c{other}")
    assert (tmp_path / f"b{other}").read_bytes() == (tmp_path / f"c{other}").read_bytes()


def test_texts_stay_apart_from_one_format_to_the_other(tmp_path, answers):
    path, _ = answers
    convert(open_dump(path), tmp_path / "b.parquet", classes=CLASSES)
    convert(open_dump(tmp_path / "b.parquet"), tmp_path / "c.safetensors")
    convert(open_dump(path), tmp_path / "d.safetensors", classes=CLASSES)
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "d.safetensors").read_bytes()
    lengths = [s.positions for s in open_dump(tmp_path / "c.safetensors").sequences()]
    assert lengths == [5, 9, 3]


@pytest.mark.parametrize("end", ENDS)
def test_what_is_compared_with_whole_rows(tmp_path, rng, end):
    p, q = (rng.normal(size=(4, 5, CLASSES)) * 3 for _ in range(2))
    ids = np.argsort(-p, axis=-1)[..., :K]
    values = np.take_along_axis(p, ids, -1)
    kldiv.TopK(ids, logits=values, normalizer=kldiv.logsumexp(p), classes=CLASSES).save(
        tmp_path / f"p{end}"
    )
    np.save(tmp_path / "q.npy", q)
    found = kldiv.evaluate(tmp_path / f"p{end}", tmp_path / "q.npy").positions
    assert (found["kl_lower"].to_numpy() <= kldiv.kl(p, q).ravel() + 1e-9).all()
    assert (found["kl_lower"] > 0).all()
    assert found["sequence"].to_list() == np.arange(4).repeat(5).tolist()


REFUSED = {
    "bare": "without their log-sum-exp",
    "sampled": "classes that were sampled",
    "wide": "p.safetensors is of 300 classes, .*wide.safetensors is of 301 classes",
    "q.npy": "is of 300 classes, .*q.npy is of 280 classes",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compared(tmp_path, kept, name, capsys):
    ids, logits, normalizer = kept
    log_probs = logits - normalizer[..., None]
    ones = np.ones(ids.shape)
    kldiv.TopK(ids, log_probs, classes=300).save(tmp_path / "p.safetensors")
    kldiv.TopK(ids, logits=logits, classes=300).save(tmp_path / "bare.safetensors")
    kldiv.TopK(ids, log_probs, weights=ones, classes=300).save(tmp_path / "sampled.safetensors")
    kldiv.TopK(ids, log_probs, classes=301).save(tmp_path / "wide.safetensors")
    np.save(tmp_path / "q.npy", np.zeros((4, 5, 280)))
    other = tmp_path / (name if "." in name else f"{name}.safetensors")
    with pytest.raises(DumpError, match=REFUSED[name]):
        kldiv.evaluate(tmp_path / "p.safetensors", other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "does not say how many classes whole rows have: --vocab-size N"),
        (["--vocab-size", "3"], "a.jsonl:1: "),
        (["--vocab-size", "300", "--format", "npy"], "written as .safetensors or .parquet"),
    ],
)
def test_one_line_and_exit_code_2(tmp_path, answers, capsys, monkeypatch, options, message):
    path, _ = answers
    arguments = ["kldiv", "convert", str(path), str(tmp_path / "b.safetensors"), *options]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main())
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert message in said
    assert not (tmp_path / "b.safetensors").exists()


def test_tokens_that_are_named_by_text(tmp_path, rng):
    answer = server_json.openai_completion(rng.normal(size=(4, 50)), rng.integers(0, 50, 5), 3)
    (tmp_path / "a.json").write_text(json.dumps(answer))
    with pytest.raises(DumpError, match="names tokens by their text, as ' t"):
        convert(open_dump(tmp_path / "a.json"), tmp_path / "b.safetensors", classes=50)


def test_digits_beyond_float32_are_said_to_be_lost(tmp_path):
    answer = {"prompt_logprobs": [None, {"7": {"logprob": -0.1, "rank": 1}}]}
    (tmp_path / "a.json").write_text(json.dumps(answer))
    done = convert(open_dump(tmp_path / "a.json"), tmp_path / "b.safetensors", classes=8)
    assert done.lost == ("what log-probabilities have beyond float32",)


def test_ranks_of_vllm_that_do_not_fall(tmp_path):
    position = {
        "5": {"logprob": -3.0, "rank": 3},
        "7": {"logprob": -2.0, "rank": 1},
        "2": {"logprob": -1.0, "rank": 2},
    }
    (tmp_path / "a.json").write_text(json.dumps({"prompt_logprobs": [None, position]}))
    message = r"position 0 token 2 of rank 2 has .* -1, above -2 of rank 1"
    with pytest.raises(DumpError, match=message):
        open_dump(tmp_path / "a.json")


@pytest.mark.parametrize("text", [b'{"a": [-Infinity, NaN, 1.5, "\\ud800"]}', b'{"a": [1, 2]}'])
def test_either_parser_of_json(monkeypatch, text):
    found = files.parsed(text)
    monkeypatch.setattr(files, "orjson", None)
    assert repr(found) == repr(files.parsed(text)) == repr(json.loads(text))
