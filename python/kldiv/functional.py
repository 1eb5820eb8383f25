"""Divergences, cross-entropy and their relatives on NumPy arrays, with gradients.

Throughout: a row is one categorical distribution, along `axis`; the other axes are the batch
shape. p is the reference (teacher, truth) and q the approximation (student, model). Everything
is in nats. Array-likes are NumPy arrays of float64, float32, float16 or ``ml_dtypes.bfloat16``,
and whatever shares its memory with NumPy (torch CPU tensors, JAX CPU arrays, memory maps); lists
may hold integers.
Nothing is copied unless the class axis has another stride than 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import ArrayLike

from kldiv import _kldiv
from kldiv._arrays import (
    Array,
    as_array,
    as_float,
    as_rows,
    check_same_shape,
    result_dtype,
)
from kldiv._outputs import fresh_output, given_output
from kldiv._probabilities import check_logits
from kldiv._reducer import Reducer, Value
from kldiv._requests import (
    CrossEntropyRequest,
    DivergenceRequest,
    EntropyRequest,
    LogSumExpRequest,
    as_space,
    differentiable,
    differentiate,
    divergence,
    entropy_of_side,
    normalized,
)
from kldiv._side_inputs import (
    as_class_index,
    as_class_weights,
    as_labels,
    as_mask,
    check_beyond,
    check_distributions,
)

Space = str | tuple[str, str]
Temperature = float | tuple[float, float]

__all__ = [
    "cross_entropy",
    "entropy",
    "gather_log_probs",
    "jensen_shannon",
    "kl",
    "log_softmax",
    "logsumexp",
    "renyi",
    "reverse_kl",
    "total_variation",
    "value_and_grad",
]


@differentiable
def kl(
    p: ArrayLike,
    q: ArrayLike,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
    r"""Kullback–Leibler divergence of q from p, Σ p (ln p − ln q).

    A class contributes 0 where p = 0 (even if q = 0), and +inf where p > 0 = q. The value is
    never negative, and exactly 0 on identical rows, for logits. Probabilities and
    log-probabilities are taken as given, as `scipy.special.rel_entr` does: rows that do not sum
    to one follow the formula term by term, and the value may be negative, though not below
    P ln(P/Q) for sums P and Q. `scipy.stats.entropy` divides each row by its sum first, and so does
    `normalize`.

    Gradients: q − p with respect to the logits of q and p (ln p − ln q − KL) with respect to
    those of p (both divided by the temperature); −p and p (ln p − ln q + 1) with respect to
    log-probabilities; −p/q and ln(p/q) + 1 with respect to probabilities, whose limits −inf are
    given at q = 0 < p and at p = 0 < q. With `normalize` a gradient g with respect to
    probabilities becomes (g − Σ p g) / Σw for the weights w that are divided. Where the value is
    infinite the gradient with respect to p is NaN for logits, and with `normalize` in any space;
    that of q is finite for logits.

    Parameters
    ----------
    p, q : array_like
        Reference and approximation, floating arrays of one shape ``[..., classes]``. Their
        dtypes may differ.
    space : {"logits", "log_probs", "probs"} or a pair of them
        What the numbers are; a pair is ``(p_space, q_space)``. A logit of −inf is a masked
        class of probability 0. Logits from 0 to 1 that sum to 1 in a row are taken as they are,
        with a `ProbabilitiesAsLogitsWarning`, once a process.
    normalize : bool
        Divide rows of probabilities (or of exp of log-probabilities) by their sums first, as
        `scipy.stats.entropy` does: any non-negative numbers, such as counts, are a distribution
        then. Nothing to rows of logits, whose softmax is one.
    temperature : float or a pair of floats
        T from 1e-30 to 1e30 with p = softmax(z / T), for logits only. No factor T² is applied.
    axis : int
        The class axis.
    where : array_like of bool, or of integers 0 and 1, optional
        Over the batch shape (broadcast). Rows marked False give 0 and a zero gradient, whatever
        they hold.
    weights : array_like, optional
        Finite non-negative weights w over the batch shape (broadcast). A row of weight 0 counts
        like one that `where` leaves out.
    reduction : {"none", "sum", "mean", "batchmean"}
        w·d for every row; Σ w·d; Σ w·d / Σ w over the rows kept (0 if there are none);
        Σ w·d / length of the first batch axis.
    denominator : float, optional
        Replaces the divisor of ``"mean"``, as gradient accumulation needs it.

    Returns
    -------
    ndarray or scalar
        Batch-shaped for ``"none"``, else a scalar, in nats; float64 if p or q is, else float32.
        A row that holds NaN or +inf, or only masked classes, gives NaN for that row. So does a
        negative probability, with a `NegativeProbabilityWarning` once a process that names the
        first one (unless a gradient was written over it).

    Raises
    ------
    TypeError
        For arrays that are not floating (lists may hold integers), masks that are neither
        booleans nor integers, or options of the wrong type.
    ValueError
        For shapes that differ, rows without classes, an unknown space or reduction, a
        temperature out of range, negative weights, a mask that holds other integers than 0 and
        1, options that do not apply.

    Examples
    --------
    >>> import numpy as np
    >>> import kldiv
    >>> teacher = np.array([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]])
    >>> student = np.array([[0.9, 2.1, 0.5], [-1.0, 0.5, 2.0]])
    >>> kldiv.kl(teacher, student).round(6)
    array([0.003424, 0.088361])
    >>> kldiv.kl([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.510826)

    References
    ----------
    .. [1] S. Kullback and R. A. Leibler, "On Information and Sufficiency", The Annals of
       Mathematical Statistics 22 (1951). :doi:`10.1214/aoms/1177729694`
    """
    return divergence(
        "kl",
        None,
        p,
        q,
        space,
        normalize,
        temperature,
        axis,
        where,
        weights,
        reduction,
        denominator,
    )


@differentiable
def reverse_kl(
    p: ArrayLike,
    q: ArrayLike,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
    r"""Reverse Kullback–Leibler divergence, Σ q (ln q − ln p) = ``kl(q, p)``.

    A class contributes 0 where q = 0, and +inf where q > 0 = p.

    Gradients: q (ln q − ln p − value) with respect to the logits of q and p − q with respect to
    those of p (both divided by the temperature); otherwise those of `kl` with the roles
    exchanged.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.reverse_kl([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.368064)

    References
    ----------
    .. [1] Y. Gu, L. Dong, F. Wei and M. Huang, "MiniLLM: Knowledge Distillation of Large
       Language Models", ICLR 2024. :doi:`10.48550/arXiv.2306.08543`
    """
    return divergence(
        "reverse_kl",
        None,
        p,
        q,
        space,
        normalize,
        temperature,
        axis,
        where,
        weights,
        reduction,
        denominator,
    )


@differentiable
def jensen_shannon(
    p: ArrayLike,
    q: ArrayLike,
    *,
    beta: float = 0.5,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
    r"""Jensen–Shannon divergence, β KL(p‖m) + (1−β) KL(q‖m) with m = βp + (1−β)q.

    The divergence, not its square root. It is never negative, symmetric in p and q for β = ½,
    and 0 for β = 0 and β = 1 by the formula (implementations that switch to forward and reverse
    KL there make a jump). It is finite: at most −β ln β − (1−β) ln(1−β) for rows that sum to one,
    which is ln 2 for β = ½, and −Pβ ln β − Q(1−β) ln(1−β) for probabilities that sum to P and Q.
    Those are taken as given; `scipy.spatial.distance.jensenshannon` divides each row by its sum
    first, as `normalize` does, and takes the square root.

    Gradients: with a = βp ln(p/m) and b = (1−β)q ln(q/m), a − p Σa and b − q Σb with respect to
    logits (divided by the temperature), a and b with respect to log-probabilities, a/p and b/q
    with respect to probabilities, whose limit −inf is given at probability 0.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    beta : float
        Weight of p, from 0 to 1.
    space, normalize, temperature, axis, where, weights, reduction, denominator
        As for `kl`, and so are returns and exceptions.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.jensen_shannon([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.101749)

    References
    ----------
    .. [1] J. Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on
       Information Theory 37 (1991). :doi:`10.1109/18.61115`
    .. [2] R. Agarwal et al., "On-Policy Distillation of Language Models: Learning from
       Self-Generated Mistakes", ICLR 2024. :doi:`10.48550/arXiv.2306.13649`
    """
    return divergence(
        "jensen_shannon",
        beta,
        p,
        q,
        space,
        normalize,
        temperature,
        axis,
        where,
        weights,
        reduction,
        denominator,
    )


@differentiable
def total_variation(
    p: ArrayLike,
    q: ArrayLike,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
    r"""Total variation distance, ½ Σ \|p − q\|.

    Symmetric, and between 0 and 1 for rows that sum to one; between ½\|P − Q\| and ½(P + Q) for
    probabilities that sum to P and Q.

    Gradients: with s = ½ sign(p − q), which is 0 at the kink p = q: s·p − p Σ s·p with respect to
    the logits of p (divided by the temperature), s·p with respect to its log-probabilities, s
    with respect to its probabilities; for q the same with −s.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.total_variation([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.4)

    References
    ----------
    .. [1] A. L. Gibbs and F. E. Su, "On Choosing and Bounding Probability Metrics",
       International Statistical Review 70 (2002). :doi:`10.1111/j.1751-5823.2002.tb00178.x`
    """
    return divergence(
        "total_variation",
        None,
        p,
        q,
        space,
        normalize,
        temperature,
        axis,
        where,
        weights,
        reduction,
        denominator,
    )


@differentiable
def renyi(
    p: ArrayLike,
    q: ArrayLike,
    *,
    alpha: float,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
    r"""Rényi divergence of order α, ln(S) / (α − 1) with S = Σ p^α q^(1−α).

    A class contributes 0 to S where p = 0, and where q = 0 if α < 1; for α > 1 the value is +inf
    where p > 0 = q. The value is +inf for α < 1 where no class has both p > 0 and q > 0. α = 1
    is the limit, `kl`; for probabilities it is the limit only where p sums to one.

    Gradients: with c = p^α q^(1−α) / ((α − 1) S), αc − pα/(α − 1) and (1−α)c + q with respect to
    the logits of p and q (divided by the temperature), αc and (1−α)c with respect to
    log-probabilities, αc/p and (1−α)c/q with respect to probabilities, with their limits at
    probability 0. They are NaN where the value is infinite.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    alpha : float
        The order, from 1e-300 to 1e300.
    space, normalize, temperature, axis, where, weights, reduction, denominator
        As for `kl`, and so are returns and exceptions.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.renyi([0.5, 0.5], [0.9, 0.1], alpha=2, space="probs").round(6)
    np.float64(1.021651)

    References
    ----------
    .. [1] T. van Erven and P. Harremoës, "Rényi Divergence and Kullback–Leibler Divergence",
       IEEE Transactions on Information Theory 60 (2014). :doi:`10.1109/TIT.2014.2320500`
    """
    return divergence(
        "renyi",
        alpha,
        p,
        q,
        space,
        normalize,
        temperature,
        axis,
        where,
        weights,
        reduction,
        denominator,
    )


@differentiable
def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
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
) -> CrossEntropyRequest:
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
        of `logits` with a distribution in each row, taken as given.
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
    _kldiv.log_softmax(rows.operand, scale, mask, output.operand)
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
    values = _kldiv.gather_log_probs(rows.operand, indices, scale, ignored, mask)
    # Of a single row a scalar, as NumPy makes it.
    shaped: Value = values.reshape(rows.batch_shape)[()]
    return shaped


def value_and_grad(
    function: Callable[..., Value],
    *args: Any,
    wrt: str | Sequence[str] | None = None,
    out: Array | Sequence[Array] | None = None,
    grad_output: ArrayLike | None = None,
    **options: Any,
) -> tuple[Value, Array | tuple[Array, ...]]:
    """Value of a function of this module, and its gradient, in one go.

    The gradient is with respect to the array that was passed, in the space it was passed in, of
    the reduced value; for ``reduction="none"``, of the sum of the values, each times its
    `grad_output`.

    Parameters
    ----------
    function : callable
        One with a value a row: a divergence, `cross_entropy`, `entropy` or `logsumexp`.
    *args, **options
        What to call it with.
    wrt : str or sequence of str, optional
        The names of the arguments to differentiate with respect to: "p", "q" or both for a
        divergence (default "q"), "logits" or "targets" for `cross_entropy` (default "logits").
        A sequence gives a tuple of gradients.
    out : ndarray or sequence of ndarrays, optional
        Where to write the gradient: of the shape of the argument, and of its dtype or of the
        result's. It may be the argument itself: the gradient then overwrites it, and nothing is
        allocated. It may overlap any argument in another way, which costs a copy; two outputs
        that overlap are refused. float16 and bfloat16 outputs are rounded to nearest.
    grad_output : array_like, optional
        Upstream gradient: a number, or over the batch shape for ``reduction="none"``. 1 if left
        out.

    Returns
    -------
    value : ndarray or scalar
        What `function` returns.
    gradient : ndarray or tuple of ndarrays
        Of the shape of the argument; `out` if given, else float64 where the value is, and
        float32 otherwise.

    Raises
    ------
    TypeError
        For a function that has no gradient here; and what `function` raises.
    ValueError
        For an unknown `wrt`, an `out` of another shape; and what `function` raises. Nothing is
        written to `out` then.

    Examples
    --------
    >>> import numpy as np
    >>> import kldiv
    >>> teacher = np.array([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]])
    >>> student = np.array([[0.9, 2.1, 0.5], [-1.0, 0.5, 2.0]])
    >>> value, gradient = kldiv.value_and_grad(kldiv.kl, teacher, student, reduction="mean")
    >>> value.round(6)
    np.float64(0.045892)
    >>> gradient.round(4)
    array([[-0.0154,  0.0184, -0.003 ],
           [ 0.011 ,  0.0643, -0.0753]])
    >>> loss, _ = kldiv.value_and_grad(kldiv.cross_entropy, student, np.array([1, 2]), out=student)
    >>> student.round(4)  # the gradient now
    array([[ 0.2004, -0.3347,  0.1343],
           [ 0.0391,  0.1753, -0.2144]])
    """
    build = getattr(function, "request", None)
    if build is None:
        name = getattr(function, "__name__", repr(function))
        raise TypeError(
            f"value_and_grad differentiates kldiv's functions with a value a row, not {name}"
        )
    request = build(*args, **options)
    check_logits(request.rows, request.spaces)
    return differentiate(request, wrt, out, grad_output)
