"""The colours of pages and of the charts in them, light and dark."""

from __future__ import annotations

ROLES: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#13161b"),
    "panel": ("#f6f7f9", "#1c2027"),
    "ink": ("#1b1f26", "#e9ebee"),
    "soft": ("#5a6270", "#a2abb8"),
    "line": ("#dfe3e8", "#343a44"),
    "mark": ("#fff0c2", "#5c4a12"),
    "warn": ("#b4530a", "#f0a35e"),
    "c1": ("#2c5fd0", "#7fa6ff"),
    "c2": ("#d0621b", "#f29a5e"),
    "c3": ("#17805f", "#4fc39a"),
    "c4": ("#a4348f", "#e083cd"),
    "c5": ("#8a6d00", "#d9b53a"),
    "c6": ("#b3263c", "#f37f8f"),
    "c7": ("#0f7c98", "#4fc0dd"),
    "c8": ("#6a4fc4", "#ab98f5"),
}
"""By role: the colour on light ground, and on dark.

Charts hold those on light ground, which styles exchange where the ground is dark: all differ.
"""

SERIES = tuple(name for name in ROLES if name.startswith("c") and name[1:].isdigit())
"""Of the candidates, in order; from the ninth on they begin again."""


def series(place: int) -> str:
    """The role of a candidate's colour, by its place."""
    return SERIES[place % len(SERIES)]
