"""From dumps to the table of positions: `evaluate`."""

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

import kldiv
from kldiv.evaluation.columns import COLUMNS
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.evaluate_dumps import evaluate
from kldiv.evaluation.evaluation import read_positions

SEQUENCES, POSITIONS, CLASSES = 3, 20, 500
FIELDS = (
    *("kl", "reverse_kl", "jensen_shannon", "total_variation", "entropy_p", "entropy_q"),
    *("top1_p", "top1_q", "confidence_p", "confidence_q", "nll_p", "nll_q"),
)


@pytest.fixture(scope="module")
def logits():
    rng = np.random.default_rng(5)
    p = rng.normal(0, 3, (SEQUENCES, POSITIONS, CLASSES)).astype(np.float32)
    return p, p + rng.normal(0, 0.1, p.shape).astype(np.float32), rng


@pytest.fixture(scope="module")
def labels(logits):
    labels = logits[2].integers(0, CLASSES, (SEQUENCES, POSITIONS))
    labels[:, -1] = -100
    return labels


def test_the_table_is_what_compare_finds(logits, labels):
    p, q, _ = logits
    result = evaluate(p, q, labels=labels)
    frame = result.positions
    assert frame.columns == [name for name in COLUMNS if name in frame.columns]
    assert frame.schema == {name: COLUMNS[name].dtype for name in frame.columns}
    flat = kldiv.compare(p, q, labels)
    for name in FIELDS:
        expected = getattr(flat, name).reshape(-1)
        assert np.array_equal(frame[name].fill_null(np.nan), expected, equal_nan=True), name
    assert frame["position"].to_list() == list(range(POSITIONS)) * SEQUENCES
    assert frame["sequence"].to_list() == np.repeat(range(SEQUENCES), POSITIONS).tolist()
    for name in ("token", "nll_p", "nll_q"):
        assert frame[name].null_count() == SEQUENCES
    again = result.comparison()
    assert np.array_equal(again.labels, labels.reshape(-1))
    assert again.summary().kl == flat.summary().kl


def test_a_model_against_itself_is_exactly_0(logits, labels):
    frame = evaluate(logits[0], logits[0].copy(), labels=labels).to_frame()
    for name in ("kl", "reverse_kl", "jensen_shannon", "total_variation", "nll_difference"):
        assert not frame[name].fill_null(0).to_numpy().any()
    assert frame["same_top"].all()


def test_the_same_bits_however_they_are_cut(tmp_path, logits, labels):
    p, q, _ = logits
    names = []
    for side, rows in zip("pq", (p, q), strict=True):
        folder = tmp_path / side
        folder.mkdir()
        for number, sequence in enumerate(rows):
            np.save(folder / f"{number}.npy", sequence)
        save_file({f"logits_{n}": s for n, s in enumerate(rows)}, tmp_path / f"{side}.safetensors")
        np.save(tmp_path / f"{side}.npy", rows.reshape(-1, CLASSES))
        names.append([str(folder), str(tmp_path / f"{side}.safetensors")])
    expected = evaluate(p, q, labels=labels).positions.drop("candidate", "name")
    ways = [
        (names[0][0], names[1][0], {}),
        (names[0][1], names[1][1], {}),
        (names[0][0], str(tmp_path / "q.npy"), {}),
        (str(tmp_path / "p.npy"), str(tmp_path / "q.npy"), {"sequences": [POSITIONS] * SEQUENCES}),
        (iter(p), iter(q), {}),
    ]
    before = kldiv.get_num_threads()
    try:
        for threads, (reference, candidate, options) in enumerate(ways, 1):
            kldiv.set_num_threads(threads)
            found = evaluate(reference, candidate, labels=labels, **options)
            assert found.positions.drop("candidate", "name").equals(expected, null_equal=True)
    finally:
        kldiv.set_num_threads(before)


def test_candidates_side_by_side(logits, labels):
    p, q, rng = logits
    worse = p + rng.normal(0, 0.3, p.shape).astype(np.float32)
    both = evaluate(p, q, worse, labels=labels)
    assert both.candidates == ["candidate 1", "candidate 2"]
    for place, one in enumerate((q, worse)):
        alone = evaluate(p, one, labels=labels).positions.drop("candidate")
        assert both[place].positions.drop("candidate").equals(alone)
    assert len(both.positions) == 2 * SEQUENCES * POSITIONS
    with pytest.raises(KeyError, match="candidate 1, candidate 2"):
        both["candidate"]


