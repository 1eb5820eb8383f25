"""The registered operators: autograd, compilation, export, torch.func."""

import copy
import pickle

import pytest

torch = pytest.importorskip("torch")

from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402

import kldiv.torch as kt  # noqa: E402
from kldiv._kldiv import DIVERGENCES  # noqa: E402
from kldiv.torch.ops.cross_entropy import cross_entropy, soft_cross_entropy  # noqa: E402
from kldiv.torch.ops.distillation import distillation  # noqa: E402
from kldiv.torch.ops.divergence import divergence  # noqa: E402
from kldiv.torch.ops.kl_div import kl_div  # noqa: E402
from kldiv.torch.ops.loss import as_tensor  # noqa: E402
from kldiv.torch.ops.softmax import entropy, logsumexp  # noqa: E402
from samples import GENERAL  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    monkeypatch.setattr(kt.functional.rows, "SMALL", 0)


def tensors(*shape, dtype=torch.float64, seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for _ in range(count)
    ]


LABELS = torch.tensor([3, 0, -100])
WHERE = torch.tensor([True, False, True])
WEIGHTS = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

# Name, and a function of two batches of three rows.
LOSSES = {
    "kl_mean": lambda p, q: kt.kl(p, q, reduction="mean"),
    "kl_rows": lambda p, q: kt.kl(p, q, temperature=2.0),
    "kl_weighted": lambda p, q: kt.kl(p, q, where=WHERE, weights=WEIGHTS, reduction="mean"),
    "reverse_kl_batchmean": lambda p, q: kt.reverse_kl(p, q, reduction="batchmean"),
    **{
        name: lambda p, q, name=name: getattr(kt, name)(p, q, reduction="sum", **GENERAL[name])
        for name in GENERAL
    },
    "cross_entropy": lambda p, q: kt.cross_entropy(q, LABELS, label_smoothing=0.1) + 0 * p.sum(),
    "soft_cross_entropy": lambda p, q: kt.cross_entropy(q, p.softmax(-1)),
    "kl_div": lambda p, q: kt.kl_div(q.log_softmax(-1), p.softmax(-1), reduction="batchmean"),
    "kl_div_log": lambda p, q: kt.kl_div(
        q.log_softmax(-1), p.log_softmax(-1), reduction="sum", log_target=True
    ),
    "entropy": lambda p, q: kt.entropy(p, reduction="sum") + 0 * q.sum(),
    "logsumexp": lambda p, q: kt.logsumexp(q, reduction="mean") + 0 * p.sum(),
    "log_softmax": lambda p, q: kt.log_softmax(q, temperature=0.7) + 0 * p.sum(),
    "gather_log_probs": lambda p, q: kt.gather_log_probs(q, LABELS) + 0 * p.sum(),
    "distillation": lambda p, q: kt.distillation_loss(
        q, p, LABELS, temperature=2.0, alpha=0.3, detach_teacher=False
    ),
    "distillation_rows": lambda p, q: kt.distillation_loss(
        q, p, LABELS, divergence="reverse_kl", reduction="none", detach_teacher=False
    ),
}


DETACHED = [LOSSES[name] for name, one in DIVERGENCES.items() if one.detached]


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]


def test_gradients(loss):
    if loss in DETACHED:
        # Its weights are constants to gradients, and not to differences of values.
        return
    assert torch.autograd.gradcheck(loss, tensors(3, 5), atol=1e-6)


def test_second_gradients(loss):
    if loss in DETACHED:
        # Its weights are constants to gradients, and not to differences of values.
        return
    # Of random directions, in a fraction of the time.
    assert torch.autograd.gradgradcheck(loss, tensors(3, 5), atol=1e-6, fast_mode=True)


def test_one_side_only(loss):
    p, q = tensors(3, 5)
    both = torch.autograd.grad(loss(p, q).sum(), (p, q))
    (of_p,) = torch.autograd.grad(loss(p, q.detach()).sum(), p)
    (of_q,) = torch.autograd.grad(loss(p.detach(), q).sum(), q)
    assert torch.equal(of_p, both[0])
    assert torch.equal(of_q, both[1])
    assert not loss(p.detach(), q.detach()).requires_grad


