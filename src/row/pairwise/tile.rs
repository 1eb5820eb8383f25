//! A block of classes of some rows as probabilities and their logarithms.

use crate::error::Error;
use crate::memory;
use crate::row::distribution::softmax::DistributionView;
use crate::row::distribution::{Distribution, Space};
use crate::row::pairwise::Facts;
use crate::row::runs::{Step, pass};
use crate::rows::{Block, BlockMut, Row, RowMut, Rows, RowsMut};
use crate::simd::ln::ln;
use crate::simd::{Isa, Kernel, Lanes, MAX_LANES, Simd};

/// Classes of a block: that of one row, 16 KiB, stays in a first-level cache, and those of 32 rows, half a MiB, in a second-level
/// one.
pub(crate) const WIDTH: usize = 1024;

/// Memory for a block of some rows.
pub(crate) struct Tile {
    /// Of each row the probabilities, and then their logarithms.
    numbers: Vec<f64>,
    /// Numbers from one to the next.
    stride: usize,
    /// Numbers in use of each.
    classes: usize,
}

impl Tile {
    /// For rows of this many classes.
    pub(crate) fn new(rows: usize, classes: usize) -> Result<Self, Error> {
        let stride = classes.min(WIDTH).next_multiple_of(MAX_LANES);
        Ok(Tile { numbers: memory::filled(2 * rows * stride, 0.0)?, stride, classes: 0 })
    }

    /// Takes a block of a row as row `index`. All rows have a block of one length.
    pub(crate) fn set(&mut self, index: usize, row: Distribution<'_>, facts: &Facts, isa: Isa) -> Result<(), Error> {
        let len = row.row.classes();
        self.classes = len.next_multiple_of(MAX_LANES);
        let start = 2 * index * self.stride;
        let numbers = &mut self.numbers[start..start + 2 * self.stride];
        // Classes past the end are as probable in every row, and add nothing to anything.
        for (place, padding) in [(0, 1.0), (self.stride, 0.0)] {
            numbers[place + len..place + self.classes].fill(padding);
        }
        let rows = RowsMut::new(numbers, self.stride)?;
        // SAFETY: no other view of these two.
        let (p, ln_p) = unsafe { (rows.row(0).block(0, len), rows.row(1).block(0, len)) };
        isa.run(Convert { row, facts, p, ln_p });
        Ok(())
    }

    /// The probabilities of row `index`, and their logarithms: whole vectors, of classes that add nothing past the end.
    pub(crate) fn row(&self, index: usize) -> Result<[Row<'_>; 2], Error> {
        let rows = Rows::new(&self.numbers, self.stride)?;
        Ok([2 * index, 2 * index + 1].map(|row| rows.row(row).block(0, self.classes)))
    }
}

/// Writes p and ln p; 0 for both of a class that the row lacks.
struct Convert<'a> {
    row: Distribution<'a>,
    facts: &'a Facts,
    p: RowMut<'a>,
    ln_p: RowMut<'a>,
}

impl Kernel for Convert<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Convert { row, facts, p, ln_p } = self;
        let mass = if row.space == Space::Unnormalized { facts.mass } else { 1.0 };
        let mut step = ConvertStep::<S::F64> {
            token: simd,
            view: DistributionView::new(simd, row, facts.sum),
            mass: S::F64::splat(simd, mass),
            logarithms: row.space.is_logarithmic(),
        };
        let outputs = [Some(BlockMut::new(p)), Some(BlockMut::new(ln_p))];
        pass::<S::F64, _, 1, 2, 0>(
            simd,
            row.row.classes(),
            [Block::new(row.row, row.space.absent())],
            outputs,
            &mut step,
        );
    }
}

struct ConvertStep<V: Lanes> {
    token: V::Token,
    view: DistributionView<V>,
    /// What numbers that are no logarithms are divided by.
    mass: V,
    logarithms: bool,
}

impl<V: Lanes> Step<V, 1, 2, 0> for ConvertStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x]: [V; 1], _: &mut [V; 0]) -> [V; 2] {
        let (zero, one) = (V::splat(self.token, 0.0), V::splat(self.token, 1.0));
        let has = self.view.has(x);
        let (p, ln_p) = if self.logarithms {
            (self.view.p(x), self.view.ln_p(x))
        } else {
            let p = x / self.mass;
            (p, ln(self.token, V::select(has, p, one)))
        };
        [p, V::select(has, ln_p, zero)]
    }
}
