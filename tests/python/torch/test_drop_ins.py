"""`kl_div` and `cross_entropy` on torch's own test inputs: they return or raise what torch does."""

import warnings

import pytest

torch = pytest.importorskip("torch")

import kldiv.torch  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db

F = torch.nn.functional
OURS = {
    "nn.functional.kl_div": kldiv.torch.kl_div,
    "nn.functional.cross_entropy": kldiv.torch.cross_entropy,
}
OPERATORS = [op for op in op_db if op.name in OURS]
MODULES = {
    torch.nn.KLDivLoss: kldiv.torch.KLDivLoss,
    torch.nn.CrossEntropyLoss: kldiv.torch.CrossEntropyLoss,
}
MODULE_INFOS = [info for info in module_db if info.module_cls in MODULES]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]

# Half results: torch rounds intermediate results, kldiv only the last one.
TOLERANCES = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-12},
    torch.float32: {"rtol": 2e-5, "atol": 1e-5},
    torch.float16: {"rtol": 2e-2, "atol": 2e-2},
    torch.bfloat16: {"rtol": 6e-2, "atol": 6e-2},
}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True, params=["extension", "small"])
def size(request, monkeypatch):
    """The inputs are small; for the extension to compute them, nothing is small."""
    if request.param == "extension":
        monkeypatch.setattr(kldiv.torch.functional.rows, "SMALL", 0)


