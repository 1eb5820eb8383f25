"""Cross-entropy with class indices or distributions."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from kldiv._arrays import as_array, as_float, as_rows, check_same_shape, result_dtype
from kldiv._reducer import Reducer, Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import (
    CrossEntropyRequest,
    Request,
    Rule,
    as_space,
    check_no_rule,
    differentiable,
    sparse_loss,
)
from kldiv._side_inputs import (
    as_class_index,
    as_class_weights,
    as_labels,
    check_beyond,
    check_distributions,
)
from kldiv._top_k import TopK


@differentiable
def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike | TopK,
    *,
    space: str = "logits",
    temperature: float = 1.0,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    class_weights: ArrayLike | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: Rule | None = None,
    temper_after: bool = False,
) -> Request:
    r"""Cross-entropy, −ln q of the target class, or −Σ t ln q for a target distribution t.

    In general −Σ mᵢ ln qᵢ + ζ lse² with masses mᵢ = wᵢ ((1 − ε) tᵢ + ε/C), where t is 1 at a
    target class and 0 elsewhere, w are class weights, ε is the label smoothing over C classes, ζ
    the z-loss and lse = ln Σ exp(z/T). A class contributes 0 where its mass is 0, and +inf where
    it has mass and q = 0.

    Gradients: (q Σm − m + 2ζ lse q) / T with respect to logits, times 1 − tanh²(z/c) under a
    softcap; −m with respect to log-probabilities, −m/q with respect to probabilities;
    −(1 − ε) w ln q with respect to target distributions.

    Parameters
    ----------
    logits : array_like
        Shape ``[..., classes]``, floating.
    targets : array_like
        Class indices of any integer dtype over the batch shape, or a floating array of the shape
        of `logits` with a distribution in each row, taken as given; or a `TopK`, of which `rule`
        says what is taken for the rest, and beside which only options of rows apply.
    space : {"logits", "log_probs", "probs"}
        What the numbers of `logits` are. Probabilities and log-probabilities are taken as given:
        q is not divided by its sum.
    temperature : float
        T from 1e-30 to 1e30 with q = softmax(z / T), for logits only.
    ignore_index : int or None
        Rows with this class index give 0 and a zero gradient, and stay out of the mean. An index
        that the dtype of the targets cannot hold is none of them. For target distributions it is
        left at its default or None.
    label_smoothing : float
        ε, from 0 to 1.
    class_weights : array_like, optional
        w, finite and non-negative, shape ``[classes]``.
    z_loss : float
        ζ ≥ 0, for logits only.
    softcap : float, optional
        c from 1e-30 to 1e30: logits become c tanh(z/c) before anything else; −inf stays −inf.
    axis, where, weights
        As for `kl`.
    reduction : {"none", "sum", "mean", "batchmean"}
        As for `kl`, but that ``"mean"`` divides by Σ (row weight · class weight of the target)
        for class indices. Class weights stay out of the divisor for distributions.
    denominator : float, optional
        Replaces the divisor of ``"mean"``.
    rule, temper_after
        For targets that are a `TopK`, as for `kl`, with −Σ t ln q in place of the divergence.

    Returns
    -------
    ndarray or scalar
        As for `kl`.

    Raises
    ------
    TypeError
        For arrays of a wrong dtype, or options of a wrong type.
    ValueError
        For shapes that do not fit, and options out of range or that do not apply.
    IndexError
        For a class index that is out of range in a row kept; the first one is named. Rows
        without a label have `ignore_index`, or are left out with `where`.

    Examples
    --------
    >>> import numpy as np
    >>> import kldiv
    >>> logits = np.array([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]])
    >>> kldiv.cross_entropy(logits, np.array([1, -100])).round(6)
    array([0.464369, 0.      ])

    References
    ----------
    .. [1] C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR
       2016 (label smoothing). :doi:`10.1109/CVPR.2016.308`
    .. [2] A. Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", JMLR 24 (2023)
       (z-loss). :doi:`10.48550/arXiv.2204.02311`
    """
    if type(targets) is TopK:
        _check_plain(ignore_index, label_smoothing, class_weights, z_loss, softcap)
        return sparse_loss(
            "cross_entropy",
            0.0,
            targets,
            "logits",
            logits,
            rule,
            temper_after,
            space,
            False,
            temperature,
            axis,
            None,
            where,
            weights,
            reduction,
            denominator,
        )
    check_no_rule(rule, temper_after)
    rows = as_rows("logits", logits, axis)
    given = as_array("targets", targets)
    arguments = {"logits": rows}
    labels = beyond = None
    ignored = ignore_index = as_class_index("ignore_index", ignore_index)
    if given.dtype.kind in "iuO":
        labels, ignored, beyond = as_labels("targets", given, rows, ignore_index)
        dtype = result_dtype(rows)
    else:
        check_distributions(given, rows)
        arguments["targets"] = as_rows("targets", given, axis)
        check_same_shape(rows, arguments["targets"])
        dtype = result_dtype(rows, arguments["targets"])
        if ignore_index not in (None, -100):
            raise ValueError(
                "ignore_index applies to class indices only; mask rows of distributions with where"
            )
        ignored = None
    reducer = Reducer.parse(rows, dtype, where, weights, reduction, denominator)
    if beyond is not None:
        check_beyond(beyond, rows, ignore_index, reducer.kept())
    return CrossEntropyRequest(
        arguments,
        labels,
        ignored,
        as_space("space", space),
        as_float("temperature", temperature),
        as_float("label_smoothing", label_smoothing),
        as_class_weights("class_weights", class_weights, rows),
        as_float("z_loss", z_loss),
        None if softcap is None else as_float("softcap", softcap),
        reducer,
    )


def _check_plain(
    ignore_index: Any, label_smoothing: Any, class_weights: Any, z_loss: Any, softcap: Any
) -> None:
    """Raise `ValueError` for options that have no meaning beside a `TopK`."""
    given = {
        "ignore_index": ignore_index not in (None, -100),
        "label_smoothing": label_smoothing != 0.0,
        "class_weights": class_weights is not None,
        "z_loss": z_loss != 0.0,
        "softcap": softcap is not None,
    }
    for name, is_given in given.items():
        if is_given:
            raise ValueError(f"{name} does not apply to targets that are a TopK")
