"""Models over a text: the numbers are those of transformers' logits, on disk and without one."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import small_models as small
import torch

import kldiv
from kldiv.evaluation import EngineError, read_positions
from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.models import LanguageModel, capture, kept_states
from kldiv.evaluation.models.reading import Reading

CONTEXT = small.CONTEXT


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with small.one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reference, two candidates, and texts."""
    folder = tmp_path_factory.mktemp("models")
    own = small.tokenizer()
    small.saved(small.llama(), own, folder / "p")
    small.saved(small.llama(noise=0.01), own, folder / "q")
    small.saved(small.llama(noise=0.03), own, folder / "far")
    (folder / "text.txt").write_text(small.TEXT, encoding="utf-8")
    lines = [json.dumps({"text": small.TEXT[start:]}) for start in (0, 30, 60)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    return folder


def evaluate(folder, *names, text="text.txt", **options):
    paths = (str(folder / name) for name in names)
    options = {"context": CONTEXT, "device": "cpu"} | options
    return kldiv.evaluate_models(*paths, text=str(folder / text), **options)


def reading(folder, name="p", text="text.txt", **options):
    options = {"context": CONTEXT, "device": "cpu"} | options
    return Reading.of((str(folder / name),), str(folder / text), **options)


def test_a_run_that_was_killed_goes_on(folder, tmp_path, monkeypatch):
    work = tmp_path / "work"
    expected = evaluate(folder, "p", "q")

    class Killed(BaseException):
        pass

    done = []

    def kill(rows):
        done.append(rows)
        if sum(done) > 3 * CONTEXT:
            raise Killed

    options = {"work": work, "block_positions": CONTEXT}
    with pytest.raises(Killed):
        evaluate(folder, "p", "q", progress=kill, **options)
    kept = len(list(work.glob("block-*.parquet")))
    assert kept >= 2
    # The windows of those blocks are not run again, and the bits are the same.
    ran = []
    logits = LanguageModel.logits
    monkeypatch.setattr(
        LanguageModel, "logits", lambda self, one: ran.append(one) or logits(self, one)
    )
    found = evaluate(folder, "p", "q", **options)
    assert found.positions.equals(expected.positions)
    windows = found.about["windows"]["windows"]
    assert len(ran) <= 2 * (windows - kept)
    # Other weights under the same name, another text, and what cannot be kept.
    other = reading(folder).models.load(0)
    other.model.lm_head.weight.data[3] += 0.5
    with pytest.raises(EngineError, match="p has changed since"):
        kldiv.evaluate_models(
            other, str(folder / "q"), text=str(folder / "text.txt"), context=CONTEXT, **options
        )
    with pytest.raises(EngineError, match="holds the work of another run"):
        evaluate(folder, "p", "q", text="texts.jsonl", **options)
    with pytest.raises(ValueError, match="leave one of them out"):
        evaluate(folder, "p", "q", sequential=True, **options)


@pytest.mark.costly
@pytest.mark.parametrize("options", [{}, {"stride": 8}, {"sequential": True}], ids=str)
def test_the_numbers_are_those_of_the_logits(folder, options):
    result = evaluate(folder, "p", "q", "far", **options)
    windows = reading(folder, stride=options.get("stride")).windows
    models = [small.llama(noise=noise) for noise in (0.0, 0.01, 0.03)]
    rows = [
        np.concatenate([small.logits(model, window) for window in windows])[:, :257]
        for model in models
    ]
    labels = np.concatenate([window.labels for window in windows])
    assert result.candidates == [str(folder / "q"), str(folder / "far")]
    for place in (0, 1):
        expected = kldiv.compare(rows[0], rows[place + 1], labels)
        frame = result[place].positions
        assert frame["token"].to_list() == labels.tolist()
        for column in ("kl", "total_variation", "nll_q"):
            assert np.allclose(frame[column], getattr(expected, column), rtol=1e-4, atol=1e-7)
    position = [window.first + row for window in windows for row in range(len(window))]
    assert result[0].positions["position"].to_list() == position
    assert result.about["kld_vocab_size"] == 257
    assert result.about["windows"]["windows"] == len(windows)
    assert [one["name"] for one in result.about["models"]] == [
        str(folder / name) for name in ("p", "q", "far")
    ]
    assert result.about["models"][0]["dtype"] == "float32"
    json.loads(result.to_json(bootstrap=0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"stride": 8}, {"sequential": True, "stride": 8}], ids=str)
