//! Batches of rows of 16 bits a class, and KL as llama.cpp computes it of them.

use super::cross_entropy::check_labels;
use super::divergence::check_same_shape;
use crate::error::Error;
use crate::memory::{self, Parts};
use crate::row::clipped_kl::ClippedRow;
use crate::row::coded::Coding;
use crate::rows::Rows;
use crate::threads::Execution;

/// Decodes rows of log-probabilities, one after the other in `bytes`, to rows of `classes` in `out`. Gives the largest of each
/// row, before it is made to sum to one; any of its numbers where one is NaN.
///
/// # Errors
/// [`Error::NoClasses`], [`Error::PartialRow`], [`Error::ShapeMismatch`], [`Error::Parameter`] for a number of threads out of
/// range, [`Error::Memory`] and [`Error::Interrupted`].
///
/// # Examples
/// ```
/// use kldiv::{Coding, Execution, decode_log_probs};
///
/// // Scale 2⁻¹² and min −8, then the codes 0 and 32,768; numbers are little-endian.
/// let row = [0, 0, 128, 57, 0, 0, 0, 193, 0, 0, 0, 128];
/// let mut log_probs = [0.0; 2];
/// let largest = decode_log_probs(&row, Coding::Logits, &mut log_probs, 2, &Execution::default())?;
/// assert_eq!((log_probs, largest), ([-8.0, 0.0], vec![0.0]));
/// # Ok::<(), kldiv::Error>(())
/// ```
pub fn decode_log_probs(
    bytes: &[u8],
    coding: Coding,
    out: &mut [f32],
    classes: usize,
    execution: &Execution<'_>,
) -> Result<Vec<f64>, Error> {
    execution.run(|driver| {
        let count = Rows::new(out, classes)?.count();
        let row_bytes = check_bytes(bytes.len(), coding, count, classes)?;
        let (out, isa) = (Parts::new(out, classes), driver.isa);
        driver.for_rows(count, classes, &|index, blocks| {
            // SAFETY: the driver hands out every index once.
            let out = unsafe { out.part(index) };
            crate::row::coded::decode(coding, &bytes[index * row_bytes..][..row_bytes], out, isa, blocks)
        })
    })
}

/// Encodes rows of `classes` logits as llama.cpp does, or, of [`Coding::Logits2`], as the fork that has it. `clip` is how far
/// below the largest logit of a row [`Coding::Logits`] reaches. Gives ln Σ e^z of each row, which is NaN of one that holds NaN
/// or +∞, or no class with a probability: its bytes are left as they were.
///
/// # Errors
/// As [`decode_log_probs`], [`Error::Option`] for other codings, and [`Error::Parameter`] for a clip that is not positive.
pub fn encode_log_probs(
    logits: &[f32],
    classes: usize,
    coding: Coding,
    clip: f32,
    bytes: &mut [u8],
    execution: &Execution<'_>,
) -> Result<Vec<f64>, Error> {
    execution.run(|driver| {
        let count = Rows::new(logits, classes)?.count();
        if !matches!(coding, Coding::Logits | Coding::Logits2) {
            return Err(Error::Option { reason: "rows are written as _logits_ or _logits2" });
        }
        if !(clip > 0.0 && clip.is_finite()) {
            return Err(Error::Parameter { name: "clip", value: clip.into(), domain: "positive and finite" });
        }
        let row_bytes = check_bytes(bytes.len(), coding, count, classes)?;
        let bytes = Parts::new(bytes, row_bytes);
        driver.for_rows(count, classes, &|index, _| {
            // SAFETY: the driver hands out every index once.
            let bytes = unsafe { bytes.part(index) };
            let logits = &logits[index * classes..][..classes];
            crate::row::coded::encode(coding, clip, logits, bytes).unwrap_or(f64::NAN)
        })
    })
}

