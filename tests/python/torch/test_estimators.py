"""The estimators on tensors, against NumPy's and what autograd makes of the plain formulas."""

import numpy as np
import pytest

import kldiv
from sampled_tokens import COMBINED, LN_P, LN_Q, NAMES, SPECIAL, tokens

torch = pytest.importorskip("torch")

import kldiv.torch as kt  # noqa: E402

# torch warns of parts of itself where dynamo and forward mode import them.
pytestmark = pytest.mark.filterwarnings("ignore")


def function(name):
    return getattr(kt.estimators, name)


def given(dtype=torch.float64):
    p, q, where, weights, _ = map(torch.as_tensor, tokens())
    p = torch.where(where, p, torch.nan)
    leaves = [one.to(dtype).requires_grad_() for one in (p, q)]
    return *leaves, {"where": where, "weights": weights}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("options", "reduction"), COMBINED)
def test_values_and_gradients_are_those_of_numpy(name, options, reduction):
    p, q, beside = given()
    options = {**options, **beside, "reduction": reduction}
    if reduction == "denominator":
        options |= {"reduction": "mean", "denominator": 7.5}
    value = function(name)(p, q, **options)
    expected, gradients = kldiv.value_and_grad(
        getattr(kldiv.estimators, name), p.detach(), q.detach(), wrt=("p", "q"), **options
    )
    np.testing.assert_allclose(value.detach(), expected, rtol=1e-14)
    value.sum().backward()
    np.testing.assert_allclose(p.grad, gradients[0], rtol=1e-13)
    np.testing.assert_allclose(q.grad, gradients[1], rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("straight_through", [False, True])
def test_special_values(name, straight_through):
    p, q = (torch.tensor(one, requires_grad=True) for one in (LN_P, LN_Q))
    value = function(name)(p, q, straight_through=straight_through)
    value.sum().backward()
    np.testing.assert_array_equal(value.detach(), SPECIAL[name][0])
    slope = np.array(SPECIAL["k2" if straight_through else name][1])
    np.testing.assert_array_equal(q.grad, slope)
    np.testing.assert_array_equal(p.grad, -slope)


@pytest.mark.parametrize("name", NAMES)
def test_beyond_a_clamp_there_is_no_gradient_even_if_the_derivative_is_infinite(name):
    p, q = (torch.tensor(one, requires_grad=True) for one in ([-1.0, -1.0, 0], [-np.inf, -1e4, 0]))
    value = function(name)(p, q, clamp=10.0)
    value.sum().backward()
    np.testing.assert_array_equal(value.detach().abs(), [10, 10, 0])
    np.testing.assert_array_equal(q.grad, [0, 0, 1.0 if name == "k1" else 0])
    np.testing.assert_array_equal(p.grad, -q.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_narrow_dtypes_are_widened(dtype):
    q = torch.tensor([-0.101, -0.13, -9.03, -0.2], dtype=dtype, requires_grad=True)
    p = torch.tensor([-0.1, -0.1, -0.1, -4.0], dtype=dtype)
    value = kt.estimators.k3(p, q)
    value.sum().backward()
    # The difference has more digits than the dtype.
    r = (q.detach().double() - p.double()).numpy()
    assert (value.dtype, q.grad.dtype) == (torch.float32, dtype)
    np.testing.assert_allclose(value.detach(), kldiv.estimators.k3(0 * r, r), rtol=1e-7)
    np.testing.assert_allclose(q.grad.double(), -np.expm1(-r), rtol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("straight_through", [False, True])
def test_autograd_and_func(name, straight_through):
    p, q, beside = given()
    p = p.detach().nan_to_num(-1.0).requires_grad_()
    options = {**beside, "clamp_log_ratio": 1.5, "clamp": 0.6, "straight_through": straight_through}

    def loss(p, q, reduction="mean"):
        return function(name)(p, q, reduction=reduction, **options)

    gradients = torch.autograd.grad(loss(p, q), (p, q))
    if not straight_through:
        assert torch.autograd.gradcheck(loss, (p, q), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(loss, (p, q))
    by_func = torch.func.grad(loss, argnums=(0, 1))(p.detach(), q.detach())
    torch.testing.assert_close(by_func, gradients, rtol=1e-13, atol=0)
    _, tangent = torch.func.jvp(
        loss, (p.detach(), q.detach()), (0 * p.detach(), 1 + 0 * q.detach())
    )
    torch.testing.assert_close(tangent, gradients[1].sum())
    each = torch.vmap(lambda p, q: function(name)(p, q, straight_through=straight_through))
    torch.testing.assert_close(each(p, q), function(name)(p, q))


@pytest.mark.parametrize("straight_through", [False, True])
def test_compiles_without_a_break(straight_through):
    p, q, beside = given()

    def loss(p, q):
        options = {"clamp": 0.6, "straight_through": straight_through, **beside}
        return kt.estimators.k3(p, q, reduction="mean", **options)

    expected, compiled = (
        run(p, q) for run in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager"))
    )
    torch.testing.assert_close(compiled, expected, rtol=1e-14, atol=0)
    gradients, found = (torch.autograd.grad(one, (p, q)) for one in (expected, compiled))
    torch.testing.assert_close(found, gradients, rtol=1e-13, atol=0)


def test_other_devices(monkeypatch):
    p, q, beside = given(torch.float32)
    expected = kt.estimators.k3(p, q, reduction="mean", **beside)
    monkeypatch.setattr("kldiv.torch.functional.rows.EXTENSION_DEVICE", "none")
    monkeypatch.setattr("kldiv.torch.functional.estimators.EXTENSION_DEVICE", "none")
    found = kt.estimators.k3(p, q, reduction="mean", **beside)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    empty = torch.empty(3, device="meta")
    assert kt.estimators.k3(empty, empty, straight_through=True).device.type == "meta"


def published(name, ln_q, ln_p):
    """``compute_approx_kl`` of OpenRLHF, and ``kl_penalty`` of verl with its ``k3`` and ``k3+``."""
    r = ln_q - ln_p
    k3 = torch.exp(-r) - 1 + r
    if name == "verl k3" or name == "verl k3+":
        cut = (ln_p - ln_q).clamp(-20, 20)
        k3 = (cut.exp() - cut - 1).clamp(-10, 10)
        half = 0.5 * r.square()
        return k3 if name == "verl k3" else half - half.detach() + k3.detach()
    return {"k1": r, "k2": r**2 / 2, "k3": k3}[name].clamp(-10, 10)


VERL = {"clamp_log_ratio": 20.0, "clamp": 10.0}


@pytest.mark.parametrize(
    ("theirs", "ours", "options"),
    [
        ("k1", "k1", {"clamp": 10.0}),
        ("k2", "k2", {"clamp": 10.0}),
        ("k3", "k3", {"clamp": 10.0}),
        ("verl k3", "k3", VERL),
        ("verl k3+", "k3", VERL | {"straight_through": True}),
    ],
)
def test_gradients_of_openrlhf_and_verl(theirs, ours, options):
    q = torch.linspace(-39.7, 40.3, 161, dtype=torch.float64, requires_grad=True)
    p = torch.zeros_like(q)
    found, expected = function(ours)(p, q, **options), published(theirs, q, p)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    gradients = (torch.autograd.grad(one.sum(), q)[0] for one in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-13)


def test_errors():
    x = torch.zeros(2, 3)
    for call, exception, message in [
        (lambda: kt.estimators.k3(x, x[:1]), ValueError, r"p has shape \(2, 3\) but q"),
        (lambda: kt.estimators.k3(x, x.long()), TypeError, "q has dtype torch.int64"),
        (lambda: kt.estimators.k3(x, x, clamp=-1), ValueError, "clamp must be positive and finite"),
        (lambda: kt.estimators.k3(x, x, straight_through=1), TypeError, "True or False, got 1"),
        (
            lambda: kt.estimators.k3(x, x, weights=torch.tensor([1, -1, 2])),
            ValueError,
            "element 1 is -1",
        ),
        (lambda: kt.estimators.k3(x, x, where=torch.ones(2).bool()), ValueError, "broadcast"),
        (lambda: kt.estimators.k3(x, x, reduction="avg"), ValueError, "got 'avg'"),
        (lambda: kt.estimators.k3(x, x, beta=1), TypeError, r"^k3\(\) got an unexpected"),
    ]:
        with pytest.raises(exception, match=message):
            call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_cuda_gives_what_the_cpu_gives(name):
    found = []
    for device in ("cpu", "cuda"):
        p, q, beside = given(torch.float32)
        p, q = (one.detach().to(device).requires_grad_() for one in (p, q))
        beside = {key: one.to(device) for key, one in beside.items()}
        value = function(name)(p, q, clamp=10.0, reduction="mean", **beside)
        value.backward()
        found.append([one.cpu() for one in (value.detach(), p.grad, q.grad)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
