"""Blocks of hidden states to positions: through one head, two, or one beside rows of classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import kldiv
from kldiv._arrays import Array
from kldiv.evaluation.class_rules import compare_shared
from kldiv.evaluation.dumps.protocol import Block, Dump, DumpError, TopKBlock
from kldiv.evaluation.head import Head, HeadPair, check_heads, check_one_head
from kldiv.evaluation.positions import NO_TOKEN, Part, Scorer, Scoring, part_of

GROUPS = 8
"""As many rows are read at a time as this many times have logits in memory."""


def head_scorer(
    reference: Dump, candidate: Dump, scoring: Scoring, heads: tuple[Any, Any]
) -> Scorer:
    """Of dumps of which one or both hold hidden states.

    Parameters
    ----------
    reference, candidate
        The dumps.
    scoring
        How rows become numbers.
    heads
        Those given for the reference and the candidate, or None for what lies beside the dumps.
        Where only one dump holds hidden states, the head given is its.

    Raises
    ------
    DumpError
        For a head that is missing, does not fit the hidden states, or is one of two that differ.
    """
    dumps = (reference, candidate)
    for dump, space in zip(dumps, scoring.spaces, strict=True):
        if dump.kind == "hidden_states" and space not in (None, "logits"):
            raise DumpError(f"{dump.name} holds hidden states, whose logits are not {space}")
    if reference.kind == candidate.kind:
        names = (reference.name, candidate.name)
        found = (getattr(dump, "head", None) for dump in dumps)
        found_p, found_q = found
        pair = check_heads(*heads, found_p=found_p, found_q=found_q, names=names)
        return _of_heads(dumps, scoring, pair)
    return _beside_rows(dumps, scoring, heads)


def _of_heads(dumps: tuple[Dump, Dump], scoring: Scoring, pair: HeadPair) -> Scorer:
    rule = scoring.class_rule
    own = pair.own
    for dump, head in zip(dumps, (pair.p, own), strict=True):
        _check_size(dump, head)
    widths = rule.width(pair.p.name, pair.p.classes), rule.width(own.name, own.classes)
    classes = rule.shared((pair.p.name, own.name), widths)
    p, q = pair.p.first(widths[0]), own.first(widths[1])
    options: dict[str, Any] = {"temperature": scoring.temperature, "ignore_index": NO_TOKEN}
    about = {"measure": pair.measure, "head": pair.p.name, "candidate_head": own.name}
    if widths[0] == widths[1]:
        cut = replace(pair, p=p, q=None if pair.q is None else q)

        def score(p: Block, q: Block, labels: Array | None, where: Array | None) -> Part:
            states = _rows(p), _rows(q)
            return part_of(cut.compare_blocks(*states, labels, where=where, **options))

        return Scorer(score, GROUPS * cut.rows, classes, about)

    def score_shared(a: Block, b: Block, labels: Array | None, where: Array | None) -> Part:
        found, lost_p, lost_q = compare_shared(
            p.logits(_rows(a)),
            q.logits(_rows(b)),
            labels,
            where,
            rule=rule.rule,
            spaces=("logits", "logits"),
            **options,
        )
        return part_of(found) | {"lost_p": lost_p, "lost_q": lost_q}

    return Scorer(score_shared, HeadPair(p, q).rows, classes, about)


def _beside_rows(dumps: tuple[Dump, Dump], scoring: Scoring, heads: tuple[Any, Any]) -> Scorer:
    """Of hidden states on one side, and rows of all classes on the other."""
    place = 0 if dumps[0].kind == "hidden_states" else 1
    hidden, rows = dumps[place], dumps[1 - place]
    given = heads[place]
    if given is None and place == 1:
        given = heads[0]
    elif heads[1 - place] is not None:
        raise DumpError(f"a head is given for {rows.name}, which holds no hidden states")
    found = getattr(hidden, "head", None)
    pair = check_one_head(given, found, names=(hidden.name, rows.name))
    head = pair.p
    _check_size(hidden, head)
    rule = scoring.class_rule
    names, sizes = [head.name, rows.name], [head.classes, rows.width or 0]
    spaces = ["logits", scoring.spaces[1 - place] or rows.kind]
    if place == 1:
        names, sizes, spaces = names[::-1], sizes[::-1], spaces[::-1]
    widths = [rule.width(name, size) for name, size in zip(names, sizes, strict=True)]
    classes = rule.shared((names[0], names[1]), (widths[0], widths[1]))
    head = head.first(widths[place])
    options: dict[str, Any] = {"temperature": scoring.temperature, "ignore_index": NO_TOKEN}
    both = (spaces[0], spaces[1])

    def score(p: Block, q: Block, labels: Array | None, where: Array | None) -> Part:
        sides = [_rows(p), _rows(q)]
        sides[place] = head.logits(sides[place])
        sides[1 - place] = sides[1 - place][:, : widths[1 - place]]
        a, b = sides
        if widths[0] == widths[1]:
            return part_of(kldiv.compare(a, b, labels, where=where, space=both, **options))
        found, lost_p, lost_q = compare_shared(
            a, b, labels, where, rule=rule.rule, spaces=both, **options
        )
        return part_of(found) | {"lost_p": lost_p, "lost_q": lost_q}

    about = {"measure": pair.measure, "head": head.name}
    return Scorer(score, HeadPair(head).rows, classes, about)


def _rows(block: Block) -> Array:
    assert not isinstance(block, TopKBlock)
    return block


def _check_size(dump: Dump, head: Head) -> None:
    if dump.width == head.classes != head.size:
        raise DumpError(
            f"{head.name} has shape {head.weight.shape}, which is transposed for hidden states of "
            f"{dump.width:,} in {dump.name}; expected [classes, {dump.width:,}]"
        )
    if dump.width != head.size:
        raise DumpError(
            f"{dump.name} holds hidden states of {dump.width:,}, but {head.name} has shape "
            f"{head.weight.shape}: expected hidden states of {head.size:,}"
        )
