"""Dumps of a language model and of two quantised copies, in every layout people keep.

The model is SmolLM2-135M-Instruct with its weights in float32; int8 and int4 are the same model
with its weight matrices rounded to so many bits, the embedding that it shares with its output layer
among them. All three read topics of Python's documentation, one sequence a topic, and each gets a
folder with the same numbers in several layouts:

    logits/logits_0000.safetensors …   float16 [positions, classes]   one file a sequence
    keys.safetensors                   float16, keys logits_0, …      one key a sequence
    logits.npy                         float32, all sequences in one  with lengths.txt
    hidden/hidden_0000.safetensors …   float32 [positions, 576]       after the final norm
    lm-head/weight.safetensors         float32 [classes, 576]         the output layer
    base.kld                           llama.cpp's base file, scored in the second half of each text
    vllm.json, sglang.json             the 20 most probable tokens, as servers answer

Beside these lie tokens.npy and labels.npy (the token after every position, −100 at the end of a
text), lengths.txt, strata.txt (a label for every sequence), clusters.txt.

    python examples/make_dumps.py --output DIR [--sequences 8] [--length 128]

Texts: ``pydoc_data.topics`` of the standard library (PSF-2.0).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

import kldiv
import models
import texts
from kldiv.evaluation.dumps.llama_cpp_writer import write as write_base_file
from kldiv.evaluation.dumps.memory import of_memory
from quantisation import rounded_forms

TOP_K = 20
NO_TOKEN = -100


def sequences_of(tokenizer: Any, count: int, length: int) -> dict[str, list[int]]:
    """The first tokens of the longest enough topics, by topic."""
    found: dict[str, list[int]] = {}
    for topic, text in sorted(texts.python_documentation().items()):
        tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(tokens) >= length:
            found[topic] = tokens[:length]
        if len(found) == count:
            return found
    raise SystemExit(f"only {len(found)} topics have {length} tokens, fewer than {count}")


@torch.inference_mode()
def hidden_states(model: Any, tokens: list[int]) -> NDArray[np.float32]:
    """What the output layer is given, after the final norm."""
    states = model.model(torch.tensor([tokens])).last_hidden_state[0]
    return np.asarray(states, np.float32)


def write(model: Any, folder: Path, sequences: dict[str, list[int]]) -> None:
    """All layouts of one model."""
    for name in ("logits", "hidden", "lm-head"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    head = model.lm_head.weight.detach().numpy()
    save_file({"weight": head}, folder / "lm-head" / "weight.safetensors")
    logits: list[NDArray[np.float32]] = []
    for number, tokens in enumerate(sequences.values()):
        states = hidden_states(model, tokens)
        logits.append(states @ head.T)
        save_file({"hidden_states": states}, folder / "hidden" / f"hidden_{number:04}.safetensors")
        half = logits[-1].astype(np.float16)
        save_file({"logits": half}, folder / "logits" / f"logits_{number:04}.safetensors")
    keys = {f"logits_{number}": rows.astype(np.float16) for number, rows in enumerate(logits)}
    save_file(keys, folder / "keys.safetensors")
    np.save(folder / "logits.npy", np.concatenate(logits))
    tokens_of_all = np.array(list(sequences.values()))
    write_base_file(folder / "base.kld", of_memory(logits, "logits"), tokens_of_all)
    for name, answer in {"vllm": vllm, "sglang": sglang}.items():
        answers = [answer(*pair) for pair in zip(sequences.values(), logits, strict=True)]
        (folder / f"{name}.json").write_text(json.dumps(answers), encoding="utf-8")


def top_k(tokens: list[int], logits: NDArray[np.float32]) -> Iterator[list[tuple[int, float, int]]]:
    """The most probable tokens after each and what follows: id, log-probability, rank."""
    log_probs = np.asarray(kldiv.log_softmax(logits), np.float64)
    for row, own in zip(log_probs, tokens[1:], strict=False):
        order = np.argsort(-row, kind="stable")[:TOP_K].tolist()
        entries = [(token, float(row[token]), place + 1) for place, token in enumerate(order)]
        if own not in order:
            entries.append((own, float(row[own]), int((row > row[own]).sum()) + 1))
        yield entries


def vllm(tokens: list[int], logits: NDArray[np.float32]) -> dict[str, Any]:
    """As vLLM answers with ``prompt_logprobs``."""
    positions: list[Any] = [None]
    for entries in top_k(tokens, logits):
        positions.append(
            {
                str(token): {"logprob": value, "rank": rank, "decoded_token": None}
                for token, value, rank in entries
            }
        )
    return {"prompt_token_ids": tokens, "prompt_logprobs": positions}


def sglang(tokens: list[int], logits: NDArray[np.float32]) -> dict[str, Any]:
    """As SGLang answers with ``return_logprob`` and ``top_logprobs_num``."""
    top: list[Any] = [None]
    own: list[Any] = [[None, tokens[0], None]]
    for token, entries in zip(tokens[1:], top_k(tokens, logits), strict=True):
        top.append([[value, entry, None] for entry, value, _ in entries[:TOP_K]])
        own.append([next(v for entry, v, _ in entries if entry == token), token, None])
    return {"text": "", "meta_info": {"input_top_logprobs": top, "input_token_logprobs": own}}


def make(output: Path, count: int, length: int) -> None:
    """Write everything."""
    model, tokenizer = models.smollm2()
    sequences = sequences_of(tokenizer, count, length)
    output.mkdir(parents=True, exist_ok=True)
    tokens = np.array(list(sequences.values()), np.int64)
    labels = np.concatenate([tokens[:, 1:], np.full((count, 1), NO_TOKEN)], axis=1)
    np.save(output / "tokens.npy", tokens)
    np.save(output / "labels.npy", labels)
    lines = {
        "lengths.txt": [str(length)] * count,
        "clusters.txt": list(sequences),
        "strata.txt": ["prose" if text_of(topic) < 0.02 else "code" for topic in sequences],
    }
    for name, entries in lines.items():
        (output / name).write_text("\n".join(entries) + "\n", encoding="utf-8")
    write(model, output / "reference", sequences)
    for name in rounded_forms(model):
        write(model, output / name, sequences)
    print(f"wrote {count} sequences of {length} tokens to {output}")


def text_of(topic: str) -> float:
    """The share of characters of a topic that programs have and prose has not."""
    text = texts.python_documentation()[topic]
    return sum(character in "(){}[]=>:_" for character in text) / len(text)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--sequences", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--length", type=int, default=128, help="tokens; default: %(default)s")
    given = parser.parse_args()
    make(given.output, given.sequences, given.length)


if __name__ == "__main__":
    main()
