"""Charts of an evaluation."""

import json

import numpy as np
import polars as pl
import pytest
from tables_of_positions import table

from kldiv.evaluation import Evaluation
from kldiv.evaluation.report.colours import ROLES


def evaluation(*names, **options):
    tables = [table(candidate=name, noise=1 + place, **options) for place, name in enumerate(names)]
    return Evaluation(pl.concat(tables), {"reference": {"file": "models/reference"}})


def small(**columns):
    count = len(columns["kl"])
    place = {"candidate": "q", "sequence": 0, "position": np.arange(count)}
    frame = pl.DataFrame(place | columns)
    return Evaluation(frame, {})


def test_charts_of_strata_tails_and_tokens():
    result = evaluation("int8", "int4")
    for chart in (result.plot_kl_by_stratum(), result.plot_tail_shares()):
        drawn = json.dumps(chart.to_dict())
        assert '"domain": ["int8", "int4"]' in drawn
    heat = result.plot_token_probability("int4").to_dict()
    rows = sum(row.get("rows", 0) for part in heat["datasets"].values() for row in part)
    losses = result["int4"].positions["nll_q"].drop_nulls()
    assert rows == losses.is_not_nan().sum()
    with pytest.raises(ValueError, match="labels"):
        small(kl=[1.0]).plot_token_probability()


def test_steps_of_the_histogram_are_shares():
    result = evaluation("q")
    kl = result.positions["kl"].to_numpy()
    drawn = result.plot_kl().to_dict()
    [rows] = drawn["datasets"].values()
    # The last edge repeats the last step, for it to have a width.
    shares = [row["share"] for row in rows][:-1]
    assert sum(shares) == pytest.approx((np.isfinite(kl) & (kl > 0)).mean())
    assert drawn["mark"]["interpolate"] == "step-after"
    assert rows[0]["from"] == kl[kl > 0].min()
    assert rows[-1]["from"] == kl[np.isfinite(kl)].max()


@pytest.mark.parametrize(("noise", "scale"), [(2, None), (200, "log")])
def test_candidates_far_apart_share_a_logarithmic_axis(noise, scale):
    frames = [table(candidate="a"), table(candidate="b", noise=noise)]
    result = Evaluation(pl.concat(frames), {})
    for chart in (result.plot_kl_by_position(), result.plot_kl_by_confidence()):
        assert chart.to_dict()["encoding"]["y"].get("scale", {}).get("type") == scale


def test_colours_are_told_apart_by_styles():
    light = [pair[0] for pair in ROLES.values()]
    assert len(set(light)) == len(light)
