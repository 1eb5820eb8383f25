"""Losses of other projects on teachers kept as top-k: their formulas, and the call that gives them.

Each function below is a project's source, written over in NumPy for rows of log-probabilities or
logits; `docs/teachers.md` has the same table. Rows are real ones: a language model, and its form
with weights rounded to 4 bits as the student.
"""

from pathlib import Path

import numpy as np
import pytest

import kldiv
from kldiv import teachers

DEMO = Path(kldiv.__file__).parent / "demo"
K = 32


@pytest.fixture(scope="module")
def rows():
    """Logits of teacher and student, 6 rows of 49,152 classes."""
    return [np.load(DEMO / f"{name}.npy").astype(np.float64) for name in ("reference", "int4")]


@pytest.fixture(scope="module")
def best(rows):
    """Ids, logits and log-probabilities of the teacher's most probable classes, by rank."""
    teacher, _ = rows
    ids = np.argsort(-teacher, axis=-1, kind="stable")[:, :K]
    return ids, at(teacher, ids), at(log_softmax(teacher), ids)


def at(rows, ids):
    return np.take_along_axis(rows, ids, axis=-1)


def log_sum_exp(z):
    top = z.max(-1, keepdims=True)
    return np.log(np.exp(z - top).sum(-1, keepdims=True)) + top


def log_softmax(z):
    return z - log_sum_exp(z)


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-15)


def trl(teacher, z, ids, beta=0.0, temperature=1.0, add_tail=True):
    """trl/experimental/async_distillation: _add_tail_bucket, _jsd_divergence, _jsd_loss_chunk."""
    p, q = teacher, at(log_softmax(z / temperature), ids)
    if add_tail:
        p, q = (
            np.concatenate([x, np.log(-np.expm1(np.minimum(log_sum_exp(x), -1e-7)))], -1)
            for x in (p, q)
        )
    else:
        p, q = log_softmax(p), log_softmax(q)
    if beta == 0:
        return (np.exp(p) * (p - q)).sum(-1)
    if beta == 1:
        return (np.exp(q) * (q - p)).sum(-1)
    m = np.log((1 - beta) * np.exp(q) + beta * np.exp(p))
    return (beta * np.exp(p) * (p - m) + (1 - beta) * np.exp(q) * (q - m)).sum(-1)


@pytest.mark.parametrize(("tail", "rule"), [(True, "tail"), (False, "renormalize")])
def test_trl(rows, best, tail, rule):
    _, z = rows
    ids, _, log_probs = best
    kept = kldiv.TopK(ids, log_probs, classes=z.shape[-1])
    same(kldiv.kl(kept, z, rule=rule), trl(log_probs, z, ids, 0.0, add_tail=tail))
    same(kldiv.reverse_kl(kept, z, rule=rule), trl(log_probs, z, ids, 1.0, add_tail=tail))
    found = kldiv.jensen_shannon(kept, z, beta=0.3, rule=rule)
    same(found, trl(log_probs, z, ids, 0.3, add_tail=tail))
    # The teacher's log-probabilities come at the temperature that the server was asked for.
    found = kldiv.kl(kept, z, rule=rule, temperature=(1.0, 2.0))
    same(found, trl(log_probs, z, ids, temperature=2.0, add_tail=tail))


def test_trl_gives_a_row_without_a_tail_one():
    """Of a teacher that keeps all classes, which TRL takes 10⁻⁷ to be outside of."""
    teacher, z = np.log([[0.75, 0.25]]), np.array([[0.0, 0.5]])
    kept = kldiv.TopK([[0, 1]], teacher, classes=2)
    off = trl(teacher, z, np.array([[0, 1]])) - kldiv.kl(kept, z, rule="tail")
    assert abs(off[0]) < 1e-14  # as both sides get the same
    kept = kldiv.TopK([[0]], [[0.0]], classes=2)
    off = trl(np.zeros((1, 1)), z, np.array([[0]])) - kldiv.kl(kept, z, rule="tail")
    assert 1e-7 < -off[0] < 2e-6


def verl(teacher, z, ids, floor=None, tail=False):
    """verl/trainer/distillation: fsdp/losses.py, tail_kl.py, and the clamp of losses.py."""
    p, q = teacher, at(log_softmax(z), ids)
    masses = [1 - np.exp(x).sum(-1) for x in (p, q)]
    if floor is not None:
        p, q = np.maximum(p, floor), np.maximum(q, floor)
    losses = (np.exp(p) * (p - q)).sum(-1)
    if tail:
        return losses + masses[0] * (np.log(masses[0]) - np.log(masses[1]))
    return np.maximum(losses, 0.0)


