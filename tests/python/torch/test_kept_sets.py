"""Kept sets on tensors: NumPy's numbers, and the gradient of the masked dense computation."""

import numpy as np
import pytest
import torch

import kldiv
import kldiv.torch as kt
from kldiv.torch.formulas.kept_sets import lowest_kept

RULES = [
    {"top_k": 4},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"min_p": 0.01, "top_k": 9, "top_p": 0.7},
    {"support": "ids"},
    {"support": "lists"},
    {"support": "top_k"},
]


def rows(dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(2, 3, 50, generator=generator, dtype=torch.float64) * 2
    z[0, 1, ::4] = -torch.inf
    return z.to(dtype)


def named(rule, z):
    """A rule, with what it names of these rows."""
    plain = z.detach().double().nan_to_num(neginf=-1e9).numpy()
    match rule.get("support"):
        case "ids":
            return {"support": torch.tensor(kldiv.top_k(plain, 6).ids)}
        case "lists":
            ids = kldiv.top_k(plain, 6).ids.reshape(6, 6)
            return {"support": [ids[i, : i + 1] for i in range(6)]}
        case "top_k":
            return {"support": kldiv.top_k(plain, 6)}
    return rule


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_numbers_are_those_of_numpy(rule, dtype):
    z = rows(dtype)
    options = {"temperature": 0.8, "return_mass": True, **named(rule, z)}
    labels = z.argmax(-1)
    labels[1, 2] = -100
    plain = (
        {**options, "support": options["support"].numpy()}
        if rule.get("support") == "ids"
        else options
    )
    for name, more in (("gather_log_probs", (labels,)), ("entropy", ())):
        found = getattr(kt, name)(z, *more, **options)
        expected = getattr(kldiv, name)(z, *more, **plain)
        for own, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(own, wanted, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_gradients_take_the_set_for_a_constant(rule):
    z = rows(torch.float64).requires_grad_()
    rule = named(rule, z)
    labels = z.argmax(-1)
    _, expected = kldiv.value_and_grad(
        kldiv.entropy,
        z.detach(),
        **{k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in rule.items()},
    )
    (slope,) = torch.autograd.grad(kt.entropy(z, **rule).sum(), z)
    np.testing.assert_allclose(slope, expected, rtol=1e-12, atol=1e-15)
    value, mass = kt.gather_log_probs(z, labels, return_mass=True, **rule)
    (slope,) = torch.autograd.grad(value.sum() + mass.sum(), z)
    plain = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in rule.items()}
    every = [kldiv.gather_log_probs(z.detach(), np.full((2, 3), i), **plain) for i in range(50)]
    keep = torch.from_numpy(np.isfinite(np.stack(every, -1)))
    dense = z.masked_fill(~keep, -torch.inf)
    by_torch = dense.log_softmax(-1).gather(-1, labels[..., None])[..., 0].sum()
    by_torch = by_torch + torch.where(keep, z.softmax(-1), 0.0).sum()
    (wanted,) = torch.autograd.grad(by_torch, z)
    np.testing.assert_allclose(slope, wanted.nan_to_num(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("rule", RULES[:4], ids=str)
def test_the_formula_keeps_what_the_extension_keeps(rule):
    z = rows()
    options = {"top_k": None, "top_p": None, "min_p": None, **rule}
    lowest = lowest_kept(z, 0.7, **options)[..., 0]
    value = kldiv.gather_log_probs(
        np.tile(z.reshape(6, 1, 50), (1, 50, 1)),
        np.tile(np.arange(50), (6, 1)),
        temperature=0.7,
        **rule,
    )
    kept = np.isfinite(value).reshape(2, 3, 50)
    assert (np.where(kept, z, np.inf).min(-1) == lowest.numpy()).all() or "min_p" in rule
    assert ((z.numpy() >= lowest.numpy()[..., None]) == kept).all()


OFFSETS = [0.0, 1e4, -3e5]


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("rule", [{"top_k": 1}, {"support": [[0, 2]]}], ids=str)
def test_a_constant_added_to_the_logits_does_not_round_the_mass(rule, offset):
    z = (torch.tensor([[14.0, 0.0, 0.5]]) + offset).requires_grad_()
    _, mass = kt.entropy(z, return_mass=True, **rule)
    (slope,) = torch.autograd.grad(mass, z)
    p = (z.detach().double() - offset).softmax(-1)[0]
    keep = torch.tensor([True, False, "support" in rule])
    inside = p[keep].sum()
    np.testing.assert_allclose(mass.detach(), [inside], rtol=1e-7)
    # Of a mass that is 1 but for rounding, too.
    expected = torch.where(keep, p * p[~keep].sum(), -p * inside)
    np.testing.assert_allclose(slope[0], expected, rtol=1e-6, atol=1e-7)
    assert (slope != 0).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("rule", RULES[:4], ids=str)
def test_gradients_of_rows_that_cannot_be_computed_with(rule, bad):
    z = torch.tensor([[0.0, bad, *range(8)], [*range(10)], [-torch.inf] * 10])

    def values(z):
        return kt.entropy(z, **rule)

    slopes = [torch.autograd.grad(values(z.requires_grad_()).sum(), z)[0]]
    slopes.append(torch.func.grad(lambda z: values(z).sum())(z.detach()))
    for slope in slopes:
        assert slope[::2].isnan().all()
        assert slope[1].isfinite().all()


def test_rows_left_out_by_one_mask_for_all():
    z = rows().requires_grad_()
    for where in (torch.tensor(True), torch.tensor([False]), torch.ones(6, dtype=torch.bool)[::2]):
        value, mass = kt.entropy(z, top_k=3, where=where, return_mass=True)
        expected, kept = kt.entropy(z, top_k=3, return_mass=True)
        np.testing.assert_array_equal(value.detach(), (expected * where).detach())
        np.testing.assert_array_equal(mass.detach(), (kept * where).detach())


def test_compiled_code_has_no_break():
    z, ids = rows(), torch.arange(3).expand(2, 3, 3)
    labels = torch.zeros(2, 3, dtype=torch.int64)

    def loss(z):
        ruled, mass = kt.gather_log_probs(z, labels, top_p=0.9, return_mass=True)
        return (
            kt.entropy(z, top_k=5).sum()
            + kt.entropy(z, support=ids).sum()
            + (mass * ruled.exp()).sum()
        )

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z), loss(z))


@pytest.mark.parametrize(
    ("support", "error", "message"),
    [
        (torch.tensor([[0, 9]]), ValueError, "class 9 in row 0 of support is out of range"),
        (torch.tensor([[1, 1]]), ValueError, "row 0 of support names a class twice"),
        ([[7]], ValueError, "class 7 in row 0 of support is out of range"),
        ([[2, 2]], ValueError, "row 0 of support names a class twice"),
        ([[]], ValueError, "row 0 of support has no class"),
        (torch.zeros(1, 2), TypeError, "expected integers"),
    ],
    ids=str,
)
def test_bad_supports(support, error, message):
    with pytest.raises(error, match=message):
        kt.entropy(torch.zeros(1, 4), support=support)
