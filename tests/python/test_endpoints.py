"""Jensen–Shannon at the weights 0 and 1, by the formula and by the rule of TRL and Liger."""

import numpy as np
import pytest

import kldiv

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import kldiv.jax  # noqa: E402
import kldiv.torch as kt  # noqa: E402
from jax_precision import enable_x64  # noqa: E402

BETAS = (0.0, 0.3, 1.0)


def trl(teacher, student, beta):
    """The rule, written out: at β = 0 KL(teacher‖student), at β = 1 KL(student‖teacher)."""
    ln_p, ln_q = (x.log_softmax(-1) for x in (teacher, student))
    p, q = ln_p.exp(), ln_q.exp()
    if beta == 0:
        return (p * (ln_p - ln_q)).sum(-1)
    if beta == 1:
        return (q * (ln_q - ln_p)).sum(-1)
    ln_m = (beta * p + (1 - beta) * q).log()
    return (beta * p * (ln_p - ln_m) + (1 - beta) * q * (ln_q - ln_m)).sum(-1)


@pytest.fixture
def rows(rng):
    teacher, student = torch.from_numpy(rng.normal(0, 2, (2, 4, 7)))
    return teacher, student.requires_grad_()


@pytest.mark.parametrize("beta", BETAS)
def test_every_front_end_has_the_rule(rows, beta):
    teacher, student = rows
    expected = trl(teacher, student, beta)
    (slope,) = torch.autograd.grad(expected.sum(), student)
    options = {"beta": beta, "endpoints": "trl"}
    p, q = teacher.numpy(), student.detach().numpy()
    value, gradient = kldiv.value_and_grad(kldiv.jensen_shannon, p, q, **options)
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=1e-9, atol=1e-13)
    for found in (
        kt.jensen_shannon(teacher, student, **options),
        torch.vmap(lambda p, q: kt.jensen_shannon(p, q, **options))(teacher, student),
        kt.distillation_loss(
            student, teacher, divergence="jensen_shannon", alpha=1.0, reduction="none", **options
        ),
        kt.DistillationLoss("jensen_shannon", alpha=1.0, reduction="none", **options)(
            student, teacher
        ),
    ):
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found.sum(), student)[0], slope)
    with enable_x64(True):
        for weight in (beta, jax.numpy.asarray(beta)):
            found = jax.jit(
                lambda p, q, b: kldiv.jax.jensen_shannon(p, q, beta=b, endpoints="trl"),
                static_argnums=() if isinstance(weight, jax.Array) else 2,
            )(p, q, weight)
            np.testing.assert_allclose(found, expected.detach(), rtol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_formula_gives_nothing_at_the_ends(rows, beta):
    teacher, student = rows
    for options in ({}, {"endpoints": "formula"}):
        assert not kt.jensen_shannon(teacher, student, beta=beta, **options).any()
        p, q = teacher.numpy(), student.detach().numpy()
        assert not kldiv.jensen_shannon(p, q, beta=beta, **options).any()


def test_what_is_refused(rows):
    teacher, student = rows
    p, q = teacher.numpy(), student.detach().numpy()
    loss = {"divergence": "jensen_shannon", "alpha": 1.0}
    for call in (
        lambda: kldiv.jensen_shannon(p, q, endpoints="liger"),
        lambda: kt.jensen_shannon(teacher, student, endpoints="liger"),
        lambda: kldiv.jax.jensen_shannon(p, q, endpoints="liger"),
        lambda: kt.distillation_loss(student, teacher, endpoints="liger", **loss),
        lambda: kt.DistillationLoss(endpoints="liger"),
    ):
        with pytest.raises(ValueError, match="endpoints must be one of formula, trl, got 'liger'"):
            call()
    with pytest.raises(ValueError, match="endpoints is an option of 'jensen_shannon', not of 'kl'"):
        kt.DistillationLoss(endpoints="trl")
    with pytest.raises(ValueError, match="beta must be from 0 to 1"):
        kldiv.jensen_shannon(p, q, beta=1.5, endpoints="trl")
    torch.compiler.reset()
    compiled = torch.compile(
        lambda b: kt.jensen_shannon(teacher, student, beta=b, endpoints="trl"), backend="eager"
    )
    with pytest.raises(ValueError, match="pass a number, not a tensor"):
        compiled(torch.tensor(0.0))


def test_compiled_code_has_the_rule_for_numbers(rows):
    teacher, student = rows
    torch.compiler.reset()
    compiled = torch.compile(
        lambda b: kt.jensen_shannon(teacher, student, beta=b, endpoints="trl"), backend="eager"
    )
    for beta in (0.25, 0.5, 0.0, 1.0):
        torch.testing.assert_close(compiled(beta), trl(teacher, student, beta))
