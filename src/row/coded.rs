//! Rows of log-probabilities in 16 bits a class, as the base files of llama.cpp and of its forks hold them.

use crate::element::Dtype;
use crate::error::Error;
use crate::row::distribution::{Distribution, Space};
use crate::row::runs::{Step, pass};
use crate::rows::{Block, BlockMut, Row, RowMut, Rows, RowsMut};
use crate::simd::{Isa, Kernel, LaneKernel, Lanes, Simd};
use crate::threads::Blocks;

/// How a class's log-probability is stored. Numbers are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// f32 scale and min, then u16 codes: scale·code + min. Classes below a clip have code 0. The row has an even number of
    /// codes.
    Logits,
    /// The same, but code 0 is −∞ and others scale·(code − 1) + min, less what their sum is off 1.
    Logits2,
    /// f16 log-probabilities.
    LogProbs16,
    /// f32 −ln p of the true class, then f16 log-probabilities.
    LogProbs16WithLoss,
}

/// Bytes of scale and min.
const SCALE: usize = 8;

impl Coding {
    const NAMES: [(&'static str, Self); 4] = [
        ("_logits_", Coding::Logits),
        ("_logits2", Coding::Logits2),
        ("_logp16_", Coding::LogProbs16),
        ("_logp16n", Coding::LogProbs16WithLoss),
    ];

    /// The coding of files that begin with `magic`.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn from_magic(magic: &str) -> Result<Self, Error> {
        Self::NAMES.into_iter().find(|(name, _)| *name == magic).map(|(_, coding)| coding).ok_or_else(|| {
            Error::UnknownName {
                kind: "coding of rows",
                name: magic.to_owned(),
                known: Self::NAMES.map(|(name, _)| name).join(", "),
            }
        })
    }

    /// Bytes of a row.
    pub const fn row_bytes(self, classes: usize) -> usize {
        match self {
            Coding::Logits | Coding::Logits2 => classes.next_multiple_of(2).saturating_mul(2).saturating_add(SCALE),
            Coding::LogProbs16 => classes.saturating_mul(2),
            Coding::LogProbs16WithLoss => classes.saturating_mul(2).saturating_add(4),
        }
    }
}

/// Writes the log-probabilities of a row, and gives the largest: NaN of a row that holds NaN.
pub(crate) fn decode(coding: Coding, bytes: &[u8], out: &mut [f32], isa: Isa, blocks: &Blocks) -> f64 {
    match coding {
        Coding::Logits => {
            let (scale, min, codes) = parts_of(bytes, out.len());
            let largest = isa.run(Steps::<false> { codes, scale, min, norm: 0.0, out });
            f64::from(scale * f32::from(largest) + min)
        }
        Coding::Logits2 => {
            let (scale, min, codes) = parts_of(bytes, out.len());
            let largest = isa.run(Steps::<true> { codes, scale, min, norm: 0.0, out });
            let norm = norm_of(out, isa, blocks);
            isa.run(Steps::<true> { codes, scale, min, norm, out });
            // As of a class that the row may hold: with no code but 0 all are −∞.
            if largest == 0 { f64::NEG_INFINITY } else { f64::from(scale * f32::from(largest - 1) + min) }
        }
        Coding::LogProbs16 => decode_halves(bytes, out, isa),
        Coding::LogProbs16WithLoss => decode_halves(&bytes[4..], out, isa),
    }
}

/// ln of the sum of a row's probabilities, as f32; 0 where that is no number.
fn norm_of(log_probs: &[f32], isa: Isa, blocks: &Blocks) -> f32 {
    let Ok(rows) = Rows::new(log_probs, log_probs.len()) else { return 0.0 };
    let sum = Distribution::new(rows.row(0), Space::Logits, 1.0).statistics(isa, blocks, &mut false);
    if sum.is_nan() || sum.is_empty() { 0.0 } else { sum.largest as f32 + sum.ln_sum() as f32 }
}

