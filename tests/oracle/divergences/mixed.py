"""Mixtures of two divergences."""

from __future__ import annotations

from ..numbers import mp
from .entry import Entry


class Mixed(Entry):
    """A mixture of two divergences, with a weight for the first that the rows give.

    Slopes are those for a weight that stays as it is.
    """

    first: Entry
    second: Entry

    def weight(self, pairs):
        """The weight of `first` in one row."""
        raise NotImplementedError

    def wide_weight(self, pair):
        """That of every row."""
        raise NotImplementedError

    def value(self, pairs):
        weight = self.weight(pairs)
        parts = ((weight, self.first), (1 - weight, self.second))
        return mp.fsum(share * one.value(pairs) for share, one in parts if share)

    def slopes(self, pairs):
        weight = self.weight(pairs)
        parts = ((weight, self.first), (1 - weight, self.second))
        found = [(share, one.slopes(pairs)) for share, one in parts if share]
        return [
            tuple(mp.fsum(share * slopes[at][side] for share, slopes in found) for side in (0, 1))
            for at in range(len(pairs))
        ]

    def wide_value(self, pair):
        weight = self.wide_weight(pair)
        return weight * self.first.wide_value(pair) + (1 - weight) * self.second.wide_value(pair)

    def wide_slopes(self, pair):
        weight = self.wide_weight(pair)[:, None]
        both = zip(self.first.wide_slopes(pair), self.second.wide_slopes(pair), strict=True)
        return tuple(
            tuple(weight * one + (1 - weight) * other for one, other in zip(*parts, strict=True))
            for parts in both
        )
