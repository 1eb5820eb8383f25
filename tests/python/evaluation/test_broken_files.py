"""Files that say what they do not hold: refused in one line that names them, in little memory."""

import bz2
import gzip
import io
import json
import math
import struct
import zipfile

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from llama_cpp_files import MAGICS
from tokenizers import Tokenizer, models

import kldiv
import kldiv.teachers
from kldiv._text import one_line
from kldiv.evaluation import read_positions
from kldiv.evaluation.dumps import llama_cpp, streams
from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.llama_cpp import LlamaCppDump
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.sequences import read_lengths
from kldiv.evaluation.engines.errors import EngineError
from kldiv.evaluation.engines.work import WorkDirectory
from kldiv.evaluation.models.texts import read_documents
from kldiv.evaluation.report.gguf_tokens import read_tokens
from kldiv.evaluation.report.tokens import tokens_of
from kldiv.evaluation.results import read_results
from kldiv.evaluation.side_files import read_floor, read_sequence_labels
from kldiv.evaluation.tables.logs import read_logs

DEEP = "[" * 100_000
DIGITS = "9" * 5000
"""More than Python makes an integer of."""


def test_names_in_files_are_escaped_in_messages(tmp_path):
    header = {"a\nb\x1b[2J": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(DumpError, match=r"a b\\x1b\[2J") as error:
        open_dump(f"{tmp_path / 'a.safetensors'}:logits")
    assert str(error.value).isprintable()
    assert one_line("names of 中文 – and  spaces") == "names of 中文 – and  spaces"


def test_members_of_an_archive_that_are_broken_however_compressed(tmp_path):
    member = io.BytesIO()
    np.save(member, np.ones((2, 3), np.float32))
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
            archive.writestr("a.npy", member.getvalue())
        data = bytearray((tmp_path / "a.npz").read_bytes())
        data[50:60] = bytes(10)
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(DumpError, match=r"a\.npz"):
            [list(one.read(1)) for one in open_dump(tmp_path / "a.npz").sequences()]


def test_a_member_that_is_before_the_file(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones((2, 3)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    end = data.rfind(b"PK\5\6")
    # Where the directory begins, further back than there are bytes before it.
    data[end + 16 : end + 20] = (len(data) * 4).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(DumpError, match=r"a\.npz is no readable \.npz file"):
        open_dump(tmp_path / "a.npz")


def test_chunks_of_zarr_that_no_bytes_are_of(tmp_path):
    zarr.save_array(tmp_path / "a.zarr", np.ones((2, 3), np.float32))
    path = tmp_path / "a.zarr" / "zarr.json"
    said = json.loads(path.read_text())
    said["shape"] = said["chunk_grid"]["configuration"]["chunk_shape"] = [1 << 20, 1 << 10]
    path.write_text(json.dumps(said))
    with pytest.raises(DumpError, match=r"a\.zarr has chunks of \[1048576, 1024\] numbers"):
        open_dump(tmp_path / "a.zarr")


def test_gzip_that_is_broken_or_of_nothing_but_repetition(tmp_path):
    for name, read in (
        ("a.json.gz", open_dump),
        ("a.jsonl.gz", open_dump),
        ("a.txt.gz", lambda path: list(read_documents(str(path)))),
    ):
        whole = gzip.compress(b'{"prompt_logprobs": [null]}')
        broken = whole[:12] + b"\xff\xff" + whole[14:]
        bomb = gzip.compress(b"[" * (1 << 25), 9)
        for data in (whole[:-4], broken, bz2.compress(whole), bomb):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(DumpError, match=name.replace(".", r"\.")):
                read(tmp_path / name)


def as_bytes(magic, context, classes, chunks):
    return struct.pack("<8s3i", magic.encode(), context, classes, chunks)


@pytest.mark.parametrize("magic", MAGICS)
def test_headers_of_pipes_that_promise_more_than_memory(magic):
    stream = io.BytesIO(as_bytes(magic, 9, (1 << 31) - 1, 3) + bytes(4 * 27))
    with pytest.raises(DumpError, match="stdin has a damaged header"):
        llama_cpp.open("-", stream=stream)
    stream = io.BytesIO(as_bytes(magic, 1 << 14, 8, 1 << 14) + bytes(1000))
    with pytest.raises(DumpError, match="stdin is cut off at byte 1,020, in the token ids"):
        llama_cpp.open("-", stream=stream)
    largest = io.BytesIO(as_bytes(magic, 3, 1 << 22, 1) + bytes(12))
    assert isinstance(llama_cpp.open("-", stream=largest), LlamaCppDump)


def test_labels_of_sequences_that_no_parser_takes(tmp_path):
    for text in (DEEP, f"[{DIGITS}]"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DumpError, match=r"a\.json is no JSON that can be read"):
            read_sequence_labels(str(tmp_path / "a.json"))
        with pytest.raises(DumpError, match=r"a\.json"):
            read_lengths(tmp_path / "a.json")
        with pytest.raises(DumpError, match=r"a\.json is no JSON"):
            read_results(tmp_path / "a.json")
    (tmp_path / "a.txt").write_text(DIGITS)
    with pytest.raises(DumpError, match=r"a\.txt has '9+' in line 1; expected LENGTH"):
        read_lengths(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DumpError, match=r"a\.txt is not text in UTF-8"):
        read_lengths(tmp_path / "a.txt")
    (tmp_path / "a.json").write_text(f"[{1 << 62}]")
    with pytest.raises(DumpError, match="fewer than can be counted"):
        read_lengths(tmp_path / "a.json")


def test_a_floor_of_texts(tmp_path):
    pl.DataFrame({"kl": ["a"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DumpError, match=r"a\.parquet holds String in its column kl, not numbers"):
        read_floor(str(tmp_path / "a.parquet"))


def test_a_table_of_positions_with_broken_metadata(tmp_path):
    evaluation = kldiv.evaluate(np.ones((2, 3)), np.ones((2, 3)))
    evaluation.write_positions(tmp_path / "a.parquet")
    frame = pl.read_parquet(tmp_path / "a.parquet")
    (key,) = set(pl.read_parquet_metadata(tmp_path / "a.parquet")) - {"ARROW:schema"}
    for text in ("{", "[]", DEEP):
        frame.write_parquet(tmp_path / "a.parquet", metadata={key: text})
        with pytest.raises(DumpError, match=r"a\.parquet says of its table"):
            read_positions(tmp_path / "a.parquet")


def test_runs_that_are_no_runs(tmp_path):
    (tmp_path / "block-000000.parquet").write_bytes(b"PAR1")
    for text in ("[1]", DEEP, '{"form": 1, "reference": {}}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(EngineError):
            WorkDirectory(tmp_path, {"reference": {"name": "a", "sha256": ""}})


def test_more_metadata_than_rows(tmp_path):
    rows = pa.array([[1.0, 2.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"logits": rows}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    metadata = data[-8 - size : -8]
    # Zigzag varints: the rows of the file are one, and of its only row group none.
    for place in range(len(metadata)):
        if metadata[place] != 2:
            continue
        changed = metadata[:place] + b"\0" + metadata[place + 1 :]
        (tmp_path / "a.parquet").write_bytes(data[: -8 - size] + changed + data[-8:])
        try:
            for sequence in open_dump(tmp_path / "a.parquet").sequences():
                list(sequence.read(1))
        except DumpError as error:
            assert "a.parquet" in str(error)  # noqa: PT017 - some are refused, some are not


def test_metadata_of_safetensors_that_is_no_text(tmp_path):
    tensor = {"logits": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}
    for said in ({"kldiv": 7}, {"kldiv": DEEP}, {"first.logits": DIGITS}):
        text = json.dumps({"__metadata__": said} | tensor).encode()
        path = tmp_path / "a.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
        (sequence,) = open_dump(path).sequences()
        assert sequence.first == 0


def test_tokens_of_gguf_that_are_no_text(tmp_path):
    def text(data):
        return struct.pack("<Q", len(data)) + data

    entries = [
        text(b"tokenizer.ggml.model") + struct.pack("<I", 8) + text(b"gpt2"),
        text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 1) + text(b"\xff"),
        text(b"tokenizer.ggml.token_type") + struct.pack("<IIQi", 9, 5, 1, 3),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries))
    (tmp_path / "a.gguf").write_bytes(head + b"".join(entries))
    assert read_tokens(tmp_path / "a.gguf") == [b"\xff"]
    number = text(b"tokenizer.ggml.token_type") + struct.pack("<Ii", 5, 3)
    numbers = text(b"tokenizer.ggml.tokens") + struct.pack("<IIQi", 9, 5, 1, 3)
    for broken in ([*entries[:2], number], [entries[0], numbers]):
        head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(broken))
        (tmp_path / "a.gguf").write_bytes(head + b"".join(broken))
        with pytest.raises(DumpError, match=r"a\.gguf has tokens, or types"):
            read_tokens(tmp_path / "a.gguf")
    deep = text(b"a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 100_000
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + deep)
    with pytest.raises(DumpError, match=r"a\.gguf has a damaged GGUF header"):
        read_tokens(tmp_path / "a.gguf")


def test_integers_of_servers_that_are_too_large(tmp_path):
    answer = {"prompt_tokens": [1, 1 << 70], "prompt_logprobs": [None, -1.0]}
    answer |= {"topk_prompt_logprobs": [None, [[1, -0.5]]]}
    (tmp_path / "a.json").write_text(json.dumps(answer))
    with pytest.raises(DumpError, match=r"a\.json"):
        open_dump(tmp_path / "a.json")


def test_distillkits_files_that_are_broken(tmp_path):
    path, config = tmp_path / "a.parquet", tmp_path / "config.yaml"
    packed = np.array([-0.5, -1.5], np.float32).view(np.uint8).tolist()
    columns = {"compressed_logprobs": [[packed]], "bytepacked_indices": [[[0b111_010_00]]]}
    said = {"d": 8, "k": 2, "exact_k": 2, "delta_encoding": False}
    pq.write_table(pa.table(columns), path)
    for data in (b"\xff", b"a: [", b"d: 2001-99-99", b"{", b"d: .inf\nk: 2\nexact_k: 2", b"d: [1]"):
        config.write_bytes(data)
        with pytest.raises(ValueError, match=r"config\.yaml"):
            list(kldiv.teachers.from_distillkit(path, config))
    with pytest.raises(ValueError, match=r"^config is"):
        list(kldiv.teachers.from_distillkit(path, said | {"d": float("inf")}))
    for data in (b"PAR1", path.read_bytes()[:-20] + bytes(12) + b"\x50\0\0\0PAR1"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.parquet is no Parquet file that can be read"):
            list(kldiv.teachers.from_distillkit(path, said))


def test_an_index_names_files_beside_it_only(tmp_path):
    index = tmp_path / "folder" / "model.safetensors.index.json"
    index.parent.mkdir()
    text = b"{}".ljust(8)
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    for file in ("../a.safetensors", str(tmp_path / "a.safetensors"), "a" * 5000, "a\0b", "", 7):
        index.write_text(json.dumps({"weight_map": {"logits": file}}))
        with pytest.raises(DumpError, match=r"not beside it|has no weight_map") as error:
            open_dump(index)
        assert str(error.value).isprintable()


@pytest.mark.parametrize("shape", [(0, 1 << 62), (1 << 40, 0, 1 << 40), (1,) * 33])
def test_shapes_that_no_array_has(tmp_path, shape):
    header = io.BytesIO()
    said = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, said)
    (tmp_path / "a.npy").write_bytes(header.getvalue() + bytes(8))
    with pytest.raises(DumpError, match=r"a\.npy is not a readable \.npy file"):
        read_floor(str(tmp_path / "a.npy"))
    entry = {"kl": {"dtype": "F64", "shape": shape, "data_offsets": [0, 8 * math.prod(shape)]}}
    text = json.dumps(entry).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(DumpError, match=r"a\.safetensors has no readable"):
        read_floor(str(tmp_path / "a.safetensors"))


def test_rows_of_pipes_that_are_wider_than_any():
    header = io.BytesIO()
    said = {"descr": "<f8", "fortran_order": False, "shape": (2, 1 << 40)}
    np.lib.format.write_array_header_1_0(header, said)
    header.seek(0)
    with pytest.raises(DumpError, match="rows of 1,099,511,627,776 numbers"):
        streams.open_stream(streams.Stream("a pipe", header), "a pipe")


def test_members_that_claim_to_be_larger_than_they_can(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.ones((2, 3)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    at = data.rfind(b"PK\1\2")
    data[at + 24 : at + 28] = b"\xff\xff\xff\x7f"
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(DumpError, match="which it cannot be"):
        open_dump(tmp_path / "a.npz")


def test_a_tokenizer_that_its_library_panics_of(tmp_path):
    made = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]))
    said = json.loads(made.to_str())
    said["model"]["vocab"] = {"a": 0, "b": 1, "ab": 2}
    said["model"]["continuing_subword_prefix"] = "##"
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    with pytest.raises(DumpError, match=r"tokenizer\.json"):
        tokens_of(tmp_path / "tokenizer.json")


def test_a_table_without_a_divergence(tmp_path):
    kldiv.evaluate(np.ones((2, 3)), np.ones((2, 3))).write_positions(tmp_path / "a.parquet")
    frame = pl.read_parquet(tmp_path / "a.parquet").drop("kl")
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DumpError, match=r"a\.parquet has neither column kl nor kl_lower"):
        read_positions(tmp_path / "a.parquet")


def test_a_page_of_fewer_values_than_none(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"kl": np.arange(9.0)}).write_parquet(path, compression="uncompressed")
    data = bytearray(path.read_bytes())
    # The header of the page: the number of its values, 9, as a zigzag varint; now −9.
    place = data.index(b"\x15\x12", 4)
    data[place + 1] = 0x11
    path.write_bytes(data)
    with pytest.raises(DumpError, match=r"a\.parquet is not a readable Parquet file"):
        read_floor(str(path))


def test_a_table_with_a_position_twice(tmp_path):
    kldiv.evaluate(np.ones((2, 3)), np.ones((2, 3))).write_positions(tmp_path / "a.parquet")
    frame = pl.read_parquet(tmp_path / "a.parquet")
    frame.with_columns(position=pl.lit(7).cast(frame.schema["position"])).write_parquet(
        tmp_path / "a.parquet"
    )
    with pytest.raises(DumpError, match=r"a\.parquet: position 7 of sequence 0 is there twice"):
        read_positions(tmp_path / "a.parquet")


def test_a_log_with_more_digits_than_a_number_has(tmp_path):
    (tmp_path / "a.log").write_text(f"  {DIGITS} 1.5 ± 0.1\n")
    with pytest.raises(DumpError, match=r"a\.log"):
        read_logs([tmp_path / "a.log"])


def test_columns_of_what_is_called_a_list(tmp_path):
    rows = pa.array([{"list": 1.0}], pa.struct([("list", pa.float32())]))
    pq.write_table(pa.table({"logits": rows, "ids": rows}), tmp_path / "a.parquet")
    with pytest.raises(DumpError, match=r"a\.parquet has no column of lists"):
        open_dump(tmp_path / "a.parquet")
    said = {"format": "TopK", "version": 1, "kind": "logits", "classes": 9, "batch_shape": [1]}
    metadata = {"kldiv": json.dumps(said | {"ragged": False})}
    table = pa.table({"logits": rows, "ids": rows}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DumpError, match=r"a\.parquet lacks the column 'ids'"):
        kldiv.TopK.load(tmp_path / "a.parquet")