def test_a_model_against_itself_is_exactly_0(folder, dtype, options):
    result = evaluate(folder, "p", "p", dtype=dtype, **options)
    frame = result.to_frame()
    for column in ("kl", "reverse_kl", "jensen_shannon", "total_variation", "nll_difference"):
        assert not frame[column].to_numpy().any()
    assert frame["same_top"].all()
    assert result.about["models"][0]["logits_dtype"] == dtype


def test_documents_are_clusters(folder):
    result = evaluate(folder, "p", "q", text="texts.jsonl")
    clusters = result.positions["cluster"].unique(maintain_order=True).to_list()
    assert clusters == [f"{folder}/texts.jsonl:{line}" for line in (1, 2, 3)]
    assert evaluate(folder, "p", "q").positions.columns.count("cluster") == 0
    given = evaluate(folder, "p", "q", text="texts.jsonl", chunks=2, clusters=["a", "b"])
    assert given.positions["cluster"].unique(maintain_order=True).to_list() == ["a", "b"]


def test_loaded_models_and_texts_from_python(folder):
    own = small.tokenizer()
    model = LanguageModel(small.llama(), own, "loaded")
    other = LanguageModel(small.llama(noise=0.01), own, "noisy")
    texts = [small.TEXT]
    results = [
        kldiv.evaluate_models(model, other, text=texts, context=CONTEXT, sequential=sequential)
        for sequential in (False, True, False)
    ]
    expected = evaluate(folder, "p", "q").positions["kl"]
    assert results[0].candidates == ["noisy"]
    # Of models that are given nothing is let go.
    assert results[2].positions["kl"].equals(results[0].positions["kl"])
    assert np.allclose(results[1].positions["kl"], expected, rtol=1e-4, atol=1e-7)
    assert results[0].positions["kl"].equals(expected)


def test_every_window_begins_as_the_tokenizer_begins_a_text(folder, tmp_path):
    own = small.tokenizer(beginning=True)
    model = small.saved(small.llama(), own, tmp_path / "p")
    windows = Reading.of((model,), str(folder / "text.txt"), context=CONTEXT).windows
    first = own.convert_tokens_to_ids("!")
    assert all(window.inputs[0] == first for window in windows)
    result = kldiv.evaluate_models(model, model, text=str(folder / "text.txt"), context=CONTEXT)
    assert result.about["tokenizer"]["begins_with"] == ["!"]
    # The first token of the text is scored, too.
    assert len(result.positions) == len(small.TEXT.encode())


@pytest.mark.costly
def test_states_that_are_many_go_to_a_file(folder, monkeypatch):
    expected = evaluate(folder, "p", "q", sequential=True).positions["kl"]
    monkeypatch.setattr(kept_states, "IN_MEMORY", 3 * CONTEXT * 32 * 4)
    assert evaluate(folder, "p", "q", sequential=True).positions["kl"].equals(expected)
    with small.largest_file(2 * CONTEXT * 32 * 4), pytest.raises(OSError, match="large"):
        evaluate(folder, "p", "q", sequential=True)


@pytest.mark.filterwarnings("ignore::kldiv.evaluation.ImprobableTextWarning")
@pytest.mark.parametrize(
    ("layout", "k", "options"),
    [
        ("hidden", None, {}),
        ("hidden", None, {"stride": 8}),
        ("logits", None, {"stride": 8}),
        ("logits", None, {"dtype": "bfloat16"}),
        ("top_k", 5, {"stride": 8}),
    ],
)
def test_what_is_captured_is_what_the_model_says(folder, tmp_path, layout, k, options):
    options = {"context": CONTEXT, "device": "cpu"} | options
    text = str(folder / "texts.jsonl")
    done = [
        capture(str(folder / name), text, tmp_path / name, layout=layout, k=k, **options)
        for name in ("p", "q")
    ]
    heads = {}
    if layout == "hidden":
        head, own = (tmp_path / name / "head" / "weight.safetensors" for name in ("p", "q"))
        heads = {"head": str(head), "candidate_heads": [str(own)]}
    clusters = json.loads((tmp_path / "p" / "documents.json").read_text())
    paths = [str(one.path) for one in done]
    found = kldiv.evaluate(*paths, clusters=clusters, **heads).positions
    live = evaluate(
        folder, "p", "q", text="texts.jsonl", classes=small.CLASSES, **options
    ).positions
    for column in ("sequence", "position", "token", "cluster"):
        assert found[column].to_list() == live[column].to_list()
    if layout == "top_k":
        assert (found["kl_lower"] <= live["kl"] + 1e-6).all()
        assert (found["total_variation_upper"] >= live["total_variation"] - 1e-6).all()
        assert found["nll_p"].is_not_null().all()
    else:
        within = 2e-3 if layout == "hidden" else 0
        assert np.allclose(found["kl"], live["kl"], rtol=within, atol=1e-6 if within else 0)
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    assert manifest == done[0].manifest
    assert manifest["model"]["name"] == str(folder / "p")
    assert manifest["windows"]["positions"] == len(live)
    assert len(manifest["tokenizer"]["sha256"]) == 64
    assert {"kldiv", "torch", "transformers"} <= manifest["versions"].keys()
    if layout != "top_k":
        first = json.loads((tmp_path / "p/panel/tokens/context-000000.json").read_text())
        expected = reading(folder, text="texts.jsonl", stride=options.get("stride")).windows[0]
        assert first["token_ids"] == expected.tokens.tolist()


