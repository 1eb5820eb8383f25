"""The same inputs through torch's own losses, in float64 where torch is accurate."""

import numpy as np
import pytest

import kldiv

torch = pytest.importorskip("torch")
F = torch.nn.functional


def numpy(tensor):
    return tensor.detach().numpy()


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(5)

    def make(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return make


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "batchmean"])
@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div_loss(tensors, reduction, log_target):
    teacher, student = tensors(6, 40), tensors(6, 40).requires_grad_()
    input, target = student.log_softmax(-1), teacher.log_softmax(-1)
    loss = torch.nn.KLDivLoss(reduction=reduction, log_target=log_target)
    with pytest.warns(UserWarning, match="batchmean") if reduction == "mean" else no_warning():
        expected = loss(input, target if log_target else target.exp())
    # torch reduces over elements: its "none" keeps them, its "mean" divides by all of them.
    of_rows = {"none": "none", "sum": "sum", "mean": "sum", "batchmean": "batchmean"}[reduction]
    value, gradient = kldiv.value_and_grad(
        kldiv.kl, numpy(teacher), numpy(student), reduction=of_rows
    )
    if reduction == "none":
        expected = expected.sum(-1)
    factor = 1 / student.numel() if reduction == "mean" else 1.0
    np.testing.assert_allclose(value * factor, numpy(expected), rtol=1e-12)
    expected.sum().backward()
    np.testing.assert_allclose(gradient * factor, numpy(student.grad), rtol=1e-10, atol=1e-16)


def no_warning():
    import contextlib

    return contextlib.nullcontext()


def test_kl_div_loss_of_given_spaces(tensors):
    target = tensors(5, 17).softmax(-1).requires_grad_()
    input = tensors(5, 17).log_softmax(-1).requires_grad_()
    expected = torch.nn.KLDivLoss(reduction="sum")(input, target)
    expected.backward()
    value, (by_target, by_input) = kldiv.value_and_grad(
        kldiv.kl,
        numpy(target),
        numpy(input),
        space=("probs", "log_probs"),
        wrt=("p", "q"),
        reduction="sum",
    )
    assert value == pytest.approx(expected.item(), rel=1e-12, abs=0)
    np.testing.assert_allclose(by_input, numpy(input.grad), rtol=1e-12)
    np.testing.assert_allclose(by_target, numpy(target.grad), rtol=1e-10)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["labels", "ignored", "distributions"])
def test_cross_entropy_loss(tensors, reduction, smoothing, weighted, kind):
    logits = tensors(7, 23).requires_grad_()
    weight = tensors(23).exp() if weighted else None
    if kind == "distributions":
        target = tensors(7, 23).softmax(-1)
    else:
        target = torch.randint(0, 23, (7,), generator=torch.Generator().manual_seed(1))
        if kind == "ignored":
            target[2:4] = -100
    loss = torch.nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing, reduction=reduction)
    expected = loss(logits, target)
    expected.sum().backward()
    value, gradient = kldiv.value_and_grad(
        kldiv.cross_entropy,
        numpy(logits),
        numpy(target),
        class_weights=None if weight is None else numpy(weight),
        label_smoothing=smoothing,
        reduction=reduction,
    )
    np.testing.assert_allclose(value, numpy(expected), rtol=1e-12)
    np.testing.assert_allclose(gradient, numpy(logits.grad), rtol=1e-10, atol=1e-16)


def test_cross_entropy_loss_over_channels(tensors):
    logits = tensors(2, 9, 4, 3).requires_grad_()
    target = torch.randint(0, 9, (2, 4, 3), generator=torch.Generator().manual_seed(2))
    expected = F.cross_entropy(logits, target)
    expected.backward()
    value, gradient = kldiv.value_and_grad(
        kldiv.cross_entropy, numpy(logits), numpy(target), axis=1, reduction="mean"
    )
    assert value == pytest.approx(expected.item(), rel=1e-12, abs=0)
    np.testing.assert_allclose(gradient, numpy(logits.grad), rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_torch_loses_all_digits(dtype):
    """Teacher and student that nearly agree, in torch's dtype: kldiv is right, torch is not."""
    generator = torch.Generator().manual_seed(3)
    teacher = 3 * torch.randn(4, 50_257, generator=generator)
    noise = 1e-3 if dtype == torch.float32 else 1e-1
    student = (teacher + noise * torch.randn(4, 50_257, generator=generator)).to(dtype)
    teacher = teacher.to(dtype)
    exact = F.kl_div(
        student.double().log_softmax(-1),
        teacher.double().log_softmax(-1),
        reduction="none",
        log_target=True,
    ).sum(-1)
    ours = torch.from_numpy(kldiv.kl(teacher, student))
    theirs = F.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    # float64 torch itself is only good for eps·Σ|p ln(p/q)| here.
    assert ((ours - exact).abs() / exact).max() < 1e-6
    assert ((theirs - exact).abs() / exact).max() > 1e-4
