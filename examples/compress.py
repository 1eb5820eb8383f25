"""Round the weights of a language model to few bits, and measure what that does by KL.

The model is SmolLM2-135M-Instruct, the reference itself with its weights in float32. Its weight
matrices (the linear layers, and the embedding that it shares with its output layer) are rounded
to int8, int4 and int3 in blocks of 32 weights with a float32 scale each. Both read

    documentation   topics of Python's own documentation; the labels are the tokens that follow
    answers         the reference's answers to questions about Python, chosen greedily through its
                    chat template; the labels are the answers' tokens, so perplexity is of those

and `kldiv.compare` has KL in both directions, agreement of the most probable tokens, and
perplexity. Then only one block of the transformer, or one kind of matrix, is rounded to int4, and
KL per byte saved orders them: those that cost most per byte stay int8, the others become int4. The
order is found on other topics than those on which the result is measured. Standard errors take
tokens as independent; 03_compare_models.ipynb has what changes when they are not.

The package carries the linear layers as GGUF Q4_1 and the embedding as Q8_0, and the reference
takes those values as its float32 weights. So this measures a second rounding, to another grid.

    python examples/compress.py [--quick]
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import experiment
import kldiv
import models
import quantisation
import texts
from experiment import Experiment

BITS = (8, 4, 3)
FLOAT = 32
"""The bits of a weight that is not rounded."""
SHOWN = 2
"""Questions whose answers are printed."""
BATCH = 4
"""Passages read at a time."""
EMBEDDING = "embedding"
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QUESTIONS = (
    "What does the len function do in Python?",
    "How do I open a file for reading in Python?",
    "How do I catch an exception in Python?",
    "What is a list comprehension in Python?",
    "What is the difference between a list and a tuple in Python?",
    "What does the yield keyword do in Python?",
    "How do I sort a dictionary by its values in Python?",
    "What is a decorator in Python?",
)


@dataclass(frozen=True)
class Size:
    """How much is read, and how finely the model is divided."""

    passages: int
    ordering: int
    """Passages on which the blocks are ordered."""
    length: int
    questions: int
    answer: int
    """Most tokens of an answer."""
    unit: int
    """Consecutive transformer blocks that are rounded together."""
    kept: tuple[int, ...]
    """Numbers of units that stay int8 while the others become int4."""
    kinds_kept: tuple[int, ...]
    """The same of kinds of matrices."""


FULL = Size(
    passages=8,
    ordering=4,
    length=128,
    questions=8,
    answer=40,
    unit=1,
    kept=(1, 3, 6, 12, 20, 26),
    kinds_kept=(1, 2, 3, 4, 5, 6, 7),
)
QUICK = Size(
    passages=2,
    ordering=1,
    length=96,
    questions=2,
    answer=20,
    unit=6,
    kept=(3,),
    kinds_kept=(1, 3),
)


@dataclass(frozen=True)
class Sample:
    """Sequences of tokens, the labels of their last positions, and the reference's logits there."""

    inputs: Tensor
    labels: NDArray[np.int64]
    reference: NDArray[np.float32]


@dataclass(frozen=True)
class Order:
    """Parts of the model in some order, and how many of them stay int8 at each point measured."""

    parts: dict[str, list[str]]
    names: list[str]
    kept: tuple[int, ...]


class Weights:
    """The weight matrices of a model by name, each rounded to some bits, or not."""

    def __init__(self, model: Any) -> None:
        parameters = dict(model.named_parameters())
        self.matrices: dict[str, Tensor] = {n: w for n, w in parameters.items() if w.ndim == 2}
        self.originals = {name: weight.detach().clone() for name, weight in self.matrices.items()}
        self.others = sum(w.numel() for n, w in parameters.items() if n not in self.matrices)
        self.bits = dict.fromkeys(self.matrices, FLOAT)

    def round(self, bits: dict[str, int]) -> None:
        """Round the named matrices to the given bits, and restore all others."""
        for name, weight in self.matrices.items():
            wanted = bits.get(name, FLOAT)
            if wanted != self.bits[name]:
                original = self.originals[name]
                weight.copy_(
                    original if wanted == FLOAT else quantisation.quantise(original, wanted)
                )
                self.bits[name] = wanted

    def round_all(self, bits: int) -> None:
        """Round every matrix to the given bits."""
        self.round(dict.fromkeys(self.matrices, bits))

    def bytes(self, bits: dict[str, int] | None = None) -> int:
        """Bytes of the model at the given bits, by default the present ones."""
        bits = self.bits if bits is None else bits
        sizes = {name: weight.numel() for name, weight in self.matrices.items()}
        return 4 * self.others + sum(
            4 * sizes[name] if n == FLOAT else quantisation.quantised_bytes(sizes[name], n)
            for name, n in bits.items()
        )


