//! Rules that need of the student its logits of the classes known, and at most the log-sum-exp of all others.

use super::{Known, Objective, Rule, StudentGradient, ln_tail, log_sum_exp};
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::entropy::WriteSoftmax;
use crate::row::gradients::{LARGEST_NARROW_SCALE, RowGradients};
use crate::rows::{Row, RowMut};
use crate::simd::Isa;
use crate::threads::Blocks;

/// By how much of itself a value may change with a logarithm of f32 lanes: they are right to 1.2e-7, and values to 1e-6.
pub(super) const SENSITIVE: f64 = 2.0;

/// The loss; `rising` are the classes known in order.
pub(super) fn loss(
    objective: Objective<'_>,
    teacher: Known<'_>,
    rising: &[usize],
    student: Distribution<'_>,
    isa: Isa,
    blocks: &Blocks,
    gradient: StudentGradient<'_>,
) -> f64 {
    let rate = student.inverse_temperature;
    let has_others = rising.len() < student.row.classes();
    let mut wide = objective.wide || !student.allows_narrow_lanes();
    loop {
        let others = if has_others && objective.rule != Rule::Renormalize {
            student.statistics_without(rising, isa, blocks, &mut wide)
        } else {
            LogSumExp::EMPTY
        };
        // Read when the row is in cache.
        let logits: Vec<f64> = teacher.ids.iter().map(|&id| student.row.get(id as usize)).collect();
        if others.is_nan() || logits.iter().any(|z| z.is_nan() || *z == f64::INFINITY) {
            gradient.fill(f64::NAN);
            return f64::NAN;
        }
        // Relative to the largest, so that a temperature multiplies differences.
        let largest = logits.iter().copied().fold(others.largest, f64::max);
        if largest == f64::NEG_INFINITY {
            gradient.fill(f64::NAN);
            return f64::NAN;
        }
        let mut ln_q: Vec<f64> = logits.iter().map(|z| (z - largest) * rate).collect();
        let ln_others =
            if others.is_empty() { f64::NEG_INFINITY } else { (others.largest - largest) * rate + others.ln_sum() };
        let found = match objective.rule {
            Rule::Sampled | Rule::Truncate => {
                let whole = log_sum_exp(ln_q.iter().copied().chain([ln_others]));
                for ln_q in &mut ln_q {
                    *ln_q -= whole;
                }
                as_they_are(objective, teacher, &ln_q, (ln_others - whole).exp(), isa, blocks)
            }
            _ => {
                let mut ln_p = teacher.log_probs.to_vec();
                if has_others && objective.rule != Rule::Renormalize {
                    let tail = objective.rule == Rule::Tail;
                    ln_p.push(if tail { ln_tail(objective, teacher.log_probs) } else { f64::NEG_INFINITY });
                    ln_q.push(ln_others);
                }
                normalized(objective, &ln_p, &ln_q, teacher.ids.len(), isa, blocks)
            }
        };
        if !wide && found.needs_wide_lanes() {
            wide = true;
            continue;
        }
        if let Some(out) = gradient.out {
            let scale = gradient.scale * rate;
            write(&found, teacher.ids, student, others, wide, scale, isa, blocks, out);
        }
        // Adding 0 makes a zero positive.
        return found.value + 0.0;
    }
}

/// The value, and its derivatives with respect to z/T.
struct Found {
    value: f64,
    /// Of each of the classes known.
    of_known: Vec<f64>,
    /// Of the log-sum-exp of all others.
    of_others: f64,
    /// The probability of these.
    others: f64,
}

impl Found {
    /// Whether value or gradient depend on the log-sum-exp of the others more than f32 lanes are right to.
    fn needs_wide_lanes(&self) -> bool {
        let square: f64 =
            self.of_known.iter().map(|slope| slope * slope).sum::<f64>() + self.of_others * self.of_others;
        self.of_others.abs() > SENSITIVE * self.value.abs() || self.others > 2.0 * SENSITIVE * square.sqrt()
    }
}

