//! Functions of one batch: log-sum-exp, log-softmax, entropy, and the log-probabilities of labels.

use super::cross_entropy::{check_labels, rows_with_labels};
use super::divergence::{check_output, check_side};
use super::kept_rows::for_kept_rows;
use crate::error::Error;
use crate::reduction::{Reduced, Reducer, RowOptions};
use crate::row::distribution::softmax::WriteLogSoftmax;
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::entropy::WriteSoftmax;
use crate::row::gradients::LARGEST_NARROW_SCALE;
use crate::rows::{Rows, RowsMut};
use crate::threads::Execution;

/// ln Σ e^(z/T) of every row; writes ∂L/∂z, which is softmax, to `gradient`.
///
/// # Errors
/// Any [`Error`] but those of labels.
#[expect(clippy::needless_pass_by_value, reason = "an output is handed over: nobody else may hold it meanwhile")]
pub fn logsumexp(
    logits: &Rows<'_>,
    temperature: f64,
    options: RowOptions<'_>,
    gradient: Option<RowsMut<'_>>,
    execution: &Execution<'_>,
) -> Result<Reduced, Error> {
    execution.run(|driver| {
        check_side("z", logits, Space::Logits, temperature)?;
        check_output("the gradient", gradient.as_ref(), logits)?;
        let reducer = Reducer::new(options, logits.count(), None)?;
        let isa = driver.isa;
        let values = for_kept_rows(driver, logits, &reducer, [gradient.as_ref()], |row| {
            let (blocks, [out]) = (row.blocks, row.outputs);
            let z = Distribution::new(logits.row(row.index), Space::Logits, temperature);
            let mut wide = !z.allows_narrow_lanes();
            let sum = z.statistics(isa, blocks, &mut wide);
            if let Some(out) = out {
                if sum.is_nan() || sum.is_empty() {
                    out.fill(f64::NAN);
                } else {
                    let scale = row.scale * z.inverse_temperature;
                    blocks.map(logits.classes(), |start, len| {
                        let (logits, out) = (z.block(start, len), out.block(start, len));
                        let wide = wide || scale.abs() > LARGEST_NARROW_SCALE;
                        isa.run_lanes(wide, WriteSoftmax { logits, sum, scale, less: 0.0, out });
                    });
                }
            }
            if sum.is_empty() { f64::NEG_INFINITY } else { sum.value(z.inverse_temperature) }
        })?;
        Ok(reducer.finish(values))
    })
}

/// z/T − ln Σ e^(z/T), written to `out`, which may be the logits themselves.
///
/// # Errors
/// Any [`Error`] but those of labels and reductions.
///
/// # Examples
/// The output is handed over, as all outputs are, so that two threads cannot write to it at once.
///
/// ```
/// #![forbid(unsafe_code)]
/// use kldiv::{Execution, Rows, RowsMut, log_softmax};
///
/// let logits = [1.0_f32, 2.0, 0.5, -1.0, 0.0, 3.0];
/// let mut memory = [0.0_f32; 6];
/// let out = RowsMut::new(&mut memory, 3)?;
/// std::thread::scope(|scope| {
///     let logits = Rows::new(&logits, 3)?;
///     scope.spawn(move || log_softmax(&logits, 1.0, None, out, &Execution::default()));
///     Ok::<(), kldiv::Error>(())
/// })?;
/// assert!((memory[0] + 1.464_368).abs() < 1e-6);
/// # Ok::<(), kldiv::Error>(())
/// ```
///
/// ```compile_fail,E0382
/// #![forbid(unsafe_code)]
/// use kldiv::{Execution, Rows, RowsMut, log_softmax};
///
/// let logits = [1.0_f32, 2.0, 0.5, -1.0, 0.0, 3.0];
/// let mut memory = [0.0_f32; 6];
/// let out = RowsMut::new(&mut memory, 3)?;
/// std::thread::scope(|scope| {
///     let logits = Rows::new(&logits, 3)?;
///     let twin = logits.clone();
///     scope.spawn(move || log_softmax(&logits, 1.0, None, out, &Execution::default()));
///     scope.spawn(move || log_softmax(&twin, 2.0, None, out, &Execution::default()));
///     Ok::<(), kldiv::Error>(())
/// })?;
/// # Ok::<(), kldiv::Error>(())
/// ```
#[expect(clippy::needless_pass_by_value, reason = "an output is handed over: nobody else may hold it meanwhile")]
pub fn log_softmax(
    logits: &Rows<'_>,
    temperature: f64,
    keep: Option<&[bool]>,
    out: RowsMut<'_>,
    execution: &Execution<'_>,
) -> Result<(), Error> {
    execution.run(|driver| {
        check_side("z", logits, Space::Logits, temperature)?;
        check_output("out", Some(&out), logits)?;
        let reducer = Reducer::new(RowOptions { keep, ..RowOptions::default() }, logits.count(), None)?;
        let isa = driver.isa;
        for_kept_rows(driver, logits, &reducer, [Some(&out)], |row| {
            let (blocks, [Some(out)]) = (row.blocks, row.outputs) else { return 0.0 };
            let z = Distribution::new(logits.row(row.index), Space::Logits, temperature);
            let mut wide = !z.allows_narrow_lanes();
            let sum = z.statistics(isa, blocks, &mut wide);
            if sum.is_nan() || sum.is_empty() {
                out.fill(f64::NAN);
                return 0.0;
            }
            blocks.map(logits.classes(), |start, len| {
                let (distribution, out) = (z.block(start, len), out.block(start, len));
                isa.run_lanes(wide, WriteLogSoftmax { distribution, sum, out });
            });
            0.0
        })?;
        Ok(())
    })
}

