r"""What rows of which only the most probable classes are known say for certain.

Of each row some classes are *listed* with their probability. Those listed on both sides are T. All
other probability is somewhere, and nothing is assumed of where. Every bound follows from two facts
about a partition of the classes into parts C with masses p(C) and q(C):

* With φ(p, q) = p ln(p/q) − p + q ≥ 0, KL(p‖q) ≥ Σ_C φ(p(C), q(C)): merging classes never adds to a
  divergence (the log-sum inequality; Cover and Thomas, Elements of Information Theory, §2.7), and
  both sides have the mass 1, so that −p + q add up to nothing.
* TV = Σ_i (p_i − q_i)⁺ = Σ_i (q_i − p_i)⁺ = max_S p(S) − q(S), so TV ≥ Σ_C (p(C) − q(C))⁺ and
  TV ≥ Σ_C (q(C) − p(C))⁺; and TV = 1 − Σ_i min(p_i, q_i) ≤ 1 − Σ_T min(p_i, q_i).

Where a mass is only known to lie between two numbers, each term counts with its least value: φ
grows with the distance of p from q on either side (∂φ/∂p = ln(p/q), ∂φ/∂q = 1 − p/q), so that it is
least where they are nearest, and 0 where both may be equal.

Three partitions are tried, and the largest bound is given:

1. each class of T, and the rest: Σ_T p ln(p/q) + τ_p ln(τ_p/τ_q), where τ is the rest's mass;
2. each class of T, all that only p lists, all that only q lists, and the rest;
3. each class of T, each that only p lists with more than q may give it, each that only q lists with
   more than p may give it, and the rest.

In the last two, q of a class that only p lists is at most the least probability that q's list has,
as that list has the most probable (`TopKBlock.at_most`), and all of them together have at most what
q's list leaves. So lists without a class in common, which the first says nothing of, are known to
be far apart.

Log-probabilities of servers are float32, and are taken as known to within `ROUNDING` of themselves,
in absolute terms where they are larger than −1, and to within what their row adds up to above 1.
What that moves a bound by is of the order of 10⁻⁶; without it a τ that rounding made 0 would be an
infinite KL.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

import kldiv
from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import Block, TopKBlock
from kldiv.evaluation.dumps.server_json.texts import TEXT_IDS
from kldiv.evaluation.top_k import fault, masses, sums

ROUNDING = 2.0**-22
"""Of log-probabilities in top-k rows, relative, and absolute above −1: two units of float32."""
DENSE_ROUNDING = 2.0**-44
"""The same of rows of which every class is given: float64 computes them."""
DENSE_LISTED = 128
"""Of a row of which every class is given, so many are listed besides those the other side lists."""

DenseSpace = Literal["logits", "log_probs", "probs"]


def bounds(
    p: Block, q: Block, labels: Array | None = None, *, space: DenseSpace = "logits"
) -> dict[str, Array]:
    """Bounds of divergences of rows of which one side or both are top-k rows.

    Parameters
    ----------
    p, q
        Rows of the reference and of the candidate. At most one is an array ``[rows, classes]``,
        whose rows become distributions by the softmax, or by their sum in the space probs.
    labels
        The true next token of every row, negative where there is none.
    space
        What the numbers of the array are.

    Returns
    -------
    dict
        The columns ``kl_lower``, ``reverse_kl_lower``, ``total_variation_lower``,
        ``total_variation_upper``, ``coverage_p``, ``coverage_q``, ``top1_p``, ``top1_q``, and with
        labels ``nll_p`` and ``nll_q``, NaN where the label is not among the classes known. Rows of
        the array with NaN or +∞ have NaN, and −1 for their most probable class. A row's numbers do
        not depend on the other rows.

    Raises
    ------
    ValueError
        For top-k rows that are none (NaN, a log-probability above 0, an id twice, more mass than
        1), for ids beyond the classes of the array, for ids on one side and texts on the other, and
        for unequal numbers of rows.

    Examples
    --------
    Two servers agree on class 7 and share no other; by its own least probability neither gives the
    other's second class more than 0.1:

    >>> import numpy as np
    >>> from kldiv.evaluation.bounds import bounds
    >>> from kldiv.evaluation.dumps.protocol import TopKBlock
    >>> def row(ids, probs):
    ...     ids, logs = np.array([ids]), np.log([probs])
    ...     return TopKBlock(ids, logs, ids[:, 0], logs[:, -1])
    >>> found = bounds(row([7, 1], [0.8, 0.1]), row([7, 2], [0.5, 0.1]))
    >>> {name: round(float(x[0]), 4) for name, x in found.items() if "total" in name}
    {'total_variation_lower': 0.3, 'total_variation_upper': 0.5}
    """
    _check(p, q, labels)
    first, second = _side(p, q, labels, space), _side(q, p, labels, space)
    shared, partitions = _partitions(first, second)
    swapped = [[box.swapped() for box in parts] for parts in partitions]
    found = {
        "kl_lower": _largest(_Box.kl, partitions),
        "reverse_kl_lower": _largest(_Box.kl, swapped),
        "total_variation_lower": _largest(_Box.gap, partitions + swapped),
        "total_variation_upper": np.clip(
            1.0 - masses(np.minimum(shared.p_low, shared.q_low)), 0, 1
        ),
        "coverage_p": np.minimum(masses(shared.p), 1.0),
        "coverage_q": np.minimum(masses(shared.q), 1.0),
    }
    undefined = first.undefined | second.undefined
    for column in found.values():
        column[undefined] = np.nan
    found |= {"top1_p": first.top1, "top1_q": second.top1}
    if labels is not None:
        found |= {"nll_p": first.nll, "nll_q": second.nll}
    return found


@dataclass(frozen=True)
class _Side:
    """One side's rows: listed classes, with log-probabilities known to within some rounding."""

    ids: Array
    """−1 where there is none."""
    values: Array
    rounding: Array
    """In nats, of every value."""
    at_most: Array
    """The largest log-probability of a class that is not listed."""
    top1: Array
    nll: Array
    undefined: Array

    @property
    def low(self) -> Array:
        return self.values - self.rounding

    @property
    def high(self) -> Array:
        high: Array = np.minimum(self.values + self.rounding, 0.0)
        return high

    def most_unlisted(self) -> Array:
        """The largest mass of all that is not listed."""
        most: Array = np.maximum(1.0 - masses(self.low), 0.0)
        return most


