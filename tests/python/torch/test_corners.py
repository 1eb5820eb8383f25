"""Every corner of docs/numerics.md in torch operations, which other devices and transforms take."""

import functools

import pytest

torch = pytest.importorskip("torch")

import kldiv.torch as kt  # noqa: E402
import oracle  # noqa: E402
from kldiv._kldiv import DIVERGENCES  # noqa: E402
from kldiv.torch import formulas  # noqa: E402
from samples import MORE, identity  # noqa: E402

INF, NAN = torch.inf, torch.nan
LOWEST = torch.finfo(torch.float32).min

LOGITS = [
    ([0, 1, 2, 0.5], [1, 0, 0.3, 0.2]),
    ([0, 1, -INF, 0.5], [1, 0, 0.3, 0.2]),
    ([0, 1, 2, 0.5], [1, 0, -INF, 0.2]),
    ([0, -INF, 2, 0.5], [1, -INF, 0.3, 0.2]),
    ([0, -INF, -INF, 1], [-INF, 0, 1, -INF]),
    # Probabilities below the smallest float32, of classes that exist.
    ([0, -200, 1, 2], [0, -300, 1, 2]),
    ([0, -200, 1, 2], [0, -INF, 1, 2]),
    ([0, 1, -200, 0.3], [-300, 0, 1, -INF]),
    ([0, 100, 2, 3], [0, 100, 120, 3]),
    ([NAN, 1, 2, 3], [0, 1, 2, 3]),
    ([0, 1, 2, 3], [0, INF, 2, 3]),
    ([-INF] * 4, [0, 1, 2, 3]),
    ([0, 1, 2, 3], [0, 1, 2, 3]),
    ([0, 1, LOWEST, 2], [0.5, 0, LOWEST, 1]),
    ([0, 1e4, 2, 3], [0, 1e4, 2.1, 3]),
]
PROBS = [
    ([0, 0.5, 0.5, 0], [0.5, 0.3, 0.2, 0]),
    ([0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0]),
    ([0.5, 0.2, 0.3, 0], [0.3, 0.3, 0.4, 0]),
    ([0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]),
    ([0, 0, 0, 0], [0.25] * 4),
    ([-0.1, 1.1, 0, 0], [0.25] * 4),
    ([NAN, 1, 0, 0], [0.25] * 4),
    ([INF, 1, 0, 0], [0.25] * 4),
    ([0.25] * 4, [0.25] * 4),
    ([1e-30, 1, 0, 0], [1e-20, 1, 0, 0]),
]
KINDS = {identity(one): one for one in MORE}


def function_of(name):
    kind, options = KINDS[name]
    return functools.partial(getattr(kt, kind), **options)


def pairs(space, dtype):
    for p, q in PROBS if space == "probs" else LOGITS:
        rows = [torch.tensor(row, dtype=dtype) for row in (p, q)]
        if space == "log_probs":
            rows = [row if row.isnan().any() else row.log_softmax(-1) for row in rows]
        yield rows


@pytest.mark.costly
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("space", ["logits", "log_probs", "probs"])
@pytest.mark.parametrize("name", KINDS)
def test_divergences_equal_the_extension(name, space, dtype):
    function = functools.partial(function_of(name), space=space)
    tight = (
        {"rtol": 1e-6, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-6}
    )
    for p, q in pairs(space, dtype):
        leaves = [row.clone().requires_grad_() for row in (p, q)]
        value = function(*leaves)
        distance = kt.total_variation(p, q, space=space)
        as_good_as_equal = distance < torch.finfo(dtype).eps and not torch.equal(p, q)
        if name.startswith("adaptive_kl") and as_good_as_equal:
            # In which classes the rows differ, torch rounds off: docs/torch.md.
            continue
        expected = torch.autograd.grad(value, leaves)
        found = torch.func.grad(function, argnums=(0, 1))(p, q)
        mapped = torch.vmap(function)(p[None], q[None])[0]
        torch.testing.assert_close(mapped, value.detach(), equal_nan=True, **tight)
        if name.startswith("alpha_divergence") and value.abs() > 1 / torch.finfo(dtype).eps:
            # Slopes of that size round off the others in the formula: docs/torch.md.
            continue
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, equal_nan=True, **tight)