def test_rows_left_out_and_chunks(logits, labels):
    p, q, rng = logits
    where = rng.random((SEQUENCES, POSITIONS)) < 0.5
    whole = evaluate(p, q, labels=labels)
    some = evaluate(p, q, labels=labels, where=where)
    assert some.positions.equals(whole.positions.filter(pl.Series(where.reshape(-1))))
    first = evaluate(p, q, labels=labels[:2], chunks=2)
    assert first.positions.equals(whole.positions.filter(pl.col("sequence") < 2))


def test_paths_are_files_as_the_command_line_reads_them(tmp_path, logits, labels):
    p, q, _ = logits
    names = ["code", "prose", "code"]
    where = np.arange(SEQUENCES * POSITIONS) % 3 != 0
    floor = np.linspace(0, 1, where.sum())
    given = {"labels": labels, "where": where, "floor": np.zeros(len(where)), "strata": names}
    expected = evaluate(p, q, clusters=names, **given)
    paths = {}
    for name in ("labels", "where", "floor"):
        paths[name] = tmp_path / f"{name}.npy"
        np.save(paths[name], given[name])
    for name in ("strata", "clusters"):
        paths[name] = tmp_path / f"{name}.txt"
        paths[name].write_text("\n".join(names) + "\n")
    for kind in (str, lambda path: path):
        found = evaluate(p, q, **{name: kind(path) for name, path in paths.items()})
        assert found.positions.equals(expected.positions)
    np.save(paths["floor"], floor)
    given = {"clusters": str(paths["clusters"]), "floor": paths["floor"]}
    again = evaluate(p, q, where=where).including(**given)
    assert again.positions["cluster"].unique().sort().to_list() == ["code", "prose"]
    assert again.positions["kl_floor"].to_list() == floor.tolist()
    for name in paths:
        with pytest.raises((DumpError, OSError), match=r"nowhere\.npy"):
            evaluate(p, q, **{name: "nowhere.npy"})
    for name, value in (("clusters", 3), ("strata", b"abc"), ("labels", ["a"]), ("floor", ["a"])):
        with pytest.raises(TypeError, match="path") as wrong:
            evaluate(p, q, **{name: value})
        assert name.removesuffix("s")[:5] in str(wrong.value)


def test_a_mask_is_of_booleans_and_leaves_something(logits, labels):
    p, q, _ = logits
    ones = np.ones(SEQUENCES * POSITIONS, int)
    assert evaluate(p, q, where=ones).positions.equals(evaluate(p, q).positions)
    with pytest.raises(ValueError, match=r"where holds -?\d+ in row 0; a mask holds booleans"):
        evaluate(p, q, where=np.maximum(labels, 2))
    with pytest.raises(ValueError, match="where leaves out all of 60 positions"):
        evaluate(p, q, where=ones * 0)
    with pytest.raises(TypeError, match="where has dtype float64"):
        evaluate(p, q, where=ones * 1.0)


def test_classes_and_vocabularies_that_differ(logits, labels):
    p, q, rng = logits
    wide = np.concatenate([q, rng.normal(0, 3, (SEQUENCES, POSITIONS, 7))], -1).astype(np.float32)
    expected = evaluate(p, q, labels=labels).positions
    assert evaluate(p, wide, labels=labels, classes=CLASSES).positions.equals(expected)
    with pytest.raises(ValueError, match=r"500 classes .* 507"):
        evaluate(p, wide)
    renormalized = evaluate(p, wide, labels=labels, vocab="renormalize").positions
    assert renormalized.drop("lost_p", "lost_q").equals(expected)
    z = wide.astype(np.float64).reshape(-1, CLASSES + 7)
    probs = np.exp(z - z.max(-1, keepdims=True))
    probs /= probs.sum(-1, keepdims=True)
    np.testing.assert_allclose(renormalized["lost_q"], probs[:, CLASSES:].sum(-1), rtol=1e-12)
    assert not renormalized["lost_p"].to_numpy().any()
    truncated = evaluate(p, wide, labels=labels, vocab="truncate").positions
    ln_p, ln_q = kldiv.log_softmax(p.astype(np.float64)).reshape(-1, CLASSES), np.log(probs)
    kl = (np.exp(ln_p) * (ln_p - ln_q[:, :CLASSES])).sum(-1)
    np.testing.assert_allclose(truncated["kl"], kl, rtol=1e-9)
    picked = -np.take_along_axis(ln_q, np.maximum(labels, 0).reshape(-1, 1), -1)[:, 0]
    known = labels.reshape(-1) >= 0
    np.testing.assert_allclose(truncated["nll_q"].drop_nulls(), picked[known], rtol=1e-6)
    tv = abs(np.exp(ln_p) - probs[:, :CLASSES]).sum(-1) / 2
    np.testing.assert_allclose(truncated["total_variation"], tv, rtol=1e-9)


