"""Means and their errors, against the formulas written out, and scipy."""

import math
from collections import defaultdict
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from scipy import stats
from tables_of_positions import cluster_names, numbers, table

from kldiv.evaluation.statistics import student_t
from kldiv.evaluation.statistics.bootstrap import bootstrap_of
from kldiv.evaluation.statistics.counts import by_sequence, counts
from kldiv.evaluation.statistics.estimate import mean_of
from kldiv.evaluation.statistics.means import macro_mean, micro_mean
from kldiv.evaluation.statistics.rows import rows_of

CLOSE = 1e-12


def plain_mean(values, clusters):
    """Mean, CR1 error and number of clusters of the finite values, in exact arithmetic."""
    kept = [(Fraction(x), c) for x, c in zip(values, clusters, strict=True) if math.isfinite(x)]
    if not kept:
        return math.nan, math.nan, 0
    mean = sum(x for x, _ in kept) / len(kept)
    residuals = defaultdict(Fraction)
    for x, cluster in kept:
        residuals[cluster] += x - mean
    groups = len(residuals)
    if groups < 2:
        return float(mean), math.nan, groups
    squares = sum(one**2 for one in residuals.values())
    variance = Fraction(groups, groups - 1) * squares / len(kept) ** 2
    return float(mean), math.sqrt(variance), groups


def check(estimate, values, clusters):
    mean, error, groups = plain_mean(values, clusters)
    assert estimate.mean == pytest.approx(mean, rel=CLOSE, nan_ok=True)
    assert estimate.standard_error == pytest.approx(error, rel=CLOSE, nan_ok=True)
    width = stats.t.ppf(0.975, groups - 1) * error if groups > 1 else math.nan
    assert estimate.ci95_low == pytest.approx(mean - width, rel=1e-9, nan_ok=True)
    assert estimate.ci95_high == pytest.approx(mean + width, rel=1e-9, nan_ok=True)
    assert estimate.rows == sum(map(math.isfinite, values))
    assert estimate.rows_infinite == sum(map(math.isinf, values))
    assert estimate.clusters == groups


@pytest.mark.parametrize("name", ["kl", "reverse_kl", "nll_p", "nll_q", "entropy_p"])
def test_micro_means(name):
    frame = table()
    values = numbers(frame, name)
    check(micro_mean(frame, name), values, cluster_names(frame))
    check(micro_mean(frame, name, errors="independent"), values, range(len(values)))
    unclustered = frame.drop("cluster")
    check(micro_mean(unclustered, name), values, frame["sequence"].to_list())


def test_derived_columns():
    frame = table(1)
    rows = list(frame.iter_rows(named=True))
    same, delta, difference = [], [], []
    for row in rows:
        known = row["top1_p"] >= 0 and row["top1_q"] >= 0
        same.append(float(row["top1_p"] == row["top1_q"]) if known else math.nan)
        there = row["nll_p"] is not None and row["nll_q"] is not None
        losses = (row["nll_p"], row["nll_q"]) if there else (math.nan, math.nan)
        delta.append(math.exp(-losses[1]) - math.exp(-losses[0]))
        difference.append(losses[1] - losses[0])
    clusters = cluster_names(frame)
    check(micro_mean(frame, "same_top"), same, clusters)
    check(micro_mean(frame, "nll_difference"), difference, clusters)
    assert micro_mean(frame, "delta_p").mean == pytest.approx(plain_mean(delta, clusters)[0])
    with pytest.raises(
        ValueError, match=r"no column 'perplexity'; there are candidate, .*same_top"
    ):
        micro_mean(frame, "perplexity")


def test_macro_means():
    frame = table(2, lengths=[1, 40, 3, 0, 25])
    frame = frame.with_columns(
        kl=pl.when(pl.col("sequence") == 2).then(math.inf).otherwise(pl.col("kl"))
    )
    of_sequences, clusters = defaultdict(list), {}
    for number, cluster, value in zip(
        frame["sequence"], cluster_names(frame), numbers(frame, "kl"), strict=True
    ):
        of_sequences[number].append(value)
        clusters[number] = cluster
    means = []
    for values in of_sequences.values():
        finite = [value for value in values if math.isfinite(value)]
        means.append(math.fsum(finite) / len(finite) if finite else math.inf)
    check(macro_mean(frame), means, list(clusters.values()))


