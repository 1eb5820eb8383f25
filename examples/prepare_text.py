"""Prepare text for a language model: clean, deduplicate, split, tokenise, encode, pack.

The texts are real and dirty: entries of Debian's fortunes-zh (ANSI colour codes, tables of
box-drawing characters, no-break spaces) and the HTML pages of the Debian Reference in Chinese and
English, section by section. Each step of cleaning is a function from a text to a text, and is
tested by counts: what it looks for, before and after, on every text. A step that finds nothing in
these texts is tested on the same texts, damaged.

Cleaned texts go through `datasets`: short ones and duplicates out, a split by seed, a byte-level
BPE trained on the train split alone (`tokenizers`, loaded again by `transformers`), then blocks of
a fixed number of token ids with a separator after each document, saved and loaded again. Its
tokens per character and per word are held to those of GPT-2 and SmolLM2. How far apart the splits
and the sources are, before and after cleaning, is a divergence of token frequencies.

Encoding ends with integers. An embedding is not part of it: it is the first layer of the model,
which learns it together with the other layers.

Hard line wraps and the indentation of program code are not restored: a wrap cannot be told from
the end of a verse, and most indentation here is layout.

    python examples/prepare_text.py [--quick]
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import ftfy
import ftfy.badness
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import tokenizers
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_from_disk
from numpy.typing import NDArray
from tqdm import tqdm

import experiment
import kldiv
import texts
from byte_level_bpe import (
    PADDING,
    SEPARATOR,
    gpt2,
    ids,
    lossless,
    smollm2,
    tokens_per,
    train_tokenizer,
)
from cleaning import STEPS, Clean, clean, composed, repaired
from experiment import Experiment

SOURCES = ["fortunes", "reference zh", "reference en"]
MIN_CHARACTERS = 10
"""Shorter texts are left out. Sayings of the Analects have less than 20, and are whole texts."""
HELD_OUT = 0.1
"""The share of texts held out."""
MIN_SENTENCE = 10
"""Shorter sentences (letters and digits) occur in unrelated texts, and show no leak."""


@dataclass(frozen=True)
class Size:
    """How much is prepared."""

    fortunes: int | None
    chapters: int | None
    vocabulary: int
    block: int
    damaged: int


FULL = Size(fortunes=None, chapters=None, vocabulary=8000, block=256, damaged=500)
QUICK = Size(fortunes=1000, chapters=2, vocabulary=2000, block=128, damaged=100)


# Reading and measuring


def sections(html: str) -> list[str]:
    """A page cut where its sections begin; the parser closes what a cut left open."""
    return re.split(r'(?=<div class="section">)', html)


def read(size: Size, seed: int) -> Dataset:
    """The raw texts and their sources."""
    fortunes = texts.fortunes_zh()
    if size.fortunes is not None:
        fortunes = random.Random(seed).sample(fortunes, size.fortunes)
    found = dict.fromkeys(SOURCES, fortunes)
    for source, language in (("reference zh", "zh-cn"), ("reference en", "en")):
        pages = list(texts.debian_reference(language).values())[: size.chapters]
        found[source] = [section for page in pages for section in sections(page)]
    return Dataset.from_dict(
        {
            "source": [source for source, raw in found.items() for _ in raw],
            "raw": list(chain.from_iterable(found.values())),
        },
        features=Features({"source": ClassLabel(names=SOURCES), "raw": Value("string")}),
    )


def survey(dataset: Dataset) -> list[dict[str, Any]]:
    """For each step and source: texts changed, characters removed, and what was found and left."""
    found: dict[tuple[str, str], Counter[str]] = {
        (step.name, source): Counter() for step in STEPS for source in SOURCES
    }
    for row in tqdm(dataset, desc="steps"):
        text = row["raw"]
        for step in STEPS:
            after = step.apply(text)
            found[step.name, SOURCES[row["source"]]].update(
                {
                    "changed": after != text,
                    "removed": len(text) - len(after),
                    "before": step.count(text),
                    "after": step.count(after),
                }
            )
            text = after
        # The counts of the table are each taken at their step; these are of the end.
        left = {step.name: step.count(text) for step in STEPS[3:]}
        assert not any(left.values()), left
        assert "\x1b" not in text
        assert clean(text) == text, f"cleaned twice it differs: {text[:200]!r}"
    return [
        {
            "step": step,
            "source": source,
            "texts changed": counts["changed"],
            "characters removed": counts["removed"],
            "found before": counts["before"],
            "left after": counts["after"],
        }
        for (step, source), counts in found.items()
    ]


def restored(cleaned: list[str], sample: list[str]) -> dict[str, dict[str, int]]:
    """How many texts two steps bring back from damage, and how many it changed.

    Only letters with marks have an NFD, in few texts: all are taken. Repair is slow: a sample is.
    """
    damages: dict[str, tuple[list[str], Clean, Clean]] = {
        "UTF-8 read as Latin-1": (sample, lambda text: text.encode().decode("latin-1"), repaired),
        "NFD": (cleaned, lambda text: unicodedata.normalize("NFD", text), composed),
    }
    found = {}
    for name, (taken, damage, repair) in damages.items():
        pairs = [(text, worse) for text in taken if (worse := damage(text)) != text]
        back = sum(repair(worse) == text for text, worse in pairs)
        found[name] = {"damaged": len(pairs), "restored": back}
    assert found["NFD"]["damaged"] == found["NFD"]["restored"]
    return found


def changed_characters(cleaned: list[str], change: Clean) -> Counter[str]:
    """How often each character occurs that a change of the text, character by character, alters."""
    counts = Counter(chain.from_iterable(cleaned))
    return Counter(
        {character: n for character, n in counts.items() if change(character) != character}
    )


# Datasets


def key(text: str) -> str:
    """Letters and digits of a text: equal for texts that differ in layout, width or case.

    To compare texts NFKC is right: nobody reads the key.
    """
    return re.sub(r"\W+", "", unicodedata.normalize("NFKC", text).casefold())


def without_duplicates(dataset: Dataset) -> Dataset:
    """The first of the texts that have one key."""
    _, first = np.unique([key(text) for text in dataset["text"]], return_index=True)
    return dataset.select(np.sort(first))


def sentences(text: str) -> set[str]:
    """The keys of the sentences of a text that are not short."""
    found = map(key, re.split(r"[。！？；]|[.!?;](?=\s)|\n\n", text))
    return {sentence for sentence in found if len(sentence) >= MIN_SENTENCE}


def without_leaks(held_out: Dataset, train: Dataset) -> Dataset:
    """Texts of which the train split has at most half of the sentences.

    Fortunes quote the Debian Reference, so texts that are no duplicates still share passages.
    """
    known = set().union(*map(sentences, train["text"]))

    def new(text: str) -> bool:
        found = sentences(text)
        return 2 * len(found & known) <= len(found)

    return held_out.filter(new, input_columns="text", desc="leaks")


def prepare(raw: Dataset, seed: int) -> tuple[DatasetDict, dict[str, int]]:
    """Cleaned texts, train and held out, and how many were left after each stage."""
    stages = {"read": len(raw)}
    dataset = raw.map(
        lambda batch: {"text": list(map(clean, batch["raw"]))}, batched=True, desc="clean"
    )
    dataset = dataset.filter(
        lambda text: len(text) >= MIN_CHARACTERS, input_columns="text", desc="length"
    )
    stages["long enough"] = len(dataset)
    dataset = without_duplicates(dataset)
    stages["no duplicates"] = len(dataset)
    split = dataset.train_test_split(HELD_OUT, seed=seed, stratify_by_column="source")
    train, held_out = split["train"], without_leaks(split["test"], split["train"])
    stages |= {"train": len(train), "split off": len(split["test"]), "held out": len(held_out)}
    return DatasetDict(train=train, held_out=held_out), stages


def blocks(dataset: Dataset, tokenizer: Any, length: int) -> Dataset:
    """Token ids in blocks of one length, with a separator after each document.

    Less than one block at the end is lost: all documents are one batch. Labels are no column,
    since models shift the input ids themselves.
    """

    def pack(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encoded = tokenizer(batch["text"])["input_ids"]
        ids = [i for document in encoded for i in (*document, tokenizer.eos_token_id)]
        starts = range(0, len(ids) - length + 1, length)
        return {"input_ids": [ids[start : start + length] for start in starts]}

    return dataset.map(
        pack, batched=True, batch_size=None, remove_columns=dataset.column_names, desc="blocks"
    )


def save_and_load(packed: DatasetDict, folder: Path) -> DatasetDict:
    """What is on disk, which is what was saved."""
    packed.save_to_disk(folder)
    loaded = load_from_disk(folder)
    assert isinstance(loaded, DatasetDict)
    assert loaded.column_names == packed.column_names
    assert all(loaded[name].to_dict() == packed[name].to_dict() for name in packed)
    return loaded


# Divergences


def frequencies(tokenizer: tokenizers.Tokenizer, parts: list[str]) -> NDArray[np.float64]:
    """Probabilities of all tokens, with ½ added to each count (Jeffreys' prior).

    Without it KL is infinite as soon as a token of one side is missing on the other.
    """
    flat = np.fromiter(chain.from_iterable(ids(tokenizer, parts)), dtype=np.int64)
    counts = np.bincount(flat, minlength=tokenizer.get_vocab_size()) + 0.5
    return counts / counts.sum()


def divergences(tokenizer: tokenizers.Tokenizer, split: DatasetDict) -> list[dict[str, Any]]:
    """How far apart the splits and the sources are in their tokens, before and after cleaning.

    Markup makes unlike texts alike where they share it, and like texts unlike where they do not:
    cleaning takes the languages of the Reference apart, and Chinese texts together. Samples of n
    tokens are never at 0: about vocabulary / 2n nats of KL are chance.
    """
    found: dict[str, dict[str, float]] = {}
    for state, column in (("before (nats)", "raw"), ("after (nats)", "text")):
        p, q = (frequencies(tokenizer, part[column][:]) for part in split.values())
        found.setdefault("KL(train‖held-out)", {})[state] = float(kldiv.kl(p, q, space="probs"))
        of = {}
        for label, source in enumerate(SOURCES):
            parts = [
                text
                for part in split.values()
                for text, own in zip(part[column], part["source"], strict=True)
                if own == label
            ]
            of[source] = frequencies(tokenizer, parts)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            js = kldiv.jensen_shannon(of[SOURCES[a]], of[SOURCES[b]], space="probs")
            found.setdefault(f"JS({SOURCES[a]}, {SOURCES[b]})", {})[state] = float(js)
    return [{"divergence": name, **values} for name, values in found.items()]


# Picture


def example(raw: list[str]) -> str:
    """The shortest text that has escapes, no-break spaces and a table with several columns."""
    found = [text for text in raw if all(mark in text for mark in "\x1b\xa0┼")]
    return min(found, key=len)


def draw_steps(axis: Any, steps: list[dict[str, Any]]) -> None:
    """Characters removed by each step, a bar for each source."""
    names = [step.name for step in STEPS]
    for i, source in enumerate(SOURCES):
        removed = [row["characters removed"] for row in steps if row["source"] == source]
        places = np.arange(len(names)) + 0.27 * (i - 1)
        bars = axis.barh(
            places, np.maximum(np.array(removed) - 0.5, 0), 0.25, left=0.5, label=source
        )
        axis.bar_label(bars, [f"{n:,}" for n in removed], padding=3, fontsize=7)
    axis.set_yticks(range(len(names)), names)
    axis.set(title="cleaning", xlabel="characters removed", xscale="log", xlim=(0.5, 5e7))
    axis.invert_yaxis()
    axis.legend(loc=(0.63, 0.5))


def draw_pairs(axis: Any, rows: list[dict[str, Any]], columns: dict[str, str]) -> None:
    """Two or more columns of a table as bars, a group for each row."""
    names = [str(next(iter(row.values()))) for row in rows]
    width = 0.8 / len(columns)
    for i, (column, label) in enumerate(columns.items()):
        places = np.arange(len(rows)) + width * (i - (len(columns) - 1) / 2)
        bars = axis.bar(places, [row[column] for row in rows], 0.92 * width, label=label)
        axis.bar_label(bars, fmt="%.3g", fontsize=8)
    axis.set_xticks(range(len(names)), [name.replace(", ", ",\n") for name in names])
    axis.margins(y=0.22)
    axis.legend(loc="upper center", ncols=len(columns), fontsize=8)


def draw_text(axis: Any, title: str, text: str) -> None:
    """A text, with escapes as ^[ and no-break spaces as ·."""
    shown = text.replace("\x1b", "^[").replace("\xa0", "·")
    axis.set_title(title, loc="left")
    axis.axis("off")
    axis.text(0, 1, shown, fontsize=8, va="top", parse_math=False, transform=axis.transAxes)


def draw(
    steps: list[dict[str, Any]],
    coded: list[dict[str, Any]],
    apart: list[dict[str, Any]],
    text: str,
) -> Any:
    """Cleaning, tokenizers and divergences, and a text before and after if it can be shown."""
    chinese = experiment.CHINESE_FONT in mpl.rcParams["font.family"]
    height = 0.14 * (text.count("\n") + 3) if chinese else 0.0
    figure = plt.figure(figsize=(14, 5 + height), layout="constrained")
    grid = figure.add_gridspec(1 + chinese, 6, height_ratios=[5, height][: 1 + chinese])
    axes = [figure.add_subplot(grid[0, 2 * i : 2 * i + 2]) for i in range(3)]
    draw_steps(axes[0], steps)
    draw_pairs(
        axes[1],
        [row | {"tokenizer": f"{row['tokenizer']}\n({row['vocabulary']:,})"} for row in coded],
        {name: name.removeprefix("tokens ") for name in list(coded[0])[2:4]},
    )
    axes[1].set(title="tokenizers (vocabulary), held-out texts", ylabel="tokens")
    draw_pairs(
        axes[2],
        apart,
        {"before (nats)": "before cleaning", "after (nats)": "after cleaning"},
    )
    axes[2].set(title="token frequencies", ylabel="divergence (nats)")
    axes[2].tick_params("x", labelsize=7)
    if chinese:
        draw_text(
            figure.add_subplot(grid[1, :3]),
            "a fortune before cleaning (^[ escape, · no-break space)",
            text,
        )
        draw_text(figure.add_subplot(grid[1, 3:]), "after", clean(text))
    return figure


def main(given: Experiment) -> None:
    """Clean, split, train the tokenizer, pack, save, and measure all of it."""
    size = QUICK if given.quick else FULL
    raw = read(size, given.seed)
    steps = survey(raw)
    split, stages = prepare(raw, given.seed)
    train, held_out = (split[name]["text"][:] for name in ("train", "held_out"))
    assert not any(SEPARATOR in text or PADDING in text for text in chain(train, held_out))
    damages = restored(train, random.Random(given.seed).sample(train, size.damaged))
    experiment.show_table("Cleaning, step by step", steps)
    experiment.show_table(
        "Steps on damaged texts", [{"damage": name, **counts} for name, counts in damages.items()]
    )
    would_change = {
        name: changed_characters(train, change)
        for name, change in (
            ("NFKC", lambda text: unicodedata.normalize("NFKC", text)),
            ("ftfy's defaults", ftfy.fix_text),
        )
    }
    experiment.show_table(
        "What was not done: characters of the cleaned train split that would change",
        [
            {
                "by": name,
                "characters": counts.total(),
                "most": " ".join(f"{c} {n}" for c, n in counts.most_common(6)),
            }
            for name, counts in would_change.items()
        ],
    )

    tokenizer = train_tokenizer(train, size.vocabulary, given.models / "byte-level-bpe")
    ours = tokenizer.backend_tokenizer
    assert lossless(ours, held_out) == len(held_out)
    coded = [
        {
            "tokenizer": name,
            "vocabulary": other.get_vocab_size(),
            **tokens_per(other, held_out),
            "lossless": lossless(other, held_out) / len(held_out),
        }
        for name, other in (("ours", ours), ("GPT-2", gpt2()), ("SmolLM2", smollm2(given.models)))
    ]
    experiment.show_table(f"Tokenizers on {len(held_out)} held-out texts", coded)

    packed = DatasetDict(
        {name: blocks(part, tokenizer, size.block) for name, part in split.items()}
    )
    loaded = save_and_load(packed, given.output / "prepared_text")
    packing = []
    for name, part in loaded.items():
        flat = np.array(part["input_ids"][:]).ravel()
        # Decoded, the blocks are the documents again, up to the remainder that filled no block.
        whole = SEPARATOR.join(split[name]["text"]) + SEPARATOR
        encoded = sum(map(len, ids(ours, split[name]["text"][:]))) + len(split[name])
        text = tokenizer.decode(flat)
        assert whole.startswith(text.rstrip("\ufffd"))
        assert 0 <= encoded - flat.size < size.block
        packing.append(
            {
                "split": name,
                "texts": len(split[name]),
                "blocks": len(part),
                "tokens": flat.size,
                "separators": int((flat == tokenizer.eos_token_id).sum()),
                "tokens lost": encoded - flat.size,
            }
        )
    experiment.show_table(
        "Texts: " + ", ".join(f"{n} {name}" for name, n in stages.items()), packing
    )
    apart = divergences(ours, split)
    experiment.show_table("How far apart token frequencies are", apart)
    given.save(
        {
            "size": vars(size),
            "steps": steps,
            "damaged": damages,
            "would change": {
                name: {"characters": counts.total(), "most": dict(counts.most_common(10))}
                for name, counts in would_change.items()
            },
            "texts": stages,
            "tokenizers": coded,
            "blocks": packing,
            "divergences": apart,
        },
        draw(steps, coded, apart, example(raw["raw"][:])),
    )


if __name__ == "__main__":
    main(experiment.start("prepare_text", __doc__))