/// Bytes of a row, if there are so many for each of `count`.
fn check_bytes(len: usize, coding: Coding, count: usize, classes: usize) -> Result<usize, Error> {
    // Without a row, the number of classes can be one whose bytes cannot be counted.
    let row_bytes = if count == 0 { 0 } else { coding.row_bytes(classes) };
    if len != count.saturating_mul(row_bytes) {
        return Err(Error::ShapeMismatch {
            first: "bytes",
            first_shape: vec![len],
            second: "coded rows",
            second_shape: vec![count, row_bytes],
        });
    }
    Ok(row_bytes)
}

/// Two batches as llama.cpp compares them: one number a row in every field, in nats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClippedKl {
    /// Σ p (ln p − ln q) over classes with ln p > −16; NaN of rows that hold NaN or +∞, or no class with a probability.
    pub kl: Vec<f64>,
    /// −ln p of the labels, a number of f32; NaN where there is none.
    pub nll_p: Vec<f64>,
    /// −ln q of the labels.
    pub nll_q: Vec<f64>,
    /// First of p's most probable classes; −1 of rows whose KL is NaN.
    pub top1_p: Vec<i64>,
    /// First of q's most probable classes.
    pub top1_q: Vec<i64>,
}

/// KL from log-probabilities, taken as given, to logits as llama.cpp computes it: in float32, and of the classes whose ln p is
/// above −16 only. Rows labelled `ignore_index` have no label.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::NoClasses`], [`Error::Label`], [`Error::Parameter`] for a number of threads out of range,
/// [`Error::Memory`] and [`Error::Interrupted`].
pub fn clipped_kl(
    log_p: &Rows<'_>,
    logits: &Rows<'_>,
    labels: Option<&[i64]>,
    ignore_index: Option<i64>,
    execution: &Execution<'_>,
) -> Result<ClippedKl, Error> {
    execution.run(|driver| {
        check_same_shape(("log_p", "logits"), (log_p, logits))?;
        if let Some(labels) = labels {
            check_labels(labels, logits, ignore_index, |_| true)?;
        }
        let isa = driver.isa;
        let rows = driver.for_rows(log_p.count(), log_p.classes(), &|index, blocks| {
            let label = labels.map(|labels| labels[index]).filter(|&label| Some(label) != ignore_index);
            let label = label.map(|label| label as usize);
            crate::row::clipped_kl::clipped_kl(log_p.row(index), logits.row(index), label, isa, blocks)
        })?;
        let column = |field: fn(&ClippedRow) -> f64| memory::collected(rows.iter().map(field));
        Ok(ClippedKl {
            kl: column(|row| row.kl)?,
            nll_p: column(|row| row.nll_p.into())?,
            nll_q: column(|row| row.nll_q.into())?,
            top1_p: memory::collected(rows.iter().map(|row| row.top1_p))?,
            top1_q: memory::collected(rows.iter().map(|row| row.top1_q))?,
        })
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::rows::BLOCK;
    use crate::simd::Isa;

    /// Numbers of both rows, the log-probabilities from 0 down to −20.
    fn rows(classes: usize) -> (Vec<f32>, Vec<f32>) {
        let log_p = (0..2 * classes).map(|i| -((i * 7919 % 2003) as f32) / 100.0).collect();
        let logits = (0..2 * classes).map(|i| ((i * 104_729 % 1009) as f32) / 60.0).collect();
        (log_p, logits)
    }

    /// The loops of llama.cpp.
    fn as_written(log_p: &[f32], logits: &[f32], label: usize) -> (f64, f32, f32) {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|z| f64::from((z - largest).exp())).sum();
        let log_sum = largest + sum.ln() as f32;
        let mut kl = 0.0;
        for (ln_p, z) in log_p.iter().zip(logits) {
            if *ln_p > -16.0 {
                kl += f64::from(ln_p.exp() * (ln_p - z + log_sum));
            }
        }
        (kl, -log_p[label], log_sum - logits[label])
    }

    #[test]
    fn clipped_kl_is_that_of_llama_cpp() {
        for isa in Isa::available() {
            let execution = Execution { isa, ..Execution::default() };
            for classes in [1, 3, 16, 100, 5000, BLOCK * 2 + 1] {
                let (log_p, logits) = rows(classes);
                let batch = |data| Rows::new(data, classes).unwrap();
                let labels = [0, -100];
                let found = clipped_kl(&batch(&log_p), &batch(&logits), Some(&labels), Some(-100), &execution).unwrap();
                for row in 0..2 {
                    let of_row = row * classes..(row + 1) * classes;
                    let (kl, nll_p, nll_q) = as_written(&log_p[of_row.clone()], &logits[of_row.clone()], 0);
                    let scale: f64 = log_p[of_row.clone()].iter().map(|x| f64::from(*x).exp()).sum();
                    assert!((found.kl[row] - kl).abs() < 2e-5 * scale, "{classes}: {} {kl}", found.kl[row]);
                    if row == 0 {
                        assert_eq!(found.nll_p[0], f64::from(nll_p));
                        assert!((found.nll_q[0] - f64::from(nll_q)).abs() < 3e-6, "{} {nll_q}", found.nll_q[0]);
                    }
                    let first = |data: &[f32]| {
                        let largest = data.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                        data.iter().position(|&x| x == largest).unwrap() as i64
                    };
                    assert_eq!(found.top1_p[row], first(&log_p[of_row.clone()]));
                    assert_eq!(found.top1_q[row], first(&logits[of_row]));
                }
                assert!(found.nll_p[1].is_nan() && found.nll_q[1].is_nan());
            }
        }
    }

    #[test]
    fn classes_at_sixteen_do_not_count_and_missing_ones_are_infinite() {
        let execution = Execution::default();
        let kl = |log_p: &[f32], logits: &[f32]| {
            let batch = |data| Rows::new(data, log_p.len()).unwrap();
            clipped_kl(&batch(log_p), &batch(logits), None, None, &execution).unwrap()
        };
        let none = f32::NEG_INFINITY;
        let found = kl(&[0.0, -16.0, none], &[3.0, none, none]);
        assert_eq!((found.kl[0], found.top1_p[0], found.top1_q[0]), (0.0, 0, 0));
        assert_eq!(kl(&[0.0, -15.999_999], &[3.0, none]).kl[0], f64::INFINITY);
        for bad in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [none; 2]] {
            let found = kl(&[-0.5, -0.9], &bad);
            assert!(found.kl[0].is_nan() && found.top1_q[0] == -1);
            assert!(kl(&bad, &[0.0, 0.0]).kl[0].is_nan());
        }
    }

    #[test]
    fn rows_are_decoded_and_encoded_one_by_one() {
        let execution = Execution::default();
        let logits: Vec<f32> = (0..30).map(|i| (i * 37 % 11) as f32).collect();
        let mut bytes = vec![0; 10 * Coding::Logits.row_bytes(3)];
        encode_log_probs(&logits, 3, Coding::Logits, 16.0, &mut bytes, &execution).unwrap();
        let mut out = vec![0.0; 30];
        let largest = decode_log_probs(&bytes, Coding::Logits, &mut out, 3, &execution).unwrap();
        for (row, largest) in largest.iter().enumerate() {
            let (z, decoded) = (&logits[3 * row..][..3], &out[3 * row..][..3]);
            let sum: f64 = z.iter().map(|z| f64::from(*z).exp()).sum();
            for (z, decoded) in z.iter().zip(decoded) {
                assert!((f64::from(*z) - sum.ln() - f64::from(*decoded)).abs() < 1e-3);
                assert!(f64::from(*decoded) <= *largest);
            }
        }
        let error = decode_log_probs(&bytes[1..], Coding::Logits, &mut out, 3, &execution).unwrap_err();
        assert_eq!(error.to_string(), "bytes has shape (159,) but coded rows has shape (10, 16)");
        let error = encode_log_probs(&logits, 3, Coding::LogProbs16, 16.0, &mut bytes, &execution).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
        assert!(Coding::from_magic("_logits3").unwrap_err().to_string().contains("_logp16n"));
    }
}
