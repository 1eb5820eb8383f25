"""The most probable classes of rows, and classes drawn from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kldiv import _kldiv
from kldiv._arrays import Array, Rows, as_float, as_integer, as_rows
from kldiv._probabilities import check_logits
from kldiv._top_k.container import TopK


def top_k(logits: ArrayLike, k: int, *, temperature: float = 1.0, axis: int = -1) -> TopK:
    r"""The k most probable classes of every row, with their log-probabilities.

    ln softmax(z/T) over *all* classes of the row, of the k classes with the largest logits, from
    the most probable one on; of equal logits from the lowest id on. The logits are read once.

    A class with logit −inf has no probability and is not kept: a row with fewer than k finite
    logits keeps those, which makes the result ragged (``offsets``), with one row after the other.

    Parameters
    ----------
    logits : array_like
        Shape ``[..., classes]``.
    k : int
        From 1 to the number of classes.
    temperature : float
        T from 1e-30 to 1e30. Log-probabilities are those at T.
    axis : int
        The class axis.

    Returns
    -------
    TopK
        Over the batch shape; float64 log-probabilities for float64 and float32 otherwise. Where a
        row has fewer than k finite logits, over the rows in C order, with ``offsets``.

    Raises
    ------
    TypeError, ValueError
        As for `kl`; for k out of range; for a row that holds NaN or +inf, or has no finite logit:
        the first one is named, by its number in C order.

    Examples
    --------
    >>> import kldiv
    >>> kept = kldiv.top_k([[1.0, 3.0, 2.0, 0.0], [5.0, 0.0, 0.0, 0.0]], 2)
    >>> kept.ids
    array([[1, 2],
           [0, 1]])
    >>> kept.values.round(4)
    array([[-0.4402, -1.4402],
           [-0.02  , -5.02  ]])
    >>> kept.coverage().round(4)
    array([0.8808, 0.9868])
    """
    rows = as_rows("logits", logits, axis)
    classes = rows.memory.shape[-1]
    count = as_integer("k", k)
    if not 1 <= count <= classes and classes:
        raise ValueError(f"k must be from 1 to {classes}, the number of classes, got {count}")
    check_logits({"logits": rows}, ("logits",))
    found = _kldiv.top_k(rows, count, as_float("temperature", temperature))
    return _kept(rows, count, found, ragged=False)


def sample_k(
    logits: ArrayLike,
    k: int,
    *,
    power: float = 1.0,
    seed: int,
    first_row: int = 0,
    temperature: float = 1.0,
    axis: int = -1,
) -> TopK:
    r"""Classes drawn from every row, with the weights that make their sums unbiased.

    k draws a row, with replacement and with probabilities π ∝ p^power, where p = softmax(z/T). A
    class drawn n times is kept once, with the weight w = (n/k) p/π: Σ w f over the classes kept
    is an unbiased estimate of Σ p f over all, where the k most probable classes alone are biased.
    With ``power=1`` the weights are n/k. Smaller powers draw improbable classes more often;
    ``power=0`` draws from all classes alike.

    The draws are a function of `seed` and of the number of a row: threads, instruction sets and
    the rows beside it change nothing. Those of row r are uniform numbers, the ones that NumPy's
    ``Generator(Philox(key=seed, counter=r << 64)).random(k)`` gives, looked up in the cumulative
    sums of p^power.

    Parameters
    ----------
    logits : array_like
        Shape ``[..., classes]``.
    k : int
        Draws a row, at least 1.
    power : float
        From 0 to 1000.
    seed : int
        From 0 to 2^64 − 1.
    first_row : int
        The number of the first row of this batch; the others follow in C order. Batches of one
        data set take the number of rows before them, so that no two rows share their draws.
    temperature : float
        T from 1e-30 to 1e30. Log-probabilities, and draws, are those at T.
    axis : int
        The class axis.

    Returns
    -------
    TopK
        Ragged, over the rows in C order, each from the most probable class on; with ``weights``,
        of the dtype of the log-probabilities.

    Raises
    ------
    TypeError, ValueError
        As for `top_k`; for an option out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import kldiv
    >>> drawn = kldiv.sample_k(np.log([[0.5, 0.3, 0.2]]), 100, seed=0)
    >>> drawn.ids, drawn.weights.round(2)
    (array([0, 1, 2]), array([0.48, 0.28, 0.24]))

    References
    ----------
    .. [1] A. Anshumann et al., "Sparse Logit Sampling: Accelerating Knowledge Distillation in
       LLMs" (2025). :arxiv:`2503.16870`
    """
    rows = as_rows("logits", logits, axis)
    count = as_integer("k", k)
    if not 1 <= count < 2**32:
        raise ValueError(f"k must be from 1 to 2^32 − 1, got {count}")
    check_logits({"logits": rows}, ("logits",))
    found = _kldiv.sample_k(
        rows,
        count,
        as_float("power", power),
        _of_64_bits("seed", seed),
        _of_64_bits("first_row", first_row),
        as_float("temperature", temperature),
    )
    return _kept(rows, min(count, rows.memory.shape[-1]), found, ragged=True)


def _of_64_bits(name: str, value: Any) -> int:
    number = as_integer(name, value)
    if not 0 <= number < 2**64:
        raise ValueError(f"{name} must be from 0 to 2^64 − 1, got {number}")
    return number


def _kept(rows: Rows, room: int, found: dict[str, Array], *, ragged: bool) -> TopK:
    """What was found, which has room for as many classes in every row."""
    ids, values, weights, counts = (
        found[name] for name in ("ids", "log_probs", "weights", "counts")
    )
    classes = rows.memory.shape[-1]
    if not ragged and (counts == room).all():
        shape = (*rows.batch_shape, room)
        return TopK._of(
            ids.reshape(shape), values.reshape(shape), "log_probs", classes=classes, checked=True
        )
    used = (np.arange(room) < counts[:, None]).reshape(-1)
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return TopK._of(
        ids[used],
        values[used],
        "log_probs",
        classes=classes,
        offsets=offsets,
        weights=weights[used] if len(weights) else None,
        checked=True,
    )
