"""Changes of the bytes of a file: at random, and of what its format is made of."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable
from typing import Any

LARGEST = 1 << 20
"""Bytes of a changed file."""

_EDGES = (
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    1 << 20,
    1 << 24,
    (1 << 28) + 1,
)
_EDGES += ((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53) + 1, (1 << 62) - 1)
_EDGES += ((1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 10**30)
NUMBERS = (*_EDGES, *(-x for x in _EDGES[1:]))
_TEXTS = ("", "x", "-1", "1e999", "\0", "../..", "/etc/passwd", "é", "\ud800", "NaN", "x" * 300)
_TEXTS += (
    "F32",
    "BF16",
    "F4",
    "logits",
    "token_id:7",
    "float16",
    "hidden_states_0",
    "a\nb",
    "a\x1b[2J",
)
_FLOATS = (0.5, -0.0, 1e308, -1e-320, float("inf"), float("-inf"), float("nan"))
_NESTED = ([], {}, [[]], [None], [1, 2, 3], {"": 1}, [[1, [2, [3]]]])
VALUES: tuple[Any, ...] = (*NUMBERS, *_TEXTS, *_FLOATS, *_NESTED, None, True, False)


def change(data: bytes, name: str, rng: random.Random, other: bytes) -> bytes:
    """A changed file: by what its name says it is made of, or byte by byte."""
    inside = next((f for end, f in _FORMATS.items() if name.lower().endswith(end)), None)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if inside is not None and rng.random() < 0.6:
            try:
                data = inside(data, rng, other)
            except Exception:
                # What was changed before is no such file any more.
                data = at_random(data, rng, other)
        else:
            data = at_random(data, rng, other)
    return data[:LARGEST]


def at_random(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Some bytes changed, left out, repeated, moved, or taken from another file."""
    held = bytearray(data)
    place = _place(len(held), rng)
    length = min(rng.choice((1, 1, 2, 4, 8, 16, rng.randrange(1, 200))), len(held) - place)
    match rng.randrange(10):
        case 0 if held:
            held[rng.randrange(len(held))] ^= 1 << rng.randrange(8)
        case 1:
            held[place : place + length] = rng.randbytes(length)
        case 2:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) & (1 << 8 * size) - 1
            held[place : place + size] = number.to_bytes(size, rng.choice(("little", "big")))
        case 3:
            held = held[:place]
        case 4:
            del held[place : place + length]
        case 5:
            held[place:place] = held[place : place + length] * rng.choice((1, 2, 50))
        case 6:
            held[place:place] = rng.randbytes(length)
        case 7:
            start = _place(len(other), rng)
            held[place : place + length] = other[start : start + length]
        case 8:
            held = held[:place] + bytearray(other[_place(len(other), rng) :])
        case _:
            held = bytearray(_digits(bytes(held), rng))
    return bytes(held)


def _place(length: int, rng: random.Random) -> int:
    """Anywhere, and more often at the beginning or the end, where headers are."""
    near = rng.choice((length, min(length, 16), min(length, 200)))
    place = rng.randrange(near + 1)
    return place if rng.random() < 0.7 else length - place