def passages(tokenizer: Any, length: int, seed: int) -> Iterable[list[int]]:
    """The beginnings of the topics of the documentation, a token longer than the model reads."""
    topics = texts.python_documentation()
    names = sorted(topics)
    random.Random(seed).shuffle(names)
    for name in names:
        tokens = tokenizer(topics[name])["input_ids"][: length + 1]
        if len(tokens) == length + 1:
            yield tokens


@torch.inference_mode()
def logits_of(model: Any, inputs: Tensor, rows: int) -> NDArray[np.float32]:
    """The model's logits at the last positions of every sequence."""
    return np.asarray(model(inputs, logits_to_keep=rows).logits.numpy())


def read(reference: Any, tokens: list[list[int]]) -> list[Sample]:
    """Passages in batches, where every token is to be predicted from those before."""
    samples = []
    for batch in torch.tensor(tokens).split(BATCH):
        inputs, labels = batch[:, :-1], batch[:, 1:].numpy()
        samples.append(Sample(inputs, labels, logits_of(reference, inputs, labels.shape[1])))
    return samples


@torch.inference_mode()
def answer(model: Any, tokenizer: Any, questions: Iterable[str], length: int) -> list[Any]:
    """Prompt and greedy answer to each question, as tokens."""
    chats = [[{"role": "user", "content": question}] for question in questions]
    tokenizer.padding_side = "left"
    prompts = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    written = model.generate(**prompts, max_new_tokens=length, do_sample=False)
    found = []
    for prompt, mask, row in zip(*prompts.values(), written, strict=True):
        tokens = row[len(prompt) :].tolist()
        # What follows the end of a short answer is padding.
        if tokenizer.eos_token_id in tokens:
            tokens = tokens[: tokens.index(tokenizer.eos_token_id) + 1]
        found.append((prompt[mask.bool()].tolist(), tokens))
    return found


def read_answers(reference: Any, answers: list[Any]) -> list[Sample]:
    """The reference's answers, where every token is to be predicted from prompt and beginning."""
    samples = []
    for prompt, tokens in answers:
        inputs, labels = torch.tensor([[*prompt, *tokens[:-1]]]), np.array([tokens])
        samples.append(Sample(inputs, labels, logits_of(reference, inputs, len(tokens))))
        assert (samples[-1].reference.argmax(-1) == labels).mean() > 0.9
    return samples


def compare(model: Any, samples: list[Sample]) -> kldiv.Summary:
    """KL(reference‖model) and what goes with it, over all rows of the samples."""
    return kldiv.Summary.of(
        [
            kldiv.compare(
                sample.reference,
                logits_of(model, sample.inputs, sample.labels.shape[1]),
                sample.labels,
            )
            for sample in samples
        ]
    )


def row_of(name: str, summary: kldiv.Summary) -> dict[str, Any]:
    """A row of a table."""
    assert summary.perplexity_q is not None
    return {
        "weights": name,
        "KL": summary.kl.mean,
        "s.e.": summary.kl.standard_error,
        "99 %": summary.kl_percentiles[99.0],
        "reverse": summary.reverse_kl.mean,
        "top-1": summary.same_top.mean,
        "perplexity": summary.perplexity_q.mean,
    }


def units_of(weights: Weights, size: Size) -> dict[str, list[str]]:
    """The matrices of the embedding, and of every few consecutive blocks, by the unit's name."""
    units: dict[str, list[str]] = {EMBEDDING: []}
    for name in weights.matrices:
        layer = re.search(r"layers\.(\d+)\.", name)
        if layer is None:
            units[EMBEDDING].append(name)
            continue
        first = int(layer[1]) // size.unit * size.unit
        unit = str(first) if size.unit == 1 else f"{first}–{first + size.unit - 1}"
        units.setdefault(unit, []).append(name)
    return units