/// Scale, min and codes of a row.
fn parts_of(bytes: &[u8], classes: usize) -> (f32, f32, &[[u8; 2]]) {
    let number = |at: usize| f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (number(0), number(4), &bytes[SCALE..].as_chunks().0[..classes])
}

/// Log-probabilities as steps above the smallest; gives the largest code.
struct Steps<'a, const ZERO_IS_NONE: bool> {
    codes: &'a [[u8; 2]],
    scale: f32,
    min: f32,
    norm: f32,
    out: &'a mut [f32],
}

impl<const ZERO_IS_NONE: bool> Kernel for Steps<'_, ZERO_IS_NONE> {
    type Output = u16;

    /// A loop that the compiler makes vectors of.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> u16 {
        let Steps { codes, scale, min, norm, out } = self;
        let mut largest = 0;
        for (out, &code) in out.iter_mut().zip(codes) {
            let code = u16::from_le_bytes(code);
            largest = if code > largest { code } else { largest };
            *out = if ZERO_IS_NONE {
                let value = scale * f32::from(code.wrapping_sub(1)) + min - norm;
                if code == 0 { f32::NEG_INFINITY } else { value }
            } else {
                scale * f32::from(code) + min
            };
        }
        largest
    }
}

fn decode_halves(bytes: &[u8], out: &mut [f32], isa: Isa) -> f64 {
    let classes = out.len();
    assert!(bytes.len() >= 2 * classes);
    // SAFETY: the slice holds one row of so many elements; rows are read unaligned.
    let halves = unsafe { Rows::from_raw_parts(bytes.as_ptr(), Dtype::F16, classes, &[1], &[0]) };
    let Ok(out) = RowsMut::new(out, classes) else { return f64::NAN };
    // SAFETY: the only view of the row.
    isa.run_lanes(false, Halves { row: halves.row(0), out: unsafe { out.row(0) } })
}

/// Copies a row, and gives its largest number.
struct Halves<'a> {
    row: Row<'a>,
    out: RowMut<'a>,
}

impl LaneKernel for Halves<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> f64 {
        let mut step = CopyStep(V::splat(token, f64::NEG_INFINITY));
        let blocks = [Block::new(self.row, f64::NEG_INFINITY)];
        pass::<V, _, 1, 1, 0>(token, self.row.classes(), blocks, [Some(BlockMut::new(self.out))], &mut step);
        step.0.largest()
    }
}

/// Keeps the largest of what is copied.
struct CopyStep<V>(V);

impl<V: Lanes> Step<V, 1, 1, 0> for CopyStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x]: [V; 1], _: &mut [V; 0]) -> [V; 1] {
        self.0 = self.0.max(x);
        [x]
    }
}

