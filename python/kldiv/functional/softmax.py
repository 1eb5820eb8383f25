"""Entropy, log-sum-exp, log-softmax and the log-probabilities of labels."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv import _kldiv
from kldiv._arrays import Array, as_float, as_rows, result_dtype
from kldiv._outputs import fresh_output, given_output
from kldiv._reducer import Reducer, Value
from kldiv._requests import (
    EntropyRequest,
    LogSumExpRequest,
    as_space,
    differentiable,
    entropy_of_side,
    normalized,
)
from kldiv._side_inputs import as_class_index, as_labels, as_mask, check_beyond


@differentiable
def entropy(
    p: ArrayLike,
    *,
    space: str = "logits",
    normalize: bool = False,
    temperature: float = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> EntropyRequest:
    r"""Shannon entropy, −Σ p ln p.

    A class contributes 0 where p = 0. Between 0 and ln C for C classes and rows that sum to one;
    probabilities and log-probabilities are taken as given, where `scipy.stats.entropy` divides
    each row by its sum first, as `normalize` does.

    Gradients: −p (ln p + H) / T with respect to logits, −p (ln p + 1) with respect to
    log-probabilities, −(ln p + 1) with respect to probabilities, with the limit +inf at p = 0.

    Parameters, returns and exceptions are those of `kl`, with one array.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.entropy([0.5, 0.5], space="probs").round(6)
    np.float64(0.693147)

    References
    ----------
    .. [1] C. E. Shannon, "A Mathematical Theory of Communication", Bell System Technical Journal
       27 (1948). :doi:`10.1002/j.1538-7305.1948.tb01338.x`
    """
    side = normalized(as_space("space", space), normalize)
    return entropy_of_side(p, side, temperature, axis, where, weights, reduction, denominator)


@differentiable
def logsumexp(
    z: ArrayLike,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> LogSumExpRequest:
    r"""Logarithm of a sum of exponentials, ln Σ exp(z/T).

    A row of −inf throughout gives −inf, the logarithm of 0; NaN or +inf gives NaN for its row.

    Gradient: softmax(z/T) / T.

    Parameters, returns and exceptions are those of `kl`, with one array of logits and one
    temperature, and without `space` and `normalize`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.logsumexp([1000.0, 1000.0]).round(6)
    np.float64(1000.693147)

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA Journal of Numerical Analysis 41 (2021).
       :doi:`10.1093/imanum/draa038`
    """
    rows = as_rows("z", z, axis)
    reducer = Reducer.parse(rows, result_dtype(rows), where, weights, reduction, denominator)
    return LogSumExpRequest({"z": rows}, as_float("temperature", temperature), reducer)


def log_softmax(
    z: ArrayLike,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    r"""Log-probabilities of logits, z/T − ln Σ exp(z/T).

    A logit of −inf gives −inf; a row that holds NaN or +inf, or only −inf, gives NaN throughout.

    Parameters
    ----------
    z : array_like
        Logits, shape ``[..., classes]``.
    temperature : float
        T from 1e-30 to 1e30.
    axis : int
        The class axis.
    where : array_like of bool, or of integers 0 and 1, optional
        Rows marked False give 0, whatever they hold.
    out : ndarray, optional
        Where to write the result; it may be `z` itself, or overlap any argument. Of the dtype of
        `z` or of the result.

    Returns
    -------
    ndarray
        Of the shape of `z`; `out` if given, else float64 for float64 and float32 otherwise.

    Raises
    ------
    TypeError, ValueError
        As for `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.log_softmax([0.0, 0.0]).round(6)
    array([-0.693147, -0.693147])

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA Journal of Numerical Analysis 41 (2021).
       :doi:`10.1093/imanum/draa038`
    """
    rows = as_rows("z", z, axis)
    mask = as_mask("where", where, rows)
    scale = as_float("temperature", temperature)
    dtype = result_dtype(rows)
    output = (
        fresh_output(rows, dtype)
        if out is None
        else given_output("out", out, rows, dtype, [rows], in_place=True)
    )
    _kldiv.log_softmax(rows, scale, mask, output)
    return output.finish()


def gather_log_probs(
    z: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: float = 1.0,
    ignore_index: int | None = -100,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> Value:
    r"""Log-probability of one class a row, (z/T − ln Σ exp(z/T))[label].

    What ``log_softmax(z)`` followed by a gather gives, without writing the log-probabilities.

    Parameters
    ----------
    z : array_like
        Logits, shape ``[..., classes]``.
    labels : array_like of integers
        Class indices over the batch shape.
    temperature : float
        T from 1e-30 to 1e30.
    ignore_index : int or None
        Rows with this label give 0.
    axis : int
        The class axis.
    where : array_like of bool, or of integers 0 and 1, optional
        Rows marked False give 0, whatever they and their labels hold.

    Returns
    -------
    ndarray or scalar
        Over the batch shape, in nats; float64 for float64 and float32 otherwise.

    Raises
    ------
    TypeError, ValueError
        As for `kl`.
    IndexError
        For a label out of range in a row kept; the first one is named. Rows without a label have
        `ignore_index`, or are left out with `where`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.gather_log_probs([[1.0, 2.0, 0.5]], [1]).round(6)
    array([-0.464369])
    """
    rows = as_rows("z", z, axis)
    ignore_index = as_class_index("ignore_index", ignore_index)
    indices, ignored, beyond = as_labels("labels", labels, rows, ignore_index)
    mask = as_mask("where", where, rows)
    check_beyond(beyond, rows, ignore_index, mask)
    scale = as_float("temperature", temperature)
    values = _kldiv.gather_log_probs(rows, indices, scale, ignored, mask)
    # Of a single row a scalar, as NumPy makes it.
    shaped: Value = values.reshape(rows.batch_shape)[()]
    return shaped