def sensitivity(
    model: Any, weights: Weights, parts: dict[str, list[str]], samples: list[Sample]
) -> list[dict[str, Any]]:
    """KL of the model with only one part rounded to int4, and what int8 would need on top."""
    rows = []
    for part, names in tqdm(parts.items(), desc="one part in int4"):
        weights.round(dict.fromkeys(names, 4))
        kl = compare(model, samples).kl
        count = sum(weights.matrices[name].numel() for name in names)
        saved = quantisation.quantised_bytes(count, 8) - quantisation.quantised_bytes(count, 4)
        rows.append(
            {
                "part": part,
                "KL": kl.mean,
                "s.e.": kl.standard_error,
                "MB saved": saved / 1e6,
                "KL per MB": kl.mean / (saved / 1e6),
            }
        )
    return rows


def allocations(
    model: Any,
    weights: Weights,
    orders: dict[str, Order],
    samples: list[Sample],
) -> dict[str, list[dict[str, Any]]]:
    """KL and bytes when the first few parts of an order stay int8 and the others become int4."""
    curves: dict[str, list[dict[str, Any]]] = {name: [] for name in orders}
    steps = [(name, kept) for name, order in orders.items() for kept in order.kept]
    for name, kept in tqdm(steps, desc="int8 and int4 mixed"):
        bits = dict.fromkeys(weights.matrices, 4)
        for part in orders[name].names[:kept]:
            bits |= dict.fromkeys(orders[name].parts[part], 8)
        weights.round(bits)
        kl = compare(model, samples).kl
        curves[name].append(
            {
                "order": name,
                "in int8": kept,
                "MB": weights.bytes() / 1e6,
                "KL": kl.mean,
                "s.e.": kl.standard_error,
            }
        )
    return curves


def draw(
    tables: dict[str, list[dict[str, Any]]],
    blocks: list[dict[str, Any]],
    kinds: list[dict[str, Any]],
    curves: dict[str, list[dict[str, Any]]],
    uniform: dict[int, tuple[float, float]],
) -> Any:
    """KL against bits, by block, by kind of matrix, and against bytes."""
    figure, axes = plt.subplots(2, 2, figsize=(13, 8.5))
    (by_bits, by_block), (by_bytes, by_kind) = axes
    for (text, rows), marker in zip(tables.items(), "os", strict=True):
        values, errors = ([row[key] for row in rows[1:]] for key in ("KL", "s.e."))
        by_bits.errorbar(BITS, values, errors, marker=marker, capsize=4, label=text)
    by_bits.set(xlabel="bits of a weight", ylabel="KL(float32‖rounded), nats", yscale="log")
    by_bits.set(title="(a) all matrices rounded", xticks=BITS)
    by_bits.legend(title="mean over tokens, ± standard error")

    for axis, rows in ((by_block, blocks), (by_kind, kinds)):
        values, errors = ([row[key] for row in rows] for key in ("KL", "s.e."))
        axis.bar(range(len(rows)), values, yerr=errors, capsize=2, color="C0", ecolor="0.35")
        axis.set(ylabel="KL, nats", ylim=(0, None))
    names = [row["part"] for row in blocks]
    shown = range(len(names)) if len(names) < 12 else [0, *range(3, len(names), 3)]
    by_block.set_xticks(shown, ["emb." if i == 0 else names[i] for i in shown])
    by_block.set(xlabel="transformer block (emb.: embedding, which is also the output layer)")
    by_block.set(title="(b) only one block in int4")
    by_kind.set_xticks(range(len(kinds)), [*(kind.removesuffix("_proj") for kind in KINDS), "emb."])
    by_kind.set(xlabel="kind of matrix", title="(d) only one kind of matrix in int4, in all blocks")

    (mb4, kl4), (mb8, kl8) = uniform[4], uniform[8]
    for (name, rows), style in zip(curves.items(), ("o-", "s--", "^:", "v-"), strict=True):
        ends = [(mb4, kl4), *((row["MB"], row["KL"]) for row in rows), (mb8, kl8)]
        by_bytes.plot(*zip(*ends, strict=True), style, markersize=5, label=name)
    for bits, shift, side in ((4, (9, 6), "left"), (8, (-9, -14), "right")):
        by_bytes.plot(*uniform[bits], "kD", zorder=3)
        by_bytes.annotate(
            f"all int{bits}", uniform[bits], shift, textcoords="offset points", ha=side
        )
    by_bytes.margins(0.12)
    by_bytes.set(xlabel="model, MB", ylabel="KL, nats", yscale="log")
    by_bytes.set(title="(c) some parts in int8, the others in int4")
    by_bytes.legend(title="int8 goes first to", loc="lower left")
    figure.tight_layout()
    return figure


