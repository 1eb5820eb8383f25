"""The text of tokens, of what tokenizers lie in."""

import struct

import pytest

from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.report.gguf_tokens import read_tokens
from kldiv.evaluation.report.tokens import tokens_of


def gguf(kind, tokens, types, version=3):
    def text(value):
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    def strings(values):
        return struct.pack("<IQ", 8, len(values)) + b"".join(map(text, values))

    entries = [
        text("general.name") + struct.pack("<I", 8) + text("x"),
        text("general.numbers") + struct.pack("<IIQ3f", 9, 6, 3, 1, 2, 3),
        text("general.flag") + struct.pack("<I?", 7, True),
        text("tokenizer.ggml.model") + struct.pack("<I", 8) + text(kind),
        text("tokenizer.ggml.tokens") + struct.pack("<I", 9) + strings(tokens),
        text("tokenizer.ggml.token_type")
        + struct.pack(f"<IIQ{len(types)}i", 9, 5, len(types), *types),
    ]
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(entries)) + b"".join(entries)


def test_tokens_of_gguf_files(tmp_path):
    path = tmp_path / "model.gguf"
    # In GPT-2's alphabet 中 is ä¸Ń and a space Ġ.
    path.write_bytes(gguf("gpt2", ["<|end|>", "Ġword", "ä¸Ń", "ä", "Ċ"], [3, 1, 1, 1, 1]))
    tokens = tokens_of(path)
    assert [tokens.token(one) for one in range(5)] == ["<|end|>", " word", "中", "\\xe4", "\n"]
    assert tokens.text([1, 2]) == " word中"
    assert tokens_of(tmp_path).size == 5
    path.write_bytes(gguf("llama", ["<s>", "▁the", "<0xE4>", "<0xB8>", "<0xAD>"], [3, 1, 6, 6, 6]))
    assert tokens_of(path).text([1, 2, 3, 4]) == " the中"
    whole = path.read_bytes()
    for broken, reason in (
        (whole[:60], "damaged"),
        (whole[:4] + b"\x09" + whole[5:], "no GGUF file of version 2 or 3"),
        (gguf("bert", ["a"], [1]), "kind 'bert'"),
        (gguf("gpt2", [], []), "holds no tokens"),
        (gguf("gpt2", ["a"], [1, 1]), "1 tokens, and types of 2"),
    ):
        path.write_bytes(broken)
        with pytest.raises(DumpError, match=reason):
            read_tokens(path)


def test_what_is_no_tokenizer_is_refused(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DumpError, match=r"other\.json is no tokenizer\.json and no GGUF"):
        tokens_of(tmp_path / "other.json")
    with pytest.raises(DumpError, match="nowhere"):
        tokens_of(tmp_path / "nowhere.json")
    with pytest.raises(TypeError, match="got int"):
        tokens_of(3)
