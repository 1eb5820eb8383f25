"""Entropy, log-sum-exp, log-softmax and the log-probabilities of labels, on tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kldiv._requests import as_space, normalized
from kldiv.torch import formulas
from kldiv.torch.functional.kept_sets import masked, mass
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
    support: Any,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    return_mass: bool,
) -> Any:
    """Shannon entropy, −Σ p ln p; `kldiv.entropy` on tensors, differentiable.

    Parameters, returns and exceptions are those of `kl`, with one tensor; `support`, `top_k`,
    `top_p`, `min_p` and `return_mass` are as in `gather_log_probs`.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> print(f"{kldiv.torch.entropy(torch.zeros(4)).item():.6f}")
    1.386294
    """
    check_floating(p=p)
    check_one_device(p=p, where=where, weights=weights)
    rows = classes_last("p", p, axis)
    side = normalized(as_space("space", space), normalize)
    number = _temperature_of(space, temperature)
    kept = masked(rows, number, support, top_k, top_p, min_p, return_mass)
    if kept is not rows and side != "logits":
        raise ValueError(f"kept sets are of logits, and space is {space!r}")
    options = RowOptions(where, weights, reduction, denominator)
    value = options.run(entropy_loss, (kept, side, number))
    if not return_mass:
        return value
    counted = as_mask("where", where)
    if weights is not None:
        counted = weights != 0 if counted is None else counted & (weights != 0)
    return value, mass(rows, kept, number, _over(rows, counted))


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
    support: Any,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    return_mass: bool,
) -> Any:
    """The log-probability of the label of each row; `kldiv.gather_log_probs` on tensors.

    0 for rows with the label `ignore_index`; one that the dtype of the labels cannot hold never
    matches. Differentiable in z, without writing the
    log-probabilities of other classes.

    With `support`, `top_k`, `top_p` or `min_p` the other classes of a copy of the rows are masked;
    the kept set is a constant to autograd, so that the gradient is 0 outside of it. `support` may
    be a tensor of ids, of the batch shape and an axis of ids, and in compiled code is one. The
    mass that ``return_mass=True`` adds is differentiable too.

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
    rows, number = classes_last("z", z, axis), as_temperature("temperature", temperature)
    kept = masked(rows, number, support, top_k, top_p, min_p, return_mass)
    arguments = (kept, indices, ignored, None, "logits", number, 0.0, 0.0, None)
    surprise = RowOptions(where, None, "none", None).run(label_loss, arguments)
    # Of rows left out 0, and not −0.
    value = 0.0 - surprise
    if not return_mass:
        return value
    counted = as_mask("where", where)
    if ignored is not None:
        labelled = indices != ignored
        counted = labelled if counted is None else counted & labelled
    return value, mass(rows, kept, number, _over(rows, counted))


def _over(rows: Tensor, counted: Tensor | None) -> Tensor | None:
    return None if counted is None else counted.broadcast_to(rows.shape[:-1])


def _temperature_of(space: str, temperature: Any) -> Any:
    number = as_temperature("temperature", temperature)
    if space != "logits" and number != 1.0:
        raise ValueError(f"temperature applies to logits only, and space is {space!r}")
    return number
