"""Rounding of weight matrices to few bits."""

from __future__ import annotations

import torch

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


def quantised_bytes(weights: int, bits: int) -> int:
    """Bytes of so many weights in `bits` bits each, with their scales."""
    return weights * bits // 8 + weights // BLOCK * 4