def test_backward_twice_and_upstream(loss):
    p, q = tensors(3, 5)
    value = loss(p, q).sum()
    first = torch.autograd.grad(value, (p, q), 3 * torch.ones(()).double(), retain_graph=True)
    second = torch.autograd.grad(value, (p, q), torch.ones(()).double())
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, 3 * other)


@pytest.mark.slow
def test_compiled_without_breaks_and_for_any_batch_size(loss):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    rows = "LABELS" not in loss.__code__.co_names and "WHERE" not in loss.__code__.co_names
    compiled = torch.compile(loss, fullgraph=True, backend=counter, dynamic=True if rows else None)
    counts = []
    for batch in (3, 4, 7) if rows else (3,):
        p, q = tensors(batch, 5, seed=batch)
        value = compiled(p, q)
        torch.testing.assert_close(value, loss(p, q))
        gradients = torch.autograd.grad(value.sum(), (p, q))
        for one, other in zip(
            gradients, torch.autograd.grad(loss(p, q).sum(), (p, q)), strict=True
        ):
            torch.testing.assert_close(one, other)
        counts.append(counter.frame_count)
    # Dynamo may look at the first call twice.
    assert set(counts) == {counts[0]}


@pytest.mark.slow
def test_inductor():
    torch._dynamo.reset()

    def step(teacher, student, labels):
        return kt.distillation_loss(student * 2.0, teacher, labels, alpha=0.5).exp()

    compiled = torch.compile(step, fullgraph=True)
    p, q = tensors(3, 5, dtype=torch.float32)
    torch.testing.assert_close(compiled(p, q, LABELS), step(p, q, LABELS))
    (mine,) = torch.autograd.grad(compiled(p, q, LABELS), q)
    torch.testing.assert_close(mine, torch.autograd.grad(step(p, q, LABELS), q)[0])


def test_export():
    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 5)
            self.loss = kt.DistillationLoss(temperature=2.0)

        def forward(self, x, teacher, labels):
            return self.loss(self.linear(x), teacher, labels)

    model = Step()
    inputs = (torch.randn(3, 4), torch.randn(3, 5), LABELS)
    exported = torch.export.export(model, inputs)
    assert any("kldiv.distillation" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(*inputs), model(*inputs))


@pytest.mark.parametrize("name", ["kl", "kl_weighted", "cross_entropy", "kl_div", "distillation"])
def test_torch_func(name):
    loss = LOSSES[name]
    p, q = (tensor.detach() for tensor in tensors(3, 5))
    gradient = torch.func.grad(lambda q: loss(p, q).sum())(q)
    q.requires_grad_()
    torch.testing.assert_close(gradient, torch.autograd.grad(loss(p, q).sum(), q)[0])


@pytest.mark.parametrize("name", ["kl", "kl_weighted", "cross_entropy", "kl_div", "distillation"])
def test_vmap(name):
    loss = LOSSES[name]
    p, q = (tensor.detach() for tensor in tensors(4, 3, 5))
    mapped = torch.vmap(loss)(p, q)
    torch.testing.assert_close(
        mapped, torch.stack([loss(*pair) for pair in zip(p, q, strict=True)])
    )
    per_sample = torch.vmap(torch.func.grad(lambda q, p: loss(p, q)))(q, p)
    for at in range(4):
        torch.testing.assert_close(
            per_sample[at], torch.func.grad(lambda q, at=at: loss(p[at], q))(q[at])
        )


