//! The functions of the crate as XLA calls them.

use super::frame::{Refusal, malformed};
use super::parts::{Part, Sides};
use crate::{CrossEntropy, Execution, Gradients, Kind, PairOfRows, Space, Targets};

pub(super) fn divergence(part: &Part<'_>, execution: &Execution<'_>) -> Result<(), Refusal> {
    let kind = Kind::new(part.text("kind")?, part.needed("parameter")?)?;
    let pair = PairOfRows {
        rows: (part.rows("p")?, part.rows("q")?),
        spaces: (Space::from_name(part.text("p_space")?)?, Space::from_name(part.text("q_space")?)?),
        temperatures: (part.needed("p_temperature")?, part.needed("q_temperature")?),
    };
    let gradients = Gradients { p: part.rows_mut("p")?, q: part.rows_mut("q")? };
    let sides = Sides::of(part)?;
    let options = part.options(&sides, &pair.rows.0)?;
    part.write_value(&crate::divergence(kind, &pair, options, gradients, execution)?)
}

pub(super) fn cross_entropy(part: &Part<'_>, execution: &Execution<'_>) -> Result<(), Refusal> {
    let labels = part.labels()?;
    let targets = match &labels {
        Some(labels) => Targets::Classes(labels),
        None => Targets::Distributions(part.rows("targets")?),
    };
    let class_weights = part.numbers("class_weights")?;
    let loss = CrossEntropy {
        space: Space::from_name(part.text("space")?)?,
        temperature: part.needed("temperature")?,
        ignore_index: part.integer("ignore_index")?,
        label_smoothing: part.needed("label_smoothing")?,
        class_weights: class_weights.as_deref(),
        z_loss: part.needed("z_loss")?,
        softcap: part.number("softcap")?,
    };
    let logits = part.rows("logits")?;
    let gradients = (part.rows_mut("logits")?, part.rows_mut("targets")?);
    let sides = Sides::of(part)?;
    let options = part.options(&sides, &logits)?;
    part.write_value(&crate::cross_entropy(&loss, &logits, &targets, options, gradients.0, gradients.1, execution)?)
}

pub(super) fn entropy(part: &Part<'_>, execution: &Execution<'_>) -> Result<(), Refusal> {
    let (p, space) = (part.rows("p")?, Space::from_name(part.text("space")?)?);
    let sides = Sides::of(part)?;
    let options = part.options(&sides, &p)?;
    let gradient = part.rows_mut("p")?;
    part.write_value(&crate::entropy(&p, space, part.needed("temperature")?, options, gradient, execution)?)
}

pub(super) fn logsumexp(part: &Part<'_>, execution: &Execution<'_>) -> Result<(), Refusal> {
    let z = part.rows("z")?;
    let sides = Sides::of(part)?;
    let options = part.options(&sides, &z)?;
    let gradient = part.rows_mut("z")?;
    part.write_value(&crate::logsumexp(&z, part.needed("temperature")?, options, gradient, execution)?)
}

/// The value, or for an upstream gradient g the gradient (g − softmax(z/T) Σg) / T.
pub(super) fn log_softmax(part: &Part<'_>, execution: &Execution<'_>) -> Result<(), Refusal> {
    let (z, temperature) = (part.rows("z")?, part.needed("temperature")?);
    let sides = Sides::of(part)?;
    if let Some(out) = part.rows_mut("out")? {
        return Ok(crate::log_softmax(&z, temperature, sides.keep(), out, execution)?);
    }
    // −Σ g ln softmax(z/T) has −1 times that.
    let minus = vec![-1.0; z.count()];
    let targets = Targets::Distributions(part.rows("upstream")?);
    let options = crate::RowOptions { grad_output: Some(&minus), ..part.options(&sides, &z)? };
    let loss = CrossEntropy { temperature, ..CrossEntropy::default() };
    crate::cross_entropy(&loss, &z, &targets, options, part.rows_mut("z")?, None, execution)?;
    Ok(())
}

pub(super) fn gather_log_probs(part: &Part<'_>, execution: &Execution<'_>) -> Result<(), Refusal> {
    let (z, temperature) = (part.rows("z")?, part.needed("temperature")?);
    let Some(labels) = part.labels()? else { return malformed("there are no labels") };
    let ignore_index = part.integer("ignore_index")?;
    let sides = Sides::of(part)?;
    if !part.has_result("z") {
        let values = crate::gather_log_probs(&z, &labels, temperature, ignore_index, sides.keep(), execution)?;
        return part.write_values(&values);
    }
    // With a gradient it is −1 times cross-entropy, of a gradient of −1 times that of the value.
    let minus = match &sides.grad_output {
        Some(upstream) => upstream.iter().map(|number| -number).collect(),
        None => vec![-1.0; z.count()],
    };
    let options = crate::RowOptions { grad_output: Some(&minus), ..part.options(&sides, &z)? };
    let loss = CrossEntropy { temperature, ignore_index, ..CrossEntropy::default() };
    let targets = Targets::Classes(&labels);
    let reduced = crate::cross_entropy(&loss, &z, &targets, options, part.rows_mut("z")?, None, execution)?;
    // Of 0 the negative is 0 too.
    let values: Vec<f64> = reduced.rows.iter().map(|value| 0.0 - value).collect();
    part.write_values(&values)
}

/// The operand, in its own memory: XLA does not make one loop of what comes before and what comes after.
pub(super) fn unfused(part: &Part<'_>, _: &Execution<'_>) -> Result<(), Refusal> {
    if part.is_in_place("found", "same") { Ok(()) } else { malformed("the result has memory of its own") }
}
