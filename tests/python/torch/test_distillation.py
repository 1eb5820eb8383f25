"""The distillation loss: what it is made of, in place, and what it refuses."""

import pytest

torch = pytest.importorskip("torch")

import kldiv.torch as kt  # noqa: E402
from kldiv.torch.ops.distillation import _apart  # noqa: E402

F = torch.nn.functional


def inputs(dtype=torch.float64, *, rows=6, classes=40):
    generator = torch.Generator().manual_seed(1)
    teacher, student = (
        torch.randn(rows, classes, generator=generator, dtype=torch.float64).mul(3).to(dtype)
        for _ in range(2)
    )
    labels = torch.randint(classes, (rows,), generator=generator)
    labels[2] = -100
    return student.requires_grad_(), teacher, labels


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_is_the_mix_that_it_says(alpha, temperature, squared):
    student, teacher, labels = inputs()
    loss = kt.DistillationLoss(
        temperature=temperature, scale_by_t_squared=squared, alpha=alpha, label_smoothing=0.1
    )
    value = loss(student, teacher, labels)
    kept = labels != -100
    divergence = F.kl_div(
        (student / temperature).log_softmax(-1)[kept],
        (teacher / temperature).log_softmax(-1)[kept],
        reduction="batchmean",
        log_target=True,
    )
    expected = alpha * divergence * (temperature**2 if squared else 1.0)
    expected = expected + (1 - alpha) * F.cross_entropy(student, labels, label_smoothing=0.1)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, student)[0] for loss in (value, expected))
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_in_place_writes_the_same_gradient_over_the_logits(dtype, alpha):
    student, teacher, labels = inputs(dtype, classes=9001)
    expected = kt.distillation_loss(student, teacher, labels, alpha=alpha)
    (gradient,) = torch.autograd.grad(2 * expected, student)
    logits = student * 1.0
    memory = logits.data_ptr()
    loss = kt.distillation_loss(logits, teacher, labels, alpha=alpha, inplace=True)
    assert torch.equal(loss, expected)
    seen = []
    logits.register_hook(lambda grad: seen.append((grad.data_ptr(), grad.clone())))
    (2 * loss).backward()
    assert seen[0][0] == memory
    torch.testing.assert_close(seen[0][1], gradient)
    torch.testing.assert_close(student.grad, gradient)


def test_in_place_where_autograd_kept_the_logits():
    student, teacher, labels = inputs()
    # tanh keeps its result for its own gradient.
    loss = kt.distillation_loss(student.tanh(), teacher, labels, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_in_place_has_one_gradient():
    student, teacher, labels = inputs()
    loss = kt.distillation_loss(student * 1.0, teacher, labels, inplace=True)
    with pytest.raises(RuntimeError, match="can be had once"):
        torch.autograd.grad(loss, student, create_graph=True)
    loss = kt.distillation_loss(student * 1.0, teacher, labels, inplace=True)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="can be had once"):
        loss.backward()


def test_in_place_leaves_logits_alone_that_need_no_gradient():
    student, teacher, labels = inputs()
    logits = student.detach().clone()
    kt.distillation_loss(logits, teacher, labels, inplace=True)
    assert torch.equal(logits, student)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reduction": "none"}, "needs a reduction"),
        ({"detach_teacher": False, "teacher": True}, "no gradient for the teacher"),
        ({"leaf": True}, "leaf"),
        ({"view": True}, "leaf"),
        ({"expanded": True}, "expanded"),
        ({"strided": True}, "contiguous"),
    ],
)
def test_in_place_refusals(change, message):
    student, teacher, labels = inputs()
    if change.pop("teacher", False):
        teacher.requires_grad_()
    logits = student if change.pop("leaf", False) else student * 1.0
    if change.pop("view", False):
        logits = student[:]
    if change.pop("expanded", False):
        logits = (student * 1.0)[:1].expand(6, 40)
    if change.pop("strided", False):
        logits = (student * 1.0).T.contiguous().T
    with pytest.raises(ValueError, match=message):
        kt.distillation_loss(logits, teacher, labels, inplace=True, **change)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("shift", [-1, 1])
def test_in_place_over_memory_of_the_teacher(dtype, shift):
    leaf = inputs(dtype)[0]

    def gradient(*, inplace):
        logits = leaf * 1.0
        student, teacher = (logits[1:], logits[:-1])[::shift]
        loss = kt.distillation_loss(student, teacher, alpha=1.0, inplace=inplace)
        return loss, torch.autograd.grad(loss, leaf)[0]

    for found, expected in zip(gradient(inplace=True), gradient(inplace=False), strict=True):
        assert torch.equal(found, expected)