@dataclass(frozen=True)
class _Shared:
    """Classes listed on both sides, in the order of p's; −∞ in the places of the others."""

    p: Array
    q: Array
    p_low: Array
    q_low: Array


@dataclass(frozen=True)
class _Box:
    """Between which log-masses parts of the classes are on both sides, ``[rows, parts]``."""

    p_low: Array
    p_high: Array
    q_low: Array
    q_high: Array

    def swapped(self) -> _Box:
        return _Box(self.q_low, self.q_high, self.p_low, self.p_high)

    @classmethod
    def of(cls, masses_of_part: Array | list[Array]) -> _Box:
        """One part, between given masses."""
        with np.errstate(divide="ignore"):
            return cls(*(np.log(np.clip(x, 0.0, 1.0))[:, None] for x in masses_of_part))

    def masses(self) -> Array:
        """The masses of all parts together, in the order of the fields."""
        return np.stack([masses(x) for x in (self.p_low, self.p_high, self.q_low, self.q_high)])

    def kl(self) -> Array:
        """The least that the parts add to KL(p‖q)."""
        with np.errstate(invalid="ignore"):
            above, below = self.p_low - self.q_high, self.p_high - self.q_low
        p_above, p_below = above > 0, below < 0
        log_ratio = np.where(p_above, above, np.where(p_below, below, 0.0))
        p = np.exp(np.where(p_above, self.p_low, self.p_high))
        q = np.exp(np.where(p_above, self.q_high, self.q_low))
        return sums(np.where(p_above | p_below, _phi(p, q, log_ratio), 0.0))

    def gap(self) -> Array:
        """The least that the parts add to Σ (p − q)⁺."""
        return sums(np.maximum(np.exp(self.p_low) - np.exp(self.q_high), 0.0))


def _phi(p: Array, q: Array, log_ratio: Array) -> Array:
    """φ(p, q), without cancellation where p and q are close."""
    d = np.clip(log_ratio, -0.01, 0.01)
    # e^(−d) − 1 + d, to 10⁻¹³ of itself.
    close = (
        p * d * d * (1 / 2 - d * (1 / 6 - d * (1 / 24 - d * (1 / 120 - d * (1 / 720 - d / 5040)))))
    )
    with np.errstate(invalid="ignore"):
        far = np.where(p > 0.0, p * log_ratio - p + q, q)
    return np.where(np.abs(log_ratio) < 0.01, close, far)