@pytest.mark.parametrize("name", ["entropy", "logsumexp", "gather_log_probs", "log_softmax"])
def test_functions_of_one_row_equal_the_extension(name):
    function = getattr(kt, name)
    rows = [p for p, _ in LOGITS] + [q for _, q in LOGITS]
    spaces = ["logits"] + ["probs", "log_probs"] * (name == "entropy")
    for space in spaces:
        options = {"space": space} if name == "entropy" else {}
        for row in [p for p, _ in PROBS] if space == "probs" else rows:
            z = torch.tensor(row, dtype=torch.float64)
            arguments = (torch.tensor(1),) if name == "gather_log_probs" else ()
            leaf = z.clone().requires_grad_()
            value = function(leaf, *arguments, **options)
            upstream = torch.linspace(1, 2, value.numel(), dtype=z.dtype).reshape(value.shape)
            (expected,) = torch.autograd.grad(value, leaf, upstream)
            result, pull_back = torch.func.vjp(lambda z: function(z, *arguments, **options), z)  # noqa: B023
            torch.testing.assert_close(result, value.detach(), equal_nan=True)
            torch.testing.assert_close(pull_back(upstream)[0], expected, equal_nan=True)


def test_soft_cross_entropy_equals_the_extension():
    z = torch.tensor([[1.0, -INF, 0.0], [1.0, 2.0, 0.0], [NAN, 1.0, 0.0]], dtype=torch.float64)
    t = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    options = (None, "logits", 1.0, 0.0, 0.0, None, None, None, "none", None)
    loss = kt.ops.cross_entropy.soft_cross_entropy
    for at in range(3):
        leaves = [row[at : at + 1].clone().requires_grad_() for row in (z, t)]
        value = loss(*leaves, *options)
        expected = torch.autograd.grad(value.sum(), leaves)
        names = dict(zip(loss.arguments[2:], options, strict=True))
        result = loss.formula(logits=leaves[0], targets=leaves[1], **names)
        torch.testing.assert_close(result, value, equal_nan=True)
        for one, other in zip(torch.autograd.grad(result.sum(), leaves), expected, strict=True):
            torch.testing.assert_close(one, other, equal_nan=True)


