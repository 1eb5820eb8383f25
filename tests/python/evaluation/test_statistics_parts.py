"""Splits of the positions, floor, acceptance, estimators and bounds, against plain Python."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from tables_of_positions import cluster_names, numbers, table
from test_statistics_means import plain_mean

from kldiv.evaluation.statistics.acceptance import acceptance
from kldiv.evaluation.statistics.bounds import bounds
from kldiv.evaluation.statistics.by_confidence import by_confidence
from kldiv.evaluation.statistics.by_depth import by_depth
from kldiv.evaluation.statistics.by_stratum import by_stratum
from kldiv.evaluation.statistics.estimators import estimators
from kldiv.evaluation.statistics.floor import floor
from kldiv.evaluation.statistics.lost_mass import lost_mass
from kldiv.evaluation.statistics.perplexity import perplexity
from kldiv.evaluation.statistics.top1 import top1


def same(estimate, values, clusters):
    mean, error, _ = plain_mean(values, clusters)
    got = estimate.mean, estimate.standard_error
    assert got == pytest.approx((mean, error), rel=1e-9, abs=1e-15, nan_ok=True)


def where(values, kept):
    return [value if keep else math.nan for value, keep in zip(values, kept, strict=True)]


def finite_sum(values):
    return math.fsum(value for value in values if math.isfinite(value))


def test_top1_split():
    frame = table(20)
    clusters, kl = cluster_names(frame), numbers(frame, "kl")
    tops = list(zip(frame["top1_p"], frame["top1_q"], strict=True))
    found = top1(frame)
    same(found.agreement, [math.nan if q < 0 else float(p == q) for p, q in tops], clusters)
    survived = where(kl, [p == q for p, q in tops])
    changed = where(kl, [p != q >= 0 for p, q in tops])
    same(found.kl_survived, survived, clusters)
    same(found.kl_changed, changed, clusters)
    share = finite_sum(changed) / (finite_sum(changed) + finite_sum(survived))
    assert found.changed_share_of_kl == pytest.approx(share)
    assert math.isnan(top1(frame[:0]).agreement.mean)


def check_groups(frame, found, inside):
    clusters, kl = cluster_names(frame), numbers(frame, "kl")
    tops = [
        float(p == q) if q >= 0 else math.nan
        for p, q in zip(frame["top1_p"], frame["top1_q"], strict=True)
    ]
    for group, kept in zip(found, inside, strict=True):
        assert group.rows == sum(kept)
        chosen = where(kl, kept)
        assert group.rows_nan == sum(
            keep and math.isnan(x) for x, keep in zip(kl, kept, strict=True)
        )
        same(group.kl, chosen, clusters)
        same(group.top1_agreement, where(tops, kept), clusters)
        assert group.share_of_kl == pytest.approx(finite_sum(chosen) / finite_sum(kl))


def test_groups():
    frame = table(21, sequences=20)
    confidence = numbers(frame, "confidence_p")
    assert {0.25, 0.5, 1.0} & set(confidence)
    edges = [0, 0.25, 0.5, 0.75, 0.95, 1]
    found = by_confidence(frame)
    assert [group.label for group in found] == [
        "0-0.25",
        "0.25-0.5",
        "0.5-0.75",
        "0.75-0.95",
        "0.95-1",
    ]
    inside = [[low <= x < high for x in confidence] for low, high in itertools.pairwise(edges)]
    inside[-1] = [0.95 <= x <= 1 for x in confidence]
    check_groups(frame, found, inside)

    depth = frame["position"].to_list()
    found = by_depth(frame)
    assert [group.label for group in found] == ["0-255", "256-511", "512-1023", "1024-1535"]
    edges = [0, 256, 512, 1024, 1536]
    inside = [[low <= x < high for x in depth] for low, high in itertools.pairwise(edges)]
    check_groups(frame, found, inside)

    found = by_stratum(frame)
    assert [group.label for group in found] == ["prose", "(none)", "code"]
    strata = [value or "(none)" for value in frame["stratum"].to_list()]
    check_groups(frame, found, [[x == group.label for x in strata] for group in found])

    unsure = frame.with_columns(confidence_p=pl.lit(math.nan))
    assert sum(group.rows for group in by_confidence(unsure)) == 0
    with pytest.raises(ValueError, match="at least two ascending numbers"):
        by_confidence(frame, edges=(0.5, 0.5))
    with pytest.raises(ValueError, match="no column stratum"):
        by_stratum(frame.drop("stratum"))


def test_floor():
    frame = table(22)
    kl, lowest, clusters = numbers(frame, "kl"), numbers(frame, "kl_floor"), cluster_names(frame)
    kept = [math.isfinite(a) and math.isfinite(b) for a, b in zip(kl, lowest, strict=True)]
    found = floor(frame)
    same(found.kl, where(kl, kept), clusters)
    same(found.floor, where(lowest, kept), clusters)
    same(found.difference, where([a - b for a, b in zip(kl, lowest, strict=True)], kept), clusters)
    below = [float(a <= b) for a, b in zip(kl, lowest, strict=True)]
    same(found.share_at_or_below, where(below, kept), clusters)
    assert found.rows_without_floor == len(kl) - sum(kept) >= 8


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(0.5, "above the floor"), (1.0, "at the floor"), (2.0, "below the floor")],
)
def test_verdicts_on_the_floor(factor, verdict):
    frame = table(23).with_columns(kl_floor=pl.col("kl") * factor)
    assert floor(frame).verdict == verdict
    assert floor(frame.filter(pl.col("sequence") == 1)).verdict == "unknown"


def test_acceptance():
    frame = table(24, lengths=[9, 2, 14]).with_columns(
        position=pl.when(pl.col("position") > 100)
        .then(pl.col("position") // 17 + 3)
        .otherwise(pl.col("position") // 17)
    )
    # A gap in the first sequence: positions 0 … 5, then 9 ….
    rates = {
        (row["sequence"], row["position"]): 1 - row["total_variation"]
        for row in frame.iter_rows(named=True)
    }
    clusters = cluster_names(frame)
    found = acceptance(frame, drafts=(1, 3, 20))
    same(found.rate, list(rates.values()), clusters)
    for one in found.lengths:
        lengths = []
        for sequence, position in rates:
            ahead = [rates.get((sequence, position + k)) for k in range(one.draft)]
            products = (
                [math.prod(ahead[: k + 1]) for k in range(one.draft)]
                if None not in ahead
                else [math.nan]
            )
            lengths.append(math.fsum(products))
        same(one.along, lengths, clusters)
        alpha = found.rate.mean
        expected = alpha * (1 - alpha**one.draft) / (1 - alpha)
        assert one.independent.mean == pytest.approx(expected)
    assert found.lengths[2].along.rows == 0
    # The derivative, numerically.
    rate, step = found.rate, 1e-6
    slope = sum((rate.mean + step) ** k - (rate.mean - step) ** k for k in (1, 2, 3)) / (2 * step)
    assert found.lengths[1].independent.standard_error == pytest.approx(slope * rate.standard_error)
    with pytest.raises(ValueError, match="at least one token, got 0"):
        acceptance(frame, drafts=(2, 0))
    perfect = acceptance(frame.with_columns(total_variation=pl.lit(0.0)), drafts=(4,))
    assert perfect.lengths[0].independent.mean == 4


def test_estimators_of_samples_are_unbiased_and_those_of_others_are_seen():
    rng = np.random.default_rng(4)
    rows, classes = 4000, 6
    p = rng.dirichlet(np.ones(classes), rows)
    q = rng.dirichlet(np.ones(classes) * 3, rows) * 0.3 + p * 0.7
    forward, backward = (a * np.log(a / b) for a, b in ((p, q), (q, p)))
    place = {"sequence": np.arange(rows) // 10, "position": np.arange(rows) % 10}

    def sampled(rows_of):
        token = (rows_of.cumsum(1) < rng.random((rows, 1))).sum(1)
        each = np.arange(rows)
        columns = {"kl": forward.sum(1), "reverse_kl": backward.sum(1)}
        columns |= {"nll_p": -np.log(p[each, token]), "nll_q": -np.log(q[each, token])}
        return pl.DataFrame(place | columns)

    for name, rows_of in (("p", p), ("q", q)):
        frame = sampled(rows_of)
        found = estimators(frame, sampled_from=name)
        column = "kl" if name == "p" else "reverse_kl"
        assert found.exact.mean == pytest.approx(frame[column].mean())
        for error in (found.k1_error, found.k3_error):
            assert abs(error.mean) < 4 * error.standard_error
        ratio = np.exp((frame["nll_p"] - frame["nll_q"]).to_numpy() * (1 if name == "p" else -1))
        assert found.k1.mean == pytest.approx(-np.log(ratio).mean())
        assert found.k3.mean == pytest.approx((ratio - 1 - np.log(ratio)).mean())
        other = estimators(frame, sampled_from="q" if name == "p" else "p")
        assert other.k1_p_value < 1e-6 < found.k1_p_value
    with pytest.raises(ValueError, match="sampled_from is 'p' or 'q'"):
        estimators(frame, sampled_from="kl")


def test_perplexities_and_their_paired_ratio():
    frame = table(25)
    found, clusters = perplexity(frame), cluster_names(frame)
    nll_p, nll_q = numbers(frame, "nll_p"), numbers(frame, "nll_q")
    difference = [b - a for a, b in zip(nll_p, nll_q, strict=True)]
    same(found.nll_difference, difference, clusters)
    mean, error, _ = plain_mean(difference, clusters)
    assert found.ratio.mean == pytest.approx(math.exp(mean))
    assert found.ratio.standard_error == pytest.approx(math.exp(mean) * error)
    assert found.ratio.ci95_low == pytest.approx(math.exp(found.nll_difference.ci95_low))
    mean, error, _ = plain_mean(nll_q, clusters)
    assert found.perplexity_q.mean == pytest.approx(math.exp(mean))
    assert found.perplexity_q.rows_infinite == 1
    assert found.nll_difference.standard_error < found.nll_q.standard_error / 3
    beyond = perplexity(frame.with_columns(nll_q=pl.lit(800.0)))
    assert beyond.perplexity_q.mean == math.inf
    assert math.isnan(perplexity(frame[:0]).ratio.mean)


def test_bounds_and_lost_mass():
    frame = table(26).with_columns(
        kl_lower=pl.col("kl") / 2,
        total_variation_lower=pl.col("total_variation") / 2,
        total_variation_upper=pl.col("total_variation"),
        lost_p=pl.col("confidence_p") / 10,
        lost_q=pl.lit(0.0),
    )
    clusters = cluster_names(frame)
    found = bounds(frame)
    same(found.kl_lower, numbers(frame, "kl_lower"), clusters)
    upper = [1 - value for value in numbers(frame, "total_variation")]
    same(found.acceptance_lower, upper, clusters)
    assert (
        found.acceptance_lower.ci95_low < found.acceptance_lower.mean < found.acceptance_upper.mean
    )
    assert found.acceptance_lower.ci95_high == pytest.approx(
        1 - found.total_variation_upper.ci95_low
    )
    assert (found.coverage_p, found.reverse_kl_lower) == (None, None)
    lost = lost_mass(frame)
    same(lost.mean_p, numbers(frame, "lost_p"), clusters)
    assert (lost.largest_p, lost.largest_q) == (max(numbers(frame, "lost_p")), 0)
