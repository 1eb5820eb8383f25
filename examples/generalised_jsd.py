"""The generalised Jensen–Shannon loss of TRL's GKDTrainer, replaced by kldiv's.

With teacher p, student q and m = βp + (1−β)q, TRL computes β KL(p‖m) + (1−β) KL(q‖m): β is the
weight of the teacher, as in `kldiv.torch.jensen_shannon` with the teacher first. At β = 0 and
β = 1, where this is 0, TRL switches to KL(p‖q) and KL(q‖p): ``endpoints="trl"``.

    python examples/generalised_jsd.py
"""

from __future__ import annotations

import torch
from torch import Tensor

import kldiv.torch


def generalized_jsd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    beta: float = 0.5,
    temperature: float = 1.0,
    reduction: str = "batchmean",
) -> Tensor:
    """A replacement for ``GKDTrainer.generalized_jsd_loss``, in one read of both logits."""
    where = None if labels is None else labels != -100
    options = {"temperature": temperature, "where": where}
    # TRL's "batchmean" divides by the tokens that count, or else by the first axis.
    if reduction == "batchmean" and where is not None:
        options["reduction"] = "mean"
    else:
        options["reduction"] = reduction
    return kldiv.torch.jensen_shannon(
        teacher_logits, student_logits, beta=beta, endpoints="trl", **options
    )


def trl_formula(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    beta: float = 0.5,
    temperature: float = 1.0,
) -> Tensor:
    """The formula of TRL 0.25, term by term, with its reduction "batchmean"."""
    kl_div = torch.nn.functional.kl_div
    student = (student_logits / temperature).log_softmax(-1)
    teacher = (teacher_logits / temperature).log_softmax(-1)
    if beta == 0:
        jsd = kl_div(student, teacher, reduction="none", log_target=True)
    elif beta == 1:
        jsd = kl_div(teacher, student, reduction="none", log_target=True)
    else:
        weight = torch.tensor(beta, dtype=student.dtype)
        mixture = torch.logsumexp(
            torch.stack([student + torch.log1p(-weight), teacher + torch.log(weight)]), dim=0
        )
        of_teacher = kl_div(mixture, teacher, reduction="none", log_target=True)
        of_student = kl_div(mixture, student, reduction="none", log_target=True)
        jsd = weight * of_teacher + (1 - weight) * of_student
    if labels is None:
        return jsd.sum() / jsd.size(0)
    mask = labels != -100
    return jsd[mask].sum() / mask.sum()


def main() -> None:
    """Compare the two."""
    generator = torch.Generator().manual_seed(0)
    teacher, student = (
        3 * torch.randn(2, 16, 32_000, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    labels = torch.randint(32_000, (2, 16), generator=generator)
    labels[:, :5] = -100
    print("β     TRL          kldiv")
    for beta in (0.0, 0.1, 0.5, 0.9, 1.0):
        expected = trl_formula(student, teacher, labels, beta, temperature=0.9)
        value = generalized_jsd_loss(student, teacher, labels, beta, temperature=0.9)
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=0.0)
        print(f"{beta:<5} {expected.item():<12.8f} {value.item():.8f}")


if __name__ == "__main__":
    main()
