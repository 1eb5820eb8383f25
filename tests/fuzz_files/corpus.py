"""Whole files of every format, small ones: what is changed."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp_files
import ml_dtypes
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import server_json
import tables_of_positions
import zarr
from safetensors.numpy import save_file

import kldiv
from kldiv.evaluation.dumps.convert import convert
from kldiv.evaluation.dumps.formats import open_dump

WIDTH = 7
LENGTHS = (3, 5, 1)

IDENTITY = {"reference": {"name": "a", "sha256": "00"}, "temperature": 1.0, "chunks": None}

Tree = dict[str, bytes]
"""Files by their paths in a folder; directories are where files are."""


def arrays(seed: int = 0, dtype: object = np.float32, width: int = WIDTH) -> list[np.ndarray]:
    """Logits of some sequences."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(length, width)).astype(dtype) for length in LENGTHS]


def _saved(save: Callable[..., None], *given: object, **named: object) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        with path.open("wb") as file:
            save(file, *given, **named)
        return path.read_bytes()


def _tree(make: Callable[[Path], None]) -> Tree:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _file(make: Callable[[Path], object], name: str) -> Tree:
    return _tree(lambda folder: make(folder / name))


def npy() -> Iterator[Tree]:
    """One array, of every dtype and order, and several after each other."""
    rows = arrays()[1]
    for array in (
        rows,
        rows.astype(np.float64)[0],
        rows.astype(np.float16),
        rows.astype(ml_dtypes.bfloat16),
        np.asfortranarray(rows),
        np.stack([rows, rows]),
        np.stack([np.asfortranarray(rows).T, np.asfortranarray(rows).T]).T,
        rows.astype(">f4"),
        np.arange(6),
        np.array([True, False]),
        np.zeros((0, 4), np.float32),
        np.random.default_rng(5).normal(size=(300, 40)),
    ):
        yield {"dump.npy": _saved(np.save, array)}
    yield {"dump.npy": b"".join(_saved(np.save, array) for array in arrays())}
    wide = io.BytesIO()
    np.lib.format.write_array(wide, rows, version=(2, 0))
    yield {"dump.npy": wide.getvalue()}


def npz() -> Iterator[Tree]:
    """Archives that are stored and compressed, with labels."""
    sequences = {f"logits_{i}": array for i, array in enumerate(arrays())}
    labels = {f"labels_{i}": np.arange(length) for i, length in enumerate(LENGTHS)}
    for save in (np.savez, np.savez_compressed):
        yield {"dump.npz": _saved(save, **sequences)}
        yield {"dump.npz": _saved(save, **sequences, **labels)}
        yield {"dump.npz": _saved(save, arr_0=np.asfortranarray(arrays()[1]))}
    wide = io.BytesIO()
    with (
        zipfile.ZipFile(wide, "w") as archive,
        archive.open("a.npy", "w", force_zip64=True) as file,
    ):
        file.write(_saved(np.save, arrays()[0]))
    yield {"dump.npz": wide.getvalue()}


def safetensors() -> Iterator[Tree]:
    """One tensor, numbered ones, labels, what the package itself writes."""
    numbered = {f"logits_{i}": array for i, array in enumerate(arrays())}
    labels = {f"labels_{i}": np.arange(length) for i, length in enumerate(LENGTHS)}
    for tensors in (
        {"logits": arrays()[1]},
        {"hidden_states": arrays(dtype=ml_dtypes.bfloat16)[1], "ids": np.arange(3)},
        numbered,
        numbered | labels,
        {"probs": np.random.default_rng(5).random((60, 80)).astype(np.float16)},
    ):
        yield _file(lambda path, tensors=tensors: save_file(tensors, path), "dump.safetensors")
    yield _file(
        lambda path: save_file({"logits": arrays()[1]}, path, {"first.logits": "4"}),
        "dump.safetensors",
    )


