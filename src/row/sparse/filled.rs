//! Rules that give the teacher every class: its row is filled in, in the memory of one row a thread.

use std::cell::Cell;

use super::{Known, Objective, Rule, StudentGradient, ln_elsewhere};
use crate::row::cross_entropy::{LossGradients, Target, Terms, cross_entropy};
use crate::row::distribution::{Distribution, Space};
use crate::row::gradients::RowGradients;
use crate::rows::Row;
use crate::simd::Isa;
use crate::threads::Blocks;

thread_local! {
    /// Kept for the next row: to ask for it costs as much as a row.
    static FILLED: Cell<Vec<f64>> = const { Cell::new(Vec::new()) };
}

/// The loss.
pub(super) fn loss(
    objective: Objective<'_>,
    teacher: Known<'_>,
    student: Distribution<'_>,
    isa: Isa,
    blocks: &Blocks,
    gradient: StudentGradient<'_>,
) -> f64 {
    let classes = student.row.classes();
    let elsewhere = ln_elsewhere(objective, teacher.log_probs, classes - teacher.ids.len());
    // What a floor adds is taken as it is.
    let space = if matches!(objective.rule, Rule::Floor { .. }) { Space::LogProbs } else { Space::Logits };
    let made = |ln_p: f64| if objective.cross_entropy { ln_p.exp() } else { ln_p };
    // Taken while it is used: where the blocks of a row are shared out, a thread of the caller's own pool may begin
    // another call before this one ends.
    let mut memory = FILLED.take();
    memory.clear();
    memory.resize(classes, made(elsewhere));
    for (&id, &ln_p) in teacher.ids.iter().zip(teacher.log_probs) {
        memory[id as usize] = made(ln_p);
    }
    let row = Row::from(&memory[..]);
    let StudentGradient { scale, out } = gradient;
    let value = if objective.cross_entropy {
        let terms = Terms { label_smoothing: 0.0, class_weights: None, z_loss: 0.0, wide: objective.wide };
        let gradients = LossGradients { scale, logits: out, targets: None, added: None };
        cross_entropy(student, Target::Distribution(row), &terms, isa, blocks, gradients)
    } else {
        let teacher = Distribution::new(row, space, 1.0);
        objective.divergence.of(teacher, student, isa, blocks, RowGradients { scale, p: None, q: out })
    };
    FILLED.set(memory);
    value
}
