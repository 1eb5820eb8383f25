"""Digests of dumps, and results that have them."""

import hashlib
import re

import numpy as np

from kldiv.evaluation import digests as digests_of
from kldiv.evaluation import evaluate
from kldiv.evaluation.digests import digest_of

FAST = {"bootstrap": 20}


def test_digests(tmp_path, monkeypatch):
    data = np.random.default_rng(0).bytes(1000)
    (tmp_path / "whole.npy").write_bytes(data)
    found = digest_of(str(tmp_path / "whole.npy"))
    assert found == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": 1000, "read_bytes": 1000}
    monkeypatch.setattr(digests_of, "BLOCK", 10)
    monkeypatch.setattr(digests_of, "BLOCKS", 7)
    sampled = digest_of(str(tmp_path / "whole.npy"))
    assert (sampled["bytes"], sampled["read_bytes"]) == (1000, 70)
    for changed in (0, 999):
        other = bytearray(data)
        other[changed] ^= 1
        (tmp_path / "whole.npy").write_bytes(other)
        assert digest_of(str(tmp_path / "whole.npy"))["sha256"] != sampled["sha256"]
    # Of a directory names count, too, and blocks go over the ends of its files.
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.npy").write_bytes(data[number * 5 : number * 5 + 5])
    before = digest_of(str(folder))
    assert (before["bytes"], before["read_bytes"]) == (20, 20)
    (folder / "3.npy").rename(folder / "4.npy")
    assert digest_of(str(folder))["sha256"] != before["sha256"]
    assert digest_of(str(tmp_path / "nothing")) is None
    assert digest_of("candidate") is None


def test_results_say_what_they_were_made_of(tmp_path):
    rows = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    for name in "pq":
        np.save(tmp_path / f"{name}.npy", rows)
    result = evaluate(str(tmp_path / "p.npy"), str(tmp_path / "q.npy"))
    expected = hashlib.sha256((tmp_path / "p.npy").read_bytes()).hexdigest()
    assert result.about["reference"]["digest"]["sha256"] == expected
    assert expected in result.to_html(**FAST)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", result.about["date"])
    # Arrays of a program are no files, whatever lies under their names.
    assert "digest" not in evaluate(rows, rows).about["reference"]