def sharded() -> Iterator[Tree]:
    """Tensors in several files, by an index."""

    def make(folder: Path) -> None:
        names = [f"model-{shard:05}-of-00002.safetensors" for shard in (1, 2)]
        where = {}
        for shard, name in enumerate(names):
            held = {f"logits.{i}": a for i, a in enumerate(arrays()) if i % 2 == shard}
            save_file(held, folder / name)
            where |= dict.fromkeys(held, name)
        index = {"metadata": {"total_size": 1}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    yield _tree(make)


def directories() -> Iterator[Tree]:
    """Numbered files, and layouts with a head and tokens beside them."""

    def layout(folder: Path, inner: str, head: str, tokens: str, suffix: str) -> None:
        for name in (inner, head, tokens):
            (folder / name).mkdir(parents=True)
        save_file(
            {"weight": np.ones((11, WIDTH), np.float32)}, folder / head / "weight.safetensors"
        )
        for number, array in enumerate(arrays()):
            path = folder / inner / f"hidden_{number:04}{suffix}"
            if suffix == ".npy":
                np.save(path, array)
            else:
                save_file({"hidden_states": array}, path)
            ids = list(range(len(array) + number % 2))
            text = json.dumps({"token_ids": ids} if number else ids)
            (folder / tokens / f"context-{number:04}.json").write_text(text)

    yield _tree(lambda to: layout(to, "reference-hidden", "lm-head", "tokens", ".safetensors"))
    yield _tree(lambda to: layout(to, "capture", "head", "panel/tokens", ".npy"))


def llama_cpp() -> Iterator[Tree]:
    """Base files, of every kind."""
    for magic in llama_cpp_files.MAGICS:
        for classes in (8, 13):
            logits, tokens = llama_cpp_files.logits_of(classes), llama_cpp_files.tokens_of(classes)
            yield {"base.kld": llama_cpp_files.pack(magic, logits, tokens)[0]}


def servers() -> Iterator[Tree]:
    """Responses of every server, in all forms of JSON."""
    rng = np.random.default_rng(3)
    for number, answer in enumerate(server_json.SERVERS.values()):
        responses = [
            answer(rng.normal(size=(length, 30)) * 2, rng.integers(30, size=length + 1), 4)
            for length in (5, 3)
        ]
        for name in ("answers.json", "answers.jsonl", "answers.jsonl.gz", "answers.json.gz"):
            if number < 3 or name != "answers.jsonl.gz":
                yield _file(lambda p, given=responses: server_json.write(p, given), name)
        one = json.dumps({"custom_id": "7", "response": {"body": responses[0]}}).encode()
        yield {"answers.json": one}


def parquet() -> Iterator[Tree]:
    """Columns of lists and of classes; tables that are no dumps."""
    rows = arrays()
    numbers = pa.array(np.repeat(np.arange(len(rows)), [len(a) for a in rows]))
    flat = [row for array in rows for row in array]
    labels = pa.array(np.arange(len(flat)))
    columns: list[dict[str, object]] = [
        {"sequence": numbers, "logits": pa.array(flat, pa.list_(pa.float32()))},
        {"labels": labels, "logits": pa.array(flat, pa.list_(pa.float64(), WIDTH))},
        {"labels": labels, **{f"token {i}": np.stack(flat)[:, i] for i in range(WIDTH)}},
        {
            "logits": pa.array(
                [list(row.astype(np.float16)) for row in flat], pa.large_list(pa.float16())
            )
        },
        {"sequence": pa.array([2**63 - 1, 5]), "logits": [[1.0, None], [1.0, 2.0]]},
        {"logits": [[1.0, 2.0], None, [1.0]]},
        {"logits": pa.array([[[1.0]], [[2.0]]], pa.list_(pa.list_(pa.float32())))},
        {"logits": pa.array([], pa.list_(pa.float32()))},
        {"text": ["a", None]},
        {"labels": pa.array([2**64 - 1], pa.uint64()), "logits": [[1.0]]},
        {"labels": pa.array([1.5]), "sequence": pa.array(["a"]), "logits": [[1.0]]},
    ]
    for table in columns:
        for compression in ("none", "zstd", "snappy"):
            if table is not columns[0] and compression == "snappy":
                continue
            yield _file(
                lambda path, table=table, by=compression: pq.write_table(
                    pa.table(table), path, row_group_size=4, compression=by
                ),
                "dump.parquet",
            )


def zarrs() -> Iterator[Tree]:
    """Arrays and groups of both versions of the format."""

    def group(folder: Path, version: int) -> None:
        made = zarr.open_group(folder / "dump.zarr", mode="w", zarr_format=version)
        for number, array in enumerate(arrays()[:2]):
            stored = made.create_array(
                f"logits_{number}", shape=array.shape, chunks=(2, 4), dtype="f4"
            )
            stored[:] = array
            labels = made.create_array(f"labels_{number}", shape=(len(array),), dtype="i8")
            labels[:] = np.arange(len(array))

    for version in (2, 3):
        yield _tree(lambda folder, version=version: group(folder, version))
    yield _tree(lambda folder: zarr.save_array(folder / "dump.zarr", arrays()[1]))


def top_k_files() -> Iterator[Tree]:
    """Rows of the most probable classes, alike and ragged, with what may be beside them."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(2, 4, 50)).astype(np.float32)
    kept = kldiv.top_k(logits, 5)
    drawn = kldiv.sample_k(logits.reshape(8, 50), 6, seed=1)
    with_sums = kldiv.TopK(
        kept.ids, logits=kept.values, normalizer=np.zeros((2, 4), np.float32), classes=50
    )
    for top_k in (kept, drawn, with_sums):
        for name in ("kept.safetensors", "kept.parquet"):
            yield _file(top_k.save, name)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "answers.json"
        responses = [
            server_json.vllm(rng.normal(size=(4, 30)), rng.integers(30, size=5), 3, ids=True)
        ] * 2
        server_json.write(source, responses)
        for name in ("kept.safetensors", "kept.parquet"):
            yield _file(lambda path: convert(open_dump(source), path, classes=30), name)


def heads() -> Iterator[Tree]:
    """Output layers in files, indexes and directories."""
    weight = np.ones((11, WIDTH), np.float32)
    yield _file(lambda path: save_file({"lm_head.weight": weight}, path), "head.safetensors")
    yield {"head.npy": _saved(np.save, weight)}


def row_files() -> Iterator[Tree]:
    """Labels and masks."""
    labels, mask = np.arange(6).reshape(2, 3), np.array([True, False, True])
    for array in (labels, mask, labels.astype(np.uint64), labels.astype(">i4")):
        yield {"labels.npy": _saved(np.save, array)}
    for array in (labels, mask, labels.astype(np.uint8)):
        yield _file(
            lambda path, array=array: save_file({"labels": array}, path), "labels.safetensors"
        )


def lengths() -> Iterator[Tree]:
    """Lengths of sequences."""
    yield {"lengths.npy": _saved(np.save, np.array(LENGTHS))}
    yield {"lengths.txt": b"# of texts\n3 one\n5 two\n1\n"}
    for value in ([3, 5, 1], [{"length": 3, "name": "one"}, {"length": 6}], {"one": 3, "two": 6}):
        yield {"lengths.json": json.dumps(value).encode()}


def sequence_labels() -> Iterator[Tree]:
    """What each sequence belongs to."""
    yield {"strata.json": json.dumps(["prose", "code", 3]).encode()}
    yield {"strata.json": json.dumps({"a.npy": "prose", "b.npy": "code"}).encode()}
    yield {"strata.csv": b'a.npy,prose\n"b,.npy","code"\n'}
    yield {"strata.tsv": b"a.npy\tprose\nb.npy\tcode\n"}
    yield {"strata.txt": "prose\ncode\nVerse – ünïcode\n".encode()}


def floors() -> Iterator[Tree]:
    """KL of two runs of one model."""
    kl = np.linspace(0, 1, 9)
    yield {"floor.npy": _saved(np.save, kl)}
    yield _file(lambda path: save_file({"kl": kl}, path), "floor.safetensors")
    yield _file(tables_of_positions.table(sequences=3).write_parquet, "floor.parquet")
    yield _file(pl.DataFrame({"kl": kl}).write_parquet, "floor.parquet")
    yield _file(pl.DataFrame({"kl": ["a", "b"]}).write_parquet, "floor.parquet")


def _evaluation() -> kldiv.Evaluation:
    p, q = arrays(1), arrays(2)
    return kldiv.evaluate(p, q, labels=np.arange(sum(LENGTHS)) % WIDTH)


def results() -> Iterator[Tree]:
    """Results in JSON."""
    yield {"result.json": _evaluation().to_json().encode()}
    yield {"result.json": json.dumps(_evaluation().summary().as_dict()).encode()}


def positions() -> Iterator[Tree]:
    """Tables of positions that an evaluation kept."""
    yield _file(_evaluation().write_positions, "kept.parquet")
    yield _file(tables_of_positions.table(sequences=3).write_parquet, "kept.parquet")


def block_table() -> pl.DataFrame:
    """The positions of the block in `work`."""
    return tables_of_positions.table(sequences=3).drop("candidate")


def work() -> Iterator[Tree]:
    """A work directory that keeps a block of a run."""
    from kldiv.evaluation.engines.finished import Finished

    table = block_table()
    found = Finished([table, table], len(table), [("a.B", "text")])
    run = json.dumps({"form": 1, **IDENTITY})
    block = found.encode(start=[0, 0])
    yield {"work/run.json": run.encode(), "work/block-000000.parquet": block}


def logs() -> Iterator[Tree]:
    """The table that llama.cpp prints, between other lines."""
    from kldiv.evaluation.tables.logs import LINES

    lines = ["chunk             PPL               ln(PPL(Q)/PPL(base))", "   1       9.5 ±    0.7"]
    for line in LINES:
        percent = " %" if "Δp" in line.label or line.columns[0].endswith("_percent") else ""
        error = " ± 0.25" if len(line.columns) == 2 else ""
        lines.append(f"{line.label}:  1.5{error}{percent}")
    text = "\n".join(lines) + "\n"
    yield {"run.log": text.encode()}
    yield {"run.log": text.encode("utf-16")}
    yield {"run.log": text.replace("\n", "\r\n").encode("latin-1", "replace")}


def texts() -> Iterator[Tree]:
    """Texts that models read."""
    documents = ["Once upon a time.", "Ünïcode – 中文", ""]
    for name in ("text.jsonl", "text.json", "text.jsonl.gz"):
        items = [{"text": text, "id": i} for i, text in enumerate(documents)]
        data = (
            json.dumps(items) if name == "text.json" else "\n".join(json.dumps(i) for i in items)
        ).encode()
        yield {name: gzip.compress(data) if name.endswith(".gz") else data}
    yield {"text.txt": "\r\n".join(documents).encode()}
    yield {"text.txt.gz": gzip.compress("\n".join(documents).encode("utf-8-sig"))}
    yield _file(pl.DataFrame({"text": documents, "n": [1, 2, 3]}).write_parquet, "text.parquet")


def tokenizers() -> Iterator[Tree]:
    """Tokenizers in GGUF and of the library."""

    def text(value: str) -> bytes:
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    for kind, tokens in (
        ("gpt2", ["<|end|>", "Ġword", "ä¸Ń"]),
        ("llama", ["<s>", "▁the", "<0xE4>"]),
    ):
        entries = [
            text("general.architecture") + struct.pack("<I", 8) + text("llama"),
            text("general.alignment") + struct.pack("<II", 4, 32),
            text("some.lists")
            + struct.pack("<IIQ", 9, 9, 2)
            + (struct.pack("<IQ", 4, 2) + struct.pack("<2I", 1, 2)) * 2,
            text("tokenizer.ggml.model") + struct.pack("<I", 8) + text(kind),
            text("tokenizer.ggml.tokens")
            + struct.pack("<IIQ", 9, 8, len(tokens))
            + b"".join(map(text, tokens)),
            text("tokenizer.ggml.token_type")
            + struct.pack("<IIQ", 9, 5, len(tokens))
            + struct.pack(f"<{len(tokens)}i", 3, 1, 1),
        ]
        head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries))
        yield {"model.gguf": head + b"".join(entries)}
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    yield {"tokenizer.json": made.to_str().encode()}


def distillkit() -> Iterator[Tree]:
    """Compressed log-probabilities, and what explains them."""
    import yaml

    config = {"d": 8, "k": 2, "exact_k": 2, "exact_dtype": "float32", "delta_encoding": False}
    packed = np.array([-0.5, -1.5], np.float32).view(np.uint8).tolist()
    columns = {
        "input_ids": [[1, 2], [3]],
        "compressed_logprobs": [[packed, packed], [packed]],
        "bytepacked_indices": [[[0b111_010_00]] * 2, [[0b001_010_00]]],
    }
    binned = config | {
        "k": 6,
        "exact_k": 2,
        "polynomial_terms": ["sqrt", 0, 1],
        "term_dtype": "float16",
        "residual_bins": [{"scale_dtype": "float16", "element_bits": 4, "num_elements": 4}],
        "normalize_t": True,
        "delta_encoding": True,
    }
    bytes_of = [8 + 6 + 4, 3]
    rng = np.random.default_rng(0)
    wide = {
        "compressed_logprobs": [[rng.integers(256, size=bytes_of[0]).tolist()] * 2],
        "bytepacked_indices": [[rng.integers(256, size=bytes_of[1]).tolist()] * 2],
    }
    raw = {"token_ids": [[[7, 2], [1, 2]]], "top_values": [[[-0.5, -1.5], [-0.1, -4.0]]]}
    for held, said in ((columns, config), (wide, binned), (raw, {"d": 8})):
        for name, text in (
            ("config.yaml", yaml.safe_dump(said)),
            ("config.json", json.dumps(said)),
        ):
            tree = _file(
                lambda path, held=held: pq.write_table(pa.table(held), path), "samples.parquet"
            )
            yield tree | {name: text.encode()}