P, Q = [0.3, 2.0, -1.0, 0.1], [0.1, 1.0, 0.5, -2.0]
NEAR = [0.3001, 2.0, -1.0001, 0.1]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("renyi", [1e-30, 1e-12, 1e-3, 0.5, 1 - 1e-12, 1 + 1e-12, 1 + 1e-3, 300.0]),
        ("jensen_shannon", [1e-30, 1e-12, 1e-3, 0.499, 0.501, 1 - 1e-3, 1 - 1e-12]),
        ("skew_kl", [1e-300, 1e-30, 1e-12, 1e-3, 0.1, 0.5, 1 - 1e-3, 1 - 1e-12]),
        ("skew_reverse_kl", [1e-30, 0.1, 1 - 1e-12]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_parameters_towards_their_limits(name, parameters, dtype):
    key = DIVERGENCES[name].parameter.name
    for first, second in [(P, Q), (Q, P), (P, NEAR)]:
        p, q = (torch.tensor(row, dtype=dtype) for row in (first, second))
        for parameter in parameters:
            found = formulas.divergence(name, parameter, p, q, "logits", "logits", 1.0, 1.0)
            # Rounding of d by eps is 2·eps/d of d².
            bound = (1e-10 if second is NEAR else 1e-13) if dtype == torch.float64 else 1e-2
            bound = 1e-5 if dtype == torch.float32 and second is not NEAR else bound
            exact = oracle.divergence(name, p.tolist(), q.tolist(), **{key: parameter})
            if dtype == torch.float32 and exact < 1e-38:
                continue
            assert float(abs(found.item() - exact)) <= bound * float(exact), (parameter, second)


def test_the_smallest_parameters():
    p, q = torch.tensor([P, Q], dtype=torch.float64)
    of = functools.partial(formulas.divergence, p=p, q=q, p_space="logits", q_space="logits")
    of = functools.partial(of, p_temperature=1.0, q_temperature=1.0)
    torch.testing.assert_close(of("renyi", 1e-300) * 1e300, kt.kl(q, p))
    torch.testing.assert_close(of("jensen_shannon", 1e-300) * 1e300, kt.kl(p, q))
    # Of the largest order, the largest ln(p/q) is left.
    largest = (p.log_softmax(-1) - q.log_softmax(-1)).max()
    torch.testing.assert_close(of("renyi", 1e300), largest)


@pytest.mark.parametrize("name", KINDS)
def test_never_negative_where_rows_agree(name):
    generator = torch.Generator().manual_seed(0)
    p = 3 * torch.randn(40, 200, generator=generator)
    q = p + 1e-6 * torch.randn(40, 200, generator=generator)
    value = torch.vmap(function_of(name))(p, q)
    assert (value >= 0).all()
    assert torch.equal(torch.vmap(function_of(name))(p, p), torch.zeros(40))


@pytest.mark.parametrize("name", KINDS)
def test_temperatures_whose_quotients_leave_the_range_of_floats(name):
    p, q = torch.tensor([[0.3, 2.0, -1.0]]), torch.tensor([[0.1, 1.0, 0.5]])
    function = function_of(name)
    plain = function(p, q)
    tiny = torch.vmap(lambda p, q: function(p, q, temperature=1e-30))(1e-30 * p, 1e-30 * q)
    torch.testing.assert_close(tiny, plain, rtol=1e-5, atol=1e-7)
    # A finite mask that becomes infinite when it is divided.
    mask = torch.full((1, 1), LOWEST)
    masked = torch.vmap(lambda p, q: function(p, q, temperature=0.5))(
        torch.cat([p, mask], -1), torch.cat([q, mask], -1)
    )
    torch.testing.assert_close(masked, function(p, q, temperature=0.5), rtol=1e-5, atol=1e-7)


def test_neg_log_acceptance_of_probabilities_whose_logarithms_are_the_same():
    p, q = torch.tensor([1.6933909e-05]), torch.tensor([1.6933913e-05])
    assert p < q
    assert p.log() == q.log()
    of_both = torch.func.grad(functools.partial(kt.neg_log_acceptance, space="probs"), (0, 1))
    torch.testing.assert_close(of_both(p, q), (-1 / p, torch.zeros(1)))


def test_a_small_part_of_the_gap_in_the_tail_keeps_its_digits():
    p, q = torch.tensor([1e-30, 1.0]), torch.tensor([1e-10, 0.1])
    leaf = p.clone().requires_grad_()
    (exact,) = torch.autograd.grad(kt.adaptive_kl(leaf, q, space="probs"), leaf)
    found = torch.func.grad(functools.partial(kt.adaptive_kl, space="probs"))(p, q)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("name", ["jensen_shannon-0.9", "renyi-0.2", "renyi-2.0"])
def test_second_derivatives(name):
    function = function_of(name)
    # Close rows and far ones take different terms.
    near = torch.tensor([[0.3, 2.0, -1.0], [0.3, 2.0, -1.0]], dtype=torch.float64)
    far = torch.tensor([[0.3, 2.1, -1.0], [4.0, -2.0, 0.0]], dtype=torch.float64)
    leaves = (near.requires_grad_(), far.requires_grad_())
    assert torch.autograd.gradgradcheck(function, leaves, atol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda t, s: kt.kl(t, s, reduction="mean"),
        lambda t, s: kt.kl(t, s),
        lambda t, s: kt.entropy(s, reduction="sum"),
        lambda t, s: kt.log_softmax(s),
        lambda t, s: kt.distillation_loss(s, t, alpha=1.0, num_items_in_batch=3),
        lambda t, s: kt.distillation_loss(s, t, alpha=1.0, num_items_in_batch=0),
        lambda t, s: kt.distillation_loss(s * 1, t, alpha=1.0, inplace=True),
        lambda t, s: torch.func.vjp(lambda s: kt.kl(t, s, reduction="mean"), s)[0],
    ],
)
def test_results_are_where_the_inputs_are_whatever_the_default_device(call):
    teacher, student = torch.randn(4, 9), torch.randn(4, 9, requires_grad=True)
    expected = call(teacher, student)
    with torch.device("meta"):
        value = call(teacher, student)
        torch.autograd.grad(value.sum(), student)
    torch.testing.assert_close(value, expected)
