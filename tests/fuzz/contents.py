"""What rows hold: pairs of logits of every structure, in every space and dtype."""

from __future__ import annotations

from random import Random

import ml_dtypes
import numpy as np

Array = np.ndarray

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
SMALLEST = {"float64": 5e-324, "float32": 1.4e-45, "float16": 6e-8, "bfloat16": 9.2e-41}
LARGEST = {"float64": 1e200, "float32": 3.4e38, "float16": 6.5e4, "bfloat16": 3.38e38}
CLASSES = (*range(1, 81), 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 33, 34, 40, 48, 64)


def log_uniform(random: Random, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(10.0 ** random.uniform(np.log10(low), np.log10(high)))


def classes(random: Random) -> int:
    """How many classes: mostly few."""
    r = random.random()
    if r < 0.0005:
        return 4097
    if r < 0.005:
        return 130
    if r < 0.5:
        return random.randint(1, 8)
    return random.choice(CLASSES)


def count(random: Random, classes: int) -> int:
    """How many rows."""
    return 1 if classes > 100 else random.choice((1, 1, 2, 2, 3, 4))


def logits(random: Random, shape: tuple[int, int], largest: float) -> Array:
    """Rows of one structure."""
    numbers = np.random.default_rng(random.getrandbits(64))
    match random.choice(_STRUCTURES):
        case "normal":
            z = numbers.normal(0, random.choice((0.1, 1.0, 3.0, 10.0, 30.0)), shape)
        case "peaked":
            z = numbers.normal(0, random.choice((0.01, 1.0, 3.0)), shape)
            at = numbers.integers(0, shape[1], shape[0])
            z[np.arange(shape[0]), at] += random.choice((20.0, 30.0, 60.0, 200.0, 800.0))
        case "round":
            z = numbers.integers(-3, 4, shape).astype(np.float64)
        case "huge":
            z = numbers.uniform(-1, 1, shape) * min(largest, log_uniform(random, 10.0, largest))
        case "tiny":
            z = numbers.normal(0, 1, shape) * log_uniform(random, 1e-320, 1e-3)
        case "finite mask":
            z = numbers.normal(0, 3, shape)
            z = np.where(numbers.random(shape) < 0.3, -random.choice((1e4, 1e9, largest)), z)
        case _:
            z = np.zeros(shape)
    if random.random() < 0.1:
        z = z + random.choice((1.0, -1.0)) * log_uniform(random, 1.0, 1e4)
    return z


_STRUCTURES = ("normal",) * 6 + ("peaked",) * 2 + ("round", "huge", "tiny", "finite mask", "equal")


def partner(random: Random, x: Array, largest: float) -> Array:
    """Rows to compare x with: independent, close or the same."""
    r = random.random()
    if r < 0.45:
        return logits(random, x.shape, largest)
    if r < 0.9:
        numbers = np.random.default_rng(random.getrandbits(64))
        eps = log_uniform(random, 1e-9, 1.0)
        y = x + eps * numbers.normal(0, 1, x.shape)
        if random.random() < 0.2:
            y = y + random.choice((1.0, -1.0)) * log_uniform(random, 1.0, 1e4)
        return y
    return x.copy()


def mask(random: Random, *rows: Array) -> None:
    """Put −∞ at some classes, of some rows, of one or of all."""
    if random.random() < 0.7:
        return
    numbers = np.random.default_rng(random.getrandbits(64))
    share = random.choice((0.1, 0.3, 0.8))
    shape = rows[0].shape
    both = numbers.random(shape) < share
    alone = random.choice((None, 0, 1))
    for side, z in enumerate(rows):
        if alone is not None and side != alone:
            continue
        at = both if random.random() < 0.7 else numbers.random(shape) < share
        # One class is left, most of the time.
        if random.random() < 0.95:
            at = at & (np.arange(shape[1]) != numbers.integers(0, shape[1], (shape[0], 1)))
        z[at] = -np.inf


def in_space(random: Random, z: Array, space: str, dtype: str) -> Array:
    """Logits as the numbers of a space, as the dtype stores them, in float64."""
    with np.errstate(all="ignore"):
        if space != "logits":
            z = z - np.where(np.isneginf(z.max(-1, keepdims=True)), 0, z.max(-1, keepdims=True))
            z = z - np.log(np.exp(z).sum(-1, keepdims=True))
        if space == "probs":
            numbers = np.random.default_rng(random.getrandbits(64))
            z = np.exp(z)
            if random.random() < 0.15:
                tiny = SMALLEST[dtype] * numbers.integers(0, 200, z.shape)
                z = np.where(numbers.random(z.shape) < 0.3, tiny, z)
            if random.random() < 0.1:
                z = z * log_uniform(random, 1e-3, 1e3)
        elif space == "log_probs" and random.random() < 0.1:
            z = z + random.uniform(-3, 3)
        return stored(z, dtype)


def stored(z: Array, dtype: str) -> Array:
    """Numbers as the dtype stores them, in float64; finite ones stay finite."""
    with np.errstate(all="ignore"):
        limit = float(ml_dtypes.finfo(DTYPES[dtype]).max)
        z = np.where(np.isfinite(z), np.clip(z, -limit, limit), z)
        return z.astype(DTYPES[dtype]).astype(np.float64)


def spoil(random: Random, z: Array, *, nan_only: bool) -> None:
    """Put NaN or +∞ into a row, now and then."""
    if random.random() < 0.02:
        bad = (np.nan, -np.nan) if nan_only else (np.nan, -np.nan, np.inf)
        z[random.randrange(z.shape[0]), random.randrange(z.shape[1])] = random.choice(bad)