/// Of two distributions over a few classes, the first `known` of which are those known.
fn normalized(objective: Objective<'_>, ln_p: &[f64], ln_q: &[f64], known: usize, isa: Isa, blocks: &Blocks) -> Found {
    let (mut value, mut slopes) = value_and_slopes(objective, ln_p, ln_q, Space::Logits, isa, blocks);
    if objective.cross_entropy {
        let (p_sum, q_sum) = (log_sum_exp(ln_p.iter().copied()), log_sum_exp(ln_q.iter().copied()));
        value = crossed(ln_p.iter().map(|ln_p| (ln_p - p_sum).exp()), ln_q.iter().map(|ln_q| ln_q - q_sum));
    }
    let of_others = slopes.get(known).copied().unwrap_or(0.0);
    let others = ln_q.get(known).map_or(0.0, |ln_others| (ln_others - log_sum_exp(ln_q.iter().copied())).exp());
    slopes.truncate(known);
    Found { value, of_known: slopes, of_others, others }
}

/// Of the terms of the classes known, both sides being as they are; the student has `others` outside of them.
fn as_they_are(
    objective: Objective<'_>,
    teacher: Known<'_>,
    ln_q: &[f64],
    others: f64,
    isa: Isa,
    blocks: &Blocks,
) -> Found {
    let (value, mut slopes) = match teacher.weights {
        Some(weights) => {
            let own = if objective.cross_entropy { 0.0 } else { weighted(weights, teacher.log_probs) };
            let slopes = weights.iter().map(|weight| -weight).collect();
            (own + crossed(weights.iter().copied(), ln_q.iter().copied()), slopes)
        }
        None if ln_q.is_empty() => (0.0, Vec::new()),
        None => {
            let (value, slopes) = value_and_slopes(objective, teacher.log_probs, ln_q, Space::LogProbs, isa, blocks);
            let crossed = || crossed(teacher.log_probs.iter().map(|ln_p| ln_p.exp()), ln_q.iter().copied());
            (if objective.cross_entropy { crossed() } else { value }, slopes)
        }
    };
    let sum: f64 = slopes.iter().sum();
    for (slope, ln_q) in slopes.iter_mut().zip(ln_q) {
        *slope -= ln_q.exp() * sum;
    }
    Found { value, of_known: slopes, of_others: -sum * others, others }
}

/// The divergence of two short rows, and its gradient with respect to the student's.
fn value_and_slopes(
    objective: Objective<'_>,
    ln_p: &[f64],
    ln_q: &[f64],
    space: Space,
    isa: Isa,
    blocks: &Blocks,
) -> (f64, Vec<f64>) {
    let mut slopes = vec![0.0; ln_q.len()];
    let out = Some(RowMut::from(&mut slopes[..]));
    let teacher = Distribution::new(Row::from(ln_p), space, 1.0);
    let student = Distribution::new(Row::from(ln_q), space, 1.0);
    let gradients = RowGradients { scale: 1.0, p: None, q: out };
    let value = objective.divergence.of(teacher, student, isa, blocks, gradients);
    (value, slopes)
}

/// −Σ m ln q, of which a class without mass has no part.
pub(super) fn crossed(masses: impl Iterator<Item = f64>, ln_q: impl Iterator<Item = f64>) -> f64 {
    masses.zip(ln_q).filter(|(mass, _)| *mass != 0.0).map(|(mass, ln_q)| -mass * ln_q).sum()
}

/// Σ w ln p, in the same way.
fn weighted(weights: &[f64], ln_p: &[f64]) -> f64 {
    -crossed(weights.iter().copied(), ln_p.iter().copied())
}

/// Writes `scale` times the derivatives with respect to z/T.
#[expect(clippy::too_many_arguments, reason = "a row, and what was found of it")]
fn write(
    found: &Found,
    ids: &[i64],
    student: Distribution<'_>,
    others: LogSumExp,
    wide: bool,
    scale: f64,
    isa: Isa,
    blocks: &Blocks,
    out: RowMut<'_>,
) {
    let of_others = found.of_others * scale;
    if others.is_empty() || of_others == 0.0 {
        out.fill(0.0);
    } else {
        let wide = wide || of_others.abs() > LARGEST_NARROW_SCALE;
        blocks.map(student.row.classes(), |start, len| {
            let (logits, out) = (student.block(start, len), out.block(start, len));
            isa.run_lanes(wide, WriteSoftmax { logits, sum: others, scale: of_others, less: 0.0, out });
        });
    }
    // Those known are no part of the others' softmax, whatever was written to their places.
    for (&id, slope) in ids.iter().zip(&found.of_known) {
        out.set(id as usize, slope * scale);
    }
}
