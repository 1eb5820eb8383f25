"""The most probable tokens of every position, as vLLM answers with ``prompt_logprobs``."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import kldiv
from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import DumpError, Sequence, TopKBlock
from kldiv.evaluation.models.dump import ModelDump
from kldiv.evaluation.models.tokenizer import Tokenizer
from kldiv.evaluation.models.windows import Window


def write(path: Path, dump: ModelDump, windows: list[Window], k: int, tokenizer: Tokenizer) -> None:
    """Write a line for every window: its token ids, and `k` tokens a position with their ranks.

    The text's own token is added where it is not among them. Of equally probable tokens the one
    of the lower id comes first.

    Raises
    ------
    DumpError
        For a row with NaN or +inf.
    """

    @functools.cache
    def spelled(token: int) -> str:
        text: str = tokenizer.tokenizer.decode([token])
        return text

    with path.open("w", encoding="utf-8") as file:
        for window, sequence in zip(windows, dump.sequences(), strict=True):
            positions: list[Any] = [None] * (window.first + 1)
            for entries in _rows(dump, sequence, window, k):
                positions.append(
                    {
                        str(token): {
                            "logprob": log_prob,
                            "rank": rank,
                            "decoded_token": spelled(token),
                        }
                        for token, log_prob, rank in entries
                    }
                )
            answer = {"prompt_token_ids": window.tokens.tolist(), "prompt_logprobs": positions}
            file.write(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n")


def _rows(
    dump: ModelDump, sequence: Sequence, window: Window, k: int
) -> Iterator[list[tuple[int, float, int]]]:
    """Of every row id, log-probability and rank of the tokens to write; the own one comes first."""
    labels = iter(window.labels.tolist())
    for block in sequence.read(max(1, dump.block_bytes // dump.row_bytes)):
        assert not isinstance(block, TopKBlock)
        log_probs = np.asarray(kldiv.log_softmax(block), np.float64)
        for row, own in zip(log_probs, labels, strict=False):
            if np.isnan(row).any():
                raise DumpError(f"{dump.name} gives NaN or +inf in {sequence.name}")
            yield _entries(row, own, k)


def _entries(row: Array, own: int, k: int) -> list[tuple[int, float, int]]:
    k = min(k, len(row))
    least = np.partition(row, len(row) - k)[len(row) - k]
    among = np.flatnonzero((row >= least) & (row > -np.inf))
    order = among[np.argsort(-row[among], kind="stable")][:k].tolist()
    found = [(token, float(row[token]), place) for place, token in enumerate(order, 1)]
    own_rank = int((row > row[own]).sum() + (row[:own] == row[own]).sum()) + 1
    if own_rank > k and row[own] > -np.inf:
        found.append((own, float(row[own]), own_rank))
    # vLLM has the text's own token first, whatever its rank.
    return sorted(found, key=lambda entry: entry[0] != own)
