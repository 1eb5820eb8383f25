"""Generate text with the GPT-2 of `train_gpt2.py`, before and after training, and with its teacher.

Greedy (the most probable token each time) and sampled (drawn from the distribution cut to the
smallest set of tokens with 90 % of the mass, at temperature 0.8). What the article's code lacks is
here: a model with an output layer, a loop that appends one token *id* after the other, an attention
mask, a token to pad with, and decoding of ids, all of them at once, since one Chinese character may
be several tokens.

Two figures say what training changed: KL(teacher‖student) at every token of the teacher's own
greedy continuation, and the next-token distribution after a prompt.

    python examples/train_gpt2.py [--quick]   # first, it saves the models
    python examples/generate.py [--quick]
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers
from tqdm import tqdm

import experiment
import kldiv
import models
from experiment import Experiment
from train_gpt2 import FULL, QUICK, gpt2

PROMPTS = (
    "The expression list is evaluated once; it should yield",
    "A class definition defines a class object",
    "人工智能",
)
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.9}
SHOWN_TOKENS = 10


def trained(folder: Path) -> Any:
    """The student trained with KL."""
    if not (folder / "model.safetensors").exists():
        raise SystemExit(f"{folder} holds no model: run examples/train_gpt2.py first")
    return transformers.GPT2LMHeadModel.from_pretrained(folder).eval()


@torch.inference_mode()
def continuation(
    model: Any, tokenizer: Any, prompt: str, length: int, options: dict[str, Any]
) -> list[int]:
    """The ids of the tokens that follow the prompt."""
    encoded = tokenizer(prompt, return_tensors="pt")
    generated = model.generate(
        input_ids=encoded["input_ids"],
        attention_mask=encoded["attention_mask"],
        generation_config=transformers.GenerationConfig(
            max_new_tokens=length,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
            **options,
        ),
    )
    ids: list[int] = generated[0, encoded["input_ids"].shape[1] :].tolist()
    return ids


@torch.inference_mode()
def logits_after(model: Any, tokenizer: Any, prompt: str, following: list[int]) -> np.ndarray:
    """Next-token logits after the prompt, and after each further token but the last."""
    ids = tokenizer(prompt)["input_ids"]
    rows = model(torch.tensor([ids + following])).logits[0, len(ids) - 1 : -1]
    return rows.numpy()


def distinct(ids: list[int]) -> float:
    """The share of pairs of neighbouring tokens that occur once only: text that loops has few."""
    pairs = list(itertools.pairwise(ids))
    return sum(pairs.count(pair) == 1 for pair in pairs) / max(len(pairs), 1)


def draw(kls: dict[str, np.ndarray], logits: dict[str, np.ndarray], tokenizer: Any) -> Any:
    """KL along a continuation, and one distribution of the teacher with those of the student."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4))
    for name, kl in kls.items():
        left.plot(range(1, len(kl) + 1), kl, label=f"student {name}")
    left.set(
        title=f"along the teacher's text after\n“{PROMPTS[0]}”",
        xlabel="token",
        ylabel="KL(teacher‖student) (nats)",
        ylim=(0, None),
    )
    left.legend()
    log_p = {name: kldiv.log_softmax(rows[0]) for name, rows in logits.items()}
    top = np.argsort(-log_p["teacher"])[:SHOWN_TOKENS]
    for place, (name, row) in enumerate(log_p.items()):
        right.bar(np.arange(len(top)) + (place - 1) * 0.27, np.exp(row[top]), 0.27, label=name)
    right.set_xticks(range(len(top)), [repr(tokenizer.decode([i])) for i in top], rotation=30)
    right.set(title="the first token of it", ylabel="probability (log scale)", yscale="log")
    right.legend()
    figure.tight_layout()
    return figure


def main(given: Experiment) -> None:
    """Print what each model writes, and how far the student is from the teacher."""
    size = QUICK if given.quick else FULL
    length = 12 if given.quick else 40
    teacher, tokenizer = models.smollm2(given.models)
    writers = {
        "teacher": teacher,
        "untrained": gpt2(teacher.config.vocab_size, size, given.seed).eval(),
        "trained": trained(given.models / "gpt2-KL"),
    }
    written: list[dict[str, Any]] = []
    with tqdm(total=len(PROMPTS) * len(writers) * 2, disable=None) as progress:
        for prompt in PROMPTS:
            for name, model in writers.items():
                for how, options in (("greedy", {"do_sample": False}), ("sampled", SAMPLING)):
                    transformers.set_seed(given.seed)
                    ids = continuation(model, tokenizer, prompt, length, options)
                    text = tokenizer.decode(ids, skip_special_tokens=True)
                    written.append(
                        {
                            "prompt": prompt,
                            "model": name,
                            "how": how,
                            "text": text,
                            "distinct pairs": distinct(ids),
                        }
                    )
                    progress.update()
    for entry in written:
        print(f"{entry['model']}, {entry['how']}: {entry['prompt']} …{entry['text']!r}")

    reference = continuation(teacher, tokenizer, PROMPTS[0], length, {"do_sample": False})
    logits = {n: logits_after(m, tokenizer, PROMPTS[0], reference) for n, m in writers.items()}
    students = ("untrained", "trained")
    kls = {name: kldiv.kl(logits["teacher"], logits[name]) for name in students}
    rows = []
    for name in writers:
        row = {"model": name, "KL to the teacher": float(kls[name].mean()) if name in kls else 0.0}
        for how in ("greedy", "sampled"):
            of_these = [e for e in written if (e["model"], e["how"]) == (name, how)]
            row[f"distinct pairs, {how}"] = float(np.mean([e["distinct pairs"] for e in of_these]))
        rows.append(row)
    experiment.show_table(f"{length} tokens after each of {len(PROMPTS)} prompts", rows)
    given.save({"models": rows, "texts": written}, draw(kls, logits, tokenizer))


if __name__ == "__main__":
    main(experiment.start("generate", __doc__))
