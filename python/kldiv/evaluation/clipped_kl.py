"""The numbers of llama.cpp's table, computed as llama.cpp computes them."""

from __future__ import annotations

import numpy as np

from kldiv import _kldiv
from kldiv._arrays import Array, as_rows


def clipped_kl(log_p: Array, logits: Array, labels: Array | None = None) -> dict[str, Array]:
    """KL from log-probabilities to logits in float32, of classes with ln p > −16 only.

    Log-probabilities are taken as given, however far their sum is off 1. What is rounded to
    float32, and when, is as in ``llama-perplexity --kl-divergence``; its exponentials are those of
    the C library, these are within 2.5 units in the last place, so that the log-sum-exp of some
    rows is the float32 beside that of llama.cpp.

    Parameters
    ----------
    log_p
        Log-probabilities of the reference, ``[rows, classes]``.
    logits
        Logits or log-probabilities of the candidate, of the same shape.
    labels
        True next tokens, int64, −100 where there is none.

    Returns
    -------
    dict
        Columns of the table of positions, float64 ``[rows]``: ``kl_llama_cpp``, and with labels
        ``nll_p_llama_cpp`` and ``nll_q_llama_cpp``, NaN where there is none. Rows that hold NaN or
        +∞, or no class with a probability, are NaN.

    Raises
    ------
    ValueError
        For arrays of different shapes.
    IndexError
        For labels out of range.

    Examples
    --------
    The second class has too small a p to count:

    >>> import numpy as np
    >>> found = clipped_kl(np.float32([[0.0, -16.0]]), np.float32([[0.0, 0.0]]))
    >>> round(float(found["kl_llama_cpp"][0]), 6)
    0.693147
    """
    if labels is not None:
        labels = np.ascontiguousarray(labels, np.int64)
    found = _kldiv.clipped_kl(
        as_rows("log_p", log_p, -1), as_rows("logits", logits, -1), labels, -100
    )
    columns = {"kl_llama_cpp": found["kl"]}
    if labels is not None:
        columns |= {"nll_p_llama_cpp": found["nll_p"], "nll_q_llama_cpp": found["nll_q"]}
    return columns
