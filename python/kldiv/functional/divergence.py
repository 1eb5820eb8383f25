"""The divergences of two arrays of rows."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._arrays import as_float
from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import (
    DivergenceRequest,
    Space,
    Temperature,
    at_endpoints,
    differentiable,
    divergence,
)

__all__ = [
    "alpha_divergence",
    "chi_squared",
    "jeffreys",
    "jensen_shannon",
    "kl",
    "neg_log_acceptance",
    "renyi",
    "reverse_kl",
    "skew_kl",
    "skew_reverse_kl",
    "squared_hellinger",
    "total_variation",
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
def jeffreys(
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
    r"""Jeffreys divergence, Σ (p − q)(ln p − ln q) = ``kl(p, q) + reverse_kl(p, q)``.

    Symmetric, never negative, also for probabilities that do not sum to one, and unbounded: +inf
    where one of p and q is 0 and the other is not. At least 8 times `jensen_shannon`, and for rows
    that sum to one at least 2·TV·ln((1 + TV)/(1 − TV)) for their total variation TV. Of the counts
    of a histogram (``normalize=True``) it is the population stability index.

    Gradients: with d = ln p − ln q, a = p d + p − q and b = q − p − q d: a − p Σa and b − q Σb with
    respect to the logits of p and q (divided by the temperature), a and b with respect to
    log-probabilities, a/p and b/q with respect to probabilities, whose limit −inf is given at
    probability 0. Where a class that q lacks makes the value infinite the gradient with respect to
    the logits of p is NaN, and the other way round; that of the other side is finite.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.jeffreys([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.87889)

    References
    ----------
    .. [1] H. Jeffreys, "An Invariant Form for the Prior Probability in Estimation Problems",
       Proceedings of the Royal Society A 186 (1946). :doi:`10.1098/rspa.1946.0056`
    """
    return divergence(
        "jeffreys",
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
    endpoints: str = "formula",
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
    and 0 for β = 0 and β = 1 by the formula; TRL and Liger switch to `kl` and `reverse_kl` there,
    which is a jump, and so does ``endpoints="trl"``. By the formula it is finite: at most
    −β ln β − (1−β) ln(1−β) for rows that sum to one, which is ln 2 for β = ½, and
    −Pβ ln β − Q(1−β) ln(1−β) for probabilities that sum to P and Q. Those are taken as given;
    `scipy.spatial.distance.jensenshannon` divides each row by its sum first, as `normalize` does,
    and takes the square root.

    Gradients: with a = βp ln(p/m) and b = (1−β)q ln(q/m), a − p Σa and b − q Σb with respect to
    logits (divided by the temperature), a and b with respect to log-probabilities, a/p and b/q
    with respect to probabilities, whose limit −inf is given at probability 0.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    beta : float
        Weight of p, from 0 to 1.
    endpoints : {"formula", "trl"}
        What β = 0 and β = 1 give: 0, as the formula has it, or ``kl(p, q)`` and
        ``reverse_kl(p, q)``, as ``generalized_jsd_loss`` of TRL has it with p the teacher and q
        the student [2]_. All other β are the same.
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
    beta = as_float("beta", beta)
    return divergence(
        at_endpoints(beta, endpoints),
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
def skew_kl(
    p: ArrayLike,
    q: ArrayLike,
    *,
    alpha: float = 0.1,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
    r"""Skew Kullback–Leibler divergence, Σ p (ln p − ln m) with m = αp + (1−α)q.

    A class contributes 0 where p = 0 (even if q = 0), and −p ln α where p > 0 = q: for α > 0 it is
    finite, at most −ln α for rows that sum to one, which rows without a class in common reach. It
    is never negative for those, not symmetric, `kl` for α = 0, and 0 for α = 1. Probabilities and
    log-probabilities are taken as given. It is a half of `jensen_shannon`, whose value for β is
    that of β ``skew_kl(p, q, alpha=β)`` + (1−β) ``skew_reverse_kl(p, q, alpha=1−β)``. In
    distillation it keeps the gradient of a student finite where the teacher has a class that
    the student lacks [1]_.

    Gradients: with a = p (ln(p/m) + 1 − αp/m) and b = −(1−α)pq/m, a − p Σa and b − q Σb with
    respect to logits (divided by the temperature), a and b with respect to log-probabilities,
    a/p and b/q with respect to probabilities, whose limits −inf at p = 0 < q and −(1−α)/α at
    q = 0 < p are given.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    alpha : float
        Weight of p in m, from 0 to 1.
    space, normalize, temperature, axis, where, weights, reduction, denominator
        As for `kl`, and so are returns and exceptions.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.skew_kl([0.5, 0.5], [0.9, 0.1], alpha=0.1, space="probs").round(6)
    np.float64(0.365321)

    References
    ----------
    .. [1] J. Ko, S. Kim, T. Chen and S.-Y. Yun, "DistiLLM: Towards Streamlined Distillation for
       Large Language Models", ICML 2024. :doi:`10.48550/arXiv.2402.03898`
    .. [2] L. Lee, "On the Effectiveness of the Skew Divergence for Statistical Language
       Analysis", AISTATS 2001.
    """
    return divergence(
        "skew_kl",
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
def skew_reverse_kl(
    p: ArrayLike,
    q: ArrayLike,
    *,
    alpha: float = 0.1,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
    r"""Skew reverse Kullback–Leibler divergence, Σ q (ln q − ln m) with m = (1−α)p + αq.

    It is ``skew_kl(q, p)``: a class contributes 0 where q = 0, and −q ln α where q > 0 = p, for
    rows that sum to one it is never negative and at most −ln α. It is `reverse_kl` for α = 0, and
    0 for α = 1. The student's own samples are of q, so that on-policy distillation estimates it;
    it does so with less variance than `reverse_kl` [1]_.

    Gradients: those of `skew_kl` with the roles exchanged.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    alpha : float
        Weight of q in m, from 0 to 1.
    space, normalize, temperature, axis, where, weights, reduction, denominator
        As for `kl`, and so are returns and exceptions.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.skew_reverse_kl([0.5, 0.5], [0.9, 0.1], alpha=0.1, space="probs").round(6)
    np.float64(0.307137)

    References
    ----------
    .. [1] J. Ko, S. Kim, T. Chen and S.-Y. Yun, "DistiLLM: Towards Streamlined Distillation for
       Large Language Models", ICML 2024. :doi:`10.48550/arXiv.2402.03898`
    """
    return divergence(
        "skew_reverse_kl",
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
def neg_log_acceptance(
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
    r"""Negative logarithm of the acceptance rate of speculative sampling, −ln Σ min(p, q).

    The rate at which a token drawn from one of p and q is accepted as one of the other [1]_;
    for rows that sum to one it is 1 − `total_variation`. Symmetric; 0 for identical rows, and +inf
    where no class has both p > 0 and q > 0. Probabilities that sum to more than one may make it
    negative. At most `kl` or `reverse_kl`, whichever is less, plus ln 2.

    Gradients: with S = Σ min(p, q) and s = 1 where p < q, ½ where p = q, 0 elsewhere:
    p (Σ s·p − s)/S with respect to the logits of p (divided by the temperature), −s·p/S with
    respect to its log-probabilities, −s/S with respect to its probabilities; for q the same with
    the roles exchanged. They stay of the size of p as S → 0, and are NaN at S = 0.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.neg_log_acceptance([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.510826)

    References
    ----------
    .. [1] Y. Leviathan, M. Kalman and Y. Matias, "Fast Inference from Transformers via Speculative
       Decoding", ICML 2023. :doi:`10.48550/arXiv.2211.17192`
    """
    return divergence(
        "neg_log_acceptance",
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
def squared_hellinger(
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
    r"""Squared Hellinger distance, 1 − Σ √(pq).

    A class contributes 0 to the sum where p = 0 or q = 0. For rows that sum to one the value is
    ½ Σ (√p − √q)², symmetric, never negative, and at most 1, of rows without a class in common.
    Its square root is a metric, the Hellinger distance; definitions without the factor ½ have
    twice the value. For probabilities that sum to P and Q, which are taken as given,
    it is between 1 − √(PQ) and 1.

    With H² for the value it bounds `total_variation`, H² ≤ TV ≤ √(H² (2 − H²)) ≤ √(2 H²), and
    `kl` from below, 2 H² ≤ −2 ln(1 − H²) ≤ KL, where the term in the middle is `renyi` of order ½.
    Unlike `kl` it is finite, and its gradients are bounded, whatever the rows: a loss that no
    single class can take over, and a common distance in minimum-distance estimation and tests.

    Gradients: with c = √(pq) and S = Σ c, −½ (c − pS) and −½ (c − qS) with respect to the logits
    of p and q (divided by the temperature), −½ c with respect to log-probabilities, −½ √(q/p) and
    −½ √(p/q) with respect to probabilities, whose limit −inf is given where just one of p and q
    is 0.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.squared_hellinger([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.105573)

    References
    ----------
    .. [1] A. L. Gibbs and F. E. Su, "On Choosing and Bounding Probability Metrics",
       International Statistical Review 70 (2002). :doi:`10.1111/j.1751-5823.2002.tb00178.x`
    .. [2] R. Beran, "Minimum Hellinger Distance Estimates for Parametric Models", The Annals of
       Statistics 5 (1977). :doi:`10.1214/aos/1176343842`
    """
    return divergence(
        "squared_hellinger",
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
def alpha_divergence(
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
    r"""Alpha-divergence, (Σ p^α q^(1−α) − 1) / (α(α − 1)).

    A class contributes 0 to the sum where p = 0 and where q = 0, except that the value is +inf
    where p > 0 = q for α > 1, and where q > 0 = p for α < 0. α = 1 is the limit `kl`, and α = 0
    is `reverse_kl`. For rows that sum to one it is never negative, 0 for p = q alone, and for
    0 < α < 1 at most 1/(α(1 − α)), of rows without a class in common. Orders α and 1 − α are each
    other's with p and q exchanged, so that it is symmetric for α = ½. Where the number exceeds the
    range of floats the value is +inf.

    Twice it is the power divergence 2 Σ p ((p/q)^λ − 1) / (λ(λ + 1)) of Cressie and Read with
    λ = α − 1. Of order ½ it is 4 `squared_hellinger`, of order 2 half of `chi_squared`, and `renyi`
    of the same order is ln(1 + α(α − 1) D) / (α − 1). As a loss for q, in variational inference and
    distillation, it goes from mode-seeking (for α ≤ 0 q may have no class that p lacks) to
    mass-covering (for α ≥ 1 it must have all of p's).

    Probabilities are taken as given: of rows that do not sum to one it is the formula, which has no
    limit for α → 0 or 1; `kl` and `reverse_kl` are what it gives there.

    Gradients: with f = p^α q^(1−α), S = Σ f, (f − pS) / (α − 1) and −(f − qS) / α with respect to
    the logits of p and q (divided by the temperature), f / (α − 1) and −f / α with respect to
    log-probabilities, f / (p (α − 1)) and −f / (q α) with respect to probabilities, with their
    limits at probability 0. Where the value is infinite those of logits are NaN.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    alpha : float
        The order, 0, or of a magnitude from 1e-300 to 1e300.
    space, normalize, temperature, axis, where, weights, reduction, denominator
        As for `kl`, and so are returns and exceptions.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.alpha_divergence([0.5, 0.5], [0.9, 0.1], alpha=0.5, space="probs").round(6)
    np.float64(0.422291)
    >>> kldiv.alpha_divergence([0.5, 0.5], [0.9, 0.1], alpha=2, space="probs").round(6)
    np.float64(0.888889)

    References
    ----------
    .. [1] S. Amari, "α-Divergence Is Unique, Belonging to Both f-Divergence and Bregman Divergence
       Classes", IEEE Transactions on Information Theory 55 (2009). :doi:`10.1109/TIT.2009.2030485`
    .. [2] N. Cressie and T. R. C. Read, "Multinomial Goodness-of-Fit Tests", Journal of the Royal
       Statistical Society B 46 (1984). :doi:`10.1111/j.2517-6161.1984.tb01318.x`
    """
    return divergence(
        "alpha_divergence",
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
def chi_squared(
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
    r"""Pearson's χ² divergence, Σ (p − q)²/q.

    A class contributes q where p = 0, 0 where q = 0 too, and +inf where p > 0 = q. It is never
    negative, 0 for p = q alone, not symmetric, and without a bound; Neyman's, Σ (p − q)²/p, is
    ``chi_squared(q, p)``. Where the number exceeds the range of floats the value is +inf.
    Probabilities are taken as given: n times the value, for frequencies p of n draws and those q
    expected, is the statistic of the χ² test, `scipy.stats.chisquare`.

    For rows that sum to one it is Σ p²/q − 1, the variance of the weights p/q of importance
    sampling, twice `alpha_divergence` of order 2, and e^R − 1 for `renyi` R of order 2. It bounds
    `kl` ≤ ln(1 + χ²) ≤ χ², `total_variation` ≤ ½ √χ², and 2 `squared_hellinger` ≤ ln(1 + χ²).

    Gradients: with r = p/q, a = 2p (r − 1) and b = q (1 − r²), a − p Σa and b − q Σb with respect
    to the logits of p and q (divided by the temperature), a and b with respect to
    log-probabilities, 2 (r − 1) and 1 − r² with respect to probabilities, whose limits are −2 at
    p = 0 and −inf at q = 0 < p. Where the value is infinite those of logits are NaN.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.chi_squared([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(1.777778)

    References
    ----------
    .. [1] A. L. Gibbs and F. E. Su, "On Choosing and Bounding Probability Metrics",
       International Statistical Review 70 (2002). :doi:`10.1111/j.1751-5823.2002.tb00178.x`
    .. [2] F. Nielsen and R. Nock, "On the Chi Square and Higher-Order Chi Distances for
       Approximating f-Divergences", IEEE Signal Processing Letters 21 (2014).
       :doi:`10.1109/LSP.2013.2288355`
    """
    return divergence(
        "chi_squared",
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
