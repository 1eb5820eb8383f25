"""Base files of llama.cpp, packed byte by byte from their layout."""

import math
import struct

import numpy as np

F32 = np.float32
CONTEXT, CHUNKS = 9, 3
FIRST, ROWS = 4, 4
MAGICS = ["_logits_", "_logits2", "_logp16_", "_logp16n"]


def logits_of(classes, rows=CHUNKS * ROWS, seed=0):
    """Logits over 30 nats, so that some are clipped."""
    return np.random.default_rng(seed).uniform(-25, 5, (rows, classes)).astype(F32)


def tokens_of(classes, seed=1):
    return np.random.default_rng(seed).integers(classes, size=(CHUNKS, CONTEXT)).astype(np.int32)


def pack_row(magic, logits, label, clip=16):
    """One row as llama.cpp writes it, in float32, and what it says, by the layouts."""
    z = [F32(x) for x in logits]
    top = max(z)
    if magic in ("_logp16_", "_logp16n"):
        log_p = np.array(z, np.float64) - math.log(sum(math.exp(float(x)) for x in z))
        halves = log_p.astype("<f2")
        loss = struct.pack("<f", -log_p[label]) if magic == "_logp16n" else b""
        return loss + halves.tobytes(), halves.astype(F32)
    if magic == "_logits_":
        low = max(min(z), F32(top - F32(clip)))
        total = sum(float(F32(math.exp(float(x - top)))) for x in z)
        scale = F32((top - low) / F32(65535))
        codes = [int(np.rint((x - low) * F32(1 / scale))) if x > low else 0 for x in z]
    else:
        low = min(x for x in z if np.isfinite(x))
        total = sum(math.exp(float(x - top)) for x in z)
        scale = F32((top - low) / F32(65534))
        steps = [float(F32((x - low) * F32(1 / scale))) for x in z]
        codes = [1 + math.floor(x + 0.5) if np.isfinite(x) else 0 for x in steps]
    smallest = F32(F32(low - top) - F32(math.log(total)))
    padding = b"\0\0" if len(z) % 2 else b""
    row = struct.pack(f"<ff{len(z)}H", scale, smallest, *codes) + padding
    if magic == "_logits_":
        return row, np.array([F32(F32(scale * F32(q)) + smallest) for q in codes])
    said = [F32(F32(scale * F32(q - 1)) + smallest) if q else F32(-np.inf) for q in codes]
    largest = max(said)
    norm = F32(largest + F32(math.log(sum(math.exp(float(x - largest)) for x in said))))
    return row, np.array([F32(x - norm) for x in said])


def pack(magic, logits, tokens, clip=16):
    """A whole file, and its log-probabilities."""
    chunks, context = tokens.shape
    first = context // 2
    header = struct.pack("<8s3i", magic.encode(), context, logits.shape[1], chunks)
    labels = tokens[:, first + 1 :].reshape(-1)
    rows = [pack_row(magic, z, label, clip) for z, label in zip(logits, labels, strict=True)]
    data = header + tokens.astype("<i4").tobytes() + b"".join(row for row, _ in rows)
    return data, np.array([said for _, said in rows])


def read(dump, step=100):
    return np.concatenate([b.copy() for s in dump.sequences() for b in s.read(step)])
