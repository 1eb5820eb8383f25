"""The bootstrap, against drawing clusters one by one and averaging their rows."""

import math
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest
from tables_of_positions import cluster_names, numbers, table

from kldiv.evaluation.statistics import bootstrap
from kldiv.evaluation.statistics.bootstrap import bootstrap_mean


def clusters_of_rows(frame, name="kl"):
    """The finite values of each cluster, and the stratum of each."""
    values, strata = {}, {}
    for value, cluster, stratum in zip(
        numbers(frame, name), cluster_names(frame), frame["stratum"], strict=True
    ):
        if math.isfinite(value):
            values.setdefault(cluster, []).append(value)
            strata[cluster] = stratum
    return list(values.values()), list(strata.values())


def members_of(strata, stratified):
    """The clusters of each stratum, or all."""
    if not stratified:
        return [list(range(len(strata)))]
    return [
        [number for number, one in enumerate(strata) if one == stratum]
        for stratum in dict.fromkeys(strata)
    ]


def plain_means(values, members, samples, seed):
    """The mean of each sample, of draws of the same generator."""
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = [[] for _ in range(samples)]
    for stratum in members:
        picks = generator.integers(len(stratum), size=(samples, len(stratum)))
        for sample, pick in zip(drawn, picks, strict=True):
            sample += [stratum[one] for one in pick]
    return np.array(
        [math.fsum(rows := [x for c in sample for x in values[c]]) / len(rows) for sample in drawn]
    )


@pytest.mark.parametrize("stratified", [False, True])
def test_percentile_interval(stratified):
    frame = table(6, sequences=24)
    values, strata = clusters_of_rows(frame)
    members = members_of(strata, stratified)
    found = bootstrap_mean(frame, samples=300, seed=5, interval="percentile", stratified=stratified)
    means = plain_means(values, members, 300, 5)
    assert found.standard_error == pytest.approx(means.std(ddof=1), rel=1e-9)
    ends = np.sort(means)
    low, high = (
        ends[int(at)] + at % 1 * (ends[int(at) + 1] - ends[int(at)])
        for at in (0.025 * 299, 0.975 * 299)
    )
    assert (found.ci95_low, found.ci95_high) == pytest.approx((low, high), rel=1e-9)
    rows = [x for cluster in values for x in cluster]
    assert found.mean == pytest.approx(math.fsum(rows) / len(rows))
    assert (found.clusters, found.samples, found.rows_infinite) == (len(values), 300, 3)


@pytest.mark.parametrize("stratified", [False, True])
def test_bca_interval(stratified):
    frame = table(7, sequences=30)
    values, strata = clusters_of_rows(frame)
    members = members_of(strata, stratified)
    assert len(members) == (3 if stratified else 1)
    found = bootstrap_mean(frame, samples=400, seed=1, stratified=stratified)
    means = np.sort(plain_means(values, members, 400, 1))
    rows = [x for cluster in values for x in cluster]
    mean = math.fsum(rows) / len(rows)
    normal = NormalDist()
    # A sample may be the table itself.
    bias = normal.inv_cdf(((means < mean).sum() + (means == mean).sum() / 2) / 400)
    influence = [math.fsum(x - mean for x in cluster) for cluster in values]
    for stratum in members:
        middle = math.fsum(influence[one] for one in stratum) / len(stratum)
        for one in stratum:
            influence[one] -= middle
    skew = math.fsum(x**3 for x in influence) / math.fsum(x**2 for x in influence) ** 1.5 / 6
    assert abs(bias) + abs(skew) > 0.01
    for share, end in ((0.025, found.ci95_low), (0.975, found.ci95_high)):
        z = bias + normal.inv_cdf(share)
        moved = normal.cdf(bias + z / (1 - skew * z))
        assert end == pytest.approx(np.quantile(means, moved), rel=1e-9)


def test_seeds_and_draws_at_a_time(monkeypatch):
    frame = table(8)
    first = bootstrap_mean(frame, seed=3)
    monkeypatch.setattr(bootstrap, "_DRAWN_AT_A_TIME", 37)
    assert bootstrap_mean(frame, seed=3) == first
    assert bootstrap_mean(frame, seed=4).standard_error != first.standard_error


def test_without_spread():
    frame = table(9, spoiled=False).with_columns(kl=pl.lit(0.0))
    for interval in ("bca", "percentile"):
        found = bootstrap_mean(frame, interval=interval, samples=50)
        assert (found.mean, found.ci95_low, found.ci95_high) == (0, 0, 0)
    one = bootstrap_mean(table(9, lengths=[30]), samples=50)
    assert math.isfinite(one.mean)
    assert math.isnan(one.standard_error)
    assert math.isnan(bootstrap_mean(table(9, lengths=[])).mean)


def test_options_out_of_range():
    frame = table(10)
    with pytest.raises(ValueError, match="samples is at least 2, got 1"):
        bootstrap_mean(frame, samples=1)
    with pytest.raises(ValueError, match="interval is 'bca' or 'percentile', got 'basic'"):
        bootstrap_mean(frame, interval="basic")
    with pytest.raises(ValueError, match="no column stratum"):
        bootstrap_mean(frame.drop("stratum"), stratified=True)
    mixed = frame.with_columns(cluster=pl.lit("one book"))
    with pytest.raises(ValueError, match="in several strata"):
        bootstrap_mean(mixed, stratified=True)