@pytest.mark.parametrize("name", ["kl", "jensen_shannon", "entropy", "logsumexp", "log_softmax"])
def test_strides_and_axes(name):
    (z,) = tensors(4, 6, 8, count=1)
    function = getattr(kt, name)
    for view, axis in [(z.transpose(0, 2), 1), (z[:, ::2], -1), (z.permute(2, 0, 1), 0)]:
        plain = view.detach().movedim(axis, -1).contiguous().requires_grad_()
        given = view.detach().requires_grad_()
        other, plain_other = given.detach().flip(0), plain.detach().flip(0 if axis else 1)
        if axis == 0:
            other = given.detach().flip(1)
            plain_other = plain.detach().flip(0)
        pair, plain_pair = ((given, other), (plain, plain_other))
        if name not in ("kl", "jensen_shannon"):
            pair, plain_pair = pair[:1], plain_pair[:1]
        value, expected = function(*pair, axis=axis), function(*plain_pair)
        if name == "log_softmax":
            expected = expected.movedim(-1, axis)
        torch.testing.assert_close(value, expected)
        (gradient,) = torch.autograd.grad(value.square().sum(), given)
        (wanted,) = torch.autograd.grad(expected.square().sum(), plain)
        torch.testing.assert_close(gradient, wanted.movedim(-1, axis))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda p: kt.kl(p, p[:, :4]),
            ValueError,
            r"p has shape \(3, 5\) but q has shape \(3, 4\)",
        ),
        (
            lambda p: kt.kl(p, p.to("meta")),
            RuntimeError,
            "same device, but found p on cpu, q on meta",
        ),
        (lambda p: kt.kl(p.long(), p), TypeError, "p has dtype torch.int64"),
        (lambda p: kt.kl(p, [1.0]), TypeError, "q must be a tensor, got list"),
        (lambda p: kt.kl(p, p, axis=2), ValueError, r"axis 2 is out of range .*\(3, 5\)"),
        (lambda p: kt.kl(p, p, temperature=0.0), ValueError, "temperature must be positive"),
        (lambda p: kt.kl(p, p, reduction="median"), ValueError, "reduction must be one of"),
        (lambda p: kt.kl(p, p, space="odds"), ValueError, "space must be one of"),
        (lambda p: kt.kl(p, p, where=torch.ones(3)), TypeError, "where has dtype float32"),
        (lambda p: kt.kl(p, p, weights=torch.ones(4)), ValueError, r"weights has shape \(4,\)"),
        (lambda p: kt.gather_log_probs(p, torch.tensor([0, 5, 1])), IndexError, "label 5 in row 1"),
        (lambda p: kt.gather_log_probs(p, torch.zeros(3)), TypeError, "expected integers"),
        (lambda p: kt.renyi(p, p, alpha=-1.0), ValueError, "from 1e-300 to 1e300"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(tensors(3, 5, count=1)[0])


@pytest.mark.parametrize("in_place", [False, True])
def test_small_float16_gradients_survive_by_the_scale_of_the_loss(in_place):
    (z,) = tensors(512, 2000, count=1)
    teacher = (3 * z).detach().half()
    leaf = (3 * z + 0.1).detach().half()
    leaf = (leaf + 0.1 * tensors(512, 2000, seed=1, count=1)[0].detach().half()).requires_grad_()
    logits = leaf * 1.0
    loss = kt.distillation_loss(logits, teacher, alpha=1.0, inplace=in_place)
    (loss * 65536).backward()
    exact = leaf.detach().double().requires_grad_()
    (kt.kl(teacher.double(), exact, reduction="mean") * 65536).backward()
    error = (leaf.grad.double() - exact.grad).norm() / exact.grad.norm()
    assert error < 1e-3


@pytest.mark.slow
def test_large_scales_of_the_loss_in_compiled_half_types():
    torch._dynamo.reset()
    p, q = tensors(3, 5, dtype=torch.float16)
    compiled = torch.compile(LOSSES["kl_mean"], fullgraph=True, backend="aot_eager")
    (mine,) = torch.autograd.grad(compiled(p, q) * 65536, q)
    (expected,) = torch.autograd.grad(LOSSES["kl_mean"](p, q) * 65536, q)
    assert mine.isfinite().all()
    torch.testing.assert_close(mine, expected)


def test_forward_mode():
    p, q = (tensor.detach() for tensor in tensors(3, 5))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(q, torch.ones_like(q).cumsum(-1))
        tangent = torch.autograd.forward_ad.unpack_dual(kt.kl(p, dual, reduction="mean")).tangent
    gradient = torch.func.grad(lambda q: kt.kl(p, q, reduction="mean"))(q)
    torch.testing.assert_close(tangent, (gradient * torch.ones_like(q).cumsum(-1)).sum())


def test_many_upstream_gradients_at_once():
    p, q = tensors(3, 5)
    upstream = torch.tensor([1.0, -2.0], dtype=torch.float64)
    loss = kt.kl(p, q, reduction="mean")
    (batched,) = torch.autograd.grad(loss, q, upstream, is_grads_batched=True)
    (one,) = torch.autograd.grad(kt.kl(p, q, reduction="mean"), q)
    torch.testing.assert_close(batched, torch.stack([one, -2 * one]))


def test_a_tensor_whose_sign_is_to_be_changed():
    p, q = tensors(3, 5)
    negative = torch.complex(p, q).detach().conj().imag
    assert negative.is_neg()
    torch.testing.assert_close(kt.kl(p, negative), kt.kl(p, -q.detach()))


def test_weights_have_no_gradient():
    p, q = tensors(3, 5)
    with pytest.raises(ValueError, match="weights has no gradient"):
        kt.kl(p, q, weights=torch.ones(3).requires_grad_())


@pytest.mark.slow
def test_denominators_as_tensors():
    torch._dynamo.reset()
    p, q = tensors(3, 5)
    compiled = torch.compile(
        lambda d, r: kt.kl(p, q, denominator=d, reduction=r), fullgraph=True, backend="aot_eager"
    )
    count = torch.tensor([7])
    torch.testing.assert_close(compiled(count, "mean"), kt.kl(p, q, reduction="sum") / 7)
    for function in (lambda d, r: kt.kl(p, q, denominator=d, reduction=r),):
        with pytest.raises(ValueError, match="replaces the divisor"):
            function(count, "sum")
        with pytest.raises(ValueError, match="expected one number"):
            function(torch.ones(2), "mean")


@pytest.mark.slow
def test_drop_ins_compile_and_map_like_those_of_torch():
    torch._dynamo.reset()
    p, q = tensors(3, 5)
    p = p.softmax(-1).detach()
    functional = torch.nn.functional
    for reduction in ("none", "mean", "sum"):
        compiled = torch.compile(
            lambda q, p, r=reduction: kt.kl_div(q, p, reduction=r),
            fullgraph=True,
            backend="aot_eager",
        )
        torch.testing.assert_close(compiled(q, p), functional.kl_div(q, p, reduction=reduction))
    z, labels = torch.randn(3, 4, 5).bfloat16(), torch.zeros(3, 4, dtype=torch.int64)
    torch.testing.assert_close(
        torch.vmap(kt.cross_entropy)(z, labels), torch.vmap(functional.cross_entropy)(z, labels)
    )


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda p: kt.kl(p, p, weights=torch.ones(2, 3)), ValueError),
        (lambda p: kt.kl(p, p, where=torch.ones(3)), TypeError),
        (lambda p: kt.kl(p, p, temperature=1e31), ValueError),
        (lambda p: kt.jensen_shannon(p, p, beta=1.5), ValueError),
        (lambda p: kt.entropy(p, temperature=-1.0), ValueError),
        (lambda p: kt.logsumexp(p, temperature=float("nan")), ValueError),
        (lambda p: kt.log_softmax(p, temperature=0.0), ValueError),
        (lambda p: kt.log_softmax(p, where=torch.ones(4, dtype=torch.bool)), ValueError),
        (lambda p: kt.distillation_loss(p, p, LABELS, label_smoothing=1.1), ValueError),
        (lambda p: kt.distillation_loss(p, p, LABELS, num_items_in_batch=-1), ValueError),
        (lambda p: kt.kl(p, p, temperature=0.0), ValueError),
        (lambda p: kt.renyi(p, p, alpha=-1.0), ValueError),
        (lambda p: kt.renyi(p, p, alpha=1e301), ValueError),
        (lambda p: kt.kl(p, p, denominator=3.0, reduction="sum"), ValueError),
        (lambda p: kt.kl(p, p, denominator=0.0, reduction="mean"), ValueError),
        (lambda p: kt.kl(p[0], p[0], reduction="batchmean"), ValueError),
        (lambda p: kt.kl(p[:, :0], p[:, :0]), ValueError),
    ],
)
def test_transformed_functions_refuse_the_same(call, error):
    p = tensors(3, 5, count=1)[0].detach()
    with pytest.raises(error):
        call(p)
    with pytest.raises(error):
        torch.func.grad(lambda p: call(p).sum())(p)


