"""OpenAI, and servers compatible with it: the ``logprobs`` of a chat's or a completion's choices.

In chats a position is ``{"token", "logprob", "bytes", "top_logprobs"}``, the last a list of
``{"token", "logprob", "bytes"}``. In the older completions there are lists ``tokens``,
``token_logprobs`` and ``top_logprobs``, the last of null and ``{token: logprob}``; with ``echo``
they have the prompt, too. Tokens have no ids: see `id_of_token` for how they get some.
"""

from __future__ import annotations

from typing import Any

from kldiv.evaluation.dumps.server_json.answer import NO_LABEL, Answer
from kldiv.evaluation.dumps.server_json.texts import id_of_token

NAME = "OpenAI"


def reads(response: Any) -> bool:
    """Whether a response has what is read here."""
    return isinstance(response, dict) and any(True for _ in _found(response))


def answers(response: Any) -> list[Answer]:
    """Every choice of a response."""
    choices = list(_found(response))
    usage = response.get("usage")
    prompt = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    first = prompt - 1 if type(prompt) is int and prompt > 0 and len(choices) == 1 else 0
    found = []
    for i, log_probs in choices:
        part = f"choice {i}" if len(choices) > 1 else ""
        if isinstance(log_probs.get("content"), list):
            found.append(_chat(part, first, log_probs["content"]))
        else:
            found.append(_completion(part, first, log_probs))
    return found


def _found(response: dict[str, Any]) -> Any:
    choices = response.get("choices")
    for i, choice in enumerate(choices if isinstance(choices, list) else []):
        log_probs = choice.get("logprobs") if isinstance(choice, dict) else None
        if isinstance(log_probs, dict) and (
            isinstance(log_probs.get("content"), list)
            or isinstance(log_probs.get("token_logprobs"), list)
        ):
            yield i, log_probs


def _chat(part: str, first: int, content: list[Any]) -> Answer:
    answer = Answer("completion", part, first)
    for position in content:
        own = _token(position)
        listed = position.get("top_logprobs") or []
        ids, log_probs = [_token(x) for x in listed], [_log_prob(x) for x in listed]
        # vLLM may put the token sampled in the place of the last of the most probable ones.
        has_top = any(x != own for x in ids)
        answer.add(ids, log_probs, own, _log_prob(position), has_top=has_top)
    return answer


def _token(entry: Any) -> int:
    if not isinstance(entry, dict) or "token" not in entry:
        raise ValueError(f"a position is {str(entry)[:80]}; expected an object with a token")
    return id_of_token(entry["token"], entry.get("bytes"), entry.get("id"))


def _log_prob(entry: dict[str, Any]) -> Any:
    if "logprob" not in entry:
        raise ValueError(f"token {entry['token']!r} has no logprob")
    return entry["logprob"]


def _completion(part: str, first: int, log_probs: dict[str, Any]) -> Answer:
    own_log_probs = log_probs["token_logprobs"]
    n = len(own_log_probs)
    tokens = log_probs.get("tokens") or [None] * n
    top = log_probs.get("top_logprobs") or [None] * n
    for name, given in (("tokens", tokens), ("top_logprobs", top)):
        if not isinstance(given, list) or len(given) != n:
            raise ValueError(f"token_logprobs has {n} positions, {name} does not")
    skipped = next((i for i in range(n) if top[i] or own_log_probs[i] is not None), n)
    # With echo the first token of the prompt has no log-probability.
    echoed = skipped > 0
    answer = Answer("prompt" if echoed else "completion", part, skipped - 1 if echoed else first)
    for token, own_log_prob, listed in list(zip(tokens, own_log_probs, top, strict=True))[skipped:]:
        listed = listed or {}
        if not isinstance(listed, dict):
            raise ValueError(
                f"a position is {str(listed)[:80]}; expected log-probabilities by token"
            )
        own = NO_LABEL if token is None else id_of_token(token)
        ids = [id_of_token(x) for x in listed]
        has_top = any(x != own for x in ids)
        answer.add(ids, list(listed.values()), own, own_log_prob, has_top=has_top)
    return answer
