"""Entropy, log-sum-exp, log-softmax and the log-probabilities of labels, on tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kldiv._requests import as_space, normalized
from kldiv.torch import formulas
from kldiv.torch.functional.rows import (
    EXTENSION_DEVICE,
    RowOptions,
    as_labels,
    as_mask,
    as_temperature,
    check_floating,
    check_one_device,
    check_over_batch,
    classes_last,
)
from kldiv.torch.functional.signatures import on_tensors
from kldiv.torch.ops.cross_entropy import cross_entropy as label_loss
from kldiv.torch.ops.softmax import entropy as entropy_loss
from kldiv.torch.ops.softmax import log_softmax as log_softmax_operator
from kldiv.torch.ops.softmax import logsumexp as logsumexp_loss


@on_tensors
def entropy(
    p: Tensor,
    *,
    space: str,
    normalize: bool,
    temperature: Any,
    axis: int,
    where: Tensor | None,
    weights: Tensor | None,
    reduction: str,
    denominator: float | Tensor | None,
) -> Tensor:
    """Shannon entropy, −Σ p ln p; `kldiv.entropy` on tensors, differentiable.

    Parameters, returns and exceptions are those of `kl`, with one tensor.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> print(f"{kldiv.torch.entropy(torch.zeros(4)).item():.6f}")
    1.386294
    """
    check_floating(p=p)
    check_one_device(p=p, where=where, weights=weights)
    arguments = (
        classes_last("p", p, axis),
        normalized(as_space("space", space), normalize),
        _temperature_of(space, temperature),
    )
    return RowOptions(where, weights, reduction, denominator).run(entropy_loss, arguments)


@on_tensors
def logsumexp(
    z: Tensor,
    *,
    temperature: Any,
    axis: int,
    where: Tensor | None,
    weights: Tensor | None,
    reduction: str,
    denominator: float | Tensor | None,
) -> Tensor:
    """Log-sum-exp, ln Σ e^(z/T); `kldiv.logsumexp` on tensors, differentiable.

    Parameters, returns and exceptions are those of `kl`, with one tensor of logits and one
    temperature, and without `space` and `normalize`.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> print(f"{kldiv.torch.logsumexp(torch.zeros(4)).item():.6f}")
    1.386294
    """
    check_floating(z=z)
    check_one_device(z=z, where=where, weights=weights)
    arguments = (classes_last("z", z, axis), as_temperature("temperature", temperature))
    return RowOptions(where, weights, reduction, denominator).run(logsumexp_loss, arguments)


@on_tensors
def log_softmax(z: Tensor, *, temperature: Any, axis: int, where: Tensor | None) -> Tensor:
    """z/T − ln Σ e^(z/T); `kldiv.log_softmax` on tensors, differentiable.

    Of the shape of z; float64 if z is, else float32. Rows marked False by `where` give 0 and a
    zero gradient, whatever they hold.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> kldiv.torch.log_softmax(torch.zeros(2))
    tensor([-0.6931, -0.6931])
    """
    check_floating(z=z)
    check_one_device(z=z, where=where)
    rows = classes_last("z", z, axis)
    mask = as_mask("where", where)
    check_over_batch(rows, where=mask)
    compute = log_softmax_operator if z.device.type == EXTENSION_DEVICE else formulas.log_softmax
    return compute(rows, as_temperature("temperature", temperature), mask).movedim(-1, axis)


@on_tensors
def gather_log_probs(
    z: Tensor,
    labels: Tensor,
    *,
    temperature: Any,
    ignore_index: int | None,
    axis: int,
    where: Tensor | None,
) -> Tensor:
    """The log-probability of the label of each row; `kldiv.gather_log_probs` on tensors.

    0 for rows with the label `ignore_index`; one that the dtype of the labels cannot hold never
    matches. Differentiable in z, without writing the
    log-probabilities of other classes.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> kldiv.torch.gather_log_probs(torch.zeros(2, 4), torch.tensor([3, -100])).abs()
    tensor([1.3863, 0.0000])
    """
    check_floating(z=z)
    check_one_device(z=z, labels=labels, where=where)
    indices, ignored = as_labels("labels", labels, ignore_index)
    arguments = (
        classes_last("z", z, axis),
        indices,
        ignored,
        None,
        "logits",
        as_temperature("temperature", temperature),
        0.0,
        0.0,
        None,
    )
    surprise = RowOptions(where, None, "none", None).run(label_loss, arguments)
    # Of rows left out 0, and not −0.
    return 0.0 - surprise


def _temperature_of(space: str, temperature: Any) -> Any:
    number = as_temperature("temperature", temperature)
    if space != "logits" and number != 1.0:
        raise ValueError(f"temperature applies to logits only, and space is {space!r}")
    return number
