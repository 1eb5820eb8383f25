"""vLLM: ``prompt_logprobs``, and the ``logprobs`` of its own outputs.

A position is null or ``{token id: {"logprob", "rank", "decoded_token"}}`` with K entries, or K + 1
where the text's own token is not among the K most probable. The list of them is where the
OpenAI-compatible server puts it (``choices[].prompt_logprobs``, in chats at the top), in the JSON
of a ``RequestOutput``, or by itself. The text's tokens are in ``prompt_token_ids`` where the server
was asked for them (``return_token_ids``); without, the text's own token is the first of a position,
and ranks say whether that order is still the server's.
"""

from __future__ import annotations

import bisect
import itertools
from typing import Any

from kldiv.evaluation.dumps.server_json.answer import NO_LABEL, Answer

NAME = "vLLM"
Position = dict[str, Any]


def reads(response: Any) -> bool:
    """Whether a response has what is read here."""
    return any(True for _ in _found(response))


def answers(response: Any) -> list[Answer]:
    """Every text of a response."""
    found: list[Answer] = []
    last: Any = None
    for scored, part, first, positions, tokens in _found(response):
        # With n > 1 each of a prompt's choices repeats the prompt.
        if scored == "prompt" and positions == last:
            continue
        last = positions
        found.append(_answer(scored, part, first, positions, tokens))
    return found


def _found(response: Any) -> Any:
    """Where the log-probabilities are: (scored, part, first, positions, tokens)."""
    if isinstance(response, list):
        if _are_positions(response):
            yield "prompt", "", 0, response, None
        return
    if not isinstance(response, dict):
        return
    choices = [x for x in _list(response.get("choices")) if isinstance(x, dict)]
    holders = [("", response)] + [
        (f"choice {i}" if len(choices) > 1 else "", choice) for i, choice in enumerate(choices)
    ]
    prompts = [
        ("prompt", part, 0, x["prompt_logprobs"], x.get("prompt_token_ids"))
        for part, x in holders
        if _are_positions(x.get("prompt_logprobs"))
    ]
    yield from prompts
    if prompts:
        return
    before = len(_list(response.get("prompt_token_ids")))
    outputs = [x for x in _list(response.get("outputs")) if isinstance(x, dict)]
    for i, x in enumerate(outputs):
        if _are_positions(x.get("logprobs")):
            part = f"output {i}" if len(outputs) > 1 else ""
            yield "completion", part, max(before - 1, 0), x["logprobs"], x.get("token_ids")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _are_positions(value: Any) -> bool:
    """Whether a list is of nulls and of dictionaries by token id, one of these at least."""
    if not isinstance(value, list):
        return False
    some = next((x for x in value if x is not None), None)
    return isinstance(some, dict) and all(key.lstrip("-").isdecimal() for key in some)


def _answer(scored: str, part: str, first: int, positions: list[Any], tokens: Any) -> Answer:
    skipped = next(i for i, x in enumerate(positions) if x is not None)
    if scored == "prompt":
        first = max(skipped - 1, 0)
    rows: list[Position] = [x or {} for x in positions[skipped:]]
    owned = _list(tokens)[skipped:]
    if len(owned) != len(rows) or not all(type(x) is int for x in owned):
        owned = _own_by_rank(rows)
    answer = Answer(scored, part, first)
    for row, own in zip(rows, owned, strict=True):
        if not isinstance(row, dict):
            raise ValueError(f"a position is {row!r}; expected null or tokens by id")
        ids, log_probs, ranks = _entries(row)
        if _rises(log_probs, ranks):
            raise ValueError(_rise(len(answer.ids), ids, log_probs, ranks))
        has_top = 1 in ranks or (None in ranks and len(ranks) > 1)
        answer.add(ids, log_probs, own, has_top=has_top)
    return answer


