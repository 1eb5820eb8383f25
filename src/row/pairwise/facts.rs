//! What is to be known of a row before its pairs.

use crate::row::distribution::softmax::DistributionView;
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::runs::{Step, sums};
use crate::rows::Block;
use crate::simd::{Isa, Kernel, Lanes, Simd};
use crate::threads::Blocks;

/// What is known of a valid row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) sum: LogSumExp,
    /// Whether it sums to one, whatever its numbers.
    pub(crate) normalized: bool,
    /// Σp of rows taken as given, Σw of weights.
    pub(crate) mass: f64,
    /// What the logarithms of its probabilities are off by at most, as a tile has them.
    pub(crate) error: f64,
    /// Whether it has every class.
    pub(crate) full: bool,
    /// Whether each probability, but for those of classes that it lacks, is far inside the normal range of f64.
    pub(crate) ordinary: bool,
}

impl Facts {
    /// Of logarithms of some tens, which are rounded, and of exponentials.
    pub(crate) const LARGEST_ERROR: f64 = 1e-15;

    /// `None` for a row that is invalid.
    pub(crate) fn of(row: Distribution<'_>, isa: Isa, blocks: &Blocks) -> Option<Self> {
        let sum = row.statistics(isa, blocks, &mut true);
        if sum.is_nan() || sum.is_empty() {
            return None;
        }
        let classes = row.row.classes();
        let parts = blocks.map(classes, |start, len| isa.run(Measure { row: row.block(start, len), sum }));
        let found = parts.iter().fold(Found::NOTHING, |all, &part| all.merge(part));
        let lowest = match row.space {
            Space::Logits => (found.smallest - sum.largest) * row.inverse_temperature - sum.ln_sum(),
            Space::LogProbs => found.smallest,
            Space::Probs => found.smallest.ln(),
            Space::Unnormalized => found.smallest.ln() - found.mass.ln(),
        };
        Some(Facts {
            sum,
            normalized: row.space.is_normalized(),
            mass: found.mass,
            error: match row.space {
                Space::Logits | Space::LogProbs => Self::LARGEST_ERROR,
                Space::Probs => 0.0,
                // Their sum is rounded, and each quotient.
                Space::Unnormalized => 0.2 * Self::LARGEST_ERROR,
            },
            full: found.count == classes as f64,
            ordinary: found.count > 0.0 && lowest > LOWEST && MASSES.contains(&found.mass),
        })
    }
}

/// ln p of the least probable class of ordinary rows. Products and quotients of two probabilities stay in the normal range.
const LOWEST: f64 = -300.0;

/// Sums of ordinary rows.
const MASSES: std::ops::RangeInclusive<f64> = 1e-100..=1e100;

/// Sums and extremes of the numbers of classes that a row has.
#[derive(Clone, Copy)]
struct Found {
    /// Σp, Σw of weights; 1 of logits.
    mass: f64,
    count: f64,
    smallest: f64,
}

impl Found {
    const NOTHING: Self = Found { mass: 0.0, count: 0.0, smallest: f64::INFINITY };

    fn merge(self, other: Self) -> Self {
        Found {
            mass: self.mass + other.mass,
            count: self.count + other.count,
            smallest: self.smallest.min(other.smallest),
        }
    }
}

struct Measure<'a> {
    row: Distribution<'a>,
    sum: LogSumExp,
}

impl Kernel for Measure<'_> {
    type Output = Found;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Found {
        let Measure { row, sum } = self;
        let smallest = S::F64::splat(simd, f64::INFINITY);
        let weights = row.space == Space::Unnormalized;
        let mut step =
            MeasureStep::<S::F64> { token: simd, view: DistributionView::new(simd, row, sum), weights, smallest };
        let [mass, count] = sums(simd, row.row.classes(), [Block::new(row.row, row.space.absent())], &mut step);
        Found { mass, count, smallest: -(-step.smallest).largest() }
    }
}

struct MeasureStep<V: Lanes> {
    token: V::Token,
    view: DistributionView<V>,
    weights: bool,
    smallest: V,
}

impl<V: Lanes> Step<V, 1, 0, 2> for MeasureStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x]: [V; 1], [mass, count]: &mut [V; 2]) -> [V; 0] {
        let splat = |value| V::splat(self.token, value);
        let has = self.view.has(x);
        self.smallest = self.smallest.min(V::select(has, x, splat(f64::INFINITY)));
        *mass = *mass + if self.weights { x } else { self.view.p(x) };
        *count = *count + V::select(has, splat(1.0), splat(0.0));
        []
    }
}
