"""The estimators as functions of arrays of log-probabilities."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import differentiable
from kldiv.estimators.request import EstimatorRequest, estimator


@differentiable
def k1(
    p: ArrayLike,
    q: ArrayLike,
    *,
    straight_through: bool = False,
    clamp_log_ratio: float | None = None,
    clamp: float | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> EstimatorRequest:
    r"""k1 = r with r = ln q − ln p at tokens sampled from q: an unbiased estimator of KL(q‖p).

    **p, the reference, comes first, and the divergence is KL(q‖p)**, which `kldiv.reverse_kl` has
    exactly: see `k3`. Single values may be negative, and are as large as the log-ratio: the mean
    of N of them is far from KL by more than those of k2 and k3 where q and p are close.

    Gradients: 1 with respect to ln q and −1 with respect to ln p, whatever the tokens are. The
    expectation of the gradient with respect to the parameters of q is 0: **as a loss, k1 is
    noise**, unless `straight_through`. As a penalty taken off a reward it is the one whose
    policy gradient is right.

    Parameters, returns and exceptions are those of `k3`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.estimators.k1([-1.0, -2.0], [-1.5, -1.0], reduction="mean").round(6)
    np.float64(0.25)

    References
    ----------
    .. [1] J. Schulman, "Approximating KL Divergence" (2020).
       http://joschu.net/blog/kl-approx.html
    """
    return estimator(
        "k1",
        p,
        q,
        straight_through,
        clamp_log_ratio,
        clamp,
        where,
        weights,
        reduction,
        denominator,
    )


@differentiable
def k2(
    p: ArrayLike,
    q: ArrayLike,
    *,
    straight_through: bool = False,
    clamp_log_ratio: float | None = None,
    clamp: float | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> EstimatorRequest:
    r"""k2 = r²/2 with r = ln q − ln p at tokens sampled from q: its gradient is that of KL(q‖p).

    **p, the reference, comes first, and the divergence is KL(q‖p)**, which `kldiv.reverse_kl` has
    exactly: see `k3`. The value is biased, little where q and p are close: its expectation is
    ½ Σ q r².

    Gradients: r with respect to ln q and −r with respect to ln p. The expectation of the gradient
    with respect to the parameters of q is the gradient of KL(q‖p): **as a loss, k2 is right**, for
    tokens sampled from the q that is differentiated. `straight_through` only takes the clamps away
    from its gradient.

    Parameters, returns and exceptions are those of `k3`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.estimators.k2([-1.0, -2.0], [-1.5, -1.0], reduction="mean").round(6)
    np.float64(0.3125)

    References
    ----------
    .. [1] J. Schulman, "Approximating KL Divergence" (2020).
       http://joschu.net/blog/kl-approx.html
    """
    return estimator(
        "k2",
        p,
        q,
        straight_through,
        clamp_log_ratio,
        clamp,
        where,
        weights,
        reduction,
        denominator,
    )


@differentiable
def k3(
    p: ArrayLike,
    q: ArrayLike,
    *,
    straight_through: bool = False,
    clamp_log_ratio: float | None = None,
    clamp: float | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> EstimatorRequest:
    r"""k3 = e^(−r) − 1 + r with r = ln q − ln p at tokens sampled from q: unbiased for KL(q‖p).

    **p, the reference, comes first, as everywhere in kldiv, and the divergence is KL(q‖p), not
    KL(p‖q)**: the tokens are samples of q, and ``kldiv.reverse_kl(p, q)`` of the rows of logits is
    the exact value that this estimates.

    Never negative, exactly 0 where the two log-probabilities are equal, and relatively accurate
    where they are close, in which e^(−r) − 1 + r cancels. A token that p gives probability 0 has
    the value +inf, and so has one of q's probability 0 (k1 −inf), which was not sampled from q.
    One that both give probability 0 is NaN: its ratio is 0/0, and no q of 0 multiplies it, as in
    the sum that `kldiv.kl` is.

    Gradients: 1 − e^(−r) with respect to ln q, and the negative with respect to ln p. The
    expectation of the gradient with respect to the parameters of q is that of KL(p‖q), the other
    direction: **as a loss, take k2, or `straight_through`**.

    Parameters
    ----------
    p, q : array_like
        Log-probabilities of the sampled tokens under the reference and under the policy that
        sampled them: floating arrays of one shape, which is the batch shape (no class axis). Their
        dtypes may differ. `kldiv.gather_log_probs` has them from logits.
    straight_through : bool
        The value of this estimator with the gradient of k2, r, whatever the clamps: an unbiased
        value and an unbiased gradient. verl calls it ``"k3+"``.
    clamp_log_ratio : float, optional
        Cut r to ±this before anything else. The gradient is 0 beyond it. verl has 20, for k3.
    clamp : float, optional
        Cut the values to ±this. The gradient is 0 beyond it. OpenRLHF has 10, for every estimator,
        and verl 10, for k3. Either clamp makes the value biased.
    where : array_like of bool, or of integers 0 and 1, optional
        Over the batch shape (broadcast), as a mask of responses. Tokens marked False give 0 and a
        zero gradient, whatever they hold.
    weights : array_like, optional
        Finite non-negative weights w over the batch shape (broadcast), as importance ratios, which
        have no gradient. A token of weight 0 counts like one that `where` leaves out.
    reduction : {"none", "sum", "mean", "batchmean"}
        w·k for every token; Σ w·k; Σ w·k / Σ w over the tokens kept (0 if there are none);
        Σ w·k / length of the first batch axis.
    denominator : float, optional
        Replaces the divisor of ``"mean"``, as gradient accumulation needs it.

    Returns
    -------
    ndarray or scalar
        Batch-shaped for ``"none"``, else a scalar, in nats; float64 if p or q is, else float32,
        computed in float64. A token with NaN or +inf gives NaN for that token only. A value beyond
        the dtype is +inf, without a warning.

    Raises
    ------
    TypeError
        For arrays that are not floating (lists may hold integers), masks that are neither
        booleans nor integers, or options of the wrong type.
    ValueError
        For shapes that differ, an unknown reduction, a clamp that is not positive and finite,
        negative weights, a mask that holds other integers than 0 and 1, options that do not apply.

    Examples
    --------
    >>> import numpy as np
    >>> import kldiv
    >>> kldiv.estimators.k3([-1.0, -2.0], [-1.5, -1.0], reduction="mean").round(6)
    np.float64(0.2583)
    >>> reference, policy = np.array([-1.0, -2.0]), np.array([-1.5, -1.0])
    >>> value, gradient = kldiv.value_and_grad(
    ...     kldiv.estimators.k3, reference, policy, wrt="q", straight_through=True
    ... )
    >>> value.round(6), gradient
    (array([0.148721, 0.367879]), array([-0.5,  1. ]))

    References
    ----------
    .. [1] J. Schulman, "Approximating KL Divergence" (2020).
       http://joschu.net/blog/kl-approx.html
    """
    return estimator(
        "k3",
        p,
        q,
        straight_through,
        clamp_log_ratio,
        clamp,
        where,
        weights,
        reduction,
        denominator,
    )
