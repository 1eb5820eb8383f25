//! Divergences of each of some rows from each of others.

use super::divergence::check_side;
use crate::divergence::{Divergence, Kind, Visitor};
use crate::error::Error;
use crate::memory;
use crate::row::distribution::{Distribution, Space};
use crate::row::pairwise::{Facts, OfPairs, PairSums, Tile, WIDTH};
use crate::rows::{Rows, RowsMut};
use crate::simd::Isa;
use crate::threads::{Blocks, Driver, Execution};
use std::ops::Range;

/// Rows, and what their numbers are.
#[derive(Clone, Debug)]
pub struct Side<'a> {
    /// The rows.
    pub rows: Rows<'a>,
    /// What the numbers are.
    pub space: Space,
    /// The temperature, for logits; 1 for the other spaces.
    pub temperature: f64,
}

impl Side<'_> {
    fn row(&self, index: usize) -> Distribution<'_> {
        Distribution::new(self.rows.row(index), self.space, self.temperature)
    }
}

/// The divergence of every row of `p` from every row of `q`, or of `p` where there is no `q`; row i of `out` gets those of row
/// i of `p`.
///
/// A pair gets what [`divergence`](crate::divergence) gives, in f64 lanes; NaN with an invalid row. Without `q` a valid row is
/// exactly 0 from itself, also one that does not sum to one, and of a divergence that is symmetric each two rows are taken once.
/// Beside the results there is memory of a MiB a thread, and of some words a row.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::NoClasses`], [`Error::Parameter`], [`Error::Option`], [`Error::Memory`] and
/// [`Error::Interrupted`]. After one nothing has been written, except after the last two.
///
/// # Examples
/// ```
/// use kldiv::{Execution, Kind, Rows, RowsMut, Side, Space, pairwise};
///
/// let p = [0.5, 0.5, 0.9, 0.1, 0.2, 0.8];
/// let side = Side { rows: Rows::new(&p, 2)?, space: Space::Probs, temperature: 1.0 };
/// let mut out = [1.0_f64; 9];
/// pairwise(Kind::TotalVariation, &side, None, RowsMut::new(&mut out, 3)?, &Execution::default())?;
/// for (found, expected) in out.iter().zip([0.0, 0.4, 0.3, 0.4, 0.0, 0.7, 0.3, 0.7, 0.0]) {
///     assert!((found - expected).abs() < 1e-15);
/// }
/// # Ok::<(), kldiv::Error>(())
/// ```
#[expect(clippy::needless_pass_by_value, reason = "an output is handed over: nobody else may hold it meanwhile")]
pub fn pairwise(
    kind: Kind,
    p: &Side<'_>,
    q: Option<&Side<'_>>,
    out: RowsMut<'_>,
    execution: &Execution<'_>,
) -> Result<(), Error> {
    execution.run(|driver| {
        check_side("p", &p.rows, p.space, p.temperature)?;
        let other = q.unwrap_or(p);
        check_side("q", &other.rows, other.space, other.temperature)?;
        let mismatch = |first, first_shape, second, second_shape| {
            Err(Error::ShapeMismatch { first, first_shape, second, second_shape })
        };
        if p.rows.classes() != other.rows.classes() {
            return mismatch("p", p.rows.shape(), "q", other.rows.shape());
        }
        let shape = vec![p.rows.count(), other.rows.count()];
        if [out.count(), out.classes()] != shape[..] {
            return mismatch("the output", out.shape(), "all pairs", shape);
        }
        let exchanged = kind.exchanges_rows();
        let (rows, columns) = if exchanged { (other, p) } else { (p, other) };
        let itself = q.is_none();
        let symmetric = itself && kind.is_symmetric();
        kind.visit(Batch { rows, columns, itself, symmetric, exchanged, out: &out, driver })?
    })
}

struct Batch<'a> {
    rows: &'a Side<'a>,
    columns: &'a Side<'a>,
    /// Whether both are the same.
    itself: bool,
    /// Whether only one of each two pairs of the same rows is to be computed.
    symmetric: bool,
    /// Whether `out` has a row for each of `columns`.
    exchanged: bool,
    out: &'a RowsMut<'a>,
    driver: &'a Driver<'a>,
}

impl Visitor for Batch<'_> {
    type Output = Result<(), Error>;

    fn visit<D: Divergence>(self, divergence: D) -> Self::Output {
        self.run(&divergence)
    }
}

