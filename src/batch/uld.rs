//! Universal logit distillation of batches whose rows have different classes, with gradients.

use super::divergence::{Gradients, PairOfRows, check_output, check_side};
use super::kept_rows::for_kept_rows;
use super::sparse::SumOfTerms;
use crate::divergence::Kind;
use crate::error::Error;
use crate::memory;
use crate::reduction::{Reduced, Reducer, RowOptions};
use crate::row::distribution::Distribution;
use crate::row::divergence::AnyDivergence;
use crate::row::gradients::RowGradients;
use crate::row::uld::{Correspondence, Mixture, mixed, ranked};
use crate::rows::Rows;
use crate::threads::Execution;

/// Classes of both sides that stand for the same, and how they are compared.
#[derive(Clone, Copy, Debug)]
pub struct SharedClasses<'a> {
    /// Classes of p; none twice.
    pub p_ids: &'a [i64],
    /// Those of q that stand for the same, in the same order.
    pub q_ids: &'a [i64],
    /// The divergence of these classes, a sum of terms of each.
    pub kind: Kind,
    /// What that is multiplied by.
    pub shared_weight: f64,
    /// What the difference by rank of all other classes is multiplied by.
    pub others_weight: f64,
}

impl SharedClasses<'_> {
    fn check(&self) -> Result<(), Error> {
        if self.p_ids.len() != self.q_ids.len() {
            return Err(Error::ShapeMismatch {
                first: "p_ids",
                first_shape: vec![self.p_ids.len()],
                second: "q_ids",
                second_shape: vec![self.q_ids.len()],
            });
        }
        for (name, value) in [("matched_weight", self.shared_weight), ("unmatched_weight", self.others_weight)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::Parameter { name, value, domain: "finite and not negative" });
            }
        }
        if self.kind.visit(SumOfTerms)? {
            Ok(())
        } else {
            Err(Error::Option { reason: "the divergence of shared classes must be a sum of terms of each class" })
        }
    }
}

/// The classes of a side that are shared, and those that are not.
fn parted(argument: &'static str, ids: &[i64], classes: usize) -> Result<(Vec<usize>, Vec<usize>), Error> {
    let mut is_shared = memory::filled(classes, false)?;
    let mut shared = memory::filled(ids.len(), 0)?;
    for (index, (&id, class)) in ids.iter().zip(&mut shared).enumerate() {
        *class = usize::try_from(id).ok().filter(|&class| class < classes).ok_or(Error::SharedClass {
            argument,
            index,
            class: id,
            classes: Some(classes),
        })?;
        if std::mem::replace(&mut is_shared[*class], true) {
            return Err(Error::SharedClass { argument, index, class: id, classes: None });
        }
    }
    Ok((shared, (0..classes).filter(|&class| !is_shared[class]).collect()))
}

/// Σ |p_(i) − q_(i)| of every pair of rows, probabilities in falling order, reduced as `options` say; writes the gradients asked
/// for. p and q may have different numbers of classes.
///
/// # Errors
/// Any [`Error`] but those of labels. After one nothing has been written, except after [`Error::Interrupted`].
pub fn uld(
    shared: Option<&SharedClasses<'_>>,
    pair: &PairOfRows<'_>,
    options: RowOptions<'_>,
    gradients: Gradients<'_>,
    execution: &Execution<'_>,
) -> Result<Reduced, Error> {
    execution.run(|driver| {
        let (p, q) = (&pair.rows.0, &pair.rows.1);
        let batch = |rows: &Rows<'_>| {
            let mut shape = rows.shape();
            shape.pop();
            shape
        };
        if batch(p) != batch(q) {
            return Err(Error::ShapeMismatch {
                first: "p without its classes",
                first_shape: batch(p),
                second: "q without its classes",
                second_shape: batch(q),
            });
        }
        check_side("p", p, pair.spaces.0, pair.temperatures.0)?;
        check_side("q", q, pair.spaces.1, pair.temperatures.1)?;
        check_output("the gradient of p", gradients.p.as_ref(), p)?;
        check_output("the gradient of q", gradients.q.as_ref(), q)?;
        let none = SharedClasses { p_ids: &[], q_ids: &[], kind: Kind::Kl, shared_weight: 0.0, others_weight: 1.0 };
        let asked = shared.unwrap_or(&none);
        asked.check()?;
        let of_p = parted("p_ids", asked.p_ids, p.classes())?;
        let of_q = parted("q_ids", asked.q_ids, q.classes())?;
        let classes = Correspondence { shared: [of_p.0, of_q.0], others: [of_p.1, of_q.1] };
        let reducer = Reducer::new(options, p.count(), None)?;
        let wider = if p.classes() < q.classes() { q } else { p };
        let Gradients { p: p_out, q: q_out } = gradients;
        let outputs = [p_out.as_ref(), q_out.as_ref()];
        let values = AnyDivergence::with(asked.kind, |divergence| {
            let mixture =
                Mixture { divergence, shared_weight: asked.shared_weight, others_weight: asked.others_weight };
            for_kept_rows(driver, wider, &reducer, outputs, |row| {
                let [p_out, q_out] = row.outputs;
                let gradients = RowGradients { scale: row.scale, p: p_out, q: q_out };
                let p = Distribution::new(p.row(row.index), pair.spaces.0, pair.temperatures.0);
                let q = Distribution::new(q.row(row.index), pair.spaces.1, pair.temperatures.1);
                if shared.is_some() {
                    mixed(mixture, p, q, &classes, driver.isa, row.blocks, gradients)
                } else {
                    let others = [&classes.others[0][..], &classes.others[1][..]];
                    ranked(p, q, others, driver.isa, row.blocks, gradients)
                }
            })
        })??;
        Ok(reducer.finish(values))
    })
}