def test_verl(rows, best):
    teacher, z = rows
    ids, _, log_probs = best
    kept = teachers.from_verl(ids, log_probs, classes=z.shape[-1])
    found = kldiv.kl(kept, z, rule="truncate")
    same(np.maximum(found, 0.0), verl(log_probs, z, ids))
    same(kldiv.kl(kept, z, rule="tail"), verl(log_probs, z, ids, tail=True))
    # A student with more mass on the kept classes than the teacher: its loss is below 0, where
    # verl's clamp hides it, and its gradient.
    sharper = teacher * 1.05
    negative = kldiv.kl(kept, sharper, rule="truncate")
    assert (negative < 0).all()
    assert not verl(log_probs, sharper, ids).any()


def nemo_rl(teacher, z, ids, kind, zero_outside):
    """nemo_rl: get_distillation_topk_logprobs_from_logits, DistillationLossFn."""
    p = log_softmax(teacher)  # of bare logits, over the k
    everywhere = log_softmax(z)
    q = at(everywhere, ids) if zero_outside else log_softmax(at(z, ids))
    if kind == "forward":
        return (np.exp(p) * (p - q)).sum(-1)
    entropy = (np.exp(everywhere) * everywhere).sum(-1)  # NeMo's H_all: of this sign
    rest = entropy - (np.exp(q) * q).sum(-1) + 100.0 * (1 - np.exp(q).sum(-1))
    return (np.exp(q) * (q - p)).sum(-1) + (rest if zero_outside else 0.0)


def test_nemo_rl(rows, best):
    _, z = rows
    ids, logits, _ = best
    bare = kldiv.TopK(ids, logits=logits, classes=z.shape[-1])
    same(kldiv.kl(bare, z, rule="renormalize"), nemo_rl(logits, z, ids, "forward", False))
    same(kldiv.kl(bare, z, rule="renormalize_p"), nemo_rl(logits, z, ids, "forward", True))
    same(kldiv.reverse_kl(bare, z, rule="renormalize"), nemo_rl(logits, z, ids, "reverse", False))
    # With ln p = −100 outside, which is no distribution: the k alone add up to 1.
    over_k = kldiv.TopK(ids, log_softmax(logits), classes=z.shape[-1])
    same(kldiv.reverse_kl(over_k, z, rule="floor"), nemo_rl(logits, z, ids, "reverse", True))


def distillkit(teacher, z, ids, temperature=1.0, uniform=False):
    """distillkit/lossfuncs: get_target_logprobs of log-probabilities, sparse_kl_div_inner."""
    q = at(log_softmax(z / temperature), ids)
    tempered = teacher / temperature
    leftover = np.clip(1 - np.exp(log_sum_exp(teacher)), 0, 1) ** (1 / temperature)
    if not uniform:
        leftover = 0.0
    elif temperature == 1:
        leftover = 1 - np.exp(log_sum_exp(teacher))
    p = tempered - np.log(np.exp(log_sum_exp(tempered)) + leftover)
    loss = (np.exp(p) * (p - q)).sum(-1)
    if uniform:
        of_p, of_q = (np.log1p(-np.exp(x).sum(-1)) for x in (p, q))
        loss += np.exp(of_p) * (of_p - of_q)
    return loss * temperature**2


def test_distillkit(rows, best):
    _, z = rows
    ids, _, log_probs = best
    kept = kldiv.TopK(ids, log_probs, classes=z.shape[-1])
    for t in (1.0, 2.0):
        found = kldiv.kl(kept, z, rule="renormalize_p", temperature=t) * t**2
        same(found, distillkit(log_probs, z, ids, t))
    same(kldiv.kl(kept, z, rule="tail"), distillkit(log_probs, z, ids, uniform=True))
    # At another temperature it takes the rest of the mass to the power 1/T, as if that were one
    # class: what `temper_after` does not.
    powers = np.concatenate([log_probs, np.log(kept.tail_mass())[:, None]], -1) / 2
    tempered = kldiv.TopK(ids, log_softmax(powers)[:, :K], classes=z.shape[-1])
    found = kldiv.kl(tempered, z, rule="tail", temperature=(1.0, 2.0)) * 4
    same(found, distillkit(log_probs, z, ids, 2.0, uniform=True))


def axolotl(teacher, z, ids, of_teacher=1.0, temperature=1.0):
    """axolotl/integrations/kd: transform_logprobs, topk_logprob/forward_kl.py."""
    p = np.exp(teacher)
    p = (p / p.sum(-1, keepdims=True)) ** (of_teacher / temperature)
    p = np.log(p / p.sum(-1, keepdims=True))
    q = at(z / temperature, ids) - log_sum_exp(z / temperature)
    terms = np.exp(p) * (p - q)
    return terms.sum() / terms.size


def axolotl_kernel(teacher, z, ids, beta, temperature):
    """axolotl/integrations/kd/kernels/liger.py, normalize_topk=True: a sum, with T²."""
    p, q = log_softmax(teacher), log_softmax(at(log_softmax(z / temperature), ids))
    if beta == 0:
        return (np.exp(p) * (p - q)).sum() * temperature**2
    m = np.log((1 - beta) * np.exp(q) + beta * np.exp(p))
    both = beta * (np.exp(p) * (p - m)).sum() + (1 - beta) * (np.exp(q) * (q - m)).sum()
    return both * temperature**2


