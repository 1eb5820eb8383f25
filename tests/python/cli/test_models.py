"""`kldiv evaluate` and `kldiv capture`, in this process: transformers takes seconds to import."""

import json
import os

import pytest
import small_models as small

from kldiv.cli.app import app
from kldiv.cli.errors import run
from kldiv.evaluation import read_positions

CONTEXT = ["--context", str(small.CONTEXT), "--device", "cpu"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with small.one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    own = small.tokenizer()
    small.saved(small.llama(), own, folder / "p")
    small.saved(small.llama(noise=0.01), own, folder / "q")
    small.saved(small.llama(), small.tokenizer(swapped=True), folder / "swapped")
    small.saved(small.llama().model, own, folder / "trunk")
    (folder / "text.txt").write_text(small.TEXT, encoding="utf-8")
    (folder / "short.txt").write_text("short")
    return folder


@pytest.fixture
def kldiv(folder, monkeypatch, capsys):
    """The command in the folder: exit code, stdout, stderr."""
    monkeypatch.chdir(folder)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["kldiv", *map(str, arguments)])
        code = run(app)
        return code, *capsys.readouterr()

    return call


@pytest.mark.costly
def test_evaluate_prints_and_writes_as_compare_does(kldiv, tmp_path):
    kept, numbers = tmp_path / "kept.parquet", tmp_path / "numbers.json"
    code, out, err = kldiv(
        *("evaluate", "p", "q", "--text", "text.txt", *CONTEXT),
        *("--positions", kept, "--json", numbers, "--bootstrap", 0),
    )
    assert (code, err) == (0, "")
    for line in (
        "p               p  LlamaForCausalLM, float32 121×264",
        "text            text.txt, 1 document",
        "windows         4 of 32 tokens",
        "classes scored  257",
        "device          cpu, ",
    ):
        assert line in out
    found = json.loads(numbers.read_text())
    frame = read_positions(kept).positions
    assert found["num_positions"] == len(frame) == 121
    assert found["kl"]["mean"] == pytest.approx(frame["kl"].mean())
    assert found["models"][1]["name"] == "q"
    code, out, err = kldiv(
        "evaluate", "p", "p", "q", "--text", "text.txt", *CONTEXT, "--chunks", 2, "--format", "csv"
    )
    assert (code, err) == (0, "")
    assert out.startswith(",p,q\n")


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ([], "out"),
        (["--hidden"], "out"),
        (["--logits"], "out"),
        (["--kld"], "out/base.kld"),
        (["--top-k", 3], "out/top_k.jsonl"),
    ],
)
def test_what_capture_writes_compare_reads(kldiv, tmp_path, options, kept):
    target = tmp_path / "out"
    code, out, err = kldiv(
        "capture", "p", "--text", "text.txt", "--out", target, *options, *CONTEXT
    )
    assert (code, err) == (0, "")
    assert f"written    {tmp_path}/{kept}\n" in out
    path = tmp_path / kept
    code, out, err = kldiv("compare", path, path, "--json", "-")
    assert code == 0
    # An untrained model gives the text no more than guessing does.
    assert all("before the final norm" in line for line in err.splitlines())
    found = json.loads(out)
    assert found["top1_agreement"] == 1
    if "--top-k" not in options:
        assert found["kl"]["max"] == 0


BAD = [
    (["p", "swapped"], "the tokenizers of p and swapped differ: id 0 is '!' or"),
    (["p", "trunk"], "trunk is a LlamaModel, which has no language-model head"),
    (["p", "q", "--text", "short.txt"], "short.txt is shorter than a window: it has 5 tokens"),
    (
        ["p", "q", "--context", 65],
        "the context is 65 tokens, but p reads 64 at most (--context, context=)",
    ),
    (["p", "./qq"], "no such file: qq (did you mean q?)"),
    (["p", "q", "--text", "text"], "no such file: text (did you mean text.txt?)"),
    (["p", "q", "--stride", 33], "the stride is 33; expected 1 to 32"),
    (["p", "q", "--device", "gpu"], "the device is 'gpu'; expected auto, cpu"),
    (["p", "q", "--vocab", "all"], "--vocab is 'all'; expected one of"),
    (["p", "q", "--clusters", "none.txt"], "none.txt: No such file or directory"),
    (["p", "q", "--format", "llama.cpp"], "--format llama.cpp is of llama.cpp's base files"),
    (["p"], "Missing argument 'CANDIDATE...'"),
    (["p", "q", "--json", "text.txt"], "text.txt is an input, which would be overwritten"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_bad_input_is_one_line_and_exit_code_2(kldiv, folder, arguments, said):
    before = sorted(os.listdir(folder))
    text = [] if "--text" in arguments else ["--text", "text.txt"]
    context = [] if "--context" in arguments else CONTEXT
    code, out, err = kldiv("evaluate", *text, *context, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"kldiv: error: {said}")
    assert err.count("\n") == 1
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "p"], "p is there already; --overwrite"),
        (["--out", "p", "--overwrite"], "p holds other things than a capture: not replaced"),
        (["--out", "none/out"], "no such directory: none"),
        (["--out", "/proc/out"], "/proc/out"),
        (["--out", "out", "--kld", "--logits"], "--logits and --kld are two layouts"),
        (["--out", "out", "--kld", "--stride", 4], "a base file of llama.cpp has chunks one after"),
        (["--out", "out", "--context", 65], "the context is 65 tokens, but p reads 64"),
    ],
)
def test_what_capture_refuses(kldiv, folder, arguments, said):
    before = sorted(os.listdir(folder))
    context = [] if "--context" in arguments else CONTEXT
    code, out, err = kldiv("capture", "p", "--text", "text.txt", *arguments, *context)
    assert (code, out) == (2, "")
    assert err.startswith(f"kldiv: error: {said}")
    assert err.count("\n") == 1
    assert sorted(os.listdir(folder)) == before


def test_a_full_disk_is_said_and_nothing_is_left(kldiv, tmp_path):
    with small.largest_file(20_000):
        code, out, err = kldiv(
            "capture", "p", "--text", "text.txt", "--out", tmp_path / "out", "--logits", *CONTEXT
        )
    assert (code, out) == (2, "")
    assert err == f"kldiv: error: {tmp_path}/out: File too large\n"
    assert not any(tmp_path.iterdir())
