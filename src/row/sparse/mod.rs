//! The loss of one row from a teacher of which only some classes are known, with the gradient of the student.
//!
//! A [`Rule`] makes of the two a problem of the classes that are known, and of one more for all others where it asks for that
//! ([`few`]), or fills the teacher in ([`filled`]). What that needs of the student's row beside its logits of those
//! classes is the log-sum-exp of the others, summed without them: to take theirs away from the whole would leave few
//! digits where they have most of it.

mod few;
mod filled;
mod rule;
mod spread;

pub use rule::{Rule, RuleDescription};

use crate::row::distribution::Distribution;
use crate::row::divergence::AnyDivergence;
use crate::rows::RowMut;
use crate::simd::Isa;
use crate::threads::Blocks;

/// The classes of a teacher's row that are known.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    /// In range.
    pub(crate) ids: &'a [i64],
    /// ln p; or up to a number that they share.
    pub(crate) log_probs: &'a [f64],
    /// What classes that were drawn stand for.
    pub(crate) weights: Option<&'a [f64]>,
}

/// What is computed of every row.
#[derive(Clone, Copy)]
pub(crate) struct Objective<'a> {
    pub(crate) divergence: AnyDivergence<'a>,
    /// Cross-entropy instead, for which the divergence is KL: they have one gradient.
    pub(crate) cross_entropy: bool,
    pub(crate) rule: Rule,
    /// 1/T of the teacher.
    pub(crate) teacher_rate: f64,
    /// Whether a teacher at temperature T is p^(1/T) of the classes known, which then are all there are.
    pub(crate) temper_after: bool,
    /// Whether the result is f64.
    pub(crate) wide: bool,
}

/// Where the gradient of the student goes, and what it is multiplied by.
#[derive(Clone, Copy)]
pub(crate) struct StudentGradient<'a> {
    pub(crate) scale: f64,
    pub(crate) out: Option<RowMut<'a>>,
}

impl StudentGradient<'_> {
    fn fill(self, value: f64) {
        if let Some(out) = self.out {
            out.fill(value);
        }
    }
}

/// The loss of one row; writes the gradient asked for.
pub(crate) fn loss(
    objective: Objective<'_>,
    teacher: Known<'_>,
    student: Distribution<'_>,
    isa: Isa,
    blocks: &Blocks,
    gradient: StudentGradient<'_>,
) -> f64 {
    let classes = student.row.classes();
    let mut rising = teacher.ids.to_vec();
    rising.sort_unstable();
    let rising: Vec<usize> = rising.into_iter().map(|id| id as usize).collect();
    let once = rising.windows(2).all(|pair| pair[0] < pair[1]);
    // A teacher that knows no class is none where only those count that it knows.
    let empty = matches!(objective.rule, Rule::Renormalize | Rule::RenormalizeP) && rising.is_empty();
    if !once || empty {
        gradient.fill(f64::NAN);
        return f64::NAN;
    }
    let log_probs = log_probs(objective, teacher, classes);
    match objective.rule {
        Rule::UniformTail | Rule::Floor { .. } => {
            let teacher = Known { log_probs: &log_probs, ..teacher };
            let found = if objective.divergence.is_kl() {
                spread::loss(objective, teacher, &rising, student, isa, blocks, gradient)
            } else {
                None
            };
            found.unwrap_or_else(|| filled::loss(objective, teacher, student, isa, blocks, gradient))
        }
        _ => few::loss(objective, Known { log_probs: &log_probs, ..teacher }, &rising, student, isa, blocks, gradient),
    }
}

/// ln p of the classes known, at the teacher's temperature.
fn log_probs(objective: Objective<'_>, teacher: Known<'_>, classes: usize) -> Vec<f64> {
    let tempered = || teacher.log_probs.iter().map(|ln_p| ln_p * objective.teacher_rate);
    match objective.rule {
        // Only proportions count.
        Rule::Renormalize | Rule::RenormalizeP => tempered().collect(),
        // Without any other class, a temperature takes nothing from these.
        _ if objective.teacher_rate != 1.0 && (objective.temper_after || teacher.ids.len() == classes) => {
            let whole = log_sum_exp(tempered());
            tempered().map(|ln_p| ln_p - whole).collect()
        }
        _ => teacher.log_probs.to_vec(),
    }
}

/// ln Σ e^x of a few numbers.
fn log_sum_exp(numbers: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = numbers.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    // Without the largest: of a row that it dominates, the logarithm is that of 1 and little more.
    let mut rest = 0.0;
    let mut left_out = false;
    for number in numbers {
        if number == largest && !left_out {
            left_out = true;
        } else {
            rest += (number - largest).exp();
        }
    }
    largest + rest.ln_1p()
}

/// ln p of each of the `others` that the rule gives the teacher outside of the classes known.
fn ln_elsewhere(objective: Objective<'_>, log_probs: &[f64], others: usize) -> f64 {
    match objective.rule {
        Rule::Floor { floor } => floor,
        _ => ln_tail(objective, log_probs) - (others.max(1) as f64).ln(),
    }
}

/// ln of what a teacher has outside of the classes known; −∞ where those are all it has.
fn ln_tail(objective: Objective<'_>, log_probs: &[f64]) -> f64 {
    if objective.temper_after {
        return f64::NEG_INFINITY;
    }
    let known = log_sum_exp(log_probs.iter().copied());
    if known < 0.0 { (-known.exp_m1()).ln() } else { f64::NEG_INFINITY }
}
