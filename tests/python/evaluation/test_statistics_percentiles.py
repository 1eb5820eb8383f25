"""Percentiles, exact and by the sketch; shares of the tail."""

import math
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from scipy import stats
from tables_of_positions import numbers, table

from kldiv.evaluation.statistics.estimate import mean_of
from kldiv.evaluation.statistics.percentiles import PERCENTS, Sketch, percentiles
from kldiv.evaluation.statistics.rows import clusters_of
from kldiv.evaluation.statistics.tail_share import tail_share


def plain_percentile(values, percent):
    ordered = sorted(value for value in values if not math.isnan(value))
    place = Fraction(repr(float(percent))) * (len(ordered) - 1) / 100
    below = ordered[math.floor(place)]
    above = ordered[math.ceil(place)]
    return below if below == above else below + float(place % 1) * (above - below)


@pytest.mark.parametrize("name", ["kl", "entropy_p", "nll_q", "delta_p"])
def test_exact_percentiles(name):
    frame = table(11)
    found = percentiles(frame, name)
    if name == "delta_p":
        pairs = zip(numbers(frame, "nll_p"), numbers(frame, "nll_q"), strict=True)
        values = [math.exp(-q) - math.exp(-p) for p, q in pairs]
    else:
        values = numbers(frame, name)
    for one in found.percentiles:
        assert one.value == pytest.approx(plain_percentile(values, one.percent), rel=1e-12)
        assert one.rank_error == 0
    kept = [value for value in values if not math.isnan(value)]
    assert (found.minimum, found.maximum) == pytest.approx((min(kept), max(kept)))
    assert found.rows == len(kept)


def test_infinite_as_soon_as_the_upper_neighbour_is():
    frame = pl.DataFrame({"sequence": [0] * 3, "position": [0, 1, 2], "kl": [1.0, math.inf, 2.0]})
    found = percentiles(frame, percents=(0.0, 25.0, 50.0, 50.5, 100.0))
    assert [one.value for one in found.percentiles] == [1, 1.5, 2, math.inf, math.inf]
    assert (found.rows_infinite, math.isnan(found.percentiles[0].ci95_low)) == (1, True)
    empty = percentiles(frame[:0])
    assert math.isnan(empty[50.0])
    with pytest.raises(ValueError, match="percents are from 0 to 100, got 101"):
        percentiles(frame, percents=(101.0,))


def test_a_place_is_not_rounded_into_the_next_row():
    assert 99.9 / 100 * 1000 > 999
    kl = [1.0] * 1000 + [math.inf]
    frame = pl.DataFrame({"sequence": [0] * 1001, "position": range(1001), "kl": kl})
    assert percentiles(frame, percents=(99.9,))[99.9] == 1
    assert percentiles(frame, percents=(99.9,), exact=0)[99.9] == 1


def test_interval_of_a_percentile():
    frame = table(12)
    found = percentiles(frame, percents=(50.0,)).percentiles[0]
    values = np.array(numbers(frame, "kl"))
    kept = ~np.isnan(values)
    below = mean_of((values[kept] <= found.value).astype(float), clusters_of(frame)[kept])
    width = stats.t.ppf(0.975, below.clusters - 1) * below.standard_error
    ends = [plain_percentile(values[kept], 100 * (below.mean + sign * width)) for sign in (-1, 1)]
    assert (found.ci95_low, found.ci95_high) == pytest.approx(ends, rel=1e-9)
    assert found.ci95_low < found.value < found.ci95_high


def test_the_sketch_says_how_far_off_it_is():
    rng = np.random.default_rng(0)
    count = 60_000
    kl = np.exp(rng.normal(-4, 2, count))
    kl[:100], kl[100:150] = np.inf, np.nan
    frame = pl.DataFrame(
        {"sequence": np.arange(count) // 100, "position": np.arange(count) % 100, "kl": kl}
    )
    exact, found = percentiles(frame), percentiles(frame, exact=10_000)
    assert (found.minimum, found.maximum) == (exact.minimum, exact.maximum)
    assert found.rows_infinite == 100
    assert "t-digest" in found.method
    assert found == percentiles(frame, exact=10_000)
    assert found[99.9] == math.inf == exact[99.9]
    ordered = np.sort(kl[~np.isnan(kl)])
    for one, truth in zip(found.percentiles, exact.percentiles, strict=True):
        share = one.percent / 100
        ranks = [
            np.searchsorted(ordered, one.value, side) / ordered.size for side in ("left", "right")
        ]
        off = max(0, ranks[0] - share, share - ranks[1])
        assert one.rank_error == pytest.approx(off, abs=1.01 / ordered.size)
        assert one.rank_error < 1e-3
        assert one.value == pytest.approx(truth.value, rel=0.02)


def test_sketches_merge():
    values = np.random.default_rng(1).lognormal(size=20_000)
    values[5], values[6] = np.inf, -np.inf
    parts = [Sketch() for _ in range(3)]
    for part, chosen in zip(parts, np.array_split(values, 3), strict=True):
        part.update(chosen)
    whole = parts[0]
    whole.merge(parts[1])
    whole.merge(parts[2])
    whole.merge(Sketch())
    ordered = np.sort(values)
    assert (whole.percentile(0), whole.percentile(100)) == (-np.inf, np.inf)
    for percent in PERCENTS:
        rank = np.searchsorted(ordered, whole.percentile(percent)) / values.size
        assert abs(rank - percent / 100) < 1e-3
    assert math.isnan(Sketch().percentile(50))


def test_tail_shares():
    frame = table(13, sequences=30)
    values = sorted((x for x in numbers(frame, "kl") if math.isfinite(x)), reverse=True)
    for one in tail_share(frame):
        rows = math.ceil(Fraction(repr(one.percent)) * len(values) / 100)
        assert one.rows == rows >= 1
        assert one.share == pytest.approx(math.fsum(values[:rows]) / math.fsum(values), rel=1e-12)
        assert one.smallest == values[rows - 1]
    exactly = pl.DataFrame({"sequence": [0] * 1000, "position": range(1000), "kl": [1.0] * 1000})
    assert [one.rows for one in tail_share(exactly)] == [1, 1, 10, 50, 100]
    assert tail_share(exactly, worst=(100.0,))[0].share == 1
    nothing = tail_share(exactly.with_columns(kl=pl.lit(0.0)))
    assert all(math.isnan(one.share) for one in nothing)
    assert tail_share(exactly[:0])[0].rows == 0
    with pytest.raises(ValueError, match="above 0 and up to 100, got 0"):
        tail_share(exactly, worst=(0.0,))
