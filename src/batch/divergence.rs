//! Divergences of batches, with gradients.

use super::kept_rows::for_kept_rows;
use crate::divergence::{Kind, Parameter};
use crate::error::Error;
use crate::reduction::{Reduced, Reducer, RowOptions};
use crate::row::distribution::{Distribution, Space};
use crate::row::divergence::AnyDivergence;
use crate::row::gradients::RowGradients;
use crate::rows::{Rows, RowsMut};
use crate::threads::Execution;

/// The rows of one side, and what their numbers are.
#[derive(Clone, Debug)]
pub struct PairOfRows<'a> {
    /// Reference, and approximation.
    pub rows: (Rows<'a>, Rows<'a>),
    /// What the numbers are.
    pub spaces: (Space, Space),
    /// Temperatures, for logits; 1 for the other spaces.
    pub temperatures: (f64, f64),
}

impl<'a> PairOfRows<'a> {
    /// Two batches of logits at temperature 1.
    pub fn logits(p: Rows<'a>, q: Rows<'a>) -> Self {
        PairOfRows { rows: (p, q), spaces: (Space::Logits, Space::Logits), temperatures: (1.0, 1.0) }
    }
}

/// Where to write gradients: arrays of the shape of the rows, of any dtype.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// ∂L/∂p.
    pub p: Option<RowsMut<'a>>,
    /// ∂L/∂q.
    pub q: Option<RowsMut<'a>>,
}

/// Temperatures that can be computed with. Between them 1/T, and the distance over T of any two float32 logits that
/// differ, 1e-75 to 1e69, stay far inside f64 and below what stands for infinity in its lanes.
pub const TEMPERATURE: Parameter = Parameter {
    name: "temperature",
    default: Some(1.0),
    low: 1e-30,
    high: 1e30,
    smallest: 0.0,
    domain: "positive, from 1e-30 to 1e30",
};

/// Checks what can be known of one side before any row is read.
pub(crate) fn check_side(argument: &'static str, rows: &Rows<'_>, space: Space, temperature: f64) -> Result<(), Error> {
    if rows.classes() == 0 {
        return Err(Error::NoClasses { argument, shape: rows.shape() });
    }
    TEMPERATURE.check(temperature)?;
    if space != Space::Logits && temperature != 1.0 {
        return Err(Error::Option { reason: "temperature applies to logits only" });
    }
    Ok(())
}

/// That an output has the shape of its input.
pub(crate) fn check_output(argument: &'static str, out: Option<&RowsMut<'_>>, rows: &Rows<'_>) -> Result<(), Error> {
    match out {
        Some(out) if out.shape() != rows.shape() => Err(Error::ShapeMismatch {
            first: argument,
            first_shape: out.shape(),
            second: "its input",
            second_shape: rows.shape(),
        }),
        _ => Ok(()),
    }
}

/// That two inputs have one shape.
pub(crate) fn check_same_shape(names: (&'static str, &'static str), rows: (&Rows<'_>, &Rows<'_>)) -> Result<(), Error> {
    if rows.0.shape() == rows.1.shape() {
        Ok(())
    } else {
        Err(Error::ShapeMismatch {
            first: names.0,
            first_shape: rows.0.shape(),
            second: names.1,
            second_shape: rows.1.shape(),
        })
    }
}

/// The divergence of every row of a batch, reduced as `options` say; writes the gradients asked for.
///
/// # Errors
/// Any [`Error`] but those of labels. After one nothing has been written, except after [`Error::Interrupted`].
pub fn divergence(
    kind: Kind,
    pair: &PairOfRows<'_>,
    options: RowOptions<'_>,
    gradients: Gradients<'_>,
    execution: &Execution<'_>,
) -> Result<Reduced, Error> {
    execution.run(|driver| {
        let (p, q) = (&pair.rows.0, &pair.rows.1);
        check_same_shape(("p", "q"), (p, q))?;
        check_side("p", p, pair.spaces.0, pair.temperatures.0)?;
        check_side("q", q, pair.spaces.1, pair.temperatures.1)?;
        check_output("the gradient of p", gradients.p.as_ref(), p)?;
        check_output("the gradient of q", gradients.q.as_ref(), q)?;
        let reducer = Reducer::new(options, p.count(), None)?;
        let mut gradients = gradients;
        for out in [&mut gradients.p, &mut gradients.q].into_iter().flatten() {
            out.prefer_past_caches(&[p, q]);
        }
        let outputs = [gradients.p.as_ref(), gradients.q.as_ref()];
        let values = AnyDivergence::with(kind, |divergence| {
            for_kept_rows(driver, p, &reducer, outputs, |row| {
                let [p_out, q_out] = row.outputs;
                let gradients = RowGradients { scale: row.scale, p: p_out, q: q_out };
                let p = Distribution::new(p.row(row.index), pair.spaces.0, pair.temperatures.0);
                let q = Distribution::new(q.row(row.index), pair.spaces.1, pair.temperatures.1);
                divergence.of(p, q, driver.isa, row.blocks, gradients)
            })
        })??;
        Ok(reducer.finish(values))
    })
}
