"""verl's and Tinker's arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kldiv._arrays import Array, as_array
from kldiv._top_k import arguments, checks
from kldiv._top_k.container import TopK


def from_verl(
    teacher_ids: ArrayLike,
    teacher_logprobs: ArrayLike,
    *,
    classes: int,
    mask: ArrayLike | None = None,
) -> TopK:
    """Verl's ``teacher_ids`` and ``teacher_logprobs``.

    They are log-probabilities over all classes at temperature 1, by rank: ``prompt_logprobs`` of
    the teacher's vLLM, as ``verl/trainer/distillation`` reads them. verl pads ids with the
    tokenizer's padding, log-probabilities with 0, and appends a dummy position to each sequence
    (``_pad_teacher_outputs``): `mask` leaves them out. Of nested tensors the values of all
    sequences are read, one after the other.

    Parameters
    ----------
    teacher_ids, teacher_logprobs : array_like, shape (..., k), or nested tensors of (j, k)
        As in verl's batch.
    classes : int
        The number of classes of whole rows.
    mask : array_like of bool or of 0 and 1, shape (...) or (..., k), optional
        Which positions there are. Without it all.

    Returns
    -------
    TopK
        Log-probabilities, of the shape given; with `mask`, ragged, the rows of the batch in order.

    Raises
    ------
    ValueError
        As `TopK`, and for a log-probability above that of the rank before, of the first such row
        and id.

    Examples
    --------
    >>> import kldiv.teachers
    >>> ids, log_probs = [[7, 2], [0, 0]], [[-0.5, -1.5], [0.0, 0.0]]
    >>> kldiv.teachers.from_verl(ids, log_probs, classes=8, mask=[1, 0]).counts
    array([2, 0])
    """
    ids, log_probs = _flattened(teacher_ids), _flattened(teacher_logprobs)
    if mask is None:
        found = TopK(ids, log_probs, classes=classes)
    else:
        found = TopK.from_padded(ids, log_probs, classes=classes, mask=_flattened(mask))
    checks.check_falling(found.ids, found.values, found.begins, "teacher_logprobs")
    return found


def from_tinker(target_tokens: ArrayLike, weights: ArrayLike, *, classes: int) -> TopK:
    """Tinker's (N, K) ``target_tokens`` and ``weights`` of its loss ``cross_entropy``.

    For a soft target the documentation of Tinker's cross-entropy has the weights be the teacher's
    probabilities renormalised over the K tokens. So only their ratios are known, and what is made
    of them are logits without a normaliser, ln w. A weight of 0 is no class of its row; a row of
    zeros, as of a prompt, keeps none.

    Parameters
    ----------
    target_tokens : array_like of int, shape (N, K)
    weights : array_like, shape (N, K)
        Finite and at least 0. What a row's add up to is not kept.
    classes : int
        The number of classes of whole rows.

    Returns
    -------
    TopK
        Logits in float64, N ragged rows.

    Raises
    ------
    ValueError
        As `TopK`, and for weights that are negative or not finite.

    Examples
    --------
    >>> import kldiv.teachers
    >>> kept = kldiv.teachers.from_tinker([[7, 2], [5, 0]], [[0.75, 0.25], [1.0, 0.0]], classes=8)
    >>> kept.counts, kept.is_normalized
    (array([2, 1]), False)
    """
    ids = arguments.integers("target_tokens", target_tokens)
    given = arguments.floating("weights", weights).astype(np.float64)
    if ids.ndim != 2 or given.shape != ids.shape:
        raise ValueError(
            f"target_tokens has shape {ids.shape} and weights {given.shape}; expected one (N, K)"
        )
    wrong = ~((given >= 0) & (given < np.inf))
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"row {row} of weights has {given[row, column]:.9g} at id {ids[row, column]}; expected "
            "finite numbers of at least 0"
        )
    kept = given > 0
    logits = np.log(given, where=kept, out=np.zeros(given.shape))
    return TopK.from_padded(ids, logits=logits, classes=classes, mask=kept)


def _flattened(value: Any) -> Array:
    """An array; of a nested tensor the values of its sequences."""
    if getattr(value, "is_nested", False):
        value = value.values()
    return as_array("a nested tensor's values", value) if hasattr(value, "numel") else value
