"""Axolotl's columns, and the lists of log-probabilities that they are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kldiv._top_k.container import TopK

_TOKEN = re.compile(r"token_id:(\d+)")


def from_axolotl(
    target_token_ids: ArrayLike,
    target_logprobs: ArrayLike,
    target_mask: ArrayLike,
    *,
    classes: int,
    normalized: bool = False,
) -> TopK:
    """Axolotl's columns ``target_token_ids``, ``target_logprobs`` and ``target_mask``.

    Axolotl renormalises log-probabilities over the k that it keeps, and tempers them
    (``transform_logprobs`` of ``axolotl/integrations/kd/chat_template.py``), so that these are
    logits without a normaliser. What its collator pads with, ids of 0 and log-probabilities of
    −1e9 or −inf, has a mask of 0 and is left out.

    Parameters
    ----------
    target_token_ids, target_logprobs, target_mask : array_like, shape (..., k)
        Of one sample as stored in the data set, or of a batch as collated.
    classes : int
        The number of classes of whole rows.
    normalized : bool
        Whether the numbers are log-probabilities over all classes, as a server gave them, and
        Axolotl has not changed them.

    Returns
    -------
    TopK
        Logits, or with `normalized` log-probabilities, in ragged rows; positions of the batch in
        order.

    Raises
    ------
    ValueError
        As `TopK.from_padded`.

    Examples
    --------
    >>> import kldiv.teachers
    >>> columns = [[7, 2], [0, 1]], [[-0.5, -0.93], [-1e9, -1e9]], [[1, 1], [0, 0]]
    >>> kldiv.teachers.from_axolotl(*columns, classes=8)
    TopK(batch_shape=(2,), k=0..2, classes=8, logits of float64)
    """
    log_probs, logits = (target_logprobs, None) if normalized else (None, target_logprobs)
    return TopK.from_padded(
        target_token_ids, log_probs, logits=logits, classes=classes, mask=target_mask
    )


def from_logprob_lists(
    logprobs: Sequence[Sequence[Mapping[str, Any]] | None], *, classes: int
) -> TopK:
    """Lists of ``{"token": "token_id:N", "logprob": x}``, a list a position: Axolotl's source.

    That is what vLLM's OpenAI-compatible server answers with ``return_tokens_as_token_ids``, and
    what Axolotl's ``logprobs_field`` holds before it changes it: log-probabilities over all
    classes. A position that is None or empty, as the first of a prompt is, keeps no class.

    Parameters
    ----------
    logprobs : sequence
        The field of one sample.
    classes : int
        The number of classes of whole rows.

    Returns
    -------
    TopK
        Log-probabilities in float64, a ragged row a position.

    Raises
    ------
    ValueError
        As `TopK`, and for an entry that is not of that form, of the first such row.

    Examples
    --------
    >>> import kldiv.teachers
    >>> field = [None, [{"token": "token_id:7", "logprob": -0.5}]]
    >>> kldiv.teachers.from_logprob_lists(field, classes=8).counts
    array([0, 1])
    """
    ids: list[int] = []
    log_probs: list[float] = []
    offsets = [0]
    for row, entries in enumerate(logprobs):
        for entry in entries or ():
            try:
                named = _TOKEN.fullmatch(entry["token"])
                value = entry["logprob"]
            except (TypeError, KeyError):
                named, value = None, None
            if named is None or type(value) not in (float, int):
                raise ValueError(
                    f"row {row} of logprobs has {str(entry)[:80]}; expected "
                    '{"token": "token_id:N", "logprob": number}'
                )
            ids.append(int(named[1]))
            log_probs.append(float(value))
        offsets.append(len(ids))
    return TopK(
        np.array(ids, np.int64), np.array(log_probs, np.float64), classes=classes, offsets=offsets
    )
