"""Translate English into Chinese, and distil the translator into a smaller one by its sequences.

No package carries a pretrained English–Chinese model, so the larger model trained here stands in
as teacher: an encoder and decoder (`transformers.MarianMTModel`) from random weights, trained with
label-smoothed cross-entropy on some 6,000 short pairs of the Debian Reference and of JupyterLab's
messages. So little text makes no translator: the translation of the most similar training sentence
has more than twice the BLEU of the teacher. That and copying the source are the baselines.

The student has half the teacher's width. It is trained three ways, for the same number of steps:
with cross-entropy on the reference translations; with cross-entropy on the teacher's own
translations of the training sentences, which is sequence-level distillation [1]_; and on the same
translations with KL(teacher‖student) of all next-token distributions. Held out are sentences whose
English does not occur in training, whatever its case, numbers and punctuation.

    python examples/translate.py [--quick]

.. [1] Y. Kim and A. M. Rush, "Sequence-Level Knowledge Distillation" (2016).
   :doi:`10.48550/arXiv.1606.07947`
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

import experiment
import kldiv.torch
from byte_level_bpe import train_byte_level
from experiment import Experiment
from sentence_pairs import END, IGNORED, LONGEST, PAD, Tokens, encoded, padded, split, words
from translation_quality import judged, nearest

LABEL_SMOOTHING = 0.1
REFERENCES, SEQUENCES, KL = "student: CE, references", "student: CE, sequences", "student: KL"


@dataclass(frozen=True)
class Shape:
    """A model of `layers` layers in the encoder and as many in the decoder, and its training."""

    width: int
    layers: int
    dropout: float
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Size:
    """How much is trained; of the pairs at most `pairs`, the shortest; `batch` of them a step."""

    pairs: int | None
    held_out: int
    batch: int
    vocabulary: int
    teacher: Shape
    student: Shape


FULL = Size(
    pairs=None,
    held_out=600,
    batch=64,
    vocabulary=4000,
    teacher=Shape(width=192, layers=1, dropout=0.1, epochs=10, learning_rate=3e-3),
    student=Shape(width=96, layers=1, dropout=0.1, epochs=8, learning_rate=3e-3),
)
QUICK = Size(
    pairs=600,
    held_out=100,
    batch=16,
    vocabulary=1000,
    teacher=Shape(width=96, layers=1, dropout=0.1, epochs=12, learning_rate=4e-3),
    student=Shape(width=48, layers=1, dropout=0.1, epochs=12, learning_rate=4e-3),
)


@dataclass(frozen=True)
class Reading:
    """What the teacher expects next at every token of the targets, given those before it.

    Its last hidden states are kept, which are many times smaller than its logits.
    """

    teacher: Any
    states: list[Tensor]

    def logits(self, rows: list[int]) -> Tensor:
        """Those of some pairs, [tokens, vocabulary]."""
        with torch.no_grad():
            return logits_of(self.teacher, torch.cat([self.states[i] for i in rows]))


@dataclass(frozen=True)
class Scores:
    """Of references that training never saw, a token: cross-entropy, and KL(teacher‖model)."""

    cross_entropy: float
    kl: float

    @property
    def perplexity(self) -> float:
        """Of the references."""
        return math.exp(self.cross_entropy)


@dataclass
class Run:
    """The course of one training."""

    loss: list[float]
    held_out: list[Scores]
    seconds: float
    steps: int


def marian(tokenizer: Tokenizer, shape: Shape, seed: int) -> Any:
    """An encoder–decoder with random weights, the same for the same seed."""
    transformers.set_seed(seed)
    end, pad = (tokenizer.token_to_id(token) for token in (END, PAD))
    layers = {f"{part}_layers": shape.layers for part in ("encoder", "decoder")}
    widths = {f"{part}_ffn_dim": 4 * shape.width for part in ("encoder", "decoder")}
    heads = {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}
    return transformers.MarianMTModel(
        transformers.MarianConfig(
            vocab_size=tokenizer.get_vocab_size(),
            d_model=shape.width,
            dropout=shape.dropout,
            max_position_embeddings=2 * LONGEST,
            scale_embedding=True,
            # With it embeddings are as large as the positions that are added to them.
            init_std=shape.width**-0.5,
            activation_function="relu",
            eos_token_id=end,
            forced_eos_token_id=None,
            pad_token_id=pad,
            decoder_start_token_id=pad,
            **layers,
            **widths,
            **heads,
        )
    )


def states_of(model: Any, sources: Tensor, labels: Tensor) -> Tensor:
    """The last hidden states before each token of the targets, [tokens, width], no padding."""
    states = model.model(
        input_ids=sources,
        attention_mask=(sources != model.config.pad_token_id).long(),
        decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels),
        use_cache=False,
    ).last_hidden_state
    return states[labels != IGNORED]


def logits_of(model: Any, states: Tensor) -> Tensor:
    """The logits of each next token, [tokens, vocabulary]."""
    return model.lm_head(states) + model.final_logits_bias


@torch.no_grad()
def read(teacher: Any, data: Tokens) -> Reading:
    """Let the teacher read all pairs once."""
    teacher.eval()
    states: list[Tensor] = [torch.empty(0)] * len(data.sources)
    for rows, sources, labels in data.batches(teacher.config.pad_token_id, shuffled=False):
        lengths = [len(data.targets[i]) for i in rows]
        found = states_of(teacher, sources, labels).split(lengths)
        for i, state in zip(rows, found, strict=True):
            states[i] = state
    return Reading(teacher, states)


@torch.inference_mode()
def score(model: Any, held_out: Tokens, reading: Reading | None) -> Scores:
    """Cross-entropy of the references and KL(teacher‖model), in one read of both logits."""
    model.eval()
    compared = []
    for rows, sources, labels in held_out.batches(model.config.pad_token_id, shuffled=False):
        q = logits_of(model, states_of(model, sources, labels))
        p = q if reading is None else reading.logits(rows)
        compared.append(kldiv.compare(p.numpy(), q.numpy(), labels[labels != IGNORED].numpy()))
    summary = kldiv.Summary.of(compared)
    assert summary.nll_q is not None
    return Scores(cross_entropy=summary.nll_q.mean, kl=summary.kl.mean)


def train(
    name: str,
    model: Any,
    shape: Shape,
    data: Tokens,
    held_out: Tokens,
    *,
    read_data: Reading | None = None,
    read_held_out: Reading | None = None,
) -> Run:
    """Train by cross-entropy on the targets or, where a teacher has read them, by KL to it."""
    steps = shape.epochs * math.ceil(len(data.sources) / data.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=shape.learning_rate, betas=(0.9, 0.98))
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    run = Run([], [score(model, held_out, read_held_out)], 0.0, 0)
    progress = tqdm(total=steps, desc=name, disable=None)
    for _ in range(shape.epochs):
        model.train()
        losses = []
        started = time.perf_counter()
        for rows, sources, padded_labels in data.batches(model.config.pad_token_id, shuffled=True):
            logits = logits_of(model, states_of(model, sources, padded_labels))
            if read_data is None:
                labels = padded_labels[padded_labels != IGNORED]
                loss = kldiv.torch.cross_entropy(
                    logits, labels, ignore_index=IGNORED, label_smoothing=LABEL_SMOOTHING
                )
            else:
                loss = kldiv.torch.distillation_loss(logits, read_data.logits(rows), alpha=1.0)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            run.steps += 1
            progress.update()
        run.seconds += time.perf_counter() - started
        run.loss.append(sum(losses) / len(losses))
        run.held_out.append(score(model, held_out, read_held_out))
        progress.set_postfix(loss=run.loss[-1], held_out=run.held_out[-1].cross_entropy)
    progress.close()
    assert run.steps == steps
    return run


@torch.inference_mode()
def translations(model: Any, sources: list[list[int]]) -> list[list[int]]:
    """The model's greedy translations as token ids, with their end token."""
    model.eval()
    end, pad = model.config.eos_token_id, model.config.pad_token_id
    found: list[list[int]] = [[] for _ in sources]
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    for start in tqdm(range(0, len(order), 256), desc="translates", disable=None):
        rows = order[start : start + 256]
        inputs = padded([sources[i] for i in rows], pad)
        generated = model.generate(
            input_ids=inputs,
            attention_mask=(inputs != pad).long(),
            do_sample=False,
            num_beams=1,
            max_new_tokens=LONGEST + 1,
        )
        for i, ids in zip(rows, generated[:, 1:].tolist(), strict=True):
            found[i] = ids[: ids.index(end) + 1] if end in ids else ids
    return found


