"""Weights of a model onto a device, and whether they are those of a language model."""

from __future__ import annotations

from typing import Any

from kldiv import _optional
from kldiv.evaluation.dumps.names import listed
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.models.checkpoint import Checkpoint, transformers
from kldiv.evaluation.models.language_model import LanguageModel
from kldiv.evaluation.models.memory import out_of_memory
from kldiv.evaluation.models.tokenizer import Tokenizer

DTYPES = ("auto", "float64", "float32", "bfloat16", "float16")
"""Of weights and logits; auto is what the model is stored in, float32 of a GGUF file."""


def check_dtype(dtype: str) -> None:
    """Raise `DumpError` for a dtype that is none of `DTYPES`."""
    if dtype not in DTYPES:
        raise DumpError(f"the dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")


def device_of(device: str) -> Any:
    """The device of a name; auto is the first GPU, or the CPU.

    Raises
    ------
    DumpError
        For a device that is not there.
    """
    torch = _optional.module("torch")
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise DumpError(
            f"the device is {device!r}; expected auto, cpu, cuda, cuda:1 and so on, or mps"
        ) from None
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["it cannot be used"])[0]
        raise DumpError(f"the device {device} is not there: {reason}") from None
    return found


def load(
    checkpoint: Checkpoint, tokenizer: Tokenizer, *, device: str = "auto", dtype: str = "auto"
) -> LanguageModel:
    """Read the weights of a model.

    Raises
    ------
    DumpError
        For weights that cannot be read, lack the head or others, or are of no causal model.
    """
    torch = _optional.module("torch")
    check_dtype(dtype)
    place = device_of(device)
    wanted: Any = dtype
    if dtype != "auto" or checkpoint.gguf is not None:
        wanted = getattr(torch, "float32" if dtype == "auto" else dtype)
    with checkpoint.loading():
        model, info = transformers().AutoModelForCausalLM.from_pretrained(
            checkpoint.place, dtype=wanted, output_loading_info=True, **checkpoint.arguments
        )
    _check_whole(checkpoint.name, model, sorted(info["missing_keys"]))
    with checkpoint.loading(), out_of_memory(checkpoint.name, place):
        # A quantised model is where its library has put it.
        if getattr(model, "hf_quantizer", None) is None or checkpoint.gguf is not None:
            model = model.to(place)
    return LanguageModel(model, tokenizer, checkpoint.name, files=checkpoint.files)


def _check_whole(name: str, model: Any, missing: list[str]) -> None:
    """Weights that are not there would be random numbers."""
    if not missing:
        return
    head = model.get_output_embeddings()
    of_head = {
        key
        for key, weight in model.named_parameters(remove_duplicate=False)
        if head is not None and any(weight is one for one in head.parameters())
    }
    if of_head.intersection(missing):
        raise DumpError(
            f"{name} has no language-model head: its weights lack {listed(sorted(missing))}"
        )
    raise DumpError(f"{name} is not whole: its weights lack {listed(missing)}")
