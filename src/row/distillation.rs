//! What a student learns from a teacher and a label at once: a divergence from the teacher, and cross-entropy.

use super::cross_entropy::{LossGradients, Target, Terms, cross_entropy};
use super::divergence::AnyDivergence;
use crate::row::distribution::{Distribution, Space};
use crate::row::gradients::RowGradients;
use crate::rows::{Row, RowMut};
use crate::simd::Isa;
use crate::threads::Blocks;

/// The rows of teacher and student, and the label.
#[derive(Clone, Copy)]
pub(crate) struct Lesson<'a> {
    pub(crate) teacher: Distribution<'a>,
    pub(crate) student: Distribution<'a>,
    /// A class index in range; needed where there is a share of cross-entropy.
    pub(crate) label: Option<usize>,
    pub(crate) label_smoothing: f64,
    /// Whether the result is f64.
    pub(crate) wide: bool,
}

/// What the two losses are multiplied by.
#[derive(Clone, Copy)]
pub(crate) struct Shares {
    pub(crate) divergence: f64,
    pub(crate) cross_entropy: f64,
}

/// The loss of one row; writes the gradients asked for, p's being the teacher's. `scratch` is a row to write and its
/// memory to read, needed for both losses with a gradient of the student.
pub(crate) fn distillation(
    divergence: AnyDivergence<'_>,
    lesson: Lesson<'_>,
    shares: Shares,
    isa: Isa,
    blocks: &Blocks,
    gradients: RowGradients<'_>,
    scratch: Option<(RowMut<'_>, Row<'_>)>,
) -> f64 {
    let Lesson { teacher, student, .. } = lesson;
    let from_teacher = |q: Option<RowMut<'_>>| {
        let scale = gradients.scale * shares.divergence;
        shares.divergence * divergence.of(teacher, student, isa, blocks, RowGradients { scale, p: gradients.p, q })
    };
    let from_label = |class: usize, logits: Option<RowMut<'_>>, added: Option<Row<'_>>| {
        // Labels are about the student as it is, at temperature 1.
        let q = Distribution::new(student.row, Space::Logits, 1.0);
        let terms =
            Terms { label_smoothing: lesson.label_smoothing, class_weights: None, z_loss: 0.0, wide: lesson.wide };
        let scale = gradients.scale * shares.cross_entropy;
        let out = LossGradients { scale, logits, targets: None, added };
        shares.cross_entropy * cross_entropy(q, Target::Class(class), &terms, isa, blocks, out)
    };
    match (lesson.label, scratch) {
        (Some(class), _) if shares.divergence == 0.0 => {
            if let Some(out) = gradients.p {
                out.fill(0.0);
            }
            from_label(class, gradients.q, None)
        }
        // The gradient of the student may be written over its logits, which both losses read: the last one writes it.
        (Some(class), Some((sum, read))) => from_teacher(Some(sum)) + from_label(class, gradients.q, Some(read)),
        (Some(class), None) => from_teacher(None) + from_label(class, None, None),
        (None, _) => from_teacher(gradients.q),
    }
}