/// −Σ p ln p of every row; writes ∂L/∂(what was passed) to `gradient`.
///
/// # Errors
/// Any [`Error`] but those of labels.
#[expect(clippy::needless_pass_by_value, reason = "an output is handed over: nobody else may hold it meanwhile")]
pub fn entropy(
    p: &Rows<'_>,
    space: Space,
    temperature: f64,
    options: RowOptions<'_>,
    gradient: Option<RowsMut<'_>>,
    execution: &Execution<'_>,
) -> Result<Reduced, Error> {
    execution.run(|driver| {
        check_side("p", p, space, temperature)?;
        check_output("the gradient", gradient.as_ref(), p)?;
        let reducer = Reducer::new(options, p.count(), None)?;
        let values = for_kept_rows(driver, p, &reducer, [gradient.as_ref()], |row| {
            let [out] = row.outputs;
            let p = Distribution::new(p.row(row.index), space, temperature);
            crate::row::entropy::entropy(p, driver.isa, row.blocks, out.map(|out| (row.scale, out)))
        })?;
        Ok(reducer.finish(values))
    })
}

/// ln p of one class of every row; 0 for rows labelled `ignore_index` or not kept.
///
/// # Errors
/// Any [`Error`] but those of reductions.
pub fn gather_log_probs(
    logits: &Rows<'_>,
    labels: &[i64],
    temperature: f64,
    ignore_index: Option<i64>,
    keep: Option<&[bool]>,
    execution: &Execution<'_>,
) -> Result<Vec<f64>, Error> {
    execution.run(|driver| {
        check_side("z", logits, Space::Logits, temperature)?;
        let options = RowOptions { keep, ..RowOptions::default() };
        options.check(logits.count())?;
        check_labels(labels, logits, ignore_index, |row| options.keeps(row))?;
        let with_label = rows_with_labels(Some(labels), ignore_index, &options)?;
        let options = RowOptions { keep: with_label.as_deref().or(keep), ..options };
        let reducer = Reducer::new(options, logits.count(), None)?;
        for_kept_rows(driver, logits, &reducer, [], |row| {
            let z = Distribution::new(logits.row(row.index), Space::Logits, temperature);
            let mut wide = !z.allows_narrow_lanes();
            let sum = z.statistics(driver.isa, row.blocks, &mut wide);
            if sum == LogSumExp::EMPTY {
                f64::NAN
            } else {
                -z.surprise(labels[row.index] as usize, sum, driver.isa) + 0.0
            }
        })
    })
}
