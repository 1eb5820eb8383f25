"""Two candidates on the same positions."""

import json
import math

import numpy as np
import polars as pl
import pytest
from scipy import stats
from tables_of_positions import cluster_names, numbers, table
from test_statistics_means import plain_mean

from kldiv.evaluation.statistics.paired import paired, pairs


def shifted(frame, candidate, shift):
    """The same positions, KL and its relatives higher."""
    noise = np.random.default_rng(len(candidate)).normal(0, 0.002, len(frame))
    return frame.with_columns(
        candidate=pl.lit(candidate), kl=pl.col("kl") + shift + pl.Series(noise)
    )


@pytest.mark.parametrize("spoiled", [True, False])
def test_the_mean_difference_has_its_own_error(spoiled):
    a, b = (table(30, candidate=name, spoiled=spoiled) for name in ("int8", "int4"))
    pair = paired(a, b)
    assert (pair.a, pair.b) == ("int8", "int4")
    for one in (pair.kl, *pair.others):
        if one.name in ("same_top", "delta_p"):
            continue
        of_a, of_b = numbers(a, one.name), numbers(b, one.name)
        difference = [
            x - y if math.isfinite(x) and math.isfinite(y) else math.nan
            for x, y in zip(of_a, of_b, strict=True)
        ]
        mean, error, groups = plain_mean(difference, cluster_names(a))
        assert one.difference.mean == pytest.approx(mean, rel=1e-9)
        assert one.difference.standard_error == pytest.approx(error, rel=1e-9)
        assert one.p_value == pytest.approx(2 * stats.t.sf(abs(mean / error), groups - 1), rel=1e-6)
        assert one.rows_infinite_a == sum(map(math.isinf, of_a))
    names = {one.name for one in pair.others}
    assert names == {
        *("reverse_kl", "jensen_shannon", "total_variation"),
        *("same_top", "nll_q", "delta_p"),
    }


def test_which_is_better_and_how_sure():
    frame = table(31)
    better = paired(frame, shifted(frame, "worse", 0.001))
    assert better.better == "candidate"
    assert better.verdict.startswith("candidate is better than worse: mean KL lower by 0.00")
    low, high = better.verdict.partition("[")[2].partition("]")[0].split(", ")
    assert 0 < float(low) < -better.kl.difference.mean < float(high)
    assert paired(shifted(frame, "worse", 0.001), frame).better == "candidate"
    # Far below the error of either mean.
    assert -better.kl.difference.mean < 0.2 * better.kl.difference.clusters
    alike = paired(frame, shifted(frame, "alike", 0.0))
    assert alike.better is None
    assert "candidate and alike are not told apart" in str(alike)
    itself = paired(frame, frame)
    assert (itself.kl.difference.mean, itself.kl.p_value, itself.better) == (0, 1, None)


def test_infinite_rows_and_single_clusters_settle_nothing():
    frame = table(32, spoiled=False)
    worse = shifted(frame, "worse", 0.001)
    infinite = frame.with_columns(
        kl=pl.when(pl.col("position") == 0).then(math.inf).otherwise(pl.col("kl"))
    )
    pair = paired(infinite, worse)
    assert pair.kl.difference.ci95_high < 0
    assert (pair.better, pair.kl.rows_infinite_a, pair.kl.rows_infinite_b) == (None, 12, 0)
    assert "infinite in 12 and 0 rows" in pair.verdict
    one = paired(*(each.filter(pl.col("sequence") == 1) for each in (frame, worse)))
    assert one.better is None
    assert "no error is known" in one.verdict
    assert paired(frame[:0], worse[:0], names=("a", "b")).better is None


def test_other_positions_and_other_texts_are_refused():
    a, b = table(33, candidate="a"), table(33, candidate="b")
    assert paired(a, b.sample(fraction=1, shuffle=True, seed=1)) == paired(a, b)
    with pytest.raises(ValueError, match="a and b are over other positions: row 3 is position 51 "):
        paired(a, b.filter(pl.int_range(pl.len()) != 3))
    with pytest.raises(ValueError, match="and no more of the other"):
        paired(a, b[:-1])
    other = b.with_columns(token=pl.col("token") + (pl.int_range(pl.len()) == 40))
    with pytest.raises(ValueError, match="a and b are of different texts: tokens"):
        paired(a, other)
    with pytest.raises(ValueError, match="a has kl, and b has none"):
        paired(a, b.drop("kl"))


def test_every_pair_of_a_table():
    names = ["q8", "q6", "q4"]
    whole = pl.concat([table(34, candidate=name) for name in names])
    found = pairs(whole)
    assert [(pair.a, pair.b) for pair in found] == [("q8", "q6"), ("q8", "q4"), ("q6", "q4")]
    content = json.loads(json.dumps(found[0].as_dict(), allow_nan=False))
    assert content["kl"]["difference"]["mean"] == found[0].kl.difference.mean
    assert content["verdict"] == found[0].verdict
