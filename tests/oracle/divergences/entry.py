"""What an entry of the table of divergences has."""

from __future__ import annotations

from ..numbers import INF


class Entry:
    """A divergence: its definition, and the same for wide rows.

    `pairs` are (p, q) of every class, `pair` is a `WidePair`.
    """

    def value(self, pairs):
        """D of one row."""
        raise NotImplementedError

    def slopes(self, pairs):
        """(∂D/∂ln p, ∂D/∂ln q), class by class."""
        raise NotImplementedError

    def slope_at_zero(self, wrt):
        """∂D/∂p for p → 0 < q, or ∂D/∂q for q → 0 < p."""
        return -INF

    def slope_at_zero_of(self, pairs, wrt):
        """The same, where it depends on the row."""
        return self.slope_at_zero(wrt)

    def wide_value(self, pair):
        """D of every row."""
        raise NotImplementedError

    def wide_slopes(self, pair):
        """The slopes of both sides, each less a multiple of the probability, which comes second."""
        raise NotImplementedError
