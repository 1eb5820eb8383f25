"""Labels, masks and weights as people hold them: any dtype that means the same."""

import pytest

torch = pytest.importorskip("torch")

import kldiv  # noqa: E402
import kldiv.torch as kt  # noqa: E402

INTEGERS = [
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
]


def logits(rows=4, classes=200):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, classes, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("ignore_index", [-100, 100, 156, 2**63, 2**70, None])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_labels(dtype, ignore_index):
    z = logits()
    # As bytes, −100 is 156.
    labels = [3, 100, 7, 100] if dtype == torch.int8 else [3, 156, 7, 100]
    held = torch.tensor(labels, dtype=dtype)
    expected = z.log_softmax(-1)[range(4), labels]
    expected = torch.where(torch.tensor([at == ignore_index for at in labels]), 0.0, expected)

    def function(z, held):
        return kt.gather_log_probs(z, held, ignore_index=ignore_index)

    def distilled(z, held):
        return -kt.distillation_loss(
            z, z, held, alpha=0.0, ignore_index=ignore_index, reduction="none"
        )

    for one in (function, distilled):
        torch.testing.assert_close(one(z, held), expected)
        torch.testing.assert_close(torch.vmap(one)(z, held), expected)
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf, held).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), leaf)
    one_hot = torch.nn.functional.one_hot(torch.tensor(labels), 200)
    wide = leaf.detach().requires_grad_()
    kept = (expected != 0).double()[:, None]
    reference = (kept * (one_hot - wide.softmax(-1))).square().sum()
    torch.testing.assert_close(second, torch.autograd.grad(reference, wide)[0])


def test_log_softmax_with_masks_of_any_strides():
    z = logits()
    strided = torch.tensor([1, 0, 0, 0, 1, 0, 0, 0], dtype=torch.bool)[::2]
    for where in (torch.tensor(True), torch.tensor([False]), strided):
        expected = torch.where(where[..., None], z.log_softmax(-1), 0.0)
        torch.testing.assert_close(kt.log_softmax(z, where=where), expected)


def test_an_index_of_uint64_that_int64_lacks():
    held = torch.tensor([3, 2**63 - 1], dtype=torch.int64).to(torch.uint64)
    held = torch.cat([held[:1], (held[1:].view(torch.int64) + 5).view(torch.uint64)])
    beyond = 2**63 + 4
    assert held.tolist() == [3, beyond]
    value = kt.gather_log_probs(logits(2), held, ignore_index=beyond)
    assert value[1] == 0
    with pytest.raises(IndexError, match=f"label {beyond} in row 1"):
        kt.gather_log_probs(logits(2), held)
    with pytest.raises(IndexError, match=f"label {beyond} in row 1"):
        kt.distillation_loss(logits(2), logits(2), held)


def test_compiled_and_drop_in_labels():
    x, y = torch.randn(300, 256), torch.full((300,), 156, dtype=torch.uint8)
    expected = torch.nn.functional.cross_entropy(x, y.long())
    torch.testing.assert_close(kt.cross_entropy(x, y), expected)
    compiled = torch.compile(kt.cross_entropy, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, y), expected)


MASKED = {
    "kl": lambda p, q, w: kt.kl(p, q, where=w),
    "mean": lambda p, q, w: kt.jensen_shannon(p, q, where=w, reduction="mean"),
    "entropy": lambda p, q, w: kt.entropy(p, where=w),
    "log_softmax": lambda p, q, w: kt.log_softmax(p, where=w),
    "gather": lambda p, q, w: kt.gather_log_probs(p, torch.tensor([1, 2, 3, 500]), where=w),
    "distillation": lambda p, q, w: kt.distillation_loss(p, q, alpha=1.0, where=w),
    "in_place": lambda p, q, w: kt.distillation_loss(
        p.clone().requires_grad_() * 1, q, alpha=1.0, where=w, inplace=True
    ),
}


@pytest.mark.parametrize("name", MASKED)
def test_masks_of_integers(name):
    loss, p, q = MASKED[name], logits(), logits().flip(0)
    p[3] = torch.nan
    mask = torch.tensor([True, True, False, False])
    expected = loss(p, q, mask)
    assert expected.isfinite().all()
    for dtype in INTEGERS:
        assert torch.equal(loss(p, q, mask.to(dtype)), expected)
    held = mask.long()
    if name not in ("gather", "in_place"):
        mapped = torch.vmap(lambda p: loss(p, q, held))(p[None])[0]
        torch.testing.assert_close(mapped, expected)
        gradient = torch.func.grad(lambda p: loss(p, q, held).sum())(p)
        assert torch.equal(gradient[2:], torch.zeros(2, 200, dtype=torch.float64))
    held[1] = 2
    with pytest.raises(ValueError, match=r"where .* integers 0 and 1, but holds 2 at index 1"):
        loss(p, q, held)
    with pytest.raises(TypeError, match="where has dtype float32"):
        loss(p, q, mask.float())
    if name != "in_place":
        with pytest.raises(TypeError, match="where has dtype float32"):
            torch.vmap(lambda p: loss(p, q, mask.float()))(p[None])