def main(given: Experiment) -> None:
    """Round everything, then one part at a time, then some parts to int8 and the rest to int4."""
    size = QUICK if given.quick else FULL
    model, tokenizer = models.smollm2(given.models)
    source = passages(tokenizer, size.length, given.seed)
    measuring, ordering = (
        read(model, [next(source) for _ in range(count)])
        for count in (size.passages, size.ordering)
    )
    questions = QUESTIONS[: size.questions]
    answers = answer(model, tokenizer, questions, size.answer)
    samples = {"documentation": measuring, "answers": read_answers(model, answers)}
    written = {"float32": answers[:SHOWN]}

    weights = Weights(model)
    whole = weights.bytes()
    sizes = [{"weights": "float32", "bytes": whole, "of float32": 1.0}]
    tables = {text: [row_of("float32", compare(model, samples[text]))] for text in samples}
    assert all(rows[0]["KL"] == 0.0 for rows in tables.values())
    for bits in tqdm(BITS, desc="all in few bits"):
        name = f"int{bits}"
        weights.round_all(bits)
        sizes.append(
            {"weights": name, "bytes": weights.bytes(), "of float32": weights.bytes() / whole}
        )
        for text, rows in tables.items():
            rows.append(row_of(name, compare(model, samples[text])))
        written[name] = answer(model, tokenizer, questions[:SHOWN], size.answer)

    units = units_of(weights, size)
    blocks = sensitivity(model, weights, units, ordering)
    of_kind = {kind: [n for n in weights.matrices if f".{kind}." in n] for kind in KINDS}
    of_kind[EMBEDDING] = units[EMBEDDING]
    kinds = sensitivity(model, weights, of_kind, ordering)
    weights.round_all(4)
    together = compare(model, ordering).kl.mean

    by_cost, kinds_by_cost = (
        sorted(rows, key=lambda row: -row["KL per MB"]) for rows in (blocks, kinds)
    )
    shuffled = random.Random(given.seed).sample(list(units), len(units))
    orders = {
        "blocks, costliest": Order(units, [row["part"] for row in by_cost], size.kept),
        "blocks, first": Order(units, list(units), size.kept),
        "blocks, random": Order(units, shuffled, size.kept),
        "kinds, costliest": Order(of_kind, [row["part"] for row in kinds_by_cost], size.kinds_kept),
    }
    curves = allocations(model, weights, orders, measuring)
    weights.round({})
    assert compare(model, measuring).kl.mean == 0.0

    experiment.show_table("the model's weights", sizes)
    for text, rows in tables.items():
        count = sum(sample.labels.size for sample in samples[text])
        experiment.show_table(f"{text}, {count} tokens; divergences in nats", rows)
    shown_answers = []
    for i, question in enumerate(questions[:SHOWN]):
        given_answers = {
            name: " ".join(tokenizer.decode(found[i][1], skip_special_tokens=True).split())
            for name, found in written.items()
        }
        print(f"\n{question}")
        for name, text in given_answers.items():
            print(f"  {name:8} {text}")
        shown_answers.append({"question": question, "answers": given_answers})
    print()
    experiment.show_table("only one part in int4: the costliest per byte", by_cost[:6])
    experiment.show_table("only one kind of matrix in int4", kinds_by_cost)
    alone = sum(row["KL"] for row in blocks)
    print(f"sum of KL over parts rounded alone {alone:.4f}, all rounded together {together:.4f}")
    mixed = [row for rows in curves.values() for row in rows]
    experiment.show_table("some in int8, the others in int4", mixed)

    megabytes = {row["weights"]: row["bytes"] / 1e6 for row in sizes}
    kl = {row["weights"]: row["KL"] for row in tables["documentation"]}
    given.save(
        {
            "size": vars(size),
            "bytes": sizes,
            **tables,
            "answers to questions": shown_answers,
            "one block in int4": blocks,
            "one kind of matrix in int4": kinds,
            "KL of parts, summed": alone,
            "KL of parts, together": together,
            "orders": {name: order.names for name, order in orders.items()},
            "mixed": curves,
        },
        draw(
            tables,
            blocks,
            kinds,
            curves,
            {bits: (megabytes[f"int{bits}"], kl[f"int{bits}"]) for bits in (4, 8)},
        ),
    )


if __name__ == "__main__":
    main(experiment.start("compress", __doc__))