def _largest(measure: Callable[[_Box], Array], partitions: list[list[_Box]]) -> Array:
    """The best of the bounds that partitions give, each the sum of its parts."""
    found = [functools.reduce(np.add, map(measure, parts)) for parts in partitions]
    best: Array = functools.reduce(np.maximum, found)
    return best


def _partitions(p: _Side, q: _Side) -> tuple[_Shared, list[list[_Box]]]:
    """What both list, and the three partitions of the module's docstring."""
    column = _columns(p.ids, q.ids)
    both, only_p = column >= 0, (column < 0) & (p.ids >= 0)
    only_q = (_columns(q.ids, p.ids) < 0) & (q.ids >= 0)

    def of_q(values: Array) -> Array:
        if not values.shape[1]:
            return np.full(column.shape, -np.inf)
        return _kept(np.take_along_axis(values, np.maximum(column, 0), axis=1), both)

    shared = _Shared(_kept(p.values, both), of_q(q.values), _kept(p.low, both), of_q(q.low))
    listed = _Box(shared.p_low, _kept(p.high, both), shared.q_low, of_q(q.high))
    p_most, q_most = p.most_unlisted(), q.most_unlisted()
    with np.errstate(divide="ignore"):
        p_cap = np.minimum(p.at_most, np.log(p_most))[:, None]
        q_cap = np.minimum(q.at_most, np.log(q_most))[:, None]

    def parts(of_p: Array, of_q: Array, *, merged: bool) -> list[_Box]:
        """T, some classes that only p lists, some that only q lists, and the rest."""
        singles = [
            _Box(_kept(p.low, of_p), _kept(p.high, of_p), _kept(-np.inf, of_p), _kept(q_cap, of_p)),
            _Box(_kept(-np.inf, of_q), _kept(p_cap, of_q), _kept(q.low, of_q), _kept(q.high, of_q)),
        ]
        of_listed, p_group, q_group = (box.masses() for box in (listed, *singles))
        # Together they have at most what the other side does not list.
        p_group[3], q_group[1] = np.minimum(p_group[3], q_most), np.minimum(q_group[1], p_most)
        least_p, most_p, least_q, most_q = of_listed + p_group + q_group
        rest = _Box.of([1.0 - most_p, 1.0 - least_p, 1.0 - most_q, 1.0 - least_q])
        if merged:
            return [listed, _Box.of(p_group), _Box.of(q_group), rest]
        return [listed, *singles, rest]

    nothing = np.zeros_like(only_p), np.zeros_like(only_q)
    apart = only_p & (p.low > q_cap), only_q & (q.low > p_cap)
    return shared, [
        parts(*nothing, merged=True),
        parts(only_p, only_q, merged=True),
        parts(*apart, merged=False),
    ]


def _kept(values: Array | float, where: Array) -> Array:
    kept: Array = np.where(where, values, -np.inf)
    return kept


def _columns(ids: Array, others: Array) -> Array:
    """Where in the same row of `others` each id is, −1 where it is not."""
    n, width = others.shape
    if not (ids.size and others.size):
        return np.full(ids.shape, -1)
    every = np.concatenate([ids, others], axis=1)
    _, codes = np.unique(every, return_inverse=True)
    codes = codes.reshape(every.shape)
    keys = codes + (int(codes.max()) + 1) * np.arange(n)[:, None]
    known = keys[:, ids.shape[1] :].ravel()
    order = np.argsort(known, kind="stable")
    wanted = keys[:, : ids.shape[1]]
    place = np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)
    found = order[place]
    return np.where((known[found] == wanted) & (ids >= 0), found % width, -1)


def _side(rows: Block, other: Block, labels: Array | None, space: DenseSpace) -> _Side:
    if isinstance(rows, TopKBlock):
        return _of_top_k(rows, labels)
    assert isinstance(other, TopKBlock)
    return _of_dense(rows, other.ids, labels, space)


