"""Losses of a student on tensors from a `TopK`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kldiv import _kldiv
from kldiv._requests import as_rule, as_temper_after, check_fits, check_spaces, pair_of
from kldiv._top_k import TopK
from kldiv.torch.functional.rows import (
    RowOptions,
    as_temperature,
    check_floating,
    check_one_device,
    classes_last,
)
from kldiv.torch.ops.modes import is_traced
from kldiv.torch.ops.sparse import sparse


class TopKTensors(NamedTuple):
    """A `kldiv.TopK` as tensors, as `top_k_tensors` makes it: for compiled code, and for devices.

    It has no gradient. Rows come one after the other.

    Examples
    --------
    >>> import kldiv
    >>> import kldiv.torch
    >>> kept = kldiv.TopK([[1, 0], [2, 1]], [[-0.5, -1.5], [-0.1, -3.0]], classes=3)
    >>> kldiv.torch.top_k_tensors(kept).to("cpu").ids
    tensor([1, 0, 2, 1])
    """

    ids: Tensor
    log_probs: Tensor
    """Log-probabilities in float64, or logits where they are not normalised."""
    offsets: Tensor
    """Where each row begins, and where the last ends."""
    weights: Tensor | None
    """What classes that were drawn stand for."""
    normalized: bool
    wide: bool
    """Whether values are float64: where log-probabilities were."""
    width: int
    """The most classes that a row keeps."""
    knows_all: bool
    """Whether every row keeps all classes."""
    classes: int
    batch_shape: tuple[int, ...]

    def to(self, device: Any) -> TopKTensors:
        """The same on another device."""
        return self._replace(
            ids=self.ids.to(device),
            log_probs=self.log_probs.to(device),
            offsets=self.offsets.to(device),
            weights=None if self.weights is None else self.weights.to(device),
        )


def top_k_tensors(top_k: TopK, device: Any = None) -> TopKTensors:
    """A `TopK` as tensors.

    Functions of `kldiv.torch` take a `TopK` as it is; compiled code takes these, and so does a
    loop that would otherwise move the same one to its device again and again.

    Examples
    --------
    >>> import kldiv
    >>> import kldiv.torch
    >>> import torch
    >>> kept = kldiv.TopK([[1, 0]], [[-0.5, -1.5]], classes=3)
    >>> teacher = kldiv.torch.top_k_tensors(kept)
    >>> loss = torch.compile(lambda z: kldiv.torch.kl(teacher, z, rule="tail"), fullgraph=True)
    >>> print(f"{kldiv.torch.kl(teacher, torch.zeros(1, 3), rule='tail').item():.6f}")
    0.159158
    """
    if not isinstance(top_k, TopK):
        raise TypeError(f"expected a kldiv.TopK, got {type(top_k).__name__}")
    flat = top_k.flat()

    def tensor(array: Any) -> Tensor:
        # Those of a TopK cannot be written to, which torch has no tensors for.
        made: Tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        return made.to(device)

    counts = top_k.counts
    width = int(counts.max()) if counts.size else 0
    return TopKTensors(
        tensor(flat.ids),
        tensor(flat.log_probs),
        tensor(flat.offsets),
        None if flat.weights is None else tensor(flat.weights),
        flat.normalized,
        top_k.values.dtype.name == "float64",
        width,
        bool((counts == top_k.classes).all()),
        top_k.classes,
        top_k.batch_shape,
    )


@dataclass(frozen=True)
class _Checked:
    """What the extension reads of a loss."""

    loss: str
    parameter: float
    rule: str
    floor: float
    temperatures: tuple[float, float]
    temper_after: bool


def top_k_loss(
    loss: str,
    parameter: Any,
    teacher: TopK | TopKTensors,
    student: str,
    q: Tensor,
    rule: Any,
    temper_after: Any,
    space: Any,
    normalize: Any,
    temperature: Any,
    axis: int,
    rows: RowOptions,
) -> Tensor:
    """A divergence, or ``"cross_entropy"``, of logits from kept classes."""
    check_floating(**{student: q})
    name, floor = as_rule(rule)
    check_spaces(space, normalize, student)
    if isinstance(teacher, TopK):
        if is_traced():
            raise TypeError(
                "compiled code takes the TopK as tensors: kldiv.torch.top_k_tensors(top_k), made "
                "outside of it"
            )
        teacher = top_k_tensors(teacher, q.device)
    check_one_device(p=teacher.ids, **{student: q}, where=rows.where, weights=rows.weights)
    z = classes_last(student, q, axis)
    check_fits(teacher.classes, teacher.batch_shape, z.shape[-1], z.shape[:-1], student)
    of_p, of_q = pair_of("temperature", temperature, as_temperature)
    after = as_temper_after(temper_after)
    if not is_traced():
        known = tuple(1.0 if isinstance(one, Tensor) else one for one in (of_p, of_q))
        number = 1.0 if isinstance(parameter, Tensor) else parameter
        _kldiv.check_rule(
            _Checked(loss, number, name, floor, known, after),  # type: ignore[arg-type]
            teacher.normalized,
            teacher.weights is not None,
            teacher.knows_all,
        )
    arguments = (
        z,
        teacher.ids,
        teacher.log_probs,
        teacher.offsets,
        teacher.weights,
        teacher.normalized,
        teacher.wide,
        teacher.width,
        loss,
        parameter,
        name,
        floor,
        of_p,
        of_q,
        after,
    )
    return rows.run(sparse, arguments)
