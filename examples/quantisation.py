"""Rounding of weight matrices to few bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

BITS = {"int8": 8, "int4": 4}
"""The forms that examples compare, by name."""

BLOCK = 32
"""Consecutive weights of a row that share one float32 scale."""


def quantise(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Round a matrix symmetrically to signed integers in blocks of each row, and scale it back."""
    largest = 2 ** (bits - 1) - 1
    blocks = weight.reshape(weight.shape[0], -1, BLOCK)
    scale = blocks.abs().amax(dim=-1, keepdim=True) / largest
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    levels = (blocks / scale).round().clamp(-largest, largest)
    return (levels * scale).reshape(weight.shape)


def rounded_forms(model: Any) -> Iterator[str]:
    """The names of `BITS`; at each, the model's weight matrices are rounded to its bits."""
    # An output layer that shares its weight with the embedding is one of the parameters once.
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    originals = [weight.data.clone() for weight in matrices]
    for name, bits in BITS.items():
        for weight, original in zip(matrices, originals, strict=True):
            weight.data.copy_(quantise(original, bits))
        yield name


def quantised_bytes(weights: int, bits: int) -> int:
    """Bytes of so many weights in `bits` bits each, with their scales."""
    return weights * bits // 8 + weights // BLOCK * 4
