"""Files with bytes that were changed, cut off or put in: read, or refused in one line."""

import json
import random
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import server_json
from llama_cpp_files import MAGICS, logits_of, pack, tokens_of
from safetensors.numpy import save_file

import kldiv
from kldiv.evaluation import open_dump
from kldiv.evaluation.dumps.protocol import DumpError

FILES = 500
"""Malformed ones of each format."""


def npy(path, rows):
    np.save(path, rows)


def npz(path, rows):
    np.savez(path, logits=rows)


def packed_npz(path, rows):
    np.savez_compressed(path, logits=rows)


def safetensors(path, rows):
    save_file({"logits": rows}, path)


def parquet(path, rows):
    pq.write_table(pa.table({"logits": rows.tolist()}), path)


def top_k(path, rows):
    kldiv.top_k(rows, 5).save(path)


def answer(path, rows):
    path.write_text(json.dumps(server_json.vllm(rows, np.arange(len(rows) + 1), 4)))


def base_file(magic):
    def write(path, _rows):
        path.write_bytes(pack(magic, logits_of(11), tokens_of(11))[0])

    return write


WRITERS = {
    "a.npy": npy,
    "a.npz": npz,
    "packed.npz": packed_npz,
    "a.safetensors": safetensors,
    "a.parquet": parquet,
    "top_k.safetensors": top_k,
    "top_k.parquet": top_k,
    "answer.json": answer,
    **{f"{magic}.kld": base_file(magic) for magic in MAGICS},
}
NUMBERS = (b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"99999999")


def malformed(data, draw):
    """The bytes with something wrong: a bit, a piece, a number that is too large, the end."""
    data = bytearray(data)
    place = draw.randrange(len(data))
    match draw.choice(("bits", "end", "junk", "number", "twice")):
        case "bits":
            for _ in range(draw.choice((1, 3))):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        case "end":
            del data[place:]
        case "junk":
            data[place : place + 8] = draw.randbytes(8)
        case "number":
            data[place : place + 8] = draw.choice(NUMBERS)
        case "twice":
            data[place:place] = data[place : place + draw.randrange(1, 50)]
    return bytes(data)


def read(path):
    """All of a dump."""
    for sequence in open_dump(path).sequences():
        for block in sequence.read(3):
            assert len(block)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_malformed_files_are_read_or_refused_in_one_line(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path, np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32))
    read(path)
    whole, draw, refused = path.read_bytes(), random.Random(0), []
    with warnings.catch_warnings():
        # Of zipfile and of NumPy, about what they find.
        warnings.simplefilter("ignore")
        for _ in range(FILES):
            path.write_bytes(malformed(whole, draw))
            try:
                read(path)
            except DumpError as error:
                refused.append(str(error))
    assert refused
    assert not [message for message in refused if "\n" in message]
