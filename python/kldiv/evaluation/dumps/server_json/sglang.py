"""SGLang: ``meta_info.input_top_logprobs`` of the native /generate, or those of the output.

A position is null or a list of ``[logprob, token id, text or null]``. ``input_token_logprobs`` has
one of these for the text's own token. Both begin at ``logprob_start_len``.
"""

from __future__ import annotations

from typing import Any

from kldiv.evaluation.dumps.server_json.answer import NO_LABEL, Answer

NAME = "SGLang"


def reads(response: Any) -> bool:
    """Whether a response has what is read here."""
    if isinstance(response, list):
        some = next((x for x in response if x), None)
        return isinstance(some, list) and _is_triple(some[0])
    meta = response.get("meta_info") if isinstance(response, dict) else None
    return isinstance(meta, dict) and any(
        isinstance(meta.get(f"{part}_{which}_logprobs"), list) and meta[f"{part}_{which}_logprobs"]
        for part in ("input", "output")
        for which in ("top", "token")
    )


def answers(response: Any) -> list[Answer]:
    """The text of a response."""
    if isinstance(response, list):
        return [_answer("prompt", response, [None] * len(response), None)]
    meta = response["meta_info"]
    prompt_tokens = meta.get("prompt_tokens")
    for part, scored in (("input", "prompt"), ("output", "completion")):
        top, own = (_list(meta.get(f"{part}_{which}_logprobs")) for which in ("top", "token"))
        # The first of a prompt is null: one token has nothing to be predicted from.
        if not any(top) and not any(x and x[0] is not None for x in own):
            continue
        if top and own and len(top) != len(own):
            raise ValueError(
                f"{part}_top_logprobs has {len(top)} positions, {part}_token_logprobs {len(own)}"
            )
        top, own = top or [None] * len(own), own or [None] * len(top)
        return [_answer(scored, top, own, prompt_tokens)]
    raise ValueError("meta_info has no position with a log-probability")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3


def _answer(scored: str, top: list[Any], own: list[Any], prompt_tokens: Any) -> Answer:
    def known(i: int) -> bool:
        return bool(top[i]) or (own[i] is not None and own[i][0] is not None)

    skipped = next(i for i in range(len(top)) if known(i))
    before = prompt_tokens if type(prompt_tokens) is int else None
    if scored == "prompt":
        first = skipped - 1 + (0 if before is None else max(before - len(top), 0))
    else:
        first = 0 if before is None else before - 1
    answer = Answer(scored, "", max(first, 0))
    for listed, own_entry in zip(top[skipped:], own[skipped:], strict=True):
        listed = listed or []
        if not (isinstance(listed, list) and all(_is_triple(x) for x in listed)):
            raise ValueError(
                f"a position is {str(listed)[:80]}; expected [logprob, id, text] lists"
            )
        if own_entry is not None and not _is_triple(own_entry):
            raise ValueError(f"an own token is {own_entry!r}; expected [logprob, id, text]")
        log_prob, token = (own_entry or [None, NO_LABEL])[:2]
        answer.add(
            [x[1] for x in listed],
            [x[0] for x in listed],
            token,
            log_prob,
            has_top=bool(listed),
        )
    return answer