def draw(runs: dict[str, Run], quality: dict[str, dict[str, float]]) -> Any:
    """Scores on the held-out references against epochs, and BLEU and chrF of all systems."""
    figure, axes = plt.subplots(
        1, 3, figsize=(15, 4.6), width_ratios=(1, 1, 1.2), layout="constrained"
    )
    for k, (name, run) in enumerate(runs.items()):
        for axis, field in ((axes[0], "cross_entropy"), (axes[1], "kl")):
            if axis is axes[0] or name != "teacher":
                values = [getattr(scores, field) for scores in run.held_out]
                axis.plot(values, ".-", color=f"C{k}", label=name)
    axes[0].set(title="held-out references", ylabel="cross-entropy (nats a token)")
    axes[1].set(title="held-out references", ylabel="KL(teacher‖student) (nats a token)")
    for axis in axes[:2]:
        axis.set_xlabel("epoch")
        axis.legend()
    names = list(quality)
    places = np.arange(len(names))
    for k, metric in enumerate(("BLEU", "chrF")):
        heights, errors = ([quality[n][key] for n in names] for key in (metric, f"{metric} ±"))
        axes[2].barh(places + 0.4 * k - 0.2, heights, 0.38, xerr=errors, capsize=3, label=metric)
    axes[2].set_yticks(places, names)
    axes[2].invert_yaxis()
    axes[2].set(title="held-out translations, 95 % intervals", xlabel="score (0 to 100)")
    axes[2].legend()
    return figure