def test_kept_and_read_again(tmp_path, logits, labels):
    result = evaluate(*logits[:2], labels=labels, clusters=["a", "b", "a"], strata=["x", "y", "y"])
    path = tmp_path / "positions.parquet"
    result.write_positions(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["positions.parquet"]
    found = read_positions(path)
    assert found.positions.equals(result.positions)
    assert found.about == result.about
    assert found.positions["cluster"].unique(maintain_order=True).to_list() == ["a", "b"]
    for frame, reason in (
        (pl.DataFrame({"kl": [1.0]}), "no column candidate, position, sequence"),
        (result.positions.with_columns(pl.col("kl").cast(pl.Float32)), "column kl .* Float32"),
    ):
        frame.write_parquet(tmp_path / "other.parquet")
        with pytest.raises(DumpError, match=reason):
            read_positions(tmp_path / "other.parquet")
    (tmp_path / "cut.parquet").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DumpError, match=r"cut\.parquet is not a readable Parquet file"):
        read_positions(tmp_path / "cut.parquet")


def test_what_does_not_fit_together(logits, labels):
    p, q, _ = logits
    for call, reason in (
        (lambda: evaluate(p), "at least one candidate"),
        (lambda: evaluate(p, q[:2]), "numbers of sequences differ: reference 3, candidate 2"),
        (lambda: evaluate(p, q[:, :9]), "numbers of positions differ in sequence 0"),
        (lambda: evaluate(iter(p), iter(q[:2])), "candidate ends after 2 sequences"),
        (lambda: evaluate(p, q, labels=labels[:2]), "labels has 40 numbers"),
        (lambda: evaluate(p, q, labels=labels + CLASSES), "500"),
        (lambda: evaluate(p, q, where=np.ones(99, bool)), "where has 99 numbers for 60 positions"),
        (lambda: evaluate(p, q, clusters=["a"]), "1 cluster labels are given for 3 sequences"),
        (lambda: evaluate(p, q, strata={"x": "y"}), "no stratum is given for sequence"),
        (lambda: evaluate(p, q, classes=501), "500 classes, fewer than the 501"),
        (lambda: evaluate(p, q, vocab="cut"), "error, truncate, renormalize"),
        (lambda: evaluate(p, q, space="probs"), "holds the negative probability"),
    ):
        with pytest.raises(ValueError, match=reason):
            call()


def test_the_label_of_positions_that_have_none(logits, labels):
    p, q, _ = logits
    expected = evaluate(p, q, labels=labels).positions
    other = np.where(labels == -100, 7_000, labels).astype(">i2")
    assert evaluate(p, q, labels=other, ignore_index=7_000).positions.equals(expected)
    for index in (7_000, None):
        with pytest.raises(ValueError, match="-1"):
            evaluate(p, q, labels=labels, ignore_index=index)


def test_worst_positions(logits):
    p, q = (x.copy() for x in logits[:2])
    p[1, 3, 0] = np.nan
    q[2, 5, 1] = -np.inf
    result = evaluate(p, q)
    worst = result.worst(4)
    assert worst.row(0, named=True)["kl"] == np.inf
    assert worst["position"][0] == 5
    kl = result.positions["kl"].to_numpy()
    assert worst["kl"].to_list() == sorted(kl[~np.isnan(kl)], reverse=True)[:4]


def test_candidates_are_what_it_is_made_of(logits, labels):
    p, q, _ = logits
    both = evaluate(p, q, p + 1e-3 * q, labels=labels)
    assert [part.candidates for part in both] == [[name] for name in both.candidates]
    assert len(both) == len(list(both)) == 2
    assert both[1].positions.equals(list(both)[1].positions)
    assert "candidate 2" in both
    with pytest.raises(IndexError):
        both[2]
    assert both.worst(3).columns[:4] == ["candidate", "name", "position", "kl"]
    assert both[0].worst(3).columns[:3] == ["name", "position", "kl"]
    for place in (0, 1):
        title = both.plot_token_probability(place).to_dict()["title"]["text"]
        assert title.endswith(f": candidate {place + 1}")
    assert ":" not in both[0].plot_token_probability().to_dict()["title"]["text"]
    one = evaluate(p[:1, :1], q[:1, :1])
    assert repr(one) == "<Evaluation of candidate: 1 position of 1 sequence>"