impl Batch<'_> {
    fn run(&self, divergence: &dyn OfPairs) -> Result<(), Error> {
        let facts = self.facts(self.rows)?;
        let of_columns = if self.itself { None } else { Some(self.facts(self.columns)?) };
        let columns = of_columns.as_deref().unwrap_or(&facts);
        let size = self.tile_size(facts.len(), columns.len());
        let tiles = self.tiles(facts.len(), columns.len(), size)?;
        // Of a tile that takes this many classes of pairs, and eight of them the time of one of two rows.
        let work = (size * size).saturating_mul(self.rows.rows.classes()) / 8;
        let found = self.driver.for_rows(tiles.len(), work, &|index, blocks| {
            let call = Call { divergence, batch: self, facts: (&facts, columns), blocks };
            call.tile(tiles[index], size).err()
        })?;
        found.into_iter().flatten().next().map_or(Ok(()), Err)
    }

    fn facts(&self, side: &Side<'_>) -> Result<Vec<Option<Facts>>, Error> {
        let isa = self.driver.isa;
        self.driver
            .for_rows(side.rows.count(), side.rows.classes(), &|index, blocks| Facts::of(side.row(index), isa, blocks))
    }

    /// Rows and columns of a tile. No result depends on it: a pair is summed over the same blocks.
    fn tile_size(&self, rows: usize, columns: usize) -> usize {
        /// Each row is made probabilities for so many pairs, an exponential and a logarithm for some 32 classes of pairs; two
        /// blocks of as many rows are 1 MiB.
        const LARGEST: usize = 32;
        /// Below, that takes as long as the pairs.
        const SMALLEST: usize = 4;
        let mut size = LARGEST;
        while size > SMALLEST && rows.div_ceil(size) * columns.div_ceil(size) < 8 * self.driver.threads() {
            size /= 2;
        }
        size
    }

    /// The first row and the first column of each tile.
    fn tiles(&self, rows: usize, columns: usize, size: usize) -> Result<Vec<(usize, usize)>, Error> {
        let (down, across) = (rows.div_ceil(size), columns.div_ceil(size));
        let mut tiles = memory::collected((0..down * across).map(|tile| (tile / across * size, tile % across * size)))?;
        if self.symmetric {
            tiles.retain(|(row, column)| row <= column);
        }
        Ok(tiles)
    }

    fn put(&self, row: usize, column: usize, value: f64) {
        let (row, column) = if self.exchanged { (column, row) } else { (row, column) };
        // SAFETY: a pair belongs to one tile, and is given its value there.
        unsafe { self.out.row(row) }.set(column, value);
    }
}

/// The tiles of a divergence.
struct Call<'a> {
    divergence: &'a dyn OfPairs,
    batch: &'a Batch<'a>,
    facts: (&'a [Option<Facts>], &'a [Option<Facts>]),
    blocks: &'a Blocks,
}

impl Call<'_> {
    /// Whether the pair is computed, and not found otherwise.
    fn takes(&self, row: usize, column: usize) -> bool {
        !self.batch.itself || row < column || (row > column && !self.batch.symmetric)
    }

    /// What is known of the rows of a pair that can be summed with others.
    fn ordinary(&self, row: usize, column: usize) -> Option<(&Facts, &Facts)> {
        let (p, q) = (self.facts.0[row].as_ref()?, self.facts.1[column].as_ref()?);
        (!self.divergence.has_statistic() && p.ordinary && q.ordinary).then_some((p, q))
    }

    fn tile(&self, (row, column): (usize, usize), size: usize) -> Result<(), Error> {
        let rows = row..self.facts.0.len().min(row + size);
        let columns = column..self.facts.1.len().min(column + size);
        let sums =
            if self.divergence.has_statistic() { Vec::new() } else { self.sums(rows.clone(), columns.clone(), size)? };
        for (i, row) in rows.enumerate() {
            for (j, column) in columns.clone().enumerate() {
                let value = if self.takes(row, column) {
                    let summed =
                        self.ordinary(row, column).and_then(|facts| self.divergence.value(facts, sums[i * size + j]));
                    summed.unwrap_or_else(|| self.accurate(row, column))
                } else if row == column {
                    if self.facts.0[row].is_some() { 0.0 } else { f64::NAN }
                } else {
                    continue;
                };
                self.batch.put(row, column, value);
                if self.batch.symmetric && row != column {
                    self.batch.put(column, row, value);
                }
            }
        }
        Ok(())
    }

    /// The sums of all pairs that are computed of such rows.
    fn sums(&self, rows: Range<usize>, columns: Range<usize>, size: usize) -> Result<Vec<PairSums>, Error> {
        let (batch, isa, classes) = (self.batch, self.isa(), self.batch.rows.rows.classes());
        let mut found = memory::filled(size * size, PairSums::default())?;
        let (mut ps, mut qs) = (Tile::new(rows.len(), classes)?, Tile::new(columns.len(), classes)?);
        for start in (0..classes).step_by(WIDTH) {
            let len = WIDTH.min(classes - start);
            for (tile, side, facts, range) in
                [(&mut ps, batch.rows, self.facts.0, &rows), (&mut qs, batch.columns, self.facts.1, &columns)]
            {
                for (index, row) in range.clone().enumerate() {
                    if let Some(facts) = facts[row].as_ref().filter(|facts| facts.ordinary) {
                        tile.set(index, side.row(row).block(start, len), facts, isa)?;
                    }
                }
            }
            for (i, row) in rows.clone().enumerate() {
                for (j, column) in columns.clone().enumerate() {
                    if let Some((p, q)) = self.ordinary(row, column).filter(|_| self.takes(row, column)) {
                        let sums = &mut found[i * size + j];
                        *sums = sums.merge(self.divergence.sums(ps.row(i)?, qs.row(j)?, p.full && q.full, isa));
                    }
                }
            }
        }
        Ok(found)
    }

    /// The value as any two rows have it.
    fn accurate(&self, row: usize, column: usize) -> f64 {
        if self.facts.0[row].is_none() || self.facts.1[column].is_none() {
            return f64::NAN;
        }
        let (p, q) = (self.batch.rows.row(row), self.batch.columns.row(column));
        self.divergence.accurate(p, q, self.isa(), self.blocks)
    }

    fn isa(&self) -> Isa {
        self.batch.driver.isa
    }
}
