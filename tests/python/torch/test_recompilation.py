"""Numbers that change from step to step compile as often as in torch operations."""

import pytest

torch = pytest.importorskip("torch")

from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402

import kldiv.torch as kt  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (torch.randn(16, 32, generator=GENERATOR).requires_grad_() for _ in range(2))
LABELS = torch.randint(32, (16,), generator=GENERATOR)
SHARES = [0.3 + 0.01 * step for step in range(4)]

CHANGING = {
    "items": (
        lambda n: kt.distillation_loss(STUDENT, TEACHER, LABELS, num_items_in_batch=n),
        [list(range(5, 9)), [n + 0.5 for n in range(4)]],
    ),
    "denominator": (
        lambda n: kt.kl(TEACHER, STUDENT, reduction="mean", denominator=n),
        [list(range(5, 9))],
    ),
    "temperature": (
        lambda t: kt.distillation_loss(
            STUDENT, TEACHER, LABELS, temperature=t, scale_by_t_squared=True
        ),
        [SHARES],
    ),
    "temperature_of_kl": (
        lambda t: kt.kl(TEACHER, STUDENT, reduction="mean", temperature=t),
        [SHARES, list(range(2, 6))],
    ),
    "temperature_of_log_softmax": (lambda t: kt.log_softmax(STUDENT, temperature=t), [SHARES]),
    "alpha": (lambda a: kt.distillation_loss(STUDENT, TEACHER, LABELS, alpha=a), [SHARES]),
    "beta": (
        lambda b: kt.distillation_loss(
            STUDENT, TEACHER, LABELS, divergence="jensen_shannon", beta=b
        ),
        [SHARES],
    ),
    "order": (lambda a: kt.renyi(TEACHER, STUDENT, alpha=a, reduction="mean"), [SHARES]),
}


def compilations(function, numbers):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for number in numbers:
        value, expected = compiled(number), function(number)
        torch.testing.assert_close(value, expected)
        gradients = [torch.autograd.grad(one.sum(), STUDENT)[0] for one in (value, expected)]
        torch.testing.assert_close(*gradients)
    return counter.frame_count


@pytest.mark.parametrize("name", CHANGING)
def test_numbers_and_tensors(name):
    function, schedules = CHANGING[name]
    for numbers in schedules:
        # As of `STUDENT.square() * n`: the second value tells dynamo that there will be others.
        assert compilations(function, numbers) == 2
    if name != "temperature_of_log_softmax":
        assert compilations(function, [torch.tensor(number) for number in numbers]) == 1


@pytest.mark.parametrize("name", ["items", "temperature", "beta", "order"])
def test_other_devices(name, monkeypatch):
    monkeypatch.setattr(kt.functional.rows, "EXTENSION_DEVICE", "none")
    function, schedules = CHANGING[name]
    assert compilations(function, schedules[0]) == 2


def test_no_items():
    loss = CHANGING["items"][0]
    for zero in (0, 0.0, torch.tensor(0)):
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        value = compiled(zero)
        assert value == 0
        assert torch.equal(torch.autograd.grad(value, STUDENT)[0], torch.zeros(16, 32))
