"""Losses from a `TopK` on tensors: those of NumPy, differentiable, compiled, and as formulas."""

import functools
import itertools

import numpy as np
import pytest
import torch

import kldiv
import kldiv.torch
from kldiv._kldiv import RULES
from kldiv.torch.ops.loss import as_tensor
from kldiv.torch.ops.sparse import sparse

CLASSES, K = 12, 5
LOSSES = [
    ("kl", {}),
    ("reverse_kl", {}),
    ("jensen_shannon", {"beta": 0.3}),
    ("total_variation", {}),
    ("renyi", {"alpha": 0.7}),
]


def has_meaning(rule, loss):
    if rule == "sampled":
        return loss == "kl"
    if rule == "truncate":
        return loss != "renyi"
    return rule != "renormalize_p" or loss != "reverse_kl"


CASES = [one for one in itertools.product(RULES, LOSSES) if has_meaning(one[0], one[1][0])]


def kept(rule, dtype=np.float64, ragged=True):
    rng = np.random.default_rng(3)
    log_probs = kldiv.log_softmax(2 * rng.normal(size=(3, CLASSES))).astype(dtype)
    ids = np.argsort(-log_probs, axis=-1)[:, :K]
    values = np.take_along_axis(log_probs, ids, axis=-1)
    weights = rng.uniform(size=ids.shape) if rule == "sampled" else None
    if not ragged:
        return kldiv.TopK(ids, values, classes=CLASSES, weights=weights)
    short = [0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14]
    weights = None if weights is None else weights.reshape(-1)[short]
    offsets = [0, 5, 7, 12]
    ids, values = ids.reshape(-1)[short], values.reshape(-1)[short]
    return kldiv.TopK(ids, values, classes=CLASSES, offsets=offsets, weights=weights)


def logits(dtype=torch.float64):
    rng = np.random.default_rng(4)
    return torch.tensor(2 * rng.normal(size=(3, CLASSES)), dtype=dtype)


@pytest.mark.parametrize(("rule", "loss"), CASES, ids=str)
def test_values_and_gradients_are_those_of_numpy(rule, loss):
    name, options = loss
    top_k = kept(rule)
    z = logits().requires_grad_()
    options = {"rule": rule, "temperature": (1.0, 1.5), **options}
    value = getattr(kldiv.torch, name)(top_k, z, reduction="sum", **options)
    value.backward()
    expected, gradient = kldiv.value_and_grad(
        getattr(kldiv, name), top_k, z.detach().numpy(), reduction="sum", **options
    )
    assert value.item() == expected
    np.testing.assert_array_equal(z.grad.numpy(), gradient)


@pytest.mark.costly
@pytest.mark.parametrize(("rule", "loss"), CASES, ids=str)
def test_formulas_agree_and_have_derivatives(rule, loss):
    name, options = loss
    top_k = kept(rule)
    z = logits().requires_grad_()

    def of(z):
        return getattr(kldiv.torch, name)(
            top_k, z, rule=rule, temperature=(1.0, 1.5), **options
        ).sum()

    # Under a transform losses are computed in torch operations.
    slopes, value = torch.func.grad_and_value(of)(z.detach())
    expected = of(z)
    (gradient,) = torch.autograd.grad(expected, z)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(slopes, gradient, rtol=1e-10, atol=1e-14)
    if loss[0] != "total_variation":
        assert torch.autograd.gradcheck(of, z)
        assert torch.autograd.gradgradcheck(of, z)


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"sampled"}))
def test_all_classes_kept_and_none_as_formulas(rule):
    z = logits()
    teacher = kldiv.log_softmax(np.random.default_rng(5).normal(size=(3, CLASSES)))
    every = np.arange(CLASSES)[None].repeat(3, 0)
    whole = kldiv.TopK(every, teacher, classes=CLASSES)
    none = kldiv.TopK([2], [-0.3], offsets=[0, 0, 1, 1], classes=CLASSES)
    for top_k in (whole, none):
        expected = kldiv.kl(top_k, z.numpy(), rule=rule)
        tensors = kldiv.torch.top_k_tensors(top_k)
        batch = functools.partial(kldiv.torch.kl, tensors, rule=rule)
        found = torch.func.vmap(lambda _, of=batch: of(z))(torch.zeros(1))
        np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-10)