@pytest.mark.parametrize("lengths", [[], [1], [30], [1, 1]])
def test_few_rows(lengths):
    frame = table(3, lengths=lengths, spoiled=False)
    check(micro_mean(frame), numbers(frame, "kl"), cluster_names(frame))
    counted = counts(frame)
    assert (counted.rows, counted.sequences) == (sum(lengths), len(lengths))


def test_a_constant_and_an_extreme():
    clusters = np.array([0, 0, 1])
    assert str(mean_of(np.ones(3), clusters)) == "1 ± 0"
    huge = mean_of(np.array([1.5e308, 1.5e308, 1e308]), clusters)
    assert math.isfinite(huge.standard_error)
    assert huge.mean == pytest.approx(4 / 3 * 1e308)
    assert str(mean_of(np.array([np.inf]), clusters[:1])) == "infinite in 1 row"
    assert float(mean_of(np.array([0.25]), None)) == 0.25


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 199, 1999, 2000, 10**6])
def test_student_t(freedom):
    assert student_t.half_width(0.95, freedom) == pytest.approx(
        stats.t.ppf(0.975, freedom), rel=1e-9
    )
    for t in (0.0, 0.3, 2.0, 7.0):
        expected = 2 * stats.t.sf(t, freedom)
        assert student_t.two_sided(-t, freedom) == pytest.approx(expected, rel=1e-6, abs=2e-8)


def test_counts_of_rows_and_sequences():
    frame = table(4)
    bad, infinite, labelled = [], [], 0
    for row in frame.iter_rows(named=True):
        bad.append(math.isnan(row["kl"]))
        numbers_there = [
            row[n] for n in ("kl", "reverse_kl", "nll_p", "nll_q") if row[n] is not None
        ]
        infinite.append(any(map(math.isinf, numbers_there)))
        labelled += row["nll_q"] is not None and not math.isnan(row["nll_q"])
    found = counts(frame)
    assert (found.rows_nan, found.rows_infinite) == (sum(bad), sum(infinite)) == (5, 3)
    assert found.rows_labelled == labelled < found.rows
    assert found.clusters == len(set(cluster_names(frame)))
    each = by_sequence(frame)
    assert each["rows"].sum() == found.rows
    assert each["rows_nan"].sum() == 5
    assert each["rows_infinite"].sum() == 3
    assert (each["rows_nan"] > 0).sum() == found.sequences_nan
    for row in each.iter_rows(named=True):
        of_it = frame.filter(pl.col("sequence") == row["sequence"])
        finite = [value for value in numbers(of_it, "kl") if math.isfinite(value)]
        assert row["kl"] == pytest.approx(math.fsum(finite) / len(finite))


def test_intervals_of_clustered_data_cover():
    """500 runs of 40 sequences of 25 positions, a quarter of whose variance they share."""
    runs, sequences, length, truth = 500, 40, 25, math.exp(0.5)
    rng = np.random.default_rng(12)
    clusters = np.repeat(np.arange(sequences), length)
    covered = defaultdict(int)
    for run in range(runs):
        shared = np.repeat(rng.normal(0, 0.5, sequences), length)
        values = np.exp(shared + rng.normal(0, math.sqrt(0.75), clusters.size))
        for method, estimate in (
            ("clusters", mean_of(values, clusters)),
            ("independent", mean_of(values, None)),
            ("bca", bootstrap_of(values, clusters, samples=600, seed=run)),
        ):
            covered[method] += estimate.ci95_low <= truth <= estimate.ci95_high
    shares = {method: count / runs for method, count in covered.items()}
    assert 0.92 <= shares["clusters"] <= 0.98
    assert 0.92 <= shares["bca"] <= 0.98
    assert shares["independent"] < 0.8


def test_rows_are_put_in_order_and_checked():
    frame = table(5)
    shuffled = frame.sample(fraction=1, shuffle=True, seed=3)
    assert rows_of(shuffled).equals(frame)
    with pytest.raises(ValueError, match="position 17 of sequence 0 is there twice"):
        rows_of(pl.concat([frame, frame[1:2]]))
    with pytest.raises(ValueError, match="no column position"):
        rows_of(frame.drop("position"))
    both = pl.concat([frame, table(5, candidate="other")])
    with pytest.raises(ValueError, match=r"which candidate.* 'candidate', 'other'"):
        rows_of(both)
    with pytest.raises(ValueError, match="no candidate 'int4'"):
        rows_of(both, "int4")
    assert rows_of(both, "candidate").equals(frame)