def test_opcheck():
    p, q = tensors(3, 5)
    rows = (None, WEIGHTS, "mean", None)
    cases = [
        (divergence, (p, q, "renyi", 0.5, "logits", "logits", 2.0, 1.0, *rows), (True, True)),
        (cross_entropy, (q, LABELS, -100, None, "logits", 1.0, 0.1, 0.0, None, *rows), (True,)),
        (
            soft_cross_entropy,
            (q, p.detach().softmax(-1), None, "logits", 1.0, 0.1, 0.0, None, *rows),
            (True, False),
        ),
        (entropy, (p, "logits", 1.0, *rows), (True,)),
        (logsumexp, (q, 1.0, *rows), (False,)),
        (kl_div, (q, p.detach().softmax(-1), False, 3), (True, False)),
        (
            distillation,
            (
                p,
                q,
                LABELS,
                "jensen_shannon",
                0.1,
                2.0,
                0.5,
                0.5,
                -100,
                0.0,
                None,
                None,
                "sum",
                None,
            ),
            (False, True),
        ),
    ]
    for loss, given, wanted in cases:
        # Numbers are tensors to an operator.
        arguments = [
            as_tensor(value) if name in loss.numbers else value
            for name, value in zip(loss.arguments, given, strict=True)
        ]
        forward = getattr(torch.ops.kldiv, loss.name).default
        torch.library.opcheck(forward, (*arguments, *wanted))
        backward = getattr(torch.ops.kldiv, f"{loss.name}_backward").default
        grad_output = torch.ones((), dtype=torch.float64)
        # To trace second derivatives takes seconds each, and all are traced in one way.
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        if loss in (divergence, kl_div):
            checks = (*checks, "test_aot_dispatch_dynamic")
        torch.library.opcheck(backward, (grad_output, *arguments, *wanted), test_utils=checks)
    torch.library.opcheck(torch.ops.kldiv.log_softmax.default, (q, as_tensor(2.0), WHERE))