def test_cross_entropy_and_its_class_axis():
    top_k = kept("tail", ragged=False)
    z = logits().requires_grad_()
    loss = kldiv.torch.cross_entropy(z, top_k, rule="tail")
    loss.backward()
    expected, gradient = kldiv.value_and_grad(
        kldiv.cross_entropy, z.detach().numpy(), top_k, rule="tail", reduction="mean"
    )
    assert loss.item() == expected
    np.testing.assert_array_equal(z.grad.numpy(), gradient)
    two = kldiv.TopK(top_k.ids[None], top_k.values[None], classes=CLASSES)
    of_three_axes = kldiv.torch.cross_entropy(z.detach().T[None], two, rule="tail")
    assert of_three_axes.item() == expected
    with pytest.raises(ValueError, match="only reduction applies"):
        kldiv.torch.cross_entropy(z, top_k, rule="tail", label_smoothing=0.1)
    with pytest.raises(ValueError, match=r"apply where target is a kldiv\.TopK"):
        kldiv.torch.cross_entropy(z, torch.zeros(3, dtype=torch.long), rule="tail")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_code_takes_tensors(dtype):
    top_k = kept("tail", np.float32)
    teacher = kldiv.torch.top_k_tensors(top_k)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(teacher, z):
        return kldiv.torch.kl(teacher, z, rule="tail", reduction="mean")

    z = logits(dtype).requires_grad_()
    value = loss(teacher, z)
    value.backward()
    eager = logits(dtype).requires_grad_()
    kldiv.torch.kl(top_k, eager, rule="tail", reduction="mean").backward()
    assert value.item() == kldiv.torch.kl(top_k, eager, rule="tail", reduction="mean").item()
    torch.testing.assert_close(z.grad, eager.grad)
    # torch 2.6 says that something was raised, and not what.
    with pytest.raises(Exception, match=r"top_k_tensors|^Observed exception\n"):
        torch.compile(lambda z: kldiv.torch.kl(top_k, z, rule="tail"), fullgraph=True)(z)


@pytest.mark.filterwarnings("ignore")
def test_operator():
    teacher = kldiv.torch.top_k_tensors(kept("tail"))
    of = (teacher.ids, teacher.log_probs, teacher.offsets, None, True, True, teacher.width)
    given = (logits().requires_grad_(), *of, "kl", 0.0, "tail", 0.0, 1.0, 1.0, False)
    arguments = [
        as_tensor(value) if name in sparse.numbers else value
        for name, value in zip(sparse.arguments, (*given, None, None, "sum", None), strict=True)
    ]
    torch.library.opcheck(torch.ops.kldiv.sparse.default, (*arguments, True))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    upstream = torch.ones((), dtype=torch.float64)
    backward = torch.ops.kldiv.sparse_backward.default
    torch.library.opcheck(backward, (upstream, *arguments, True), test_utils=checks)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_distillation_from_a_top_k(alpha):
    top_k = kept("tail", ragged=False)
    z = logits().requires_grad_()
    labels = torch.tensor([1, -100, 7])
    module = kldiv.torch.DistillationLoss(
        alpha=alpha, rule="tail", temper_after=True, temperature=2.0, scale_by_t_squared=True
    )
    assert "rule='tail'" in repr(module)
    loss = module(z, top_k, labels)
    loss.backward()
    keep = labels.numpy() >= 0
    options = {"rule": "tail", "temper_after": True, "temperature": 2.0, "where": keep}
    divergence, of_p = kldiv.value_and_grad(
        kldiv.kl, top_k, z.detach().numpy(), reduction="mean", **options
    )
    cross_entropy, of_labels = kldiv.value_and_grad(
        kldiv.cross_entropy, z.detach().numpy(), labels.numpy(), reduction="mean"
    )
    assert loss.item() == pytest.approx(
        4 * alpha * divergence + (1 - alpha) * cross_entropy, rel=1e-12
    )
    np.testing.assert_allclose(
        z.grad.numpy(), 4 * alpha * of_p + (1 - alpha) * of_labels, rtol=1e-9, atol=1e-15
    )
    with pytest.raises(ValueError, match="inplace=True needs the logits of a teacher"):
        kldiv.torch.distillation_loss(z, top_k, labels, rule="tail", inplace=True)
    with pytest.raises(ValueError, match="rule says what its other classes are taken for"):
        kldiv.torch.distillation_loss(z, top_k, labels)
    wide = torch.cat([z.detach(), torch.full((3, 4), 9.0)], -1)
    options = {"rule": "tail", "alpha": 1.0}
    assert kldiv.torch.distillation_loss(wide, top_k, vocabulary="truncate", **options) == (
        kldiv.torch.distillation_loss(z, top_k, **options)
    )


def test_what_is_refused():
    top_k = kept("tail")
    z = logits()
    for options, message in (
        ({}, "rule says what its other classes are taken for"),
        ({"rule": "sampled"}, "the teacher has no weights"),
        ({"rule": "tail", "temperature": 2.0}, "not known at another temperature"),
        ({"rule": "tail", "space": "probs"}, "space and normalize do not apply"),
    ):
        with pytest.raises(ValueError, match=message):
            kldiv.torch.kl(top_k, z, **options)
    with pytest.raises(ValueError, match="has 11"):
        kldiv.torch.kl(top_k, z[:, :11], rule="tail")
    with pytest.raises(ValueError, match=r"apply where p is a kldiv\.TopK"):
        kldiv.torch.kl(z, z, rule="tail")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("rule", "loss"), CASES, ids=str)
def test_cuda_gives_what_the_cpu_gives(rule, loss):
    name, options = loss
    top_k = kept(rule)
    found = []
    for device in ("cpu", "cuda"):
        z = logits().to(device).requires_grad_()
        value = getattr(kldiv.torch, name)(top_k, z, rule=rule, reduction="mean", **options)
        value.backward()
        found.append((value.detach().cpu(), z.grad.cpu()))
    torch.testing.assert_close(*(one[0] for one in found), rtol=1e-12, atol=0)
    torch.testing.assert_close(*(one[1] for one in found), rtol=1e-10, atol=1e-14)
