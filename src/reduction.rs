//! From values per row to one number: masks, weights, and sums in f64 in the order of the rows.

use crate::error::Error;

/// How the values of the rows become the result. d is a row's value and w its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// w·d for every row.
    None,
    /// Σ w·d.
    Sum,
    /// Σ w·d / Σ w; 0 where no row is kept.
    Mean,
    /// Σ w·d / length of the first batch axis.
    BatchMean,
}

impl Reduction {
    /// The reduction called `name`.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn from_name(name: &str) -> Result<Self, Error> {
        match name {
            "none" => Ok(Reduction::None),
            "sum" => Ok(Reduction::Sum),
            "mean" => Ok(Reduction::Mean),
            "batchmean" => Ok(Reduction::BatchMean),
            _ => Err(Error::UnknownName {
                kind: "reduction",
                name: name.to_owned(),
                known: "none, sum, mean or batchmean".to_owned(),
            }),
        }
    }
}

/// What is done with the values of the rows of a batch.
#[derive(Clone, Copy, Debug)]
pub struct RowOptions<'a> {
    /// Rows to keep; the others give 0 and a zero gradient, whatever they hold.
    pub keep: Option<&'a [bool]>,
    /// Weights of the rows, finite and non-negative. A row of weight 0 is treated like one that is not kept.
    pub weights: Option<&'a [f64]>,
    /// How the values become the result.
    pub reduction: Reduction,
    /// Replaces the divisor of [`Reduction::Mean`].
    pub denominator: Option<f64>,
    /// The divisor of [`Reduction::BatchMean`]: the length of the first batch axis.
    pub batch: usize,
    /// ∂L/∂result: one number, or one a row for [`Reduction::None`]; all 1 where absent.
    pub grad_output: Option<&'a [f64]>,
}

impl Default for RowOptions<'_> {
    fn default() -> Self {
        RowOptions {
            keep: None,
            weights: None,
            reduction: Reduction::None,
            denominator: None,
            batch: 1,
            grad_output: None,
        }
    }
}

impl RowOptions<'_> {
    /// Everything that can be wrong with the options of a batch of `count` rows.
    pub(crate) fn check(&self, count: usize) -> Result<(), Error> {
        for (first, len) in [("where", self.keep.map(<[bool]>::len)), ("weights", self.weights.map(<[f64]>::len))] {
            if let Some(len) = len
                && len != count
            {
                return Err(Error::ShapeMismatch {
                    first,
                    first_shape: vec![len],
                    second: "the batch",
                    second_shape: vec![count],
                });
            }
        }
        let upstream = if self.reduction == Reduction::None { count } else { 1 };
        if let Some(grad_output) = self.grad_output
            && grad_output.len() != upstream
        {
            return Err(Error::ShapeMismatch {
                first: "grad_output",
                first_shape: vec![grad_output.len()],
                second: "the result",
                second_shape: vec![upstream],
            });
        }
        if let Some(weights) = self.weights
            && let Some(index) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0))
        {
            return Err(Error::Weight { argument: "weights", index, value: weights[index] });
        }
        if let Some(denominator) = self.denominator {
            if self.reduction != Reduction::Mean {
                return Err(Error::Option {
                    reason: "denominator replaces the divisor of reduction='mean' and of no other",
                });
            }
            if !(denominator.is_finite() && denominator > 0.0) {
                return Err(Error::Parameter {
                    name: "denominator",
                    value: denominator,
                    domain: "positive and finite",
                });
            }
        }
        Ok(())
    }

    fn weight(&self, row: usize) -> f64 {
        self.weights.map_or(1.0, |weights| weights[row])
    }

    /// Whether the row counts at all, once checked.
    pub(crate) fn keeps(&self, row: usize) -> bool {
        self.keep.is_none_or(|keep| keep[row]) && self.weight(row) != 0.0
    }
}

/// Values of the rows, and the result where there is one number.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduced {
    /// w·d of every row, 0 for rows not kept.
    pub rows: Vec<f64>,
    /// The result of a reduction other than [`Reduction::None`].
    pub result: Option<f64>,
}

/// Checked options for a batch of known size.
pub(crate) struct Reducer<'a> {
    options: RowOptions<'a>,
    divisor: f64,
}

impl<'a> Reducer<'a> {
    /// `share(row)` is what a kept row adds to the divisor of a mean, beside its weight; 1 where it is absent.
    pub(crate) fn new(
        options: RowOptions<'a>,
        count: usize,
        share: Option<&dyn Fn(usize) -> f64>,
    ) -> Result<Self, Error> {
        options.check(count)?;
        // Then nothing is counted row by row: they may be more than there is memory for, which is found later.
        let all_alike = options.keep.is_none() && options.weights.is_none() && share.is_none();
        let mut reducer = Reducer { options, divisor: 1.0 };
        reducer.divisor = match (options.reduction, options.denominator) {
            (Reduction::None | Reduction::Sum, _) => 1.0,
            (Reduction::BatchMean, _) => options.batch as f64,
            (Reduction::Mean, Some(denominator)) => denominator,
            (Reduction::Mean, None) if all_alike => count as f64,
            (Reduction::Mean, None) => {
                let share = |row| share.map_or(1.0, |share| share(row));
                (0..count).filter(|&row| reducer.keeps(row)).map(|row| options.weight(row) * share(row)).sum()
            }
        };
        Ok(reducer)
    }

    /// Whether the row counts at all.
    pub(crate) fn keeps(&self, row: usize) -> bool {
        self.options.keeps(row)
    }

    /// 1 / divisor; 0 where there is nothing to divide.
    fn factor(&self) -> f64 {
        if self.divisor == 0.0 { 0.0 } else { 1.0 / self.divisor }
    }

    /// ∂L/∂d of a kept row.
    pub(crate) fn scale(&self, row: usize) -> f64 {
        let upstream = match (self.options.grad_output, self.options.reduction) {
            (None, _) => 1.0,
            (Some(grad_output), Reduction::None) => grad_output[row],
            (Some(grad_output), _) => grad_output[0],
        };
        upstream * self.options.weight(row) * self.factor()
    }

    /// The result, from d of every row (0 for rows not kept).
    pub(crate) fn finish(&self, mut rows: Vec<f64>) -> Reduced {
        if self.options.weights.is_some() {
            for (row, value) in rows.iter_mut().enumerate() {
                if self.keeps(row) {
                    *value *= self.options.weight(row);
                }
            }
        }
        let result = (self.options.reduction != Reduction::None).then(|| {
            let sum: f64 = rows.iter().sum();
            if self.divisor == 0.0 { 0.0 } else { sum / self.divisor + 0.0 }
        });
        Reduced { rows, result }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn masks_weights_and_divisors() {
        let keep = [true, false, true];
        let weights = [2.0, 5.0, 1.0];
        let options = RowOptions {
            keep: Some(&keep),
            weights: Some(&weights),
            reduction: Reduction::Mean,
            ..RowOptions::default()
        };
        let reducer = Reducer::new(options, 3, None).unwrap();
        assert_eq!(reducer.scale(0), 2.0 / 3.0);
        assert_eq!(reducer.finish(vec![1.0, 0.0, 4.0]).result, Some(2.0));
    }

    #[test]
    fn a_mean_of_nothing_is_zero() {
        let keep = [false];
        let options = RowOptions { keep: Some(&keep), reduction: Reduction::Mean, ..RowOptions::default() };
        assert_eq!(Reducer::new(options, 1, None).unwrap().finish(vec![0.0]).result, Some(0.0));
    }
}
