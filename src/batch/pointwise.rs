//! KL element by element, as torch defines it.

use super::divergence::{Gradients, check_output, check_same_shape};
use super::kept_rows::for_kept_rows;
use crate::error::Error;
use crate::reduction::{Reducer, RowOptions};
use crate::row::gradients::RowGradients;
use crate::row::kl::pointwise::PointwiseKl;
use crate::rows::Rows;
use crate::threads::Execution;

/// Σ p (ln p − ln q) over all elements, with q given by its logarithm, and p too if `log_p`; writes `scale` times the
/// gradients of what is given.
///
/// Infinities and NaN go the way of floating-point arithmetic; p ln p is 0 where p = 0.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::Parameter`] for a number of threads out of range, [`Error::Memory`] and
/// [`Error::Interrupted`].
#[expect(clippy::needless_pass_by_value, reason = "an output is handed over: nobody else may hold it meanwhile")]
pub fn pointwise_kl(
    p: &Rows<'_>,
    ln_q: &Rows<'_>,
    log_p: bool,
    scale: f64,
    gradients: Gradients<'_>,
    execution: &Execution<'_>,
) -> Result<f64, Error> {
    execution.run(|driver| {
        check_same_shape(("p", "q"), (p, ln_q))?;
        check_output("the gradient of p", gradients.p.as_ref(), p)?;
        check_output("the gradient of q", gradients.q.as_ref(), ln_q)?;
        let isa = driver.isa;
        let reducer = Reducer::new(RowOptions::default(), p.count(), None)?;
        let outputs = [gradients.p.as_ref(), gradients.q.as_ref()];
        let sums = for_kept_rows(driver, p, &reducer, outputs, |row| {
            let [p_out, q_out] = row.outputs;
            let gradients = RowGradients { scale, p: p_out, q: q_out };
            let (p, ln_q, blocks) = (p.row(row.index), ln_q.row(row.index), row.blocks);
            let parts = blocks.map(p.classes(), |start, len| {
                let gradients = gradients.block(start, len);
                isa.run(PointwiseKl { p: p.block(start, len), ln_q: ln_q.block(start, len), log_p, gradients })
            });
            parts.iter().sum::<f64>()
        })?;
        Ok(sums.iter().sum())
    })
}