def test_rows_left_out_of_a_log_softmax():
    z = logits()
    z[1] = torch.nan
    z.requires_grad_()
    mask = torch.tensor([True, False, True, True])
    value = kt.log_softmax(z.T, axis=0, where=mask).T
    kept = z.detach().log_softmax(-1)
    torch.testing.assert_close(value, torch.where(mask[:, None], kept, 0.0))
    upstream = torch.linspace(1, 2, z.numel(), dtype=z.dtype).reshape(z.shape)
    (gradient,) = torch.autograd.grad(value, z, upstream)
    assert torch.equal(gradient[1], torch.zeros(200, dtype=z.dtype))
    (expected,) = torch.autograd.grad(z.log_softmax(-1), z, upstream)
    torch.testing.assert_close(gradient[mask], expected[mask])


def test_boolean_weights():
    p, q = logits(), logits().flip(0)
    mask = torch.tensor([True, False, True, True])
    expected = kt.kl(p, q, where=mask, reduction="mean")
    assert torch.equal(kt.kl(p, q, weights=mask, reduction="mean"), expected)
    mapped = torch.func.vmap(lambda p: kt.kl(p, q, weights=mask, reduction="mean"))(p[None])[0]
    torch.testing.assert_close(mapped, expected)
    value = kt.distillation_loss(q, p, alpha=1.0, weights=mask)
    assert torch.equal(value, expected)


def test_rows_left_out_are_positive_zeros():
    labels, mask = torch.tensor([0, -100, 1]), torch.tensor([True, True, False])
    value = kt.gather_log_probs(logits(3), labels, where=mask)
    assert value.signbit().tolist() == [True, False, False]


LABELS = torch.tensor([1, 2, 3, 4])
NUMBERS = {
    "kl-temperature": lambda p, x: kt.kl(p, p, temperature=x),
    "pair-temperature": lambda p, x: kt.reverse_kl(p, p, temperature=(1.0, x)),
    "beta": lambda p, x: kt.jensen_shannon(p, p, beta=x),
    "alpha": lambda p, x: kt.renyi(p, p, alpha=x),
    "denominator": lambda p, x: kt.total_variation(p, p, reduction="mean", denominator=x),
    "entropy-temperature": lambda p, x: kt.entropy(p, temperature=x),
    "logsumexp-temperature": lambda p, x: kt.logsumexp(p, temperature=x),
    "log_softmax-temperature": lambda p, x: kt.log_softmax(p, temperature=x),
    "gather-temperature": lambda p, x: kt.gather_log_probs(p, LABELS, temperature=x),
    "loss-temperature": lambda p, x: kt.distillation_loss(p, p, LABELS, temperature=x),
    "loss-alpha": lambda p, x: kt.distillation_loss(p, p, LABELS, alpha=x),
    "loss-label_smoothing": lambda p, x: kt.distillation_loss(p, p, LABELS, label_smoothing=x),
    "loss-num_items_in_batch": lambda p, x: kt.distillation_loss(
        p, p, LABELS, num_items_in_batch=x
    ),
    "loss-beta": lambda p, x: kt.distillation_loss(
        p, p, LABELS, divergence="jensen_shannon", beta=x
    ),
    "loss-order": lambda p, x: kt.distillation_loss(p, p, LABELS, divergence="renyi", order=x),
    "module-temperature": lambda p, x: kt.DistillationLoss(temperature=x)(p, p, LABELS),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_have_no_gradient(name):
    loss, p = NUMBERS[name], logits()
    number = torch.tensor(0.5, requires_grad=True)
    argument = name.rpartition("-")[2]
    message = f"{argument} has no gradient here; pass {argument}.detach()"
    with pytest.raises(ValueError, match=message):
        loss(p, number)
    with pytest.raises(ValueError, match=message):
        torch.func.grad(lambda x: loss(p, x).sum())(number.detach())
    expected = loss(p, 0.5)
    assert torch.equal(loss(p, number.detach()), expected)
    with torch.no_grad():
        assert torch.equal(loss(p, number), expected)


def test_a_smoothing_that_requires_a_gradient_is_refused_as_torch_does():
    x = torch.zeros(600, 256)
    smoothing = torch.tensor(0.1, requires_grad=True)
    with pytest.raises(TypeError, match="label_smoothing"):
        kt.cross_entropy(x, torch.zeros(600, dtype=torch.int64), label_smoothing=smoothing)


def test_numpy_functions_have_no_gradient_of_tensors():
    p, number = logits(), torch.tensor(0.5, requires_grad=True)
    with pytest.raises(TypeError, match=r"kldiv\.torch .* take temperature\.detach\(\)"):
        kldiv.kl(p, p, temperature=(1.0, number))
    with pytest.raises(TypeError, match=r"take denominator\.detach\(\)"):
        kldiv.kl(p, p, reduction="mean", denominator=number)
    with pytest.raises(TypeError, match=r"p is a tensor .* kldiv\.torch"):
        kldiv.kl([p[0].requires_grad_()], [p[1]])