def main(given: Experiment) -> None:
    """Train the teacher, let it translate, train the three students, and compare all."""
    size = QUICK if given.quick else FULL
    parts = split(size.pairs, size.held_out, given.seed)
    # One of both languages, which share names, commands and options.
    tokenizer = train_byte_level(
        [side for pair in parts[0] for side in pair], size.vocabulary, [END, PAD]
    )
    (train_pairs, data), (held_pairs, held_out) = (
        encoded(tokenizer, part, size.batch) for part in parts
    )
    seen = {words(pair.english) for pair in train_pairs}
    assert not any(words(pair.english) in seen for pair in held_pairs)

    teacher = marian(tokenizer, size.teacher, given.seed)
    trained = {"teacher": teacher}
    runs = {"teacher": train("teacher", teacher, size.teacher, data, held_out)}
    teacher.requires_grad_(False)
    started = time.perf_counter()
    sequences = Tokens(data.sources, translations(teacher, data.sources), size.batch)
    seconds = time.perf_counter() - started
    same = sum(a == b for a, b in zip(sequences.targets, data.targets, strict=True))
    read_sequences, read_held_out = read(teacher, sequences), read(teacher, held_out)
    for name in (REFERENCES, SEQUENCES, KL):
        student = trained[name] = marian(tokenizer, size.student, given.seed)
        runs[name] = train(
            name,
            student,
            size.student,
            data if name == REFERENCES else sequences,
            held_out,
            read_data=read_sequences if name == KL else None,
            read_held_out=read_held_out,
        )

    systems = {
        "copy of the source": [pair.english for pair in held_pairs],
        "nearest training pair": nearest(train_pairs, held_pairs),
    }
    for name, model in trained.items():
        found = translations(model, held_out.sources)
        systems[name] = [text.strip() for text in tokenizer.decode_batch(found)]
    quality = judged(systems, held_pairs, REFERENCES)
    rows = []
    for name, measured in quality.items():
        row: dict[str, Any] = {"system": name}
        for metric in ("BLEU", "chrF"):
            row[metric] = f"{measured[metric]:.1f} ± {measured[f'{metric} ±']:.1f}"
            p = measured.get(f"{metric} p")
            row[f"p ({metric})"] = "" if p is None else f"{p:.3f}"
        run = runs.get(name)
        row["perplexity"] = "" if run is None else f"{run.held_out[-1].perplexity:.1f}"
        row["KL"] = "" if run is None or name == "teacher" else f"{run.held_out[-1].kl:.3f}"
        row["s"] = "" if run is None else f"{run.seconds:.0f}"
        rows.append(row)
    parameters = {name: trained[name].num_parameters() for name in ("teacher", KL)}
    experiment.show_table(
        f"{len(train_pairs)} training pairs, {len(held_pairs)} held out; parameters: teacher "
        f"{parameters['teacher']:,}, student {parameters[KL]:,}",
        rows,
    )
    print(
        f"The teacher's translations of training sentences (in {seconds:.0f} s) are the reference "
        f"for {same / len(data.targets):.0%} of them.\np: paired bootstrap against {REFERENCES!r}."
    )
    # The first with four words or more: one or two words show little.
    shown = [i for i, pair in enumerate(held_pairs) if len(pair.english.split()) >= 4][:6]
    shown = shown or list(range(6))
    examples = [
        {
            "English": held_pairs[i].english,
            "reference": held_pairs[i].chinese,
            "teacher": systems["teacher"][i],
            KL: systems[KL][i],
        }
        for i in shown
    ]
    for example in examples:
        print("\n" + "\n".join(f"{name:>12}  {text}" for name, text in example.items()))
    given.save(
        {
            "pairs": {"training": len(train_pairs), "held out": len(held_pairs)},
            "tokens": {
                "English": sum(map(len, data.sources)),
                "Chinese": sum(map(len, data.targets)),
            },
            "vocabulary": tokenizer.get_vocab_size(),
            "teacher": vars(size.teacher),
            "student": vars(size.student),
            "parameters": {"teacher": parameters["teacher"], "student": parameters[KL]},
            "share of training translations that are the reference": same / len(data.targets),
            "seconds of the teacher's translations": seconds,
            "quality": quality,
            "runs": {
                name: {
                    "steps": run.steps,
                    "seconds": run.seconds,
                    "loss": run.loss,
                    "held-out cross-entropy": [s.cross_entropy for s in run.held_out],
                    "held-out KL": [s.kl for s in run.held_out],
                    "held-out perplexity": run.held_out[-1].perplexity,
                }
                for name, run in runs.items()
            },
            "examples": examples,
        },
        draw(runs, quality),
    )


if __name__ == "__main__":
    main(experiment.start("translate", __doc__))