def _of_top_k(block: TopKBlock, labels: Array | None) -> _Side:
    n = len(block)
    values = np.where(block.ids >= 0, block.log_probs, -np.inf)
    size = np.maximum(np.abs(np.where(np.isfinite(values), values, 0.0)), 1.0)
    # What a row adds up to above 1 says how far off its numbers are.
    excess = np.log(np.maximum(masses(values), 1.0))
    rounding = ROUNDING * size + excess[:, None]
    at_most = np.zeros(n) if block.at_most is None else block.at_most
    at_most = np.where(
        at_most > -np.inf,
        at_most + ROUNDING * np.maximum(np.abs(np.maximum(at_most, -1e9)), 1.0) + excess,
        at_most,
    )
    nll = np.full(n, np.nan)
    if labels is not None and block.ids.size:
        match = (block.ids == labels[:, None]) & (labels >= 0)[:, None]
        # Not −0.0, and not below 0 by rounding.
        value = np.maximum(-values[np.arange(n), match.argmax(axis=1)], 0.0)
        nll = np.where(match.any(axis=1), value, np.nan)
    return _Side(
        block.ids,
        values,
        rounding,
        np.minimum(at_most, 0.0),
        block.top1.astype(np.int64),
        nll,
        np.zeros(n, bool),
    )


def _of_dense(rows: Array, asked: Array, labels: Array | None, space: DenseSpace) -> _Side:
    n, classes = rows.shape
    numbers = np.ascontiguousarray(rows, np.float64)
    if space == "probs":
        with np.errstate(divide="ignore", invalid="ignore"):
            numbers = np.log(numbers)
    log_sums = np.asarray(kldiv.logsumexp(numbers, reduction="none"))
    undefined = ~np.isfinite(log_sums)
    listed = min(DENSE_LISTED, classes)
    top = np.argpartition(numbers, classes - listed, axis=1)[:, classes - listed :]
    top = np.where(_columns(top, asked) >= 0, -1, top)
    ids = np.where(undefined[:, None], -1, np.concatenate([asked, top], axis=1))

    def log_probs(wanted: Array) -> Array:
        with np.errstate(invalid="ignore"):
            found = np.take_along_axis(numbers, np.maximum(wanted, 0), axis=1) - log_sums[:, None]
        return np.where(wanted >= 0, found, -np.inf)

    values = np.minimum(log_probs(ids), 0.0)
    size = np.maximum(np.abs(np.where(np.isfinite(values), values, 0.0)), 1.0)
    nll = np.full(n, np.nan)
    if labels is not None:
        known = np.where((labels >= 0) & ~undefined, labels, -1)[:, None]
        nll = np.where(known[:, 0] >= 0, np.maximum(-log_probs(known)[:, 0], 0.0), np.nan)
    top1 = np.where(undefined, -1, numbers.argmax(axis=1))
    return _Side(ids, values, DENSE_ROUNDING * size, np.zeros(n), top1, nll, undefined)


def _check(p: Block, q: Block, labels: Array | None) -> None:
    if len(p) != len(q):
        raise ValueError(f"p has {len(p)} rows and q has {len(q)}")
    if labels is not None and labels.shape != (len(p),):
        raise ValueError(f"labels has shape {labels.shape}; expected ({len(p)},)")
    for name, block in (("p", p), ("q", q)):
        if isinstance(block, TopKBlock):
            present = block.ids >= 0
            if found := fault(block.ids, block.log_probs, present, sums=True):
                raise ValueError(f"row {found[0]} of {name}: {found[1]}")
        elif block.ndim != 2 or not block.shape[1]:
            raise ValueError(f"{name} has shape {block.shape}; expected [rows, classes]")
    top_k = [block for block in (p, q) if isinstance(block, TopKBlock)]
    dense = [block for block in (p, q) if not isinstance(block, TopKBlock)]
    if len(dense) == 2:
        raise ValueError("p and q both have every class; bounds are for top-k rows")
    ids = [block.ids[block.ids >= 0] for block in top_k]
    texts = [bool(len(x)) and bool((x >= TEXT_IDS).all()) for x in ids]
    if dense:
        classes = dense[0].shape[1]
        if (wrong := top_k[0].ids >= classes).any():
            row, column = np.argwhere(wrong)[0]
            token = int(top_k[0].ids[row, column])
            named = "a token by its text" if token >= TEXT_IDS else f"token {token}"
            raise ValueError(f"row {row} has {named}; the other side has {classes} classes by id")
        if labels is not None and (labels >= classes).any():
            row = int(np.flatnonzero(labels >= classes)[0])
            raise ValueError(f"label {labels[row]} of row {row} is not below {classes} classes")
    elif texts[0] != texts[1] and len(ids[0]) and len(ids[1]):
        by_text, by_id = ("p", "q") if texts[0] else ("q", "p")
        raise ValueError(
            f"{by_text} has tokens by their text and {by_id} by their ids; ask the server of "
            f"{by_text} for ids (vLLM: return_tokens_as_token_ids)"
        )
