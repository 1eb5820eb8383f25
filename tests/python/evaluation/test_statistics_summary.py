"""Everything at once: names in JSON, and the same bits however the table came to be."""

import doctest
import importlib
import itertools
import json
import math
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from tables_of_positions import numbers, table

import kldiv.evaluation.statistics
from kldiv.evaluation.statistics.means import micro_mean
from kldiv.evaluation.statistics.summary import summarise

OPTIONS = {"bootstrap": 100, "sampled_from": "p"}


def bits(frame, **options):
    """Every number of a summary; `repr` tells any two floats apart."""
    return json.dumps(summarise(frame, **(OPTIONS | options)).as_dict(), allow_nan=False)


def test_names_of_the_field():
    frame = table(40)
    found = summarise(frame, classes=50, **OPTIONS)
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert {"mean", "median", "p95", "p99", "p99_9", "max"} <= set(content["kl"])
    assert content["kl"]["max"] == "Infinity"
    assert content["kl"]["mean"] == micro_mean(frame).mean
    assert content["js"]["mean"] == micro_mean(frame, "jensen_shannon").mean
    assert content["top1_agreement"] == micro_mean(frame, "same_top").mean
    assert content["direction"] == "KL(reference || candidate)"
    assert (content["num_positions"], content["kld_vocab_size"]) == (len(frame), 50)
    assert (content["num_nan"], content["num_infinite"]) == (5, 3)
    assert sum(one["rows"] for one in content["context_depth_buckets"]) == len(frame)
    assert [one["name"] for one in content["per_context"]] == [f"{n}.npy" for n in range(12)]
    # One interval of the mean, of the formula, and the bootstrap beside it under its own name.
    stated, bootstrap = content["uncertainty"], content["bootstrap"]
    low, high = stated["ci95_low"], stated["ci95_high"]
    assert (low, high) == (found.kl.ci95_low, found.kl.ci95_high)
    assert (stated["method"], stated["samples"]) == ("cluster-robust (CR1, t)", None)
    assert bootstrap["method"].startswith("bootstrap over clusters")
    assert (bootstrap["clusters"], bootstrap["samples"]) == (found.counts.clusters, 100)
    assert bootstrap["ci95_low"] != low
    lines = dict(next(one for one in found.sections() if one.title == "KL").lines)
    assert lines["95 % interval"] == f"[{low:.6g}, {high:.6g}]"
    assert "bootstrap" not in summarise(frame, bootstrap=0).as_dict()


def test_few_clusters_are_said():
    few, enough = (
        summarise(pl.DataFrame({"sequence": range(n), "position": 0, "kl": 0.1}), bootstrap=0)
        for n in (9, 10)
    )
    assert few.as_dict()["uncertainty"]["few_clusters"]
    assert "of fewer than 10 any interval is rough" in str(few)
    assert not enough.as_dict()["uncertainty"]["few_clusters"]
    assert "few clusters" not in str(enough)


def test_of_the_same_table_in_any_form():
    frame = table(41, sequences=30)
    expected = bits(frame)
    cuts = [0, 1, 7, 500, 501, 1100, len(frame)]
    parts = [frame[low:high] for low, high in itertools.pairwise(cuts)]
    assert bits(pl.concat(parts, rechunk=False)) == expected
    assert bits(pl.concat(parts[::-1], rechunk=False)) == expected
    assert bits(frame.sample(fraction=1, shuffle=True, seed=9)) == expected
    both = pl.concat([table(41, sequences=30, candidate="other"), frame])
    assert bits(both, candidate="candidate") == expected
    # Clusters are told apart by their names, and no more.
    renamed = frame.with_columns(cluster=pl.col("cluster").str.reverse())
    assert summarise(renamed, **OPTIONS).kl == summarise(frame, **OPTIONS).kl
    assert bits(frame, seed=1) != expected