def _entries(row: Position) -> tuple[list[int], list[Any], list[int | None]]:
    """Ids, log-probabilities and ranks of a position."""
    entries = list(row.values())
    try:
        # A file of a million positions has 64 million entries: without a call for each.
        ids = list(map(int, row))
        log_probs = [x["logprob"] for x in entries]
        ranks: list[int | None] = [x["rank"] for x in entries]
    except (TypeError, KeyError, ValueError):
        ids = [_id(key) for key in row]
        log_probs = [x["logprob"] if isinstance(x, dict) else x for x in entries]
        ranks = []
    if set(map(type, ranks)) != {int}:
        ranks = [_rank(x) for x in entries]
    return ids, log_probs, ranks


def _rises(log_probs: list[Any], ranks: list[int | None]) -> bool:
    """Whether a log-probability is above one of a lower rank.

    Entries are the own one and the others by their rank, as vLLM writes them, or in any order.
    """
    if None in ranks or not {float, int}.issuperset(map(type, log_probs)):
        return False
    others, other_ranks = log_probs[1:], ranks[1:]
    if others != sorted(others, reverse=True) or other_ranks != sorted(other_ranks):  # type: ignore[type-var]
        return _first_rise(log_probs, ranks) is not None
    if not others:
        return False
    place = bisect.bisect_left(other_ranks, ranks[0])  # type: ignore[type-var]
    fits = (place == 0 or others[place - 1] >= log_probs[0]) and (
        place == len(others) or log_probs[0] >= others[place]
    )
    return not fits and _first_rise(log_probs, ranks) is not None


def _first_rise(log_probs: list[Any], ranks: list[int | None]) -> tuple[int, int] | None:
    """The entries of two ranks, of which the second is more probable."""
    order = sorted(range(len(ranks)), key=lambda i: (ranks[i], -log_probs[i]))
    return next(((i, j) for i, j in itertools.pairwise(order) if log_probs[j] > log_probs[i]), None)


def _rise(position: int, ids: list[int], log_probs: list[Any], ranks: list[int | None]) -> str:
    found = _first_rise(log_probs, ranks)
    assert found is not None
    i, j = found
    return (
        f"in position {position} token {ids[j]} of rank {ranks[j]} has the log-probability "
        f"{log_probs[j]:.9g}, above {log_probs[i]:.9g} of rank {ranks[i]}"
    )


def _id(key: str) -> int:
    try:
        return int(key)
    except ValueError:
        raise ValueError(f"a token id is {key!r}; expected an integer") from None


def _rank(entry: Any) -> int | None:
    rank = entry.get("rank") if isinstance(entry, dict) else None
    return rank if type(rank) is int else None


def _own_by_rank(rows: list[Position]) -> list[int]:
    """The text's own token of every row, `NO_LABEL` where it is not certain.

    Entries have the ranks 1, 2, …, K, and one more where the own token is beyond K. As the server
    writes them the own token is the first, and the others follow by rank; a program in between may
    have put ids in order, and then only the ranks beyond K tell.
    """
    ranks = [[_rank(x) for x in row.values()] if isinstance(row, dict) else [] for row in rows]
    runs = [_run(row) for row in ranks if row]
    if any(None in row for row in ranks) or not runs:
        return [NO_LABEL] * len(rows)
    k = min(runs)
    in_order = all(
        row[1:] == [rank for rank in range(1, k + 1) if rank != row[0]] for row in ranks if row
    )
    owned = []
    for row, row_ranks in zip(rows, ranks, strict=True):
        keys = list(row)
        if in_order and row_ranks:
            owned.append(_id(keys[0]))
        else:
            beyond = [i for i, rank in enumerate(row_ranks) if rank is not None and rank > k]
            owned.append(_id(keys[beyond[0]]) if len(beyond) == 1 else NO_LABEL)
    return owned


def _run(ranks: list[int | None]) -> int:
    """How many of 1, 2, 3, … are there."""
    present, run = set(ranks), 0
    while run + 1 in present:
        run += 1
    return run
