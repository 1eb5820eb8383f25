"""What the losses do in a torch that lacks a name it does not document."""

import pytest

torch = pytest.importorskip("torch")

import kldiv  # noqa: E402
import kldiv.torch as kt  # noqa: E402
from kldiv.torch import private  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

ONE_BY_ONE = {
    "_is_tracing": None,
    "_has_transforms": None,
    "_is_batched": [None, None],
    "_modes": None,
    "_reduction_of": None,
    "_number_of": None,
    "_cross_entropy": None,
    "_assert": None,
}


def test_this_torch_lacks_none():
    assert private.MISSING == []


def test_a_missing_name_is_no_error():
    assert private._found("_C._a_name_that_torch_never_had") is None
    assert private.MISSING == ["_C._a_name_that_torch_never_had"]
    private.MISSING.clear()


@pytest.fixture(params=[*ONE_BY_ONE, "all"])
def without(request, monkeypatch):
    """Each name missing, and all of them."""
    names = ONE_BY_ONE if request.param == "all" else (request.param,)
    for name in names:
        monkeypatch.setattr(private, name, ONE_BY_ONE[name])
    if request.param == "all":
        monkeypatch.delattr(torch.autograd.forward_ad, "_current_level")
    return request.param


def tensors(rows=3, classes=70):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(rows, classes, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(2)
    ]


@pytest.mark.parametrize("small", [0, 1 << 16])
@pytest.mark.usefixtures("without")
def test_values_gradients_and_compilation(small, monkeypatch):
    monkeypatch.setattr(kt.functional.rows, "SMALL", small)
    p, q = tensors()
    expected, gradient = kldiv.value_and_grad(
        kldiv.kl, p.detach().numpy(), q.detach().numpy(), reduction="mean"
    )

    def loss(q):
        return kt.kl(p.detach(), q, reduction="mean")

    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        value = function(q)
        (found,) = torch.autograd.grad(value, q)
        assert value.item() == pytest.approx(expected, rel=1e-12)
        torch.testing.assert_close(found, torch.from_numpy(gradient))


@pytest.mark.parametrize("small", [0, 1 << 16])
@pytest.mark.usefixtures("without")
def test_drop_ins(small, monkeypatch):
    monkeypatch.setattr(kt.functional.rows, "SMALL", small)
    p, q = tensors()
    labels = torch.tensor([3, 69, 0])
    options = [{}, {"reduction": "none"}, {"size_average": False}, {"reduce": False}]
    for function in ("cross_entropy", "kl_div"):
        target = labels if function == "cross_entropy" else p.detach().softmax(-1)
        for given in options:
            value = getattr(kt, function)(q, target, **given)
            expected = getattr(torch.nn.functional, function)(q, target, **given)
            torch.testing.assert_close(value, expected)


@pytest.mark.usefixtures("without")
def test_masks():
    p, q = tensors()
    where = torch.tensor([1, 0, 1])
    found = kt.kl(p, q, where=where)
    assert torch.equal(found, kt.kl(p, q, where=where.bool()))
    private.assert_on_device(torch.tensor(True), "is true")
    with pytest.raises(RuntimeError, match="is false"):
        private.assert_on_device(torch.tensor(False), "is false")


def test_in_place_is_refused(monkeypatch):
    monkeypatch.setattr(kt.functional.distillation, "knows_what_is_overwritten", lambda: False)
    p, q = tensors()
    with pytest.raises(ValueError, match="inplace=True is for a torch"):
        kt.distillation_loss(q * 1, p, alpha=1.0, inplace=True)