def _digits(data: bytes, rng: random.Random) -> bytes:
    """A number that is written in digits, another one."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?", data[:100_000]))
    if not found:
        return data
    at = rng.choice(found)
    new = rng.choice(
        (rng.choice(NUMBERS), rng.randrange(-9, 99), "1e400", "-1e-400", "0x10", "", "9" * 5000)
    )
    return data[: at.start()] + str(new).encode() + data[at.end() :]


def value(found: Any, rng: random.Random) -> Any:
    """A value as JSON has them, with one thing in it changed."""
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        if isinstance(inner, dict | list):
            keys = list(inner) if isinstance(inner, dict) else range(len(inner))
            for key in list(keys)[:200]:
                places.append((inner, key))
                walk(inner[key])

    walk(found)
    if not places or rng.random() < 0.02:
        return rng.choice((*VALUES, _deep(rng)))
    holder, key = rng.choice(places)
    other, its = rng.choice(places)
    match rng.randrange(8):
        case 0 | 1 | 2:
            holder[key] = rng.choice(VALUES)
        case 3:
            holder.pop(key)
        case 4:
            holder[key] = json.loads(json.dumps(other[its]))
        case 5 if isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        case 5 | 6 if isinstance(holder, dict):
            holder[rng.choice(_TEXTS)] = holder.pop(key)
        case 7 if rng.random() < 0.2:
            holder[key] = _deep(rng)
        case _:
            near = holder[key]
            number = isinstance(near, int | float) and not isinstance(near, bool)
            holder[key] = near + rng.choice((-1, 1, 0.5, 1e-9)) if number else [near]
    return found


def _deep(rng: random.Random) -> Any:
    made: Any = 1
    for _ in range(rng.choice((20, 300))):
        made = [made] if rng.random() < 0.9 else {"a": made}
    return made


def _json(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """A text of JSON, or of a value a line; some of it nested deeper than any parser goes."""
    if rng.random() < 0.01:
        return b"[" * rng.choice((1000, 100_000))
    try:
        return json.dumps(value(json.loads(data), rng)).encode("utf-8", "surrogatepass")
    except ValueError:
        lines = data.splitlines()
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(value(json.loads(lines[at]), rng)).encode("utf-8", "surrogatepass")
        return b"\n".join(lines)


def _gzip(data: bytes, rng: random.Random, other: bytes) -> bytes:
    whole = gzip.decompress(data)
    if rng.random() < 0.05:
        return gzip.compress(whole[:100] * rng.choice((100_000, 1_000_000)), 9)
    inside = _json if rng.random() < 0.6 else at_random
    return gzip.compress(inside(whole, rng, other))


def _npy(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Another header, of the length that it says."""
    wide = data[6] > 1
    size = int.from_bytes(data[8 : 12 if wide else 10], "little")
    begin = 12 if wide else 10
    text = data[begin : begin + size].decode("latin-1").rstrip()
    match rng.randrange(5):
        case 0:
            text = re.sub(r"'descr': '[^']*'", f"'descr': '{rng.choice(_DESCR)}'", text)
        case 1:
            shape = tuple(rng.choice((*NUMBERS, 2, 3, 5, 7)) for _ in range(rng.randrange(5)))
            text = re.sub(r"'shape': \([^)]*\)", f"'shape': {shape}", text)
        case 2:
            text = (
                text.replace("False", "True") if "False" in text else text.replace("True", "False")
            )
        case 3:
            text = _digits(text.encode(), rng).decode("latin-1")
        case _:
            text = at_random(text.encode(), rng, other).decode("latin-1")
    header = text.encode("latin-1", "replace") + b"\n"
    length = len(header).to_bytes(8, "little")[: begin - 8]
    return data[:8] + length + header + data[begin + size :]


_DESCR = (
    "<f4",
    "<f8",
    "<f2",
    ">f8",
    "<i8",
    "|b1",
    "|O",
    "|V2",
    "|V0",
    "<U9",
    "|S0",
    "<M8[ns]",
    "<c16",
    "<f16",
)
_DESCR += ("<V4294967295", "|V2147483647", "f", "<i16", "|u1", ">i8", "")


def _safetensors(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Another header, of the length that it says."""
    size = int.from_bytes(data[:8], "little")
    text = _json(data[8 : 8 + size], rng, other)
    if rng.random() < 0.3:
        found = json.loads(text)
        for name in found:
            if name != "__metadata__" and rng.random() < 0.5:
                shape = [rng.choice((*NUMBERS[:24], 0, 1, 2, 3)) for _ in range(rng.randrange(4))]
                count = 4
                for length in shape:
                    count *= length
                found[name] |= {"shape": shape, "dtype": "F32", "data_offsets": [0, count]}
        text = json.dumps(found).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _zip(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """An archive of members one of which is changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        held = {info: archive.read(info) for info in archive.infolist()}
    made = io.BytesIO()
    chosen = rng.choice(list(held))
    with zipfile.ZipFile(made, "w") as archive:
        for info, content in held.items():
            name = info.filename
            if info is chosen:
                if rng.random() < 0.8:
                    content = (
                        _npy(content, rng, other)
                        if rng.random() < 0.7
                        else at_random(content, rng, other)
                    )
                else:
                    name = rng.choice(
                        ("", "a", "a/b.npy", "../a.npy", "labels_0.npy", "logits.npy", "\0.npy")
                    )
            method = rng.choice(
                (info.compress_type, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
            )
            archive.writestr(name, content, method)
    whole = bytearray(made.getvalue())
    if rng.random() < 0.3:
        # Sizes that the directory states, which no member has.
        at = whole.rfind(b"PK\1\2")
        place = at + rng.choice((10, 16, 20, 24, 28, 30, 42))
        whole[place : place + 4] = (rng.choice(NUMBERS) & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(whole)


def _parquet(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """The metadata at the end, of the length that it says."""
    size = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - size
    if start < 4:
        raise ValueError("no metadata")
    text = at_random(data[start:-8], rng, other)
    return data[:start] + text + len(text).to_bytes(4, "little") + data[-4:]


def _kld(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """One of the numbers of the header."""
    place = rng.choice((8, 12, 16))
    return data[:place] + struct.pack("<I", rng.choice(NUMBERS) & 0xFFFFFFFF) + data[place + 4 :]


_FORMATS: dict[str, Callable[[bytes, random.Random, bytes], bytes]] = {
    ".npy": _npy,
    ".npz": _zip,
    ".safetensors": _safetensors,
    ".json": _json,
    ".jsonl": _json,
    ".gz": _gzip,
    ".parquet": _parquet,
    ".kld": _kld,
}
