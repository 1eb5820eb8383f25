//! Rows whose sums f32 lanes round to one side.
//!
//! A lane that holds a class with nearly all of a row rounds every class that is added after it, [`RUN`](crate::simd::RUN) at most, by up to
//! half a step of 1.2·10⁻⁷. Where these differ, that averages out, and so do the roundings of their exponentials. Where they are alike, as in a
//! teacher with label smoothing, neither does: sums are off by up to 9·10⁻⁷, values and gradients by three times that.

use super::Distribution;
use super::scan::largest;
use crate::rows::Row;
use crate::simd::{Isa, LaneKernel, Lanes, Narrow};
use crate::threads::Blocks;

/// Classes that are looked at, as many of each part of the row.
const SAMPLES: usize = 8;

/// How many of them are alike where most of the row may be.
const MOST: usize = SAMPLES / 2;

/// −ln p of the largest class up to which sums are off by more than 10⁻⁷: p is an eighth.
const LARGEST_SURPRISE: f64 = 2.08;

/// Differences of logits, over T, of classes that are rounded alike.
const ALIKE: f64 = 0.01;

/// How far below the log-sum-exp, over T, classes are nothing, however many.
const DEPTH: f64 = 42.0;

/// Whether sums over a row of logits are better not found in f32 lanes, given its log-sum-exp and its largest logit.
pub(crate) fn absorbs(row: Distribution<'_>, log_sum_exp: f64, largest: f64) -> bool {
    is_dominated(row, log_sum_exp, largest) && is_of_one_number(row, log_sum_exp)
}

/// The same where the largest logit is not known.
pub(crate) fn absorbs_beside_any(row: Distribution<'_>, log_sum_exp: f64, isa: Isa, blocks: &Blocks) -> bool {
    is_of_one_number(row, log_sum_exp) && {
        let parts = blocks.map(row.row.classes(), |start, len| isa.run(Narrow(Largest(row.row.block(start, len)))));
        is_dominated(row, log_sum_exp, parts.iter().fold(f64::NEG_INFINITY, |most, &part| most.max(part)))
    }
}

fn is_dominated(row: Distribution<'_>, log_sum_exp: f64, largest: f64) -> bool {
    log_sum_exp - largest * row.inverse_temperature <= LARGEST_SURPRISE
}

/// Whether about half of the classes, or more, have nearly one logit.
fn is_of_one_number(row: Distribution<'_>, log_sum_exp: f64) -> bool {
    let rate = row.inverse_temperature;
    let sample = |index: usize| row.row.get((2 * index + 1) * row.row.classes() / (2 * SAMPLES));
    // Of four, two are alike then, but for one row in three where half of the classes are; of other rows next to none.
    let [a, b, c, d] = [0, 2, 5, 7].map(sample);
    let nearest =
        (a - b).abs().min((a - c).abs()).min((a - d).abs()).min((b - c).abs()).min((b - d).abs()).min((c - d).abs());
    if nearest * rate > ALIKE {
        return false;
    }
    let mut samples: [f64; SAMPLES] = std::array::from_fn(sample);
    samples.sort_unstable_by(f64::total_cmp);
    samples
        .windows(MOST)
        .any(|alike| log_sum_exp - alike[0] * rate <= DEPTH && (alike[MOST - 1] - alike[0]) * rate <= ALIKE)
}

struct Largest<'a>(Row<'a>);

impl LaneKernel for Largest<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> f64 {
        largest::<V>(token, self.0)
    }
}
