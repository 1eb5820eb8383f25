"""Tinker: ``topk_prompt_logprobs``, by itself or in a ``SampleResponse``.

A position is null or a list of ``[token id, logprob]``. The prompt's tokens are not in the
response. Where whoever wrote the file put them beside it, as ``prompt_tokens`` or ``tokens``, they
are the labels.
"""

from __future__ import annotations

from typing import Any

from kldiv.evaluation.dumps.server_json.answer import NO_LABEL, Answer

NAME = "Tinker"
KEY = "topk_prompt_logprobs"


def reads(response: Any) -> bool:
    """Whether a response has what is read here."""
    if isinstance(response, dict):
        return isinstance(response.get(KEY), list)
    some = next((x for x in response if x), None) if isinstance(response, list) else None
    return isinstance(some, list) and _is_pair(some[0])


def answers(response: Any) -> list[Answer]:
    """The prompt of a response."""
    positions = response[KEY] if isinstance(response, dict) else response
    given = response if isinstance(response, dict) else {}
    tokens, own_log_probs = (
        _beside(given, names, len(positions))
        for names in (("prompt_tokens", "tokens"), ("prompt_logprobs",))
    )
    skipped = next((i for i, x in enumerate(positions) if x), None)
    if skipped is None:
        raise ValueError(f"{KEY} has no position with a log-probability")
    answer = Answer("prompt", "", max(skipped - 1, 0))
    for i in range(skipped, len(positions)):
        listed = positions[i] or []
        if not (isinstance(listed, list) and all(_is_pair(x) for x in listed)):
            raise ValueError(f"a position is {str(listed)[:80]}; expected [id, logprob] lists")
        own = NO_LABEL if tokens[i] is None else tokens[i]
        answer.add(
            [x[0] for x in listed],
            [x[1] for x in listed],
            own,
            None if own == NO_LABEL else own_log_probs[i],
            has_top=bool(listed),
        )
    return [answer]


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _beside(response: dict[str, Any], names: tuple[str, ...], positions: int) -> list[Any]:
    """What there is for every position, else nothing for each."""
    for name in names:
        given = response.get(name)
        if isinstance(given, list):
            if len(given) != positions:
                raise ValueError(f"{KEY} has {positions} positions, {name} {len(given)}")
            return given
    return [None] * positions
