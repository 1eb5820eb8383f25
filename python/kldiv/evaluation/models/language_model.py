"""A causal language model of transformers: logits and hidden states of windows."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np

from kldiv import _optional
from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.models.memory import out_of_memory
from kldiv.evaluation.models.tokenizer import Tokenizer
from kldiv.evaluation.models.windows import Window
from kldiv.evaluation.wording import counted

PROBED = 8  # tokens
SEES_AHEAD = 0.01
"""Share of the range of logits by which a later token may move a row: causal models are off by
rounding, those that read both ways by all of it."""
HEAD_ERROR = 32
"""Units of rounding of the largest logit by which a head's product with hidden states may be
off: sums of a thousand numbers in another order."""

UNITS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""From 1 to the next number."""


SAMPLE, SAMPLES = 1024, 8
"""Numbers of a weight that are digested at a time, and at how many places."""


class LanguageModel:
    """A model that is loaded, its tokenizer, and its name.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        With a language-model head, on the device where it is to run.
    tokenizer : Tokenizer or transformers.PreTrainedTokenizerBase
        Its own.
    name
        How tables and messages call it.
    files
        Where it is from, for manifests: names and bytes.

    Raises
    ------
    DumpError
        For a model that gives no logits, or whose rows depend on the tokens that follow.
    """

    def __init__(
        self, model: Any, tokenizer: Any, name: str, files: dict[str, int] | None = None
    ) -> None:
        self.model = model.eval()
        self.name = name
        self.files = files or {}
        own = isinstance(tokenizer, Tokenizer)
        self.tokenizer: Tokenizer = tokenizer if own else Tokenizer(name, tokenizer)
        self.device = next(model.parameters()).device
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._output: Any = None  # the class of what the trunk gives
        logits = self._probe()
        self.width = int(logits.shape[-1])
        """How many classes."""
        self.dtype = np.dtype(self.numpy(logits[:1]).dtype)
        """Of the logits."""

    def logits(self, window: Window) -> Array:
        """Those of the scored rows of a window, ``[rows, classes]``."""
        with self._running():
            return self.numpy(self._forward(self._inputs(window), len(window)))

    def states(self, window: Window) -> Any:
        """What the trunk gives for the scored rows, a tensor ``[rows, size]`` on the CPU."""
        found: list[Any] = []
        hook = self._trunk().register_forward_hook(lambda *given: found.append(given[-1]))
        try:
            with self._running():
                # Of the head one row will do.
                self._forward(self._inputs(window), 1)
                self._output = type(found[0])
                return found[0].last_hidden_state[0, -len(window) :].to("cpu", copy=True)
        finally:
            hook.remove()

    def logits_of(self, states: Any) -> Array:
        """The logits of what `states` gave, by the model's own head and what follows it."""
        torch = _optional.module("torch")
        prefix = self.model.base_model_prefix
        trunk = getattr(self.model, prefix)
        ids = torch.zeros((1, len(states)), dtype=torch.long, device=self.device)
        setattr(self.model, prefix, _in_place_of_trunk(self._output, states.to(self.device)))
        try:
            with self._running():
                return self.numpy(self._forward(ids, len(states)))
        finally:
            setattr(self.model, prefix, trunk)

    def check_states(self, window: Window) -> None:
        """Raise `DumpError` unless the head gives the model's logits of what the trunk gave."""
        window = window.beginning(PROBED)
        logits = self.logits(window).astype(np.float64)
        again = self.logits_of(self.states(window)).astype(np.float64)
        if not np.abs(again - logits).max() <= self._rounding(logits):
            raise DumpError(
                f"the output layer of {self.name} ({type(self.model).__name__}) cannot be applied "
                "apart from the rest of the model; leave --sequential (sequential=) out"
            )

    def drop_the_trunk(self) -> None:
        """Let go of the weights that `logits_of` does not need."""
        setattr(self.model, self.model.base_model_prefix, _in_place_of_trunk(self._output, None))

    def head_inputs(self, window: Window) -> Array:
        """What the output layer is given for the scored rows of a window, ``[rows, size]``."""
        found: list[Any] = []
        hook = self._head().register_forward_pre_hook(lambda _, given: found.append(given[0]))
        try:
            with self._running():
                self._forward(self._inputs(window), len(window))
                return self.numpy(found[0][0, -len(window) :])
        finally:
            hook.remove()

    def head_weight(self) -> Array:
        """The weight of the output layer, ``[classes, size]``.

        Raises
        ------
        DumpError
            For a model whose logits are not its product with hidden states.
        """
        weight = getattr(self._head(), "weight", None)
        if weight is None or weight.ndim != 2 or not weight.is_floating_point():
            raise DumpError(f"the output layer of {self.name} is no matrix of floating numbers")
        return self.numpy(weight)

    def check_head(self, window: Window) -> None:
        """Raise `DumpError` unless logits are the product of output layer and hidden states."""
        window = window.beginning(PROBED)
        weight = self.head_weight().astype(np.float32)
        product = self.head_inputs(window).astype(np.float32) @ weight.T
        logits = self.logits(window).astype(np.float32)
        off = float(np.abs(product - logits).max()) if product.shape == logits.shape else np.inf
        if not off <= self._rounding(logits):
            raise DumpError(
                f"logits of {self.name} are not the product of its output layer with hidden states "
                f"(they are off by {off:.3g}): it adds a bias, caps or scales them; --logits "
                "(layout=) keeps them as they are"
            )

    def digest(self) -> str:
        """Of the weights: names, shapes, dtypes, and samples of the bytes of each."""
        found = hashlib.sha256()
        torch = _optional.module("torch")
        for name, weight in sorted(self.model.state_dict().items()):
            if not torch.is_tensor(weight):
                continue  # what a quantisation library keeps beside its weights
            found.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            flat = weight.detach().reshape(-1)
            last = max(0, len(flat) - SAMPLE)
            for start in sorted({last * place // (SAMPLES - 1) for place in range(SAMPLES)}):
                piece = flat[start : start + SAMPLE].cpu().contiguous()
                found.update(piece.view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def describe(self) -> dict[str, Any]:
        """For manifests: what ran, and where."""
        config = self.model.config
        return {
            "name": self.name,
            "architecture": type(self.model).__name__,
            "revision": getattr(config, "_commit_hash", None),
            "files": self.files,
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "classes": self.width,
            "hidden_size": getattr(config.get_text_config(), "hidden_size", None),
            "dtype": str(next(self.model.parameters()).dtype).removeprefix("torch."),
            "logits_dtype": self.dtype.name,
            "device": str(self.device),
            "device_name": self._device_name(),
            "attention": getattr(config, "_attn_implementation", None),
        }

    @staticmethod
    def numpy(tensor: Any) -> Array:
        """The numbers of a tensor; bfloat16 as ml_dtypes has it."""
        torch = _optional.module("torch")
        tensor = tensor.detach().to("cpu").contiguous()
        if tensor.dtype == torch.bfloat16:
            found: Array = tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        else:
            found = tensor.numpy()
        return found

    def _rounding(self, logits: Array) -> float:
        """How far the same logits may be from these, summed in another order."""
        return HEAD_ERROR * UNITS[self.dtype.name] * float(np.abs(logits).max())

    def _device_name(self) -> str:
        torch = _optional.module("torch")
        if self.device.type == "cuda":
            name: str = torch.cuda.get_device_name(self.device)
            return name
        return f"{self.device.type}, {counted(torch.get_num_threads(), 'thread')}"

    @contextmanager
    def _running(self) -> Iterator[None]:
        torch = _optional.module("torch")
        with out_of_memory(self.name, self.device), torch.inference_mode():
            yield

    def _inputs(self, window: Window) -> Any:
        torch = _optional.module("torch")
        if (largest := int(window.tokens.max())) >= self.width:
            raise DumpError(
                f"{window.name} has the token {largest:,}, but {self.name} has {self.width:,} "
                "classes"
            )
        return torch.from_numpy(window.inputs)[None].to(self.device)

    def _forward(self, ids: Any, rows: int) -> Any:
        """Logits of the last rows, ``[rows, classes]``."""
        more = {"logits_to_keep": rows} if self._keeps else {}
        return self.model(input_ids=ids, use_cache=False, **more).logits[0, -rows:]

    def _probe(self) -> Any:
        """Logits of a few tokens, which may not depend on those that follow them."""
        torch = _optional.module("torch")
        ids = torch.arange(PROBED, device=self.device)[None] % max(1, self.tokenizer.classes)
        other = ids.clone()
        other[0, -1] = 0
        with self._running():
            logits = self._forward(ids, PROBED)
            moved = self._forward(other, PROBED)[:-1].float() - logits[:-1].float()
            spread = logits.float().max() - logits.float().min()
        if bool(moved.abs().max() > SEES_AHEAD * spread):
            raise DumpError(
                f"{self.name} is no causal language model: what it says after a token depends on "
                "the tokens that follow"
            )
        return logits

    def _trunk(self) -> Any:
        trunk = getattr(self.model, self.model.base_model_prefix, None)
        if trunk is None or trunk is self.model:
            raise DumpError(
                f"{self.name} ({type(self.model).__name__}) has no part before its output layer "
                "that could be kept; leave --sequential (sequential=) out"
            )
        return trunk

    def _head(self) -> Any:
        head = self.model.get_output_embeddings()
        if head is None:
            raise DumpError(
                f"{self.name} ({type(self.model).__name__}) has no output layer that stands by "
                "itself; --logits (layout=) keeps logits"
            )
        return head


def _in_place_of_trunk(output: Any, states: Any) -> Any:
    """A module that gives hidden states as the trunk of a model does."""
    torch = _optional.module("torch")

    class Kept(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, *_: Any, **__: Any) -> Any:
            return output(last_hidden_state=states[None])

    return Kept()
