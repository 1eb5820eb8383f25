"""Pages and checks from the command line: `--html`, `kldiv check`, `kldiv history`."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import ENVIRONMENT, KLDIV
from command import here as run

import kldiv

DEMO = Path(kldiv.__file__).parent / "demo"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dumps, and results of two of them."""
    folder = tmp_path_factory.mktemp("report")
    for name in ("reference", "int8", "int4", "labels"):
        shutil.copy(DEMO / f"{name}.npy", folder)
    (folder / "results").mkdir()
    for file, names in {"first.json": ("int8",), "both.json": ("int8", "int4")}.items():
        files = [f"{name}.npy" for name in names]
        done = run(
            *("compare", "reference.npy", *files, "--labels", "labels.npy", "--bootstrap", 0),
            *("--json", f"results/{file}", "--format", "markdown"),
            folder=folder,
        )
        assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_compare_writes_a_page(folder):
    done = run(
        *("compare", "reference.npy", "int8.npy", "int4.npy", "--labels", "labels.npy"),
        *("--html", "page.html", "--lang", "zh", "--positions", "kept.parquet"),
        folder=folder,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "mean KL" in done.stdout
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert '<html lang="zh-CN">' in page
    assert "int8.npy 最接近 reference.npy" in page
    # The same page of what was kept.
    again = run("compare", "kept.parquet", "--html", "again.html", "--lang", "zh", folder=folder)
    assert (again.returncode, again.stderr) == (0, "")
    # The command line adds the labels' file to what is kept, before it is kept.
    assert (folder / "again.html").read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--lang zh", "--lang is about a page; name its file by --html"),
        ("--tokenizer labels.npy", "--tokenizer is about a page"),
        ("--html x.html --lang fr", "--lang is 'fr'; expected one of en, zh"),
        ("--html -", "--html names a file"),
        ("--html nowhere/x.html", "no such directory: nowhere"),
        ("--html results", "results is a directory"),
        ("--html reference.npy", "reference.npy is an input"),
        ("--html x.html --json x.html", "--html and --json both name x.html"),
        ("--html x.html --tokenizer labels.npy", "no tokenizer.json and no GGUF file"),
        ("--html x.html --tokenizer tokenizer.json", "tokenizer.json"),
        ("--html small.json --tokenizer small.json", "small.json is an input"),
        ("--html x.html --tokenizer small.json", "small.json has 1 tokens, and after position 0"),
    ],
)
def test_wrong_options_of_pages_are_one_line(folder, options, reason):
    small = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    (folder / "small.json").write_text(json.dumps({"version": "1.0", "model": small}))
    before = sorted(folder.iterdir())
    inputs = ("compare", "reference.npy", "int8.npy", "--labels", "labels.npy")
    done = run(*inputs, *options.split(), folder=folder)
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_a_page_that_cannot_be_made_says_what_to_install(folder):
    code = (
        "import sys; sys.modules['vl_convert'] = None; from kldiv.cli import main; sys.exit(main())"
    )
    command = ["compare", "reference.npy", "int8.npy", "--html", "x.html"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "kldiv: error: this needs vl_convert: pip install 'kldiv[report]'\n"
    assert not (folder / "x.html").exists()


def test_checks_that_hold_and_checks_that_fail(folder):
    good = run("check", "results/both.json", "--max", "kl.p99=1", "--min", "js=0", folder=folder)
    assert (good.returncode, good.stderr) == (0, "")
    assert [line.split()[0] for line in good.stdout.splitlines()] == ["ok"] * 4
    options = ("--max", "kl.p99=0.1", "--min", "top1_agreement=0.95")
    bad = run("check", "results/both.json", *options, folder=folder)
    assert (bad.returncode, bad.stderr) == (1, "")
    assert bad.stdout.splitlines() == [
        "ok     int8.npy: kl.p99 = 0.00226727 ≤ 0.1",
        "ok     int8.npy: top1_agreement = 1 ≥ 0.95",
        "FAILED int4.npy: kl.p99 = 0.628068 > 0.1",
        "FAILED int4.npy: top1_agreement = 0.666667 < 0.95",
    ]
    one = run("check", "results/both.json", *options, "--candidate", "int8.npy", folder=folder)
    assert one.returncode == 0
    # The limit itself is within.
    value = json.loads((folder / "results/first.json").read_text())["kl"]["p99"]
    for option in ("--max", "--min"):
        assert (
            run(
                "check", "results/first.json", option, f"kl.p99={value!r}", folder=folder
            ).returncode
            == 0
        )


def test_a_bound_proves_one_side_only(folder):
    bounds = {"total_variation_lower": {"mean": 0.1}, "total_variation_upper": {"mean": 0.3}}
    bounds |= {"acceptance_lower": {"mean": 0.7}, "acceptance_upper": {"mean": 0.9}}
    kl = {"mean": 0.4, "p99": 2.0, "standard_error": 0.1, "tail_shares": [{"percent": 1.0}]}
    kl["tail_shares"][0]["share"] = 0.2
    entry = {"candidate": "q", "num_positions": 3, "kl_is_lower_bound": True, "kl": kl}
    entry |= {"bounds": bounds, "uncertainty": {"ci95_high": 0.6}, "top1_agreement": 0.9}
    (folder / "results/bounds.json").write_text(json.dumps({"candidates": [entry]}))

    def check(*bounds):
        done = run("check", "results/bounds.json", *bounds, folder=folder)
        assert done.stderr == ""
        return done.returncode, done.stdout.removeprefix("ok     q: ").removesuffix("\n")

    for name, value in (("kl.mean", 0.4), ("kl.p99", 2), ("uncertainty.ci95_high", 0.6)):
        proved = check("--max", f"{name}=9")
        line = f"FAILED q: {name} ≥ {value}: a lower bound proves nothing of --max 9"
        assert proved == (1, line)
    assert check("--max", "kl.mean=0.1") == (1, "FAILED q: kl.mean ≥ 0.4 > 0.1")
    assert check("--min", "kl.mean=0.1") == (0, "kl.mean ≥ 0.4 ≥ 0.1")
    assert check("--max", "top1_agreement=1") == (0, "top1_agreement = 0.9 ≤ 1")
    assert check("--max", "kl.standard_error=1") == (0, "kl.standard_error = 0.1 ≤ 1")
    for option in ("--max", "--min"):
        assert check(option, "kl.tail_shares.1.0.share=0.2")[0] == 1
    # Of an interval the end that proves it.
    assert check("--max", "total_variation=0.2")[0] == 1
    found = check("--max", "total_variation=0.3")
    assert found == (0, "bounds.total_variation_upper.mean ≤ 0.3 ≤ 0.3")
    assert check("--min", "total_variation.mean=0.2")[0] == 1
    assert check("--min", "acceptance.rate=0.7")[0] == 0
    assert check("--min", "acceptance.rate=0.8")[0] == 1
    assert check("--max", "bounds.total_variation_lower=1")[0] == 1
    try:
        done = run("history", "results", "--html", "h.html", folder=folder)
    finally:
        (folder / "results/bounds.json").unlink()
    assert re.search(r"  q  +≥ 0\.4  ", done.stdout)
    [row] = [
        r for r in map(dict, cells((folder / "h.html").read_text("utf-8"))) if r["model"] == "q"
    ]
    assert row["mean"].startswith("≥ ")
    assert row["p99"] == "≥ 2.00"


SPOILED = {
    "null.json": ("p99", "null", "kl.p99 is not known (null)"),
    "nan.json": ("p99", "NaN", "kl.p99 is nan"),
    "infinite.json": ("p99", '"Infinity"', "kl.p99 is infinite"),
    "huge.json": ("p99", "1e999", "kl.p99 is inf"),
    "true.json": ("p99", "true", "kl.p99 is True"),
    "text.json": ("p99", '"low"', "kl.p99 is 'low'"),
    "gone.json": ("other", "1", "no number is called 'kl.p99'"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_numbers_that_are_none_are_errors(folder, name):
    key, value, reason = SPOILED[name]
    entry = f'{{"candidate": "q", "num_positions": 3, "kl": {{"mean": 1.0, "{key}": {value}}}}}'
    (folder / name).write_text(f'{{"candidates": [{entry}]}}')
    # Not one line is printed before all numbers are known.
    options = ("--max", "kl.mean=0.5", "--max", "kl.p99=0.1")
    done = run("check", name, *options, folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("results/first.json", "nothing to check"),
        ("results/first.json --max kl.p99", "--max is 'kl.p99'; expected NAME=NUMBER"),
        ("results/first.json --max kl.p99=low", "expected NAME=NUMBER"),
        ("results/first.json --max kl.p99=nan", "expected NAME=NUMBER"),
        ("results/first.json --max =1", "expected NAME=NUMBER"),
        ("results/first.json --max kl.p98=1", "no number is called 'kl.p98'; there are kl.p99"),
        ("results/first.json --max top1=1", "no number is called 'top1'; there are top1"),
        ("results/first.json --max direction=1", "direction is 'KL(reference || candidate)'"),
        ("results/first.json --candidate x --max kl.p99=1", "no candidate 'x'; there are int8.npy"),
        ("nowhere.json --max kl.p99=1", "nowhere.json"),
        ("labels.npy --max kl.p99=1", "labels.npy is no JSON"),
        ("list.json --max kl.p99=1", "list.json holds list; expected a result of kldiv"),
        ("other.json --max kl.p99=1", "other.json is no result of kldiv"),
        ("none.json --max kl.p99=1", "none.json holds no candidate"),
    ],
)
def test_wrong_checks_are_one_line(folder, arguments, reason):
    for name, text in {"list": "[]", "other": '{"a": 1}', "none": '{"candidates": []}'}.items():
        (folder / f"{name}.json").write_text(text)
    done = run("check", *arguments.split(), folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def cells(page):
    """The text of the cells of each row."""
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    rows = re.findall(r"<tr.*?</tr>", body, re.DOTALL)
    return [re.findall(r'data-column="(\w+)".*?<bdi>(.*?)</bdi>', row) for row in rows]


def test_history_is_one_page_of_all_results(folder):
    (folder / "results/notes.json").write_text("{}")
    (folder / "results/deep").mkdir(exist_ok=True)
    (folder / "results/deep/<b>.json").write_text((folder / "results/first.json").read_text())
    try:
        done = run("history", "results", "--baseline", "first.json", folder=folder)
    finally:
        (folder / "results/notes.json").unlink()
    assert done.returncode == 0
    assert done.stderr.startswith("kldiv: warning: results/notes.json is left out: ")
    assert done.stdout.splitlines()[-1] == "results/history.html"
    page = (folder / "results/history.html").read_text(encoding="utf-8")
    assert "<b>.json" not in page
    rows = [dict(row) for row in cells(page)]
    assert sorted((row["file"], row["model"]) for row in rows) == [
        ("both.json", "int4.npy"),
        ("both.json", "int8.npy"),
        ("deep/&lt;b&gt;.json", "int8.npy"),
        ("first.json", "int8.npy"),
    ]
    drifts = {(row["file"], row["model"]): row["drift"] for row in rows}
    assert drifts["first.json", "int8.npy"] == "baseline"
    assert drifts["both.json", "int8.npy"] == "0"
    assert drifts["both.json", "int4.npy"] == "+0.490"
    assert "notes.json" in page


def test_other_references_and_positions_have_no_drift(folder):
    done = run(
        *("compare", "int8.npy", "int4.npy", "--bootstrap", 0),
        *("--json", "results/other.json", "--format", "markdown"),
        folder=folder,
    )
    assert done.returncode == 0
    try:
        run(
            "history",
            "results",
            "--baseline",
            "first.json:int8.npy",
            "--html",
            "h.html",
            folder=folder,
        )
    finally:
        (folder / "results/other.json").unlink()
    rows = [dict(row) for row in cells((folder / "h.html").read_text(encoding="utf-8"))]
    assert {row["drift"] for row in rows if row["file"] == "other.json"} == {"–"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("nowhere", "nowhere is not there"),
        ("labels.npy", "labels.npy is a file; expected a directory"),
        ("empty", "empty holds no result"),
        ("results --baseline x", "--baseline: no result is called 'x'; there are"),
        ("results --baseline int8.npy", "'int8.npy' is"),
        ("results --lang de", "--lang is 'de'"),
        ("results --html results/first.json", "results/first.json is an input"),
        ("results --html nowhere/x.html", "no such directory: nowhere"),
    ],
)
def test_wrong_histories_are_one_line(folder, arguments, reason):
    (folder / "empty").mkdir(exist_ok=True)
    done = run("history", *arguments.split(), folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_to(folder):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o500)
    done = run("compare", "reference.npy", "int8.npy", "--html", "locked/x.html", folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "permission denied" in done.stderr


def documented(language):
    document = (ROOT / "docs/report.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)


def commands():
    """What docs/report.md has its readers type, the step of GitHub Actions included."""
    [step] = documented("yaml")
    block = re.search(r"^  run: \|\n((?:    .*\n)+)", step, re.MULTILINE)[1]
    lines = [line.strip() for line in block.splitlines()]
    assert lines[0] == "pip install 'kldiv[cli,report]'"
    return [*documented("sh"), "\n".join(lines[1:])]


@pytest.mark.slow
@pytest.mark.parametrize("text", commands())
def test_documented_commands_run(folder, tmp_path, text):
    for name in ("reference", "int8", "int4", "labels"):
        shutil.copy(DEMO / f"{name}.npy", tmp_path)
    vocabulary = {f"t{number}": number for number in range(49152)}
    tokenizer = {"version": "1.0", "model": {"type": "WordLevel", "vocab": vocabulary}}
    tokenizer["model"]["unk_token"] = "t0"
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    path = f"{KLDIV.parent}{os.pathsep}{os.environ['PATH']}"
    environment = ENVIRONMENT | {"PATH": path, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")
    if "check result.json --max kl.p99=0.1" in text:
        assert done.stdout.endswith(documented("text")[0])
    if "GITHUB_STEP_SUMMARY" in text:
        assert "mean KL" in (tmp_path / "summary.md").read_text(encoding="utf-8")
