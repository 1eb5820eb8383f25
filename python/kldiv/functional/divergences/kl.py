"""Kullback–Leibler divergence."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def kl(
    p: ArrayLike | TopK,
    q: ArrayLike,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    classes: int | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: Rule | None = None,
    temper_after: bool = False,
) -> Request:
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
        dtypes may differ. p may be a `TopK`, of which `rule` says what is taken for the rest.
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
    classes : int, optional
        The real classes of a vocabulary that is padded: later ones are left out before anything
        else, whatever they hold, and have a gradient of 0. The two may be padded to different
        widths.
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

    rule : str or (str, float), optional
        Where p is a `TopK`, which q is logits beside: what the classes that it does not keep are
        taken for. There is no default, since these are different losses. With K the classes kept,
        and τ what a side has outside of them:

        * ``"renormalize"``: both sides divided by what they have on K.
        * ``"tail"``: K and one class more, of τ, on both sides: a lower bound of the dense value
          of an f-divergence.
        * ``"truncate"``: the terms of K only, Σ_K p (ln p − ln q) with p and q as they are, which
          may be negative. For divergences that are such a sum.
        * ``"renormalize_p"``: p divided by what it has on K and 0 elsewhere, q as it is. For
          divergences that are finite where p = 0.
        * ``"uniform_tail"``: τ of p in equal parts on the other classes, q as it is.
        * ``"floor"`` or ``("floor", c)``: ln p = c on the other classes, −100 unless given, q as
          it is.
        * ``"sampled"``: of a `TopK` with weights w, Σ w (ln p − ln q), whose expectation is the
          dense value. For `kl` and `cross_entropy`.

        All but ``"renormalize"`` and ``"renormalize_p"`` need log-probabilities, or logits with
        their normaliser.
    temper_after : bool
        Of a `TopK` only, whose τ is not known at another temperature than 1. With True, p at
        temperature T is p^(1/T) on K, divided by its sum, and 0 elsewhere. ``"renormalize"`` and
        ``"renormalize_p"`` need no such leave: there it makes no difference.

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
        For shapes that differ, rows without classes or with fewer than `classes`, a rule that
        gives the divergence no meaning, an unknown
        space or reduction, a temperature out of range, negative weights, a mask that holds other
        integers than 0 and 1, options that do not apply.

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
        classes,
        where,
        weights,
        reduction,
        denominator,
        rule,
        temper_after,
    )