def test_of_any_number_of_threads():
    script = (
        "import sys; from test_statistics_summary import bits; "
        "from tables_of_positions import table; import polars; "
        "print(polars.thread_pool_size()); print(bits(table(42, sequences=40)))"
    )
    found = []
    for threads in ("1", "3"):
        environment = os.environ | {"POLARS_MAX_THREADS": threads, "OMP_NUM_THREADS": threads}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        run = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
        count, content = run.stdout.splitlines()
        assert count == threads
        found.append(content)
    assert found[0] == found[1] == bits(table(42, sequences=40))


def test_a_model_against_itself():
    frame = table(43, spoiled=False).with_columns(
        *(pl.lit(0.0).alias(name) for name in ("kl", "reverse_kl", "jensen_shannon")),
        total_variation=pl.lit(0.0),
        nll_q=pl.col("nll_p"),
        top1_q=pl.col("top1_p"),
    )
    content = summarise(frame).as_dict()
    kl = content["kl"]
    assert [kl[name] for name in ("mean", "standard_error", "median", "max", "min")] == [0] * 5
    assert content["top1_agreement"] == content["perplexity"]["ratio"]["mean"] == 1
    assert content["acceptance"]["rate"]["mean"] == 1


@pytest.mark.parametrize("lengths", [[], [1], [3], [1, 1]])
def test_of_few_rows(lengths):
    frame = table(44, lengths=lengths)
    content = summarise(frame, **OPTIONS).as_dict()
    json.dumps(content, allow_nan=False)
    assert content["num_positions"] == sum(lengths)
    assert (content["kl"]["mean"] is None) == (not lengths)
    assert str(summarise(frame))


def test_of_rows_with_nothing_finite():
    for value in (math.nan, math.inf):
        frame = table(45).with_columns(kl=pl.lit(value))
        found = summarise(frame, **OPTIONS)
        json.dumps(found.as_dict(), allow_nan=False)
        assert math.isnan(found.kl.mean)
        assert found.kl.rows_infinite == (len(frame) if value == math.inf else 0)
        assert str(found)


def test_of_few_columns():
    frame = table(46)
    found = summarise(frame.select("sequence", "position", "kl"))
    assert (found.top1, found.perplexity, found.floor, found.acceptance) == (None,) * 4
    assert found.counts.rows_labelled is None
    assert [section.title for section in found.sections()] == [
        *("positions", "KL", "share of the total KL", "KL by depth")
    ]
    bounded = frame.select(
        "sequence", "position", "top1_p", "top1_q", "confidence_p", kl_lower="kl"
    )
    found = summarise(bounded)
    assert found.bounded
    assert found.kl.mean == micro_mean(frame).mean
    assert found.as_dict()["kl_is_lower_bound"]
    assert found.sections()[1].title == "KL, lower bound"
    with pytest.raises(ValueError, match="neither column kl nor kl_lower"):
        summarise(frame.drop("kl"))


def test_options_out_of_range():
    with pytest.raises(ValueError, match="bootstrap is 0, or at least 2 samples, got 1"):
        summarise(table(47), bootstrap=1)
    with pytest.raises(ValueError, match="exact is a number of positions, got -1"):
        summarise(table(47), exact=-1)


def test_beyond_exact():
    frame = table(48)
    found = summarise(frame, exact=100).as_dict()["kl"]
    assert found["percentiles_method"].startswith("t-digest")
    assert 0 <= found["percentiles_rank_error"] < 0.01
    finite = sorted(value for value in numbers(frame, "kl") if math.isfinite(value))
    assert found["min"] == finite[0]
    assert "percentiles by" in str(summarise(frame, exact=100))


@pytest.mark.parametrize(
    "name", [one.name for one in pkgutil.iter_modules(kldiv.evaluation.statistics.__path__)]
)
def test_examples(name):
    module = importlib.import_module(f"kldiv.evaluation.statistics.{name}")
    assert doctest.testmod(module).failed == 0