def outcome(function, *args, **kwargs):
    """What a call returns, its warnings, or what it raises."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = function(*args, **kwargs)
        except Exception as error:
            return error, []
    return value, [(warning.category, str(warning.message)) for warning in caught]


def leaves(items):
    """The tensors among them, as new leaves that require gradients where they can."""
    return [
        item.detach().clone().requires_grad_(item.is_floating_point())
        if isinstance(item, torch.Tensor)
        else item
        for item in items
    ]


def check_same(function, expected_function, args, kwargs, tolerance):
    mine, theirs = leaves(args), leaves(args)
    value, warned = outcome(function, *mine, **kwargs)
    expected, expected_warnings = outcome(expected_function, *theirs, **kwargs)
    if isinstance(expected, Exception):
        assert type(value) is type(expected), (value, expected)
        if not isinstance(expected, IndexError):
            # Of a label out of range kldiv names the row too.
            assert str(value) == str(expected)
        return
    assert not isinstance(value, Exception), value
    assert warned == expected_warnings
    assert value.dtype == expected.dtype
    torch.testing.assert_close(value, expected, equal_nan=True, **tolerance)
    if not expected.requires_grad:
        assert not value.requires_grad
        return
    upstream = torch.ones_like(expected) * 1.5
    value.backward(upstream)
    expected.backward(upstream)
    for one, other in zip(mine, theirs, strict=True):
        if isinstance(one, torch.Tensor) and other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, equal_nan=True, **tolerance)
            assert one.grad.dtype == other.grad.dtype


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_sample_inputs(op, dtype):
    samples = list(op.sample_inputs("cpu", dtype, requires_grad=True))
    assert samples
    for sample in samples:
        check_same(
            OURS[op.name], op.op, (sample.input, *sample.args), sample.kwargs, TOLERANCES[dtype]
        )


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("info", MODULE_INFOS, ids=lambda info: info.module_cls.__name__)
def test_module_inputs(info, dtype):
    inputs = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=True
    )
    for given in inputs:
        constructor, call = given.constructor_input, given.forward_input
        module = MODULES[info.module_cls](*constructor.args, **constructor.kwargs)
        expected = info.module_cls(*constructor.args, **constructor.kwargs)
        assert module.state_dict().keys() == expected.state_dict().keys()
        check_same(module, expected, call.args, call.kwargs, TOLERANCES[dtype])


@pytest.mark.parametrize("info", MODULE_INFOS, ids=lambda info: info.module_cls.__name__)
def test_module_error_inputs(info):
    if info.module_error_inputs_func is None:
        # torch has none of KLDivLoss, and those of CrossEntropyLoss from some version after 2.9.
        assert info.module_cls is torch.nn.KLDivLoss or torch.__version__ < (2, 12)
        return
    for given in info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=True, training=True
    ):
        constructor, call = (
            given.module_error_input.constructor_input,
            given.module_error_input.forward_input,
        )
        module = MODULES[info.module_cls](*constructor.args, **constructor.kwargs)
        expected = info.module_cls(*constructor.args, **constructor.kwargs)
        error, _ = outcome(expected, *call.args, **call.kwargs)
        assert isinstance(error, Exception)
        check_same(module, expected, call.args, call.kwargs, {})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_autocast(dtype):
    input, target = (torch.rand(3, 40).to(dtype) for _ in range(2))
    labels = torch.tensor([0, 1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        tolerance = TOLERANCES[dtype]
        check_same(kldiv.torch.kl_div, F.kl_div, (input, target), {"reduction": "sum"}, tolerance)
        check_same(kldiv.torch.cross_entropy, F.cross_entropy, (input, labels), {}, tolerance)
        check_same(kldiv.torch.cross_entropy, F.cross_entropy, (input, target), {}, tolerance)


def special_kl_div():
    inf, nan = float("inf"), float("nan")
    pairs = [
        (-1.0, 0.0),
        (-inf, 0.0),
        (-inf, 0.3),
        (-1.0, -0.2),
        (nan, 0.3),
        (-1.0, nan),
        (inf, 0.3),
    ]
    for x, t in [*pairs, (-1.0, inf), (-2.0, 1e-300), (0.0, 1.0)]:
        for log_target in (False, True):
            for width in (1, 9):
                target = torch.full((2, width), 0.1, dtype=torch.float64)
                input = torch.full((2, width), -2.0, dtype=torch.float64)
                input[1, -1], target[1, -1] = x, t
                if log_target:
                    target = target.log() if t >= 0 or t != t else target
                yield (input, target), {"reduction": "sum", "log_target": log_target}


def more_kl_div():
    yield from special_kl_div()
    make = lambda *shape: torch.rand(shape, dtype=torch.float64)  # noqa: E731
    for reduction in ("none", "sum", "mean", "batchmean"):
        options = {"reduction": reduction}
        yield (make(), make()), options
        yield (make(0), make(0)), options
        yield (make(0, 3), make(0, 3)), options
        yield (make(4, 5), make(5)), options
        yield (make(5), make(4, 5)), options
        yield (make(4, 1), make(1, 5)), options
        yield (make(2, 3, 4, 5).transpose(1, 3), make(2, 5, 4, 3)), options
        yield (make(4, 5).float(), make(4, 5)), options
        yield (make(4, 5).bfloat16(), make(4, 5).float()), options
    yield (make(4, 5), torch.ones(4, 5, dtype=torch.int64)), {"reduction": "sum"}
    yield (make(4, 5), make(4, 6)), {"reduction": "sum"}
    yield (make(4, 5), make(4, 5)), {"reduction": "median"}
    yield (make(4, 5), make(4, 5)), {"size_average": False}
    yield (make(4, 5), make(4, 5)), {"reduce": False}
    yield (make(4, 5), make(4, 5).tolist()), {"reduction": "sum"}


@pytest.mark.parametrize("case", list(more_kl_div()), ids=range(len(list(more_kl_div()))))
def test_kl_div_cases(case):
    args, kwargs = case
    half = isinstance(args[1], torch.Tensor) and torch.bfloat16 in (args[0].dtype, args[1].dtype)
    tolerance = {"rtol": 1e-2, "atol": 1e-2} if half else {"rtol": 1e-5, "atol": 1e-6}
    check_same(kldiv.torch.kl_div, F.kl_div, args, kwargs, tolerance)


def more_cross_entropy():
    inf, nan = float("inf"), float("nan")
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 4, 2, -100, 1, 3])
    weight = torch.tensor([0.5, 0.0, 2.0, 1.0, 0.1], dtype=torch.float64)
    for reduction in ("none", "sum", "mean"):
        options = {"reduction": reduction}
        yield (logits, labels), options
        yield (logits, labels, weight), options
        yield (logits, labels), {**options, "label_smoothing": 0.2}
        yield (logits, labels, weight), {**options, "label_smoothing": 0.2}
        yield (logits, torch.full((6,), -100)), options
        yield (logits, torch.full((6,), 1), weight), options
        yield (logits, labels.clamp(min=0).to(torch.uint8)), options
        yield (logits, labels.clamp(min=0).to(torch.int32)), options
        yield (logits, logits.softmax(1)), options
        yield (logits, logits.softmax(1), weight), options
        yield (logits, logits.softmax(1)), {**options, "label_smoothing": 1.0}
        yield (logits, logits.softmax(1)), {**options, "ignore_index": 2}
        yield (logits[0], labels[0]), options
        yield (logits[0], logits[1].softmax(0)), options
        yield (logits.reshape(1, 5, 2, 3), labels.reshape(1, 2, 3)), options
        yield (logits[:0], labels[:0]), options
        yield (logits, torch.tensor([0, 1, 2, 3, 4, 5])), options
        yield (logits, torch.tensor([0, 1, 2, 3, 4, -1])), options
        yield (logits, torch.tensor([0, 1, 2, 3, 4, -1])), {**options, "ignore_index": -1}
        yield (logits, labels), {**options, "label_smoothing": 1.5}
        yield (logits, labels[:3]), options
        yield (logits, labels, weight[:3]), options
        yield (logits, labels, weight.float()), options
        yield (logits.long(), labels), options
        for special in (-inf, inf, nan):
            for column in (0, 1):
                changed = logits.clone()
                changed[0, column] = special
                yield (changed, labels), options
    yield (logits, labels), {"reduction": "median"}
    yield (logits, labels), {"size_average": False}
    yield (logits, labels), {"reduction": "batchmean"}


CROSS_ENTROPY = list(more_cross_entropy())


@pytest.mark.parametrize("case", CROSS_ENTROPY, ids=range(len(CROSS_ENTROPY)))
def test_cross_entropy_cases(case):
    args, kwargs = case
    check_same(
        kldiv.torch.cross_entropy, F.cross_entropy, args, kwargs, {"rtol": 1e-9, "atol": 1e-12}
    )


def test_the_weight_of_classes_may_require_a_gradient():
    logits, labels = torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 1, 3])
    check_same(
        kldiv.torch.cross_entropy,
        F.cross_entropy,
        (logits, labels, torch.rand(4, dtype=torch.float64)),
        {},
        {"rtol": 1e-9, "atol": 1e-12},
    )


def test_subclasses_that_override_functions_are_asked():
    class Recorded(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return function.__name__

    given = torch.rand(2, 3).as_subclass(Recorded)
    assert kldiv.torch.kl_div(given, given) == "kl_div"
    assert kldiv.torch.cross_entropy(given, given) == "cross_entropy"