@pytest.mark.parametrize(
    "module",
    [
        kt.KLDivLoss(reduction="batchmean"),
        kt.CrossEntropyLoss(torch.ones(5)),
        kt.DistillationLoss(alpha=1.0),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_are_copied_and_pickled(module):
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(copied) == repr(module)
        assert copied.state_dict().keys() == module.state_dict().keys()


def test_inference_mode_and_no_grad(loss):
    p, q = tensors(3, 5)
    expected = loss(p, q).detach()
    with torch.inference_mode():
        torch.testing.assert_close(loss(p, q), expected)
    with torch.no_grad():
        assert not loss(p, q).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes(loss, dtype):
    wide = tensors(3, 500)
    narrow = [tensor.detach().to(dtype).requires_grad_() for tensor in wide]
    expected_inputs = [tensor.detach().double().requires_grad_() for tensor in narrow]
    value, expected = loss(*narrow), loss(*expected_inputs)
    bound = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype]
    torch.testing.assert_close(value.double(), expected, rtol=bound, atol=bound)
    value.sum().backward()
    expected.sum().backward()
    for one, other in zip(narrow, expected_inputs, strict=True):
        assert one.grad.dtype == dtype
        error = (one.grad.double() - other.grad).norm() / other.grad.norm().clamp(min=1e-3)
        assert error < bound