def test_in_place_over_memory_of_side_inputs():
    student, teacher, labels = inputs()
    base = (student * 1.0).detach()
    side = {
        "weights": base[0, :6].abs(),
        "where": torch.tensor([True, False, True, True, True, False]),
        "labels": labels,
    }
    base[0, :6] = side["weights"]
    base[1, :6] = labels.view(torch.float64)
    base[2, :1].view(torch.bool)[:6] = side["where"]
    student = base.clone().requires_grad_()
    expected = kt.distillation_loss(student, teacher, **side)
    (gradient,) = torch.autograd.grad(expected, student)
    logits = student * 1.0
    inside = logits.detach()
    lying = {
        "weights": inside[0, :6],
        "where": inside[2, :1].view(torch.bool)[:6],
        "labels": inside[1, :6].view(torch.int64),
    }
    loss = kt.distillation_loss(logits, teacher, **lying, inplace=True)
    assert torch.equal(loss, expected)
    assert torch.equal(torch.autograd.grad(loss, student)[0], gradient)


def test_in_place_beside_a_teacher_in_the_same_memory():
    """Rows that alternate share no byte, so that nothing is copied."""
    both = torch.randn(8, 40, dtype=torch.float64)
    student, teacher = both[::2], both[1::2]
    assert _apart(teacher, student).data_ptr() == teacher.data_ptr()


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_in_place_where_something_changed_before_backward(which):
    student, teacher, _ = inputs(torch.bfloat16)
    logits = student * 1.0
    loss = kt.distillation_loss(logits, teacher, alpha=1.0, inplace=True)
    with torch.no_grad():
        {"student": logits, "teacher": teacher}[which].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_where_leaves_rows_out():
    student, teacher, labels = inputs()
    mask = torch.tensor([1, 0, 1, 1, 0, 1])
    kept = mask.bool()
    expected = kt.distillation_loss(student[kept], teacher[kept], labels[kept])
    (gradient,) = torch.autograd.grad(expected, student)
    labels[1], teacher[4] = 999, torch.nan
    module = kt.DistillationLoss()
    for loss in (
        kt.distillation_loss(student, teacher, labels, where=mask),
        module(student, teacher, labels, where=kept),
        kt.distillation_loss(student * 1.0, teacher, labels, where=mask, inplace=True),
    ):
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, student)[0], gradient)


@pytest.mark.parametrize("items", [0, 0.0, torch.tensor(0)])
def test_no_items(items):
    student, teacher, labels = inputs()
    student.data[1] = torch.nan
    options = {"num_items_in_batch": items}
    for loss in (
        kt.distillation_loss(student, teacher, labels, **options),
        kt.distillation_loss(student * 1.0, teacher, labels, **options, inplace=True),
        kt.distillation_loss(student, teacher, torch.full((6,), -100), **options),
    ):
        assert loss == 0
        assert torch.equal(torch.autograd.grad(loss, student)[0], torch.zeros_like(student))
    mapped = torch.func.grad(lambda s: kt.distillation_loss(s, teacher, labels, **options))(student)
    assert torch.equal(mapped, torch.zeros_like(student))
    with pytest.raises(ValueError, match="num_items_in_batch replaces the divisor"):
        kt.distillation_loss(student, teacher, labels, **options, reduction="sum")


@pytest.mark.parametrize("kind", ["jensen_shannon", "renyi"])
def test_parameters_by_their_names(kind):
    student, teacher, _ = inputs()
    option, function = {
        "jensen_shannon": ("beta", lambda x: kt.jensen_shannon(teacher, student, beta=x)),
        "renyi": ("order", lambda x: kt.renyi(teacher, student, alpha=x)),
    }[kind]
    for value in (0.25, 1.0):
        module = kt.DistillationLoss(kind, alpha=1, reduction="none", **{option: value})
        torch.testing.assert_close(module(student, teacher), function(value))
        assert f"{option}={value}" in repr(module)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"divergence": "js"}, ValueError, "got 'js'; did you mean 'jensen_shannon'"),
        ({"divergence": "jsd"}, ValueError, "did you mean 'jensen_shannon'"),
        ({"divergence": "Total-Variation"}, ValueError, "did you mean 'total_variation'"),
        ({"divergence": "kld"}, ValueError, "did you mean 'kl'"),
        ({"temperature": 0}, ValueError, "temperature must be positive, from 1e-30 to 1e"),
        ({"temperature": "2"}, TypeError, "temperature must be a number, got '2'"),
        ({"alpha": 2}, ValueError, "alpha must be from 0 to 1, got 2"),
        ({"ignore_index": 1.5}, TypeError, "ignore_index must be an integer, got 1.5"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing must be from 0 to 1"),
        ({"reduction": "avg"}, ValueError, "reduction must be one of none, sum, mean, batchmean"),
        ({"vocabulary": "pad"}, ValueError, "vocabulary must be one of equal, truncate"),
        ({"beta": 0.5}, ValueError, "beta is a parameter of 'jensen_shannon', not of 'kl'"),
        ({"divergence": "renyi"}, ValueError, "needs its order, as order="),
        ({"divergence": "renyi", "order": 0}, ValueError, "order must be from 1e-300 to 1e300"),
        ({"divergence": "jensen_shannon", "beta": 1.5}, ValueError, "beta must be from 0 to 1"),
        (
            {"divergence": "jensen_shannon", "order": 2},
            ValueError,
            "order is a parameter of .*'renyi'",
        ),
        ({"scale_by_t_squared": 1}, TypeError, "scale_by_t_squared must be True or False, got 1"),
        ({"detach_teacher": "no"}, TypeError, "detach_teacher must be True or False, got 'no'"),
        ({"inplace": None}, TypeError, "inplace must be True or False"),
        ({"inplace": True, "reduction": "none"}, ValueError, "inplace=True needs a reduction"),
    ],
)
def test_modules_refuse_when_they_are_made(options, error, message):
    with pytest.raises(error, match=message):
        kt.DistillationLoss(**options)