def test_a_captured_base_file_is_llama_cpps(folder, tmp_path):
    options = {"context": CONTEXT, "device": "cpu"}
    done = capture(
        str(folder / "p"), str(folder / "text.txt"), tmp_path / "p", layout="kld", **options
    )
    dump = open_dump(done.path)
    assert dump.format == "llama.cpp _logits_"
    read = reading(folder, llama_cpp=True)
    assert dump.tokens.tolist() == read.tokens.tolist()
    model = small.llama()
    for window, sequence in zip(read.windows, dump.sequences(), strict=True):
        assert sequence.labels.tolist() == window.labels.tolist()
        rows = np.concatenate([block.copy() for block in sequence.read(100)])
        expected = kldiv.log_softmax(small.logits(model, window))
        # 16 bits over 16 nats below the most probable class.
        assert np.allclose(np.exp(rows), np.exp(expected), atol=1e-3)


def test_a_capture_that_fails_leaves_nothing(folder, tmp_path):
    arguments = (str(folder / "p"), str(folder / "text.txt"), tmp_path / "out")
    with small.largest_file(20_000), pytest.raises(OSError, match="out") as raised:
        capture(*arguments, layout="logits", context=CONTEXT)
    assert raised.value.filename == str(tmp_path / "out")
    assert not any(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        capture(*arguments, layout="hidden", context=CONTEXT, progress=_interrupted)
    assert not any(tmp_path.iterdir())


def _interrupted(rows):
    raise KeyboardInterrupt


def test_nothing_but_a_capture_is_replaced(folder, tmp_path):
    model, text = str(folder / "p"), str(folder / "text.txt")
    out = tmp_path / "out"
    options = {"context": CONTEXT, "device": "cpu"}
    capture(model, text, out, layout="top_k", k=2, **options)
    with pytest.raises(DumpError, match="is there already; --overwrite"):
        capture(model, text, out, **options)
    capture(model, text, out, overwrite=True, **options)
    assert sorted(os.listdir(out)) == [
        "capture",
        "documents.json",
        "head",
        "manifest.json",
        "panel",
    ]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(DumpError, match="holds other things than a capture: not replaced"):
        capture(model, text, tmp_path / "mine", overwrite=True, **options)
    with pytest.raises(DumpError, match="is a file; expected a directory"):
        capture(model, text, tmp_path / "mine" / "letter.txt", **options)
    with pytest.raises(DumpError, match="no such directory"):
        capture(model, text, tmp_path / "a" / "b", **options)


def test_a_head_that_is_no_product_is_not_kept_apart(tmp_path):
    import transformers

    config = transformers.Gemma2Config(
        vocab_size=small.CLASSES,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.5,
        final_logit_softcapping=2.0,
    )
    torch.manual_seed(0)
    model = LanguageModel(transformers.Gemma2ForCausalLM(config), small.tokenizer(), "capped")
    with pytest.raises(DumpError, match="it adds a bias, caps or scales them; --logits"):
        capture(model, [small.TEXT], tmp_path / "out", context=CONTEXT)
    # The whole of the model's own way from hidden states to logits is taken.
    texts = {"text": [small.TEXT], "context": CONTEXT, "sequential": True}
    assert not kldiv.evaluate_models(model, model, **texts).positions["kl"].to_numpy().any()


def test_padding_is_not_scored_unless_asked_for(folder, tmp_path):
    wide = small.saved(small.llama(classes=300), small.tokenizer(), tmp_path / "wide")
    assert evaluate(folder, "p", wide).about["kld_vocab_size"] == 257
    with pytest.raises(ValueError, match="has 264 classes, fewer than the 300 to score"):
        evaluate(folder, "p", wide, classes=300)


BAD_TOKENIZERS = [
    ({"swapped": True}, "id 0 is '!' or "),
    ({"beginning": True}, "a text begins with nothing or !"),
    (
        {"merges": [("t", "h")]},
        "token 31 of .*text.txt begins 'the ', cut as 't.h.e. ' or as 'th.e. .l'",
    ),
]


@pytest.mark.parametrize(("options", "said"), BAD_TOKENIZERS)
def test_tokenizers_that_differ(folder, tmp_path, options, said):
    other = small.saved(small.llama(), small.tokenizer(**options), tmp_path / "other")
    with pytest.raises(DumpError, match=f"the tokenizers of .*p and {other} differ: {said}"):
        evaluate(folder, "p", other)


def test_fillers_of_llama_cpp_are_no_tokens(folder, tmp_path):
    own = small.tokenizer()
    own.add_tokens([f"[PAD{number}]" for number in range(257, small.CLASSES)])
    filled = small.saved(small.llama(), own, tmp_path / "filled")
    assert evaluate(folder, "p", filled).about["kld_vocab_size"] == 257
    own.add_tokens(["<new>"])
    more = small.saved(small.llama(classes=300), own, tmp_path / "more")
    with pytest.raises(DumpError, match="id 264 is no token or '<new>'"):
        evaluate(folder, "p", more)


def test_models_that_are_no_language_models(folder, tmp_path):
    import transformers

    own = small.tokenizer()
    trunk = small.saved(small.llama().model, own, tmp_path / "trunk")
    with pytest.raises(DumpError, match="trunk is a LlamaModel, which has no language-model head"):
        evaluate(folder, "p", trunk)
    # The same, of a checkpoint that says it were one.
    config = json.loads((tmp_path / "trunk" / "config.json").read_text())
    config["architectures"] = ["LlamaForCausalLM"]
    (tmp_path / "trunk" / "config.json").write_text(json.dumps(config))
    with pytest.raises(DumpError, match=r"no language-model head: its weights lack lm_head.weight"):
        evaluate(folder, "p", trunk)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=small.CLASSES,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.5,
    )
    with pytest.raises(DumpError, match="both is no causal language model: what it says after"):
        LanguageModel(transformers.BertLMHeadModel(config), own, "both")


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (("p", "q"), {"context": 65}, r"context is 65 tokens, but .*p reads 64 at most"),
        (("p", "q"), {"text": "none.txt"}, "no such file: .*none.txt"),
        (("p", "q", "q"), {}, "two candidates have the name"),
        (("p", "none"), {}, "no such file: .*none"),
        (("p", "."), {}, "holds no model: neither config.json nor a .gguf file"),
        (("p", "text.txt"), {}, "is a file; expected a model"),
        (("p", "q"), {"device": "cuda:99"}, "the device cuda:99 is not there"),
        (("p", "q"), {"device": "abacus"}, "the device is 'abacus'; expected auto, cpu"),
        (("p", "q"), {"dtype": "int8"}, "the dtype is 'int8'; expected one of auto"),
        (("p", "q"), {"stride": 40}, "the stride is 40; expected 1 to 32"),
        (("p", "q"), {"clusters": ["a"]}, "1 cluster labels are given for"),
        (
            ("p", "q"),
            {"strata": {"x": "a"}},
            r"no stratum is given for sequence .*text.txt\[0:32\]",
        ),
        (("p", "q"), {"floor": [0.0]}, "floor has 1 numbers for 121 positions"),
    ],
)
def test_refusals(folder, monkeypatch, names, options, said):
    # All of it is known before weights are read.
    monkeypatch.setattr(LanguageModel, "logits", None)
    with pytest.raises((DumpError, ValueError), match=said) as raised:
        evaluate(folder, *names, **options)
    assert "\n" not in str(raised.value)


def test_broken_checkpoints_are_said_in_one_line(folder, tmp_path):
    broken = Path(small.saved(small.llama(), small.tokenizer(), tmp_path / "broken"))
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(DumpError, match="broken cannot be loaded: ") as raised:
        evaluate(folder, "p", broken)
    assert "\n" not in str(raised.value)
    (broken / "config.json").write_text("{")
    with pytest.raises(DumpError, match="broken cannot be loaded: "):
        evaluate(folder, "p", broken)


def test_the_table_keeps_what_ran(folder, tmp_path):
    result = evaluate(folder, "p", "q")
    result.write_positions(tmp_path / "kept.parquet")
    assert read_positions(tmp_path / "kept.parquet").about["models"] == result.about["models"]