@pytest.mark.parametrize(("of_teacher", "t"), [(1.0, 1.0), (1.0, 2.0), (0.7, 1.4)])
def test_axolotl(rows, best, of_teacher, t):
    _, z = rows
    ids, _, log_probs = best
    kept = kldiv.TopK(ids, log_probs, classes=z.shape[-1])
    options = {"rule": "renormalize_p", "temperature": (t / of_teacher, t)}
    # Its mean is over the k entries of every position.
    found = kldiv.kl(kept, z, **options, reduction="mean") / K
    same(found, axolotl(log_probs, z, ids, of_teacher, t))


def test_the_kernel_of_axolotl(rows, best):
    _, z = rows
    ids, _, log_probs = best
    # Its columns are tempered already.
    columns = (ids, log_softmax(log_probs / 2), np.ones_like(ids))
    kept = teachers.from_axolotl(*columns, classes=z.shape[-1])
    options = {"rule": "renormalize", "temperature": (1.0, 2.0), "reduction": "sum"}
    found = kldiv.kl(kept, z, **options) * 4
    same(found, axolotl_kernel(columns[1], z, ids, 0.0, 2.0))
    found = kldiv.jensen_shannon(kept, z, beta=0.5, **options) * 4
    same(found, axolotl_kernel(columns[1], z, ids, 0.5, 2.0))


def modelopt(teacher, z, temperature, reverse):
    """modelopt/torch/distill/plugins/megatron.py: TopKLogitsKLLoss, which keeps ties."""
    p, q = teacher / temperature, z / temperature
    losses = []
    for one, other in zip(p, q, strict=True):
        kept = one >= np.sort(one)[-K]
        ln_p, ln_q = log_softmax(one[kept]), log_softmax(other[kept])
        if reverse:
            ln_p, ln_q = ln_q, ln_p
        losses.append((np.exp(ln_p) * (ln_p - ln_q)).sum())
    return np.array(losses)


@pytest.mark.parametrize("t", [1.0, 2.0])
def test_modelopt(rows, t):
    teacher, z = rows
    ids = [np.flatnonzero(row >= np.sort(row)[-K]) for row in teacher]
    assert max(map(len, ids)) > K  # logits of float16 have ties
    kept = kldiv.TopK(
        np.concatenate(ids),
        logits=np.concatenate([row[of] for row, of in zip(teacher, ids, strict=True)]),
        offsets=np.cumsum([0, *map(len, ids)]),
        classes=z.shape[-1],
    )
    options = {"rule": "renormalize", "temperature": t}
    same(kldiv.kl(kept, z, **options), modelopt(teacher, z, t, False))
    same(kldiv.reverse_kl(kept, z, **options), modelopt(teacher, z, t, True))


def test_maxtext(rows, best):
    """train_distill.py, distillation_utils.py: logits of −10,000 elsewhere, then the dense loss."""
    _, z = rows
    ids, logits, _ = best
    dense = np.full(z.shape, -10_000.0)
    np.put_along_axis(dense, ids, logits, axis=-1)
    bare = kldiv.TopK(ids, logits=logits, classes=z.shape[-1])
    for t in (1.0, 2.0):
        p, q = log_softmax(dense / t), log_softmax(z / t)
        expected = (np.exp(p) * (p - q)).sum(-1) * t**2
        same(kldiv.kl(bare, z, rule="renormalize_p", temperature=t) * t**2, expected)


def megatron(teacher, z, ids):
    """megatron/training/distillation/cached_logits_loss.py: topk_kl_div with its ghost token."""
    p, q = (
        np.concatenate([x, np.log(np.maximum(1 - np.exp(x).sum(-1, keepdims=True), 1e-8))], -1)
        for x in (teacher, at(log_softmax(z), ids))
    )
    return (np.exp(p) * (p - q)).sum(-1)


def test_megatron(rows, best):
    _, z = rows
    ids, _, log_probs = best
    kept = kldiv.TopK(ids, log_probs, classes=z.shape[-1])
    same(kldiv.kl(kept, z, rule="tail"), megatron(log_probs, z, ids))


def test_tinker(rows, best):
    """Its loss cross_entropy of (N, K) targets: −Σ w ln q, the weights renormalised over the K."""
    _, z = rows
    ids, _, log_probs = best
    weights = np.exp(log_softmax(log_probs))
    kept = teachers.from_tinker(ids, weights, classes=z.shape[-1])
    expected = -(weights * at(log_softmax(z), ids)).sum(-1)
    same(kldiv.cross_entropy(z, kept, rule="renormalize_p"), expected)
