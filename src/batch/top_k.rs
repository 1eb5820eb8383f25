//! The most probable classes of every row of a batch, and classes drawn from it.

use super::divergence::check_side;
use crate::error::Error;
use crate::memory::{self, Parts};
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::sample::{Draws, sample};
use crate::rows::Rows;
use crate::threads::{Driver, Execution};

/// Classes of every row with their log-probabilities, from the most probable one on, and of equal ones from the first on.
///
/// There is room for `k` a row, of which the first are used.
#[derive(Clone, Debug, PartialEq)]
pub struct RowClasses {
    /// Class indices.
    pub ids: Vec<i64>,
    /// ln p, over all classes of the row.
    pub log_probs: Vec<f64>,
    /// What classes that were drawn stand for: estimates of p.
    pub weights: Vec<f64>,
    /// Classes of every row.
    pub counts: Vec<usize>,
}

/// How rows are sampled.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Draws a row, with replacement.
    pub k: usize,
    /// A class is drawn with a probability in proportion to this power of its own; from 0 to 1000.
    pub power: f64,
    /// The same one gives the same classes.
    pub seed: u64,
    /// The number of the first row: row i of a batch draws what row `first_row + i` of a larger one does.
    pub first_row: u64,
}

/// The `k` most probable classes of every row; of one with fewer finite logits those, without weights.
///
/// # Errors
/// [`Error::Row`] for rows with NaN or +∞, or without a finite logit; [`Error::Parameter`], [`Error::NoClasses`],
/// [`Error::Memory`] and [`Error::Interrupted`].
pub fn top_k(logits: &Rows<'_>, k: usize, temperature: f64, execution: &Execution<'_>) -> Result<RowClasses, Error> {
    execution.run(|driver| {
        check_side("logits", logits, Space::Logits, temperature)?;
        if !(1..=logits.classes()).contains(&k) {
            return Err(Error::Parameter { name: "k", value: k as f64, domain: "from 1 to the number of classes" });
        }
        of_rows(driver, logits, k, temperature, false, |_, z, sum, _, places| {
            let mut found = Vec::new();
            crate::row::top_k::top_k(z.row, k, driver.isa, &mut found);
            for (place, class) in found.iter().enumerate() {
                places.set(place, class.id, -sum.surprise(class.logit, z.inverse_temperature), 1.0);
            }
            found.len()
        })
    })
}

/// Classes drawn from every row, each once, with weights.
///
/// # Errors
/// As [`top_k`].
pub fn sample_k(
    logits: &Rows<'_>,
    sampling: Sampling,
    temperature: f64,
    execution: &Execution<'_>,
) -> Result<RowClasses, Error> {
    /// Beyond this all but the most probable classes are as good as never drawn.
    const LARGEST_POWER: f64 = 1000.0;
    execution.run(|driver| {
        check_side("logits", logits, Space::Logits, temperature)?;
        let Sampling { k, power, seed, first_row } = sampling;
        if k == 0 {
            return Err(Error::Parameter { name: "k", value: 0.0, domain: "at least 1" });
        }
        if !(0.0..=LARGEST_POWER).contains(&power) {
            return Err(Error::Parameter { name: "power", value: power, domain: "from 0 to 1000" });
        }
        let room = k.min(logits.classes());
        of_rows(driver, logits, room, temperature, true, |row, z, sum, blocks, places| {
            let draws = Draws { count: k, power, seed, row: first_row.wrapping_add(row as u64) };
            let found = sample(z, sum, draws, driver.isa, blocks);
            for (place, drawn) in found.iter().enumerate() {
                let ln_p = -sum.surprise(drawn.class.logit, z.inverse_temperature);
                places.set(place, drawn.class.id, ln_p, drawn.weight);
            }
            found.len()
        })
    })
}

/// Where the classes of a row go.
struct Places<'a> {
    ids: &'a mut [i64],
    log_probs: &'a mut [f64],
    weights: Option<&'a mut [f64]>,
}

impl Places<'_> {
    fn set(&mut self, place: usize, id: usize, ln_p: f64, weight: f64) {
        self.ids[place] = id as i64;
        // Adding 0 makes a zero positive.
        self.log_probs[place] = ln_p + 0.0;
        if let Some(weights) = &mut self.weights {
            weights[place] = weight;
        }
    }
}

/// What `classes` puts into the places of every row, and says how many.
fn of_rows(
    driver: &Driver<'_>,
    logits: &Rows<'_>,
    room: usize,
    temperature: f64,
    weighed: bool,
    classes: impl Fn(usize, Distribution<'_>, LogSumExp, &crate::threads::Blocks, &mut Places<'_>) -> usize + Sync,
) -> Result<RowClasses, Error> {
    let count = logits.count();
    let all = count.saturating_mul(room);
    let mut ids = memory::filled(all, 0_i64)?;
    let mut log_probs = memory::filled(all, 0.0)?;
    let mut weights = memory::filled(if weighed { all } else { 0 }, 0.0)?;
    let parts = (Parts::new(&mut ids, room), Parts::new(&mut log_probs, room), Parts::new(&mut weights, room));
    let counts = driver.for_rows(count, logits.classes(), &|index, blocks| {
        let z = Distribution::new(logits.row(index), Space::Logits, temperature);
        let sum = z.statistics(driver.isa, blocks, &mut !z.allows_narrow_lanes());
        if sum.is_nan() {
            return Found::Invalid;
        }
        if sum.is_empty() {
            return Found::Nothing;
        }
        // SAFETY: the driver hands out every index once.
        let mut places = unsafe {
            Places {
                ids: parts.0.part(index),
                log_probs: parts.1.part(index),
                weights: weighed.then(|| parts.2.part(index)),
            }
        };
        Found::Classes(classes(index, z, sum, blocks, &mut places))
    })?;
    let counts = counts.into_iter().enumerate().map(|(row, found)| match found {
        Found::Classes(count) => Ok(count),
        Found::Nothing => Err(Error::Row { argument: "logits", row, reason: "has no finite logit" }),
        Found::Invalid => Err(Error::Row { argument: "logits", row, reason: "holds NaN or +inf" }),
    });
    let counts = counts.collect::<Result<_, _>>()?;
    Ok(RowClasses { ids, log_probs, weights, counts })
}

/// What there is in a row.
#[derive(Clone, Copy, Default)]
enum Found {
    Classes(usize),
    #[default]
    Nothing,
    Invalid,
}