def test_a_summary_in_a_notebook_and_by_the_names_of_the_json(logits, labels):
    p, q, _ = logits
    summary = evaluate(p, q, labels=labels).summary(bootstrap=0)
    said = summary.as_dict()
    assert summary["kl.p99"] == said["kl"]["p99"]
    assert summary["top1_agreement"] == said["top1_agreement"] == summary.top1_agreement.mean
    assert summary["js"] == said["js"]["mean"]
    with pytest.raises(KeyError, match=r"no number is called 'kl.p98'; there are kl\.p99"):
        summary["kl.p98"]
    assert len(repr(summary)) < 150
    assert f"mean KL {summary.kl}, 60 positions of 3 sequences" in repr(summary)
    assert str(summary.kl) in summary._repr_html_()


def test_charts_are_charts(logits, labels):
    result = evaluate(*logits[:2], logits[0].copy(), labels=labels)
    for chart in (result.plot_kl(), result.plot_kl_by_position(), result.plot_kl_by_confidence()):
        drawn = chart.to_dict()
        assert drawn["encoding"]["color"]["field"] == "candidate"
    subtitle = result.plot_kl().to_dict()["title"]["subtitle"]
    assert subtitle == ["candidate 2: 60 exactly 0"]


def test_comparison_as_a_table(logits, labels):
    p, q, _ = logits
    comparison = kldiv.compare(p, q, labels, where=labels >= 0)
    assert len(comparison) == SEQUENCES
    frame = comparison.to_frame()
    assert frame.columns[:2] == ["index_0", "index_1"]
    assert frame.height == SEQUENCES * (POSITIONS - 1)
    assert frame["labels"].to_list() == labels[labels >= 0].tolist()
    assert np.array_equal(frame["nll_difference"], comparison.nll_difference[labels >= 0])
    part = comparison[1, 3:5]
    assert np.array_equal(part.kl, comparison.kl[1, 3:5])
    worst = comparison.worst(2)
    assert worst["kl"].to_list() == sorted(comparison.kl[labels >= 0], reverse=True)[:2]
    assert repr(part).startswith("<Comparison of 2 rows: KL 0.00")
    assert float(comparison.summary().kl) == comparison.summary().kl.mean
    assert str(comparison.summary().kl).count("±") == 1
    assert comparison.plot_kl_by_position().to_dict()["encoding"]["x"]["title"]
    with pytest.raises(TypeError, match="no length"):
        len(kldiv.compare(p[0, 0], q[0, 0]))


def test_candidates_of_which_one_has_more_classes(rng):
    """The mass of classes that only one side has is a column of the one that has such."""
    p = rng.normal(0, 2, (2, 5, 40)).astype(np.float32)
    wider = np.concatenate([p + 0.1, np.zeros((2, 5, 3), np.float32)], axis=-1)
    result = evaluate(p, p, wider, vocab="renormalize")
    assert result[0].positions.drop("candidate").equals(evaluate(p, p).positions.drop("candidate"))
    alone = evaluate(p, wider, vocab="renormalize").positions
    assert result[1].positions.drop("candidate").equals(alone.drop("candidate"))
    assert result.summary(0).lost_mass is None
    assert "mass of q not scored" in str(result)


def test_labels_of_some_sequences_only(tmp_path, rng):
    rows = {f"logits_{i}": rng.normal(size=(4, 7)) for i in range(3)}
    np.savez(tmp_path / "a.npz", **rows, labels_1=np.array([1, 2, 3, -100]))
    np.savez(tmp_path / "b.npz", **{name: array + 0.1 * array**2 for name, array in rows.items()})
    table = kldiv.evaluate(tmp_path / "a.npz", tmp_path / "b.npz").positions
    assert table["token"].to_list() == [None] * 4 + [1, 2, 3] + [None] * 5
    known = [4, 5, 6]
    assert np.flatnonzero(table["nll_p"].is_not_null()).tolist() == known
    labelled = kldiv.compare(rows["logits_1"], rows["logits_1"], np.array([1, 2, 3, -100]))
    np.testing.assert_array_equal(table["nll_p"][known], labelled.nll_p[:3])
