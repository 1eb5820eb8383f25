"""Distil a language model with `transformers.Trainer` and kldiv's loss.

The teacher is SmolLM2-135M-Instruct (49,152 tokens), the student a Llama of 2 layers with the same
vocabulary, the text the topics of Python's own documentation (``pydoc_data``). The loss is
α·KL(teacher‖student) + (1−α)·cross-entropy, for which Trainer has the argument
``compute_loss_func``. It passes ``num_items_in_batch``, the number of labels in all the
micro-batches of a step: with it as divisor, gradient accumulation gives the loss of one big batch,
which this example shows first.

    python examples/distill_with_trainer.py [--steps 20]
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
import transformers
from torch import Tensor

import experiment
import models
import texts
from kldiv.torch import DistillationLoss

SEQUENCE = 64


class StudentWithTeacher(torch.nn.Module):
    """A student that returns the logits of its teacher next to its own."""

    def __init__(self, student: Any, teacher: Any) -> None:
        super().__init__()
        self.student = student
        # In a tuple, so that the teacher's weights are neither trained nor saved.
        self.teacher = (teacher,)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Both logits; the labels are for the loss."""
        with torch.no_grad():
            teacher_logits = self.teacher[0](input_ids).logits
        return {"logits": self.student(input_ids).logits, "teacher_logits": teacher_logits}


class NextTokenLoss:
    """A distillation loss as ``compute_loss_func`` of Trainer."""

    def __init__(self, loss: DistillationLoss) -> None:
        self.loss = loss

    def __call__(
        self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The labels are the next tokens already, so that Trainer counts those that are used."""
        return self.loss(
            outputs["logits"],
            outputs["teacher_logits"],
            labels,
            num_items_in_batch=num_items_in_batch,
        )


def sequences(tokenizer: Any) -> list[dict[str, Tensor]]:
    """The documentation in pieces of one length, and the token that follows each of theirs."""
    pieces = []
    for _, topic in sorted(texts.python_documentation().items()):
        tokens = torch.tensor(tokenizer(topic)["input_ids"])
        for start in range(0, len(tokens) - 1, SEQUENCE):
            piece, following = tokens[start : start + SEQUENCE], tokens[start + 1 :][:SEQUENCE]
            input_ids = torch.full((SEQUENCE,), tokenizer.eos_token_id or 0)
            labels = torch.full((SEQUENCE,), -100)
            input_ids[: len(piece)], labels[: len(following)] = piece, following
            pieces.append({"input_ids": input_ids, "labels": labels})
    return pieces


def student(teacher: Any) -> Any:
    """A small model with the teacher's vocabulary, always with the same weights."""
    transformers.set_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=teacher.config.vocab_size,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config)


def train(
    teacher: Any, data: list[dict[str, Tensor]], *, steps: int, batch: int, accumulate: int
) -> list[float]:
    """The loss of each step."""
    model = StudentWithTeacher(student(teacher), teacher)
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir="unused",
            max_steps=steps,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulate,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["labels"],
            seed=0,
        ),
        train_dataset=data,
        compute_loss_func=NextTokenLoss(DistillationLoss(alpha=0.5, temperature=1.0)),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main() -> None:
    """Show the accumulation, then train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    teacher, tokenizer = models.smollm2(experiment.OUTPUT / "models")
    data = sequences(tokenizer)
    whole = train(teacher, data, steps=2, batch=8, accumulate=1)
    parts = train(teacher, data, steps=2, batch=2, accumulate=4)
    print("one batch of 8:      ", " ".join(f"{loss:.4f}" for loss in whole))
    print("four batches of 2:   ", " ".join(f"{loss:.4f}" for loss in parts))
    losses = train(teacher, data, steps=steps, batch=8, accumulate=1)
    print("training:            ", " ".join(f"{loss:.3f}" for loss in losses))


if __name__ == "__main__":
    main()