def test_accumulation_gives_the_loss_of_one_big_batch():
    student, teacher, labels = inputs()
    whole = kt.distillation_loss(student, teacher, labels)
    (gradient,) = torch.autograd.grad(whole, student)
    items = (labels != -100).sum()
    for count in (items, int(items)):
        student.grad = None
        parts = [
            kt.distillation_loss(student[at], teacher[at], labels[at], num_items_in_batch=count)
            for at in (slice(0, 3), slice(3, 6))
        ]
        torch.testing.assert_close(sum(parts), whole)
        sum(parts).backward()
        torch.testing.assert_close(student.grad, gradient)


@pytest.mark.parametrize("items", [0, torch.tensor(0)])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": torch.full((6,), 40)}, IndexError, "label 40 in row 0"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, ValueError, "labels has shape"),
        ({"where": torch.full((6,), 2)}, ValueError, "where is a mask"),
        ({"where": torch.ones(5, dtype=torch.bool)}, ValueError, "where has shape"),
        ({"weights": -torch.ones(6)}, ValueError, "finite and non-negative"),
    ],
)
def test_of_no_items_the_batch_is_checked_all_the_same(items, options, error, message):
    student, teacher, labels = inputs()
    with pytest.raises(error, match=message):
        kt.distillation_loss(
            student, teacher, **{"labels": labels} | options, num_items_in_batch=items
        )


def test_teacher():
    student, teacher, labels = inputs()
    teacher.requires_grad_()
    kt.distillation_loss(student, teacher, labels).backward()
    assert teacher.grad is None
    kt.distillation_loss(student, teacher, labels, detach_teacher=False).backward()
    assert teacher.grad is not None


def test_padded_vocabulary():
    student, teacher, labels = inputs()
    wider = torch.cat([teacher, torch.full((6, 8), -1e4, dtype=torch.float64)], dim=-1)
    with pytest.raises(ValueError, match=r"\(6, 40\).*\(6, 48\).*truncate"):
        kt.distillation_loss(student, wider, labels)
    value = kt.distillation_loss(student, wider, labels, vocabulary="truncate")
    assert torch.equal(value, kt.distillation_loss(student, teacher, labels))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": None}, ValueError, "pass labels, or alpha=1"),
        ({"alpha": 1.5}, ValueError, "alpha must be from 0 to 1"),
        ({"divergence": "chi"}, ValueError, "divergence must be one of"),
        ({"divergence": "renyi"}, ValueError, "needs its order"),
        ({"beta": 0.5}, ValueError, "beta is a parameter of 'jensen_shannon', not of 'kl'"),
        ({"temperature": 0.0}, ValueError, "temperature must be positive"),
        ({"labels": torch.full((6,), 40)}, IndexError, "label 40 in row 0"),
        (
            {"labels": torch.zeros(5, dtype=torch.int64)},
            ValueError,
            r"labels has shape \(5,\) but student_logits has shape \(6, 40\)",
        ),
        ({"labels": torch.zeros(6)}, TypeError, "expected integers"),
        ({"labels": [1]}, TypeError, "labels must be a tensor"),
        ({"teacher": torch.zeros(6, 40, dtype=torch.int64)}, TypeError, "teacher_logits has dtype"),
        ({"teacher": torch.zeros(5, 40)}, ValueError, r"\(6, 40\).*\(5, 40\)"),
        ({"teacher": torch.zeros(6, 40, device="meta")}, RuntimeError, "same device"),
        ({"vocabulary": "pad"}, ValueError, "vocabulary must be one of"),
        ({"reduction": "median"}, ValueError, "reduction must be one of"),
        ({"weights": -torch.ones(6)}, ValueError, "finite and non-negative"),
    ],
)
def test_refusals(options, error, message):
    student, teacher, labels = inputs()
    teacher, labels = options.pop("teacher", teacher), options.pop("labels", labels)
    with pytest.raises(error, match=message):
        kt.distillation_loss(student, teacher, labels, **options)
    assert student.grad is None
