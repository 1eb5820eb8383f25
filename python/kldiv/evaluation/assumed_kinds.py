"""Dumps whose names do not say what their numbers are: hidden states where a head or others say so.

Names of keys, files and directories come first. What none of them says is taken for logits, unless
a head is given, which is of hidden states, or another dump holds hidden states of that width.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from kldiv.evaluation.dumps.dense import ASSUMED, DenseDump
from kldiv.evaluation.dumps.protocol import Dump
from kldiv.evaluation.head import Head
from kldiv.evaluation.head_files import stored_head


def with_kinds(dumps: Sequence[Dump], heads: Sequence[Any]) -> list[Dump]:
    """The dumps, those that are not said to be anything as what they must be.

    Parameters
    ----------
    dumps
        The reference and the candidates.
    heads
        Those given, of either side; None among them is left out.

    Raises
    ------
    DumpError, OSError
        For a head that cannot be read.
    """
    shapes = [shape_of(head) for head in heads if head is not None]
    sizes = {shape[1] for shape in shapes}
    only_classes = {shape[0] for shape in shapes} - sizes
    hidden = {dump.width for dump in dumps if dump.kind == "hidden_states"} | sizes

    def of(dump: Dump) -> Dump:
        if not is_assumed(dump):
            return dump
        assert isinstance(dump, DenseDump)
        # With a head, another width is that of hidden states it does not fit, which is said then.
        if dump.width in hidden or (shapes and dump.width not in only_classes):
            why = "the head" if shapes else "the width of the other's hidden states"
            return dump.noting(kind="hidden_states", notes=dump.notes | {"kind from": why})
        return dump

    return [of(dump) for dump in dumps]


def is_assumed(dump: Dump) -> bool:
    """Whether a dump is taken for logits because nothing says what it is."""
    return isinstance(dump, DenseDump) and dump.notes.get("kind from") == ASSUMED


def shape_of(head: Any) -> tuple[int, ...]:
    """``(classes, size)`` of a head, of which nothing is read but that."""
    if isinstance(head, Head):
        return tuple(head.weight.shape)
    if isinstance(head, (str, os.PathLike)):
        return stored_head(os.fspath(head)).shape
    shape = tuple(np.shape(head))
    return shape if len(shape) == 2 else (0, 0)