/// Writes a row of logits as llama.cpp does, with its float32 steps; its padding is 0. Gives ln Σ e^z, and nothing is written
/// where that is not finite or a logit is NaN or +∞. `clip` is how far below the largest logit [`Coding::Logits`] reaches.
pub(crate) fn encode(coding: Coding, clip: f32, logits: &[f32], bytes: &mut [u8]) -> Option<f64> {
    let (mut largest, mut smallest, mut valid) = (f32::NEG_INFINITY, f32::INFINITY, true);
    for &z in logits {
        valid &= z < f32::INFINITY;
        largest = if z > largest { z } else { largest };
        // Of those that have a probability: `_logits2` has a code for the others, `_logits_` clips them.
        let lowest = if z > f32::NEG_INFINITY { z } else { smallest };
        smallest = if lowest < smallest { lowest } else { smallest };
    }
    if !valid || largest == f32::NEG_INFINITY {
        return None;
    }
    let (ln_sum, steps) = match coding {
        Coding::Logits => {
            let floor = largest - clip;
            let holds_none = logits.contains(&f32::NEG_INFINITY);
            smallest = if holds_none || smallest < floor { floor } else { smallest };
            (logits.iter().map(|&z| f64::from((z - largest).exp())).sum::<f64>().ln() as f32, 65535.0)
        }
        _ => (logits.iter().map(|&z| f64::from(z - largest).exp()).sum::<f64>().ln() as f32, 65534.0),
    };
    let scale = (largest - smallest) / steps;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let (header, codes) = bytes.split_at_mut(SCALE);
    header[..4].copy_from_slice(&scale.to_le_bytes());
    header[4..].copy_from_slice(&(smallest - largest - ln_sum).to_le_bytes());
    codes.fill(0);
    let codes = codes.as_chunks_mut::<2>().0.iter_mut().zip(logits);
    match coding {
        Coding::Logits => {
            for (code, &z) in codes {
                let value = if z > smallest { inverse * (z - smallest) } else { 0.0 };
                *code = nearest(value).to_le_bytes();
            }
        }
        _ => {
            for (code, &z) in codes {
                // To nearest, halves away from zero.
                let nearest = (f64::from((z - smallest) * inverse) + 0.5) as i32;
                let value = if z > f32::NEG_INFINITY { (nearest + 1).clamp(1, 65535) as u16 } else { 0 };
                *code = value.to_le_bytes();
            }
        }
    }
    Some(f64::from(largest) + f64::from(ln_sum))
}

