"""Universal logit distillation on tensors: NumPy's, differentiable, compiled, and as a formula."""

import itertools

import numpy as np
import pytest
import torch

import kldiv
import kldiv.torch
from kldiv.torch.ops.loss import as_tensor
from kldiv.torch.ops.uld import uld as operator

IDS = [4, 0, 7, 2], [1, 3, 8, 0]
WEIGHTS = {"matched_weight": 0.7, "unmatched_weight": 1.9}
OPTIONS = {
    "by rank": {"temperature": (0.5, 2.0)},
    "shared": {"id_map": IDS},
    "shared, beta 0.2": {"id_map": IDS, "beta": 0.2, **WEIGHTS},
    "shared, kl": {"id_map": IDS, "beta": 0.0, **WEIGHTS},
    "shared, reverse_kl": {"id_map": IDS, "beta": 1.0, **WEIGHTS},
    "nothing shared": {"id_map": ([], []), **WEIGHTS},
}


def tensors(dtype=torch.float64, space="logits"):
    rng = np.random.default_rng(3)
    found = [torch.tensor(2 * rng.normal(size=(3, n))) for n in (9, 14)]
    if space != "logits":
        found = [z.log_softmax(-1) for z in found]
    if space == "probs":
        found = [z.exp() for z in found]
    return [z.to(dtype).requires_grad_() for z in found]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIONS)
def test_values_and_gradients_are_those_of_numpy(name, dtype):
    p, q = tensors(dtype)
    value = kldiv.torch.uld(p, q, reduction="mean", **OPTIONS[name])
    value.backward()
    expected, gradients = kldiv.value_and_grad(
        kldiv.uld, p.detach(), q.detach(), reduction="mean", wrt=("p", "q"), **OPTIONS[name]
    )
    assert value.item() == expected
    for tensor, gradient in zip((p, q), gradients, strict=True):
        assert torch.equal(tensor.grad, torch.from_numpy(gradient).to(dtype))


@pytest.mark.parametrize(
    ("name", "space"),
    list(itertools.product(OPTIONS, ["logits", "log_probs", "probs"])),
)
def test_the_formula_agrees_and_has_derivatives(name, space):
    options = {"space": space, **OPTIONS[name]}
    if space != "logits":
        options.pop("temperature", None)

    def of(p, q):
        return kldiv.torch.uld(p, q, where=torch.tensor([True, True, False]), **options).sum()

    p, q = tensors(space=space)
    with torch.no_grad():
        p[2] = torch.nan
    # Under a transform losses are computed in torch operations.
    slopes, value = torch.func.grad_and_value(of, argnums=(0, 1))(p.detach(), q.detach())
    expected = of(p, q)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        slopes, torch.autograd.grad(expected, (p, q)), rtol=1e-10, atol=1e-14
    )
    if space == "logits":
        p, q = (tensor[:2].detach().requires_grad_() for tensor in tensors())
        assert torch.autograd.gradgradcheck(
            lambda p, q: kldiv.torch.uld(p, q, **options), (p, q), fast_mode=True
        )


def test_ties_and_corners_of_the_formula():
    p = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.4, 0.4], [1.0, 0.0, 0.0]], dtype=torch.float64)
    q = torch.tensor([[0.4, 0.4, 0.2, 0.0]] * 2 + [[0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)

    def of(p, q):
        return kldiv.torch.uld(p, q, space="probs").sum()

    found = torch.func.grad(of, argnums=(0, 1))(p, q)
    expected = kldiv.value_and_grad(kldiv.uld, p, q, space="probs", wrt=("p", "q"))[1]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    z = torch.tensor([[0.0, torch.nan], [-torch.inf, -torch.inf], [0.0, -torch.inf]])
    one, other = torch.func.grad_and_value(lambda z: kldiv.torch.uld(p.log(), z).sum())(z)
    assert other.isnan()
    assert one.isnan().any(-1).tolist() == [True, True, False]
    infinite = {"id_map": ([1], [0]), "beta": 0.0}
    masked = torch.tensor([-torch.inf, 0.0])
    slopes, value = torch.func.grad_and_value(
        lambda z: kldiv.torch.uld(torch.zeros(3), z, **infinite)
    )(masked)
    assert value == torch.inf
    assert slopes.isnan().all()
    left_out = {"matched_weight": 0.0, "unmatched_weight": 1.0, **infinite}
    of = torch.func.vmap(lambda z: kldiv.torch.uld(torch.zeros(3), z, **left_out))
    torch.testing.assert_close(of(masked[None]), torch.tensor([1.0]))


@pytest.mark.parametrize("id_map", [None, "ids"])
def test_compiled_code(id_map):
    ids = None if id_map is None else tuple(torch.tensor(side) for side in IDS)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(p, q, ids):
        return kldiv.torch.uld(p, q, id_map=ids, reduction="mean", temperature=2.0)

    p, q = tensors(torch.float32)
    value = loss(p, q, ids)
    value.backward()
    one, other = tensors(torch.float32)
    eager = kldiv.torch.uld(one, other, id_map=ids, reduction="mean", temperature=2.0)
    eager.backward()
    assert value.item() == eager.item()
    torch.testing.assert_close((p.grad, q.grad), (one.grad, other.grad))


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_the_operator():
    ids = [torch.tensor(side) for side in IDS]
    numbers = [as_tensor(one) for one in (0.3, 0.7, 1.9, 1.0, 2.0)]
    arguments = (*tensors(), *ids, "jensen_shannon", *numbers[:3], "logits", "logits", *numbers[3:])
    torch.library.opcheck(
        torch.ops.kldiv.uld.default,
        (*arguments, None, None, "mean", None, True, True),
    )
    assert operator.inputs == ("p", "q")


def test_refused():
    p, q = tensors()
    for options, kind, message in [
        ({"id_map": (torch.tensor([9]), [0])}, ValueError, "out of range for 9 classes"),
        ({"id_map": (torch.tensor([0.5]), [0])}, TypeError, "expected integers"),
        ({"id_map": torch.zeros(2, 2)}, TypeError, "must be a pair"),
        ({"id_map": IDS, "matched_weight": 1.0}, ValueError, "given together"),
        ({"beta": 0.1}, ValueError, "with id_map only"),
    ]:
        with pytest.raises(kind, match=message):
            kldiv.torch.uld(p, q, **options)
    with pytest.raises(ValueError, match="batch shape"):
        kldiv.torch.uld(p[:2], q)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", OPTIONS)
def test_cuda_gives_what_the_cpu_gives(name):
    found = []
    for device in ("cpu", "cuda"):
        p, q = (z.detach().to(device).requires_grad_() for z in tensors())
        value = kldiv.torch.uld(p, q, reduction="mean", **OPTIONS[name])
        value.backward()
        found.append([one.cpu() for one in (value.detach(), p.grad, q.grad)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
