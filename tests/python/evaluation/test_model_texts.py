"""Text that models read, as documents."""

import gzip
import json

import polars as pl
import pytest

from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.models.texts import read_documents


def read(path):
    return [(one.name, one.text) for one in read_documents(str(path))]


def test_a_plain_file_is_one_document(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo \xe4\xb8\xad\n")
    assert read(path) == [(str(path), "one\ntwo 中\n")]


def test_jsonl_and_json_have_a_document_for_each_record(tmp_path):
    lines = [json.dumps({"text": "first", "id": "x"}), "", json.dumps("second")]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    assert read(path) == [(f"{path}:1", "first"), (f"{path}:3", "second")]
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [text for _, text in read(packed)] == ["first", "second"]
    whole = tmp_path / "a.json"
    whole.write_text(json.dumps([{"body": "only string", "n": 1}, "b"]))
    assert read(whole) == [(f"{whole}[0]", "only string"), (f"{whole}[1]", "b")]
    with pytest.raises(
        DumpError, match=r'a.json\[1\] is "b"; expected an object with the field body'
    ):
        read(f"{whole}:body")
    whole.write_text(json.dumps([{"body": "x", "text": "y"}]))
    assert [text for _, text in read(f"{whole}:body")] == ["x"]


def test_parquet_has_a_document_for_each_row(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"id": ["x", "y"], "text": ["one", None], "other": ["a", "b"]}).write_parquet(path)
    assert read(path) == [(f"{path} row 0", "one"), (f"{path} row 1", "")]
    assert [text for _, text in read(f"{path}:other")] == ["a", "b"]


def test_a_directory_has_its_texts_in_natural_order(tmp_path):
    for name in ("10.txt", "2.txt", "deep/1.md", ".hidden.txt", "model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "3.jsonl").write_text('"in a line"\n')
    assert read(tmp_path) == [
        ("2.txt", "2.txt"),
        ("3.jsonl:1", "in a line"),
        ("10.txt", "10.txt"),
        ("deep/1.md", "deep/1.md"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"ab\xff", "a.txt is not text in UTF-8: byte 2 is 0xff"),
        ("a.txt", b"GGUF\0\0", "a.txt is not text: byte 4 is 0"),
        ("a.jsonl", b'{"a": "x", "b": "y"}', "a.jsonl:1 has no field text or content; its fields"),
        ("a.jsonl", b"7", "a.jsonl:1 is 7; expected a string, or an object"),
        ("a.jsonl", b"{", "a.jsonl:1 is not JSON"),
        ("a.json", b"", "a.json is empty"),
        ("a.parquet", b"PAR1", "a.parquet is not a readable Parquet file"),
    ],
)
def test_what_is_no_text_is_said_in_one_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DumpError) as raised:
        read(path)
    assert f"{tmp_path}/{said}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_refusals(tmp_path):
    with pytest.raises(DumpError, match=r"no such file: .*wiki.txt"):
        read(tmp_path / "wiki.txt")
    with pytest.raises(DumpError, match="is a directory without a text; expected files that end"):
        read(tmp_path)
    path = tmp_path / "a.parquet"
    pl.DataFrame({"n": [1], "a": ["x"], "b": ["y"]}).write_parquet(path)
    with pytest.raises(DumpError, match="has no column text or content; its columns of strings: a"):
        read(path)
    with pytest.raises(DumpError, match="has no column 'n' of strings"):
        read(f"{path}:n")
