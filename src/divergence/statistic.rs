//! Statistics of two rows that weights of a divergence depend on.

/// What is measured of two rows before their divergence, for [`Divergence::weighed`](super::Divergence::weighed).
#[derive(Clone, Copy)]
pub(crate) enum Statistic {
    /// Σ min(p, q), which f32 lanes find accurately enough up to a number.
    Acceptance { narrow_up_to: f64 },
    /// Of Σ |p − q| what the head of p has, as a multiple of what its tail has, so that the smaller share keeps its digits. The
    /// head are its most probable classes, as few as hold this much of it; classes that are equally probable are in it or not
    /// together. 1 of rows that are the same.
    HeadOfGap { mass: f64 },
}

#[cfg(test)]
impl Statistic {
    /// The statistic as it is defined, of rows of ln p and ln q.
    pub(super) fn definition(self, ln_p: &[f64], ln_q: &[f64]) -> f64 {
        let pairs = || ln_p.iter().zip(ln_q).map(|(ln_p, ln_q)| (ln_p.exp(), ln_q.exp()));
        match self {
            Statistic::Acceptance { .. } => pairs().map(|(p, q)| p.min(q)).sum(),
            Statistic::HeadOfGap { mass } => {
                let above = |p: f64| pairs().map(|(other, _)| if other > p { other } else { 0.0 }).sum::<f64>();
                let gap = |head: bool| -> f64 {
                    pairs().map(|(p, q)| if (p > 0.0 && above(p) < mass) == head { (p - q).abs() } else { 0.0 }).sum()
                };
                let (head, tail) = (gap(true), gap(false));
                if head + tail == 0.0 { 1.0 } else { head / tail }
            }
        }
    }
}
