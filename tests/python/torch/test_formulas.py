"""The losses in torch operations, which other devices take: the same as those of the extension."""

import pytest

torch = pytest.importorskip("torch")

import kldiv.torch as kt  # noqa: E402
from kldiv.torch.ops.cross_entropy import formula as cross_entropy  # noqa: E402
from kldiv.torch.ops.distillation import formula as distillation  # noqa: E402
from kldiv.torch.ops.divergence import formula as divergence  # noqa: E402
from kldiv.torch.ops.loss import Loss  # noqa: E402
from samples import MORE, number_of  # noqa: E402

DIVERGENCES = [(name, number_of(options)) for name, options in MORE]
SPACES = ["logits", "log_probs", "probs"]


def rows(space, seed, *, masked):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    if masked:
        logits[1, 3] = -torch.inf
    convert = {"logits": lambda z: z, "log_probs": lambda z: z.log_softmax(-1)}
    return convert.get(space, lambda z: z.softmax(-1))(logits).requires_grad_()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("kind", "parameter"), DIVERGENCES)
def test_divergences(kind, parameter, space, masked):
    p, q = rows(space, 0, masked=masked), rows(space, 1, masked=masked)
    where = torch.tensor([True, True, False, True])
    weights = torch.tensor([1.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    for reduction, denominator in [
        ("none", None),
        ("mean", None),
        ("mean", 7.0),
        ("batchmean", None),
    ]:
        arguments = (
            p,
            q,
            kind,
            parameter,
            space,
            space,
            1.0,
            1.0,
            where,
            weights,
            reduction,
            denominator,
        )
        named = dict(zip(kt.ops.divergence.divergence.arguments, arguments, strict=True))
        mine, expected = kt.ops.divergence.divergence(*arguments), divergence(**named)
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-14)
        gradients = torch.autograd.grad(mine.sum(), (p, q))
        for one, other in zip(gradients, torch.autograd.grad(expected.sum(), (p, q)), strict=True):
            # At a class of probability 0 a gradient of probabilities is a limit that torch lacks.
            finite = one.isfinite() & (p != 0) & (q != 0)
            torch.testing.assert_close(one[finite], other[finite], rtol=1e-8, atol=1e-12)


@pytest.fixture
def elsewhere(monkeypatch):
    """Every tensor as one of another device: an operator of the extension would raise."""

    def refuse(*_, **__):
        raise AssertionError("the extension was called for a tensor of another device")

    monkeypatch.setattr(Loss, "__call__", refuse)
    monkeypatch.setattr(kt.functional.rows, "EXTENSION_DEVICE", "none")


PUBLIC = {
    "kl": lambda p, q, labels: kt.kl(p, q, reduction="mean"),
    "reverse_kl": lambda p, q, labels: kt.reverse_kl(p, q),
    "jensen_shannon": lambda p, q, labels: kt.jensen_shannon(p, q, axis=1),
    "entropy": lambda p, q, labels: kt.entropy(q),
    "logsumexp": lambda p, q, labels: kt.logsumexp(q, reduction="sum"),
    "gather_log_probs": lambda p, q, labels: kt.gather_log_probs(q, labels),
    "distillation": lambda p, q, labels: kt.distillation_loss(q, p, labels, temperature=2.0),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_other_devices_take_the_formula(name, request):
    p, q = rows("logits", 0, masked=False), rows("logits", 1, masked=False)
    labels = torch.tensor([0, 6, -100, 2])
    expected = PUBLIC[name](p, q, labels)
    (gradient,) = torch.autograd.grad(expected.sum(), q)
    request.getfixturevalue("elsewhere")
    value = PUBLIC[name](p, q, labels)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0.0)
    torch.testing.assert_close(
        torch.autograd.grad(value.sum(), q)[0], gradient, rtol=1e-8, atol=1e-12
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_meta_tensors(name):
    p, q = (torch.empty(4, 7, device="meta") for _ in range(2))
    labels = torch.empty(4, dtype=torch.int64, device="meta")
    value = PUBLIC[name](p, q, labels)
    real = PUBLIC[name](torch.zeros(4, 7), torch.zeros(4, 7), torch.zeros(4, dtype=torch.int64))
    assert value.device.type == "meta"
    assert (value.shape, value.dtype) == (real.shape, real.dtype)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", PUBLIC)
def test_cuda(name):
    p, q = rows("logits", 0, masked=False), rows("logits", 1, masked=False)
    labels = torch.tensor([0, 6, -100, 2])
    value = PUBLIC[name](p.cuda(), q.cuda(), labels.cuda())
    torch.testing.assert_close(value.cpu(), PUBLIC[name](p, q, labels), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(soft, smoothing, weighted):
    z = rows("logits", 3, masked=False)
    labels = torch.tensor([0, -100, 6, 2])
    targets = rows("probs", 4, masked=False).detach() if soft else labels
    classes = torch.linspace(0.1, 2, 7, dtype=torch.float64) if weighted else None
    loss = getattr(kt.ops.cross_entropy, "soft_cross_entropy" if soft else "cross_entropy")
    options = (classes, "logits", 1.5, smoothing, 0.01, 5.0, None, None, "mean", None)
    arguments = (z, targets, *(() if soft else (-100,)), *options)
    mine, expected = (
        loss(*arguments),
        cross_entropy(**dict(zip(loss.arguments, arguments, strict=True))),
    )
    torch.testing.assert_close(mine, expected, rtol=1e-10, atol=0.0)
    torch.testing.assert_close(
        *(torch.autograd.grad(value, z)[0] for value in (mine, expected)), rtol=1e-8, atol=1e-12
    )


@pytest.mark.parametrize(("kind", "parameter"), DIVERGENCES)
def test_distillation(kind, parameter):
    teacher, student = rows("logits", 0, masked=False), rows("logits", 1, masked=False)
    labels = torch.tensor([0, -100, 6, 2])
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    for shares in [(0.3, 0.7), (1.0, 0.0), (0.0, 1.0)]:
        arguments = (teacher, student, labels, kind, parameter, 2.0, *shares, -100, 0.1)
        arguments = (*arguments, None, weights, "mean", None)
        loss = kt.ops.distillation.distillation
        mine, expected = (
            loss(*arguments),
            distillation(**dict(zip(loss.arguments, arguments, strict=True))),
        )
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-15)
        for one, other in zip(
            torch.autograd.grad(mine, (teacher, student), allow_unused=True),
            torch.autograd.grad(expected, (teacher, student), allow_unused=True),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)
