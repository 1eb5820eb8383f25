"""Summaries as text: every format has every number, and candidates stand side by side."""

import csv
import io
import json

import pytest
from tables_of_positions import table

from kldiv.evaluation.statistics.paired import paired
from kldiv.evaluation.statistics.summary import summarise
from kldiv.evaluation.tables.csv import csv_table
from kldiv.evaluation.tables.json import json_table
from kldiv.evaluation.tables.markdown import markdown_table
from kldiv.evaluation.tables.plain import plain_table


@pytest.fixture(scope="module")
def two():
    """Two candidates, one of them without labels, and one of whose names is Markdown."""
    frames = [table(50, candidate="int8"), table(50, candidate="q4_k|量化", noise=3.0)]
    frames[0] = frames[0].drop("kl_floor")
    summaries = [summarise(frame, bootstrap=50) for frame in frames]
    return summaries, [paired(*frames)]


def test_plain(two):
    summaries, pairs = two
    text = plain_table(summaries, pairs)
    lines = text.splitlines()
    header = lines[0].split()
    assert header == ["int8", "q4_k|量化"]
    place = lines[0].index("q4_k")
    for section in summaries[0].sections():
        assert section.title in lines
        for label, value in section.lines:
            assert any(line.startswith(label) and value in line for line in lines)
    for section in summaries[1].sections():
        for label, value in section.lines:
            assert any(line.startswith(label) and line[place:] == value for line in lines)
    # What only the second has is empty for the first.
    (verdict,) = [line for line in lines if line.startswith("verdict")]
    assert verdict[len("verdict") : place].strip() == ""
    assert lines[-2:] == ["paired", pairs[0].verdict]
    assert not text.endswith("\n")
    alone = plain_table(summaries[:1])
    assert alone == str(summaries[0])
    assert alone.startswith("positions\npositions")


def test_lines_that_only_a_later_candidate_has_keep_their_place(two):
    summaries = two[0]
    titles = [line for line in plain_table(summaries).splitlines() if line == line.strip()]
    first, second = titles.index("losses of the tokens"), titles.index("noise floor")
    assert first < second < titles.index("speculative decoding")


def test_markdown(two):
    summaries, pairs = two
    lines = markdown_table(summaries, pairs).splitlines()
    assert lines[0] == "|  | int8 | q4\\_k\\|量化 |"
    assert lines[1] == "| --- | ---: | ---: |"
    body = lines[2 : lines.index("")]
    assert all(line.replace("\\|", "").count("|") == 4 for line in body)
    mean = summaries[0].kl.show(), summaries[1].kl.show()
    assert f"| mean KL(p‖q) | {mean[0]} | {mean[1]} |" in body
    assert lines[-1].startswith("- ")


def test_csv(two):
    summaries, pairs = two
    rows = list(csv.reader(io.StringIO(csv_table(summaries, pairs))))
    assert rows[0] == ["", "int8", "q4_k|量化"]
    assert all(len(row) == 3 for row in rows)
    cells = {row[0]: row[1:] for row in rows[1:]}
    assert len(cells) == len(rows) - 1
    for place, summary in enumerate(summaries):
        content = summary.as_dict()
        assert float(cells["kl.mean"][place]) == summary.kl.mean
        assert float(cells["kl.max"][place]) == summary.kl_percentiles.maximum == float("inf")
        (first, *_) = content["context_depth_buckets"]
        assert float(cells["context_depth_buckets.0-255.kl.mean"][place]) == first["kl"]["mean"]
    assert cells["floor.verdict"][0] == "" != cells["floor.verdict"][1]
    name = "pairs.int8 - q4_k|量化.kl.difference.mean"
    assert cells[name] == [repr(pairs[0].kl.difference.mean), ""]


def test_json(two):
    summaries, pairs = two
    content = json.loads(json_table(summaries, pairs))
    assert [one["candidate"] for one in content["candidates"]] == ["int8", "q4_k|量化"]
    assert content["candidates"][0]["kl"]["mean"] == summaries[0].kl.mean
    assert content["pairs"][0]["better"] == pairs[0].better == "int8"