/// The nearest integer to a number from 0 to 65535, ties to even: there the sum has no bits to the right of the point.
fn nearest(value: f32) -> u16 {
    const GRID: f32 = 12_582_912.0; // 1.5·2^23
    ((value + GRID).to_bits() & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use half::f16;

    use super::*;
    use crate::threads::Execution;

    fn decoded(coding: Coding, bytes: &[u8], classes: usize, isa: Isa) -> (Vec<f32>, f64) {
        assert_eq!(bytes.len(), coding.row_bytes(classes));
        let mut out = vec![9.0; classes];
        let largest = Execution { isa, ..Execution::default() }
            .run(|driver| {
                driver.for_rows(1, classes, &|_, blocks| {
                    let mut out = vec![9.0; classes];
                    let largest = decode(coding, bytes, &mut out, isa, blocks);
                    (out, largest)
                })
            })
            .unwrap();
        let (row, largest) = largest.into_iter().next().unwrap();
        out.copy_from_slice(&row);
        (out, largest)
    }

    fn row_of(scale: f32, min: f32, codes: &[u16]) -> Vec<u8> {
        let mut bytes = [scale.to_le_bytes(), min.to_le_bytes()].concat();
        bytes.extend(codes.iter().flat_map(|code| code.to_le_bytes()));
        if codes.len() % 2 == 1 {
            bytes.extend([0xab, 0xcd]);
        }
        bytes
    }

    #[test]
    fn codes_are_steps_above_the_smallest() {
        for isa in Isa::available() {
            for classes in [1, 2, 5, 16, 33, 1000] {
                let codes: Vec<u16> = (0..classes).map(|i| (i * 40_009 % 65_536) as u16).collect();
                let (out, largest) = decoded(Coding::Logits, &row_of(2e-4, -17.5, &codes), classes, isa);
                let expected: Vec<f32> = codes.iter().map(|&code| 2e-4_f32 * f32::from(code) + -17.5).collect();
                assert_eq!(out, expected);
                assert_eq!(largest, f64::from(expected.iter().copied().fold(f32::NEG_INFINITY, f32::max)));
            }
        }
    }

    #[test]
    fn code_zero_of_the_second_layout_is_nothing_and_the_rest_sums_to_one() {
        for isa in Isa::available() {
            let codes = [0, 1, 65_535, 30_000, 0];
            let (out, largest) = decoded(Coding::Logits2, &row_of(1e-4, -6.0, &codes), 5, isa);
            assert_eq!((out[0], out[4]), (f32::NEG_INFINITY, f32::NEG_INFINITY));
            let plain: Vec<f32> = codes.iter().map(|&code| 1e-4_f32 * f32::from(code.max(1) - 1) + -6.0).collect();
            let sum: f64 = [1, 2, 3].iter().map(|&i: &usize| f64::from(plain[i] - plain[2]).exp()).sum();
            let norm = plain[2] + sum.ln() as f32;
            assert_eq!(out[1..4], [plain[1] - norm, plain[2] - norm, plain[3] - norm]);
            assert_eq!(largest, f64::from(plain[2]));
            let none = decoded(Coding::Logits2, &row_of(0.0, f32::NEG_INFINITY, &[0, 0]), 2, isa);
            assert_eq!(none, (vec![f32::NEG_INFINITY; 2], f64::NEG_INFINITY));
        }
    }

    #[test]
    fn halves_are_the_numbers_themselves() {
        for isa in Isa::available() {
            for classes in [1, 7, 40] {
                let halves: Vec<f16> = (0..classes).map(|i| f16::from_f64(-0.25 - i as f64 / 3.0)).collect();
                let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
                let expected: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
                assert_eq!(decoded(Coding::LogProbs16, &bytes, classes, isa), (expected.clone(), -0.25));
                let with_loss = [&1.5_f32.to_le_bytes()[..], &bytes].concat();
                assert_eq!(decoded(Coding::LogProbs16WithLoss, &with_loss, classes, isa), (expected, -0.25));
            }
        }
    }

    #[test]
    fn a_row_is_written_as_llama_cpp_writes_it() {
        // Range 16: a step is 16/65535. Halfway between codes 0 and 1, and 2 and 3, to even.
        let step = 16.0_f32 / 65535.0;
        let inverse = 1.0 / step;
        let logits = [16.0_f32, 0.0, -40.0, 0.5 * step, 1.5 * step, f32::NEG_INFINITY, 8.0];
        let mut bytes = vec![7; Coding::Logits.row_bytes(7)];
        let ln_sum = encode(Coding::Logits, 16.0, &logits, &mut bytes).unwrap();
        let code = |value: f32| (inverse * value).round_ties_even() as u16;
        let codes = [65_535, 0, 0, code(0.5 * step), code(1.5 * step), 0, code(8.0), 0];
        let sum: f64 = logits.iter().map(|z| f64::from((z - 16.0).exp())).sum();
        assert_eq!(bytes, row_of(step, 0.0 - 16.0 - sum.ln() as f32, &codes));
        assert!((ln_sum - 16.0 - sum.ln()).abs() < 1e-6);
        // Equal logits have no range.
        let mut bytes = vec![7; Coding::Logits.row_bytes(2)];
        encode(Coding::Logits, 16.0, &[3.0, 3.0], &mut bytes).unwrap();
        assert_eq!(bytes, row_of(0.0, -(2.0_f64.ln() as f32), &[0, 0]));
    }

    #[test]
    fn the_second_layout_keeps_all_finite_logits() {
        let logits = [3.0_f32, -60.0, f32::NEG_INFINITY, 0.0];
        let mut bytes = vec![7; Coding::Logits2.row_bytes(4)];
        encode(Coding::Logits2, 0.0, &logits, &mut bytes).unwrap();
        let step = 63.0_f32 / 65534.0;
        let code = 1 + f64::from(60.0 * (1.0 / step)).round() as u16;
        let ln_sum = (1.0 + (-3.0_f64).exp() + (-63.0_f64).exp()).ln() as f32;
        assert_eq!(bytes, row_of(step, -60.0 - 3.0 - ln_sum, &[65_535, 1, 0, code]));
    }

    #[test]
    fn rows_that_are_no_distribution_are_not_written() {
        for logits in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
            for coding in [Coding::Logits, Coding::Logits2] {
                let mut bytes = [7; 12];
                assert_eq!(encode(coding, 16.0, &logits, &mut bytes), None);
                assert_eq!(bytes, [7; 12]);
            }
        }
    }
}
