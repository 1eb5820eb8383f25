"""Sentences with their translations: training and held-out parts, and their tokens in batches."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

import texts
from texts import Pair

LONGEST = 32
"""Tokens on either side of a pair."""
IGNORED = -100
END, PAD = "</s>", "<pad>"
CJK = re.compile("[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Tokens:
    """Sources and targets as token ids, each with the end token."""

    sources: list[list[int]]
    targets: list[list[int]]
    batch: int

    def batches(self, pad: int, *, shuffled: bool) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Which pairs, their sources and their labels, both [pairs, tokens], of similar length."""
        order = torch.randperm(len(self.sources)).tolist() if shuffled else range(len(self.sources))
        # Sorting within some batches at a time keeps padding short and batches random.
        span = self.batch * (20 if shuffled else len(self.sources))
        batches = []
        for start in range(0, len(self.sources), span):
            near = sorted(
                order[start : start + span],
                key=lambda i: len(self.sources[i]) + len(self.targets[i]),
            )
            batches += [near[i : i + self.batch] for i in range(0, len(near), self.batch)]
        if shuffled:
            batches = [batches[i] for i in torch.randperm(len(batches)).tolist()]
        for rows in batches:
            yield (
                rows,
                padded([self.sources[i] for i in rows], pad),
                padded([self.targets[i] for i in rows], IGNORED),
            )


def padded(rows: list[list[int]], value: int) -> Tensor:
    """The rows as one tensor, filled up on the right."""
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=value
    )


def words(english: str) -> str:
    """The words alone: two sentences that agree in them must not be on both sides of the split."""
    return " ".join(re.findall(r"[^\W\d_]+", english.lower()))


def split(pairs: int | None, held_out: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Training pairs and held-out pairs of the `pairs` shortest; no English is in both."""
    both = texts.debian_reference_pairs() + texts.gettext_pairs()
    plain = (Pair(*(" ".join(side.split()) for side in pair)) for pair in both)
    found = list(dict.fromkeys(p for p in plain if CJK.search(p.chinese) and p[0] != p[1]))
    if pairs is not None:
        found = sorted(found, key=lambda pair: len(pair.english) + len(pair.chinese))[:pairs]
    groups: dict[str, list[Pair]] = {}
    for pair in found:
        groups.setdefault(words(pair.english), []).append(pair)
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    training = [pair for name in names[held_out:] for pair in groups[name]]
    # One pair of a group: no English twice.
    return training, [groups[name][0] for name in names[:held_out]]


def encoded(tokenizer: Tokenizer, pairs: list[Pair], batch: int) -> tuple[list[Pair], Tokens]:
    """The pairs that are short enough, and their tokens."""
    end = tokenizer.token_to_id(END)
    sides = [
        [[*found.ids, end] for found in tokenizer.encode_batch([pair[k] for pair in pairs])]
        for k in range(2)
    ]
    kept = [i for i in range(len(pairs)) if max(len(side[i]) for side in sides) <= LONGEST + 1]
    tokens = Tokens(*([side[i] for i in kept] for side in sides), batch)
    for i, ids in zip(kept, tokens.targets, strict=True):
        assert tokenizer.decode(ids) == pairs[i].chinese
    return [pairs[i] for i in kept], tokens
