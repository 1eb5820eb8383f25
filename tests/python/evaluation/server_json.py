"""Responses of servers made of logits, in the shape of each: what the tests of the readers read.

`logits` has a row for every token of `tokens` but the last, the distribution of the next one.
"""

import gzip
import json

import numpy as np


def top(logits, tokens, k):
    """Of every row the k most probable ids and the next token, with float32 log-probabilities."""
    wide = np.asarray(logits, np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    log_probs = np.float32(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
    for row, own in zip(log_probs, tokens[1:], strict=True):
        best = np.argsort(-row, kind="stable")[:k]
        rank = int((row > row[own]).sum()) + 1
        yield [(int(i), float(row[i])) for i in best], (int(own), float(row[own]), rank)


def text_of(token):
    """A text for every id, no two alike."""
    return f" t{token}"


def vllm(logits, tokens, k, *, ids=False):
    positions = [None]
    for best, (own, log_prob, rank) in top(logits, tokens, k):
        entries = {own: (log_prob, rank)}
        entries |= {i: (x, place) for place, (i, x) in enumerate(best, 1)}
        positions.append(
            {
                str(i): {"logprob": x, "rank": place, "decoded_token": text_of(i)}
                for i, (x, place) in entries.items()
            }
        )
    choice = {"index": 0, "text": "", "logprobs": None, "prompt_logprobs": positions}
    if ids:
        choice["prompt_token_ids"] = [int(x) for x in tokens]
    return {"id": "cmpl-1", "object": "text_completion", "model": "m", "choices": [choice]}


def sglang(logits, tokens, k):
    own_tokens, best_tokens = [[None, int(tokens[0]), None]], [None]
    for best, (own, log_prob, _) in top(logits, tokens, k):
        own_tokens.append([log_prob, own, None])
        best_tokens.append([[x, i, None] for i, x in best])
    return {
        "text": "",
        "meta_info": {
            "prompt_tokens": len(tokens),
            "input_token_logprobs": own_tokens,
            "input_top_logprobs": best_tokens,
            "output_token_logprobs": [],
            "output_top_logprobs": [],
        },
    }


def openai_chat(logits, tokens, k, *, text=text_of, with_bytes=True):
    def entry(token, log_prob):
        spelled = list(text(token).encode()) if with_bytes else None
        return {"token": text(token), "logprob": log_prob, "bytes": spelled}

    content = [
        entry(own, log_prob) | {"top_logprobs": [entry(i, x) for i, x in best]}
        for best, (own, log_prob, _) in top(logits, tokens, k)
    ]
    choice = {"index": 0, "message": {}, "logprobs": {"content": content, "refusal": None}}
    return {"object": "chat.completion", "choices": [choice], "usage": {"prompt_tokens": 1}}


def openai_completion(logits, tokens, k, *, text=text_of):
    """With echo: the prompt's tokens, the first of which has no log-probability."""
    log_probs, best_tokens = [None], [None]
    for best, (_, log_prob, _) in top(logits, tokens, k):
        log_probs.append(log_prob)
        best_tokens.append({text(i): x for i, x in best})
    found = {
        "tokens": [text(int(x)) for x in tokens],
        "token_logprobs": log_probs,
        "top_logprobs": best_tokens,
        "text_offset": list(range(len(tokens))),
    }
    return {"object": "text_completion", "choices": [{"index": 0, "text": "", "logprobs": found}]}


def tinker(logits, tokens, k):
    own_log_probs, best_tokens = [None], [None]
    for best, (_, log_prob, _) in top(logits, tokens, k):
        own_log_probs.append(log_prob)
        best_tokens.append([[i, x] for i, x in best])
    return {
        "type": "sample",
        "sequences": [],
        "prompt_tokens": [int(x) for x in tokens],
        "prompt_logprobs": own_log_probs,
        "topk_prompt_logprobs": best_tokens,
    }


SERVERS = {
    "vLLM": vllm,
    "SGLang": sglang,
    "OpenAI": openai_chat,
    "OpenAI completion": openai_completion,
    "Tinker": tinker,
}


def write(path, responses):
    """A list in a .json, a response a line in a .jsonl, compressed in a .gz."""
    if ".jsonl" in path.suffixes:
        data = "".join(json.dumps(response) + "\n" for response in responses).encode()
    else:
        data = json.dumps(responses).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
