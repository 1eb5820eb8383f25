//! The elements of a call that `jax.vmap` made of many: all rows as one batch, or one part for each element.

use super::frame::{Buffer, Frame, Refusal, Stored, malformed};
use super::upstream::Last;
use crate::{Error, Reduced, Reduction, RowOptions, Rows, RowsMut, memory};

/// Operands with a row, or an entry, for each row of the batch.
///
/// `upstream` is an upstream gradient that has classes, `out` a value that has, `found` gradients that were computed before, and
/// `same` a result that is its operand.
const ROWS: [&str; 9] = ["p", "q", "logits", "targets", "z", "upstream", "out", "found", "same"];
const OVER_BATCH: [&str; 3] = ["labels", "where", "weights"];

/// What is the same for all parts of a call.
pub(super) struct Call<'a> {
    frame: &'a Frame<'a>,
    /// Axes of rows, without those that `jax.vmap` put before them.
    rank: usize,
    reduction: Reduction,
    /// The axes of `jax.vmap`.
    lead: Vec<usize>,
    /// Whether all of them are one batch: nothing is reduced, and what is no array of rows is the same for all.
    folded: bool,
    /// The upstream gradient that gradients are computed for, where it is not known yet.
    guess: Option<f64>,
}

impl<'a> Call<'a> {
    pub(super) fn new(frame: &'a Frame<'a>) -> Result<Self, Refusal> {
        let rank = match frame.integer("rank")?.map(usize::try_from) {
            Some(Ok(rank)) if rank >= 1 => rank,
            _ => return malformed("the rank of rows is no positive integer"),
        };
        let reduction = Reduction::from_name(frame.text("reduction")?)?;
        let guess = frame.result("scale").map(|_| Last::of(frame).get());
        let mut call = Call { frame, rank, reduction, lead: Vec::new(), folded: reduction == Reduction::None, guess };
        // All results have all elements of `jax.vmap`, an operand those or one.
        let Some((first, buffer)) = frame.results.first() else { return malformed("nothing is asked for") };
        call.lead = call.lead_of(first, buffer)?.to_vec();
        for (name, buffer) in &frame.results {
            if call.lead_of(name, buffer)? != call.lead {
                return malformed(format!("the result {name} has shape {:?}", buffer.dims));
            }
        }
        for (name, buffer) in &frame.operands {
            let own = call.lead_of(name, buffer)?;
            let fits = |(&one, &all): (&usize, &usize)| one == 1 || one == all;
            if own.len() != call.lead.len() || !own.iter().zip(&call.lead).all(fits) {
                return malformed(format!(
                    "{name} has shape {:?}, among elements of shape {:?}",
                    buffer.dims, call.lead
                ));
            }
            call.folded &= call.is_of_rows(name) || own.iter().all(|&length| length == 1);
        }
        Ok(call)
    }

    /// The parts, in the order of their results.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let count = if self.folded { 1 } else { self.lead.iter().product() };
        (0..count).map(|index| Part { call: self, index })
    }

    fn reduces(&self) -> bool {
        self.reduction != Reduction::None
    }

    fn is_of_rows(&self, name: &str) -> bool {
        ROWS.contains(&name) || OVER_BATCH.contains(&name) || (name == "grad_output" && !self.reduces())
    }

    /// Axes of an array of this name, without those of `jax.vmap`.
    fn own_rank(&self, name: &str) -> usize {
        match name {
            "value" if self.reduces() => 0,
            "value" => self.rank - 1,
            "class_weights" => 1,
            name if ROWS.contains(&name) => self.rank,
            name if self.is_of_rows(name) => self.rank - 1,
            _ => 0,
        }
    }

    fn lead_of<'b>(&self, name: &str, buffer: &'b Buffer) -> Result<&'b [usize], Refusal> {
        match buffer.dims.len().checked_sub(self.own_rank(name)) {
            Some(count) => Ok(&buffer.dims[..count]),
            None => malformed(format!("{name} has shape {:?}", buffer.dims)),
        }
    }
}

/// One call of the crate.
pub(super) struct Part<'a> {
    call: &'a Call<'a>,
    /// Which of the elements of `jax.vmap`, in C order.
    index: usize,
}

/// Where an array of a part lies.
struct View {
    data: *mut u8,
    stored: Stored,
    shape: Vec<usize>,
    /// In bytes; 0 along an axis of `jax.vmap` that the array has not.
    strides: Vec<isize>,
}

impl Part<'_> {
    pub(super) fn text(&self, name: &str) -> Result<&str, Refusal> {
        self.call.frame.text(name)
    }

    pub(super) fn has_result(&self, name: &str) -> bool {
        self.call.frame.result(name).is_some()
    }

    fn view(&self, name: &str, buffer: &Buffer) -> View {
        let call = self.call;
        let mut step = buffer.stored.size() as isize;
        let mut strides: Vec<isize> = vec![0; buffer.dims.len()];
        for (stride, &length) in strides.iter_mut().zip(&buffer.dims).rev() {
            *stride = step;
            // Beyond the memory only where there is no element.
            step = step.wrapping_mul(length as isize);
        }
        // `Call::new` has seen that there are as many as axes of the call, of the length 1 or theirs.
        let lead = buffer.dims.len() - call.own_rank(name);
        for (stride, &length) in strides.iter_mut().zip(&buffer.dims[..lead]) {
            if length == 1 {
                *stride = 0;
            }
        }
        let folded = call.folded && (call.is_of_rows(name) || name == "value");
        let mut shape = buffer.dims.clone();
        if folded {
            shape[..lead].copy_from_slice(&call.lead);
            return View { data: buffer.data, stored: buffer.stored, shape, strides };
        }
        let (mut rest, mut offset) = (self.index, 0);
        for (&length, &stride) in call.lead.iter().zip(&strides).rev() {
            offset += (rest % length.max(1)) as isize * stride;
            rest /= length.max(1);
        }
        // SAFETY: the element lies inside the array.
        let data = unsafe { buffer.data.offset(offset) };
        View { data, stored: buffer.stored, shape: shape.split_off(lead), strides: strides.split_off(lead) }
    }

    /// Whether the gradients that were computed before are those for the upstream gradient that there is now.
    pub(super) fn is_found(&self) -> Result<bool, Refusal> {
        let Some(scale) = self.number("scale")? else { return Ok(false) };
        let upstream = self.needed("grad_output")?;
        if upstream.is_finite() {
            Last::of(self.call.frame).set(upstream);
        }
        let frame = self.call.frame;
        let pairs = frame.results.iter().zip(&frame.operands);
        Ok(scale == upstream
            && pairs.into_iter().all(|(result, operand)| operand.0 == "found" && is_same(&result.1, &operand.1)))
    }

    /// Says which upstream gradient the gradients are for.
    pub(super) fn write_scale(&self) -> Result<(), Refusal> {
        self.call.guess.map_or(Ok(()), |scale| self.write("scale", &[scale]))
    }

    /// Whether a result is in the memory of an operand.
    pub(super) fn is_in_place(&self, operand: &str, result: &str) -> bool {
        let frame = self.call.frame;
        frame.operand(operand).zip(frame.result(result)).is_some_and(|(one, other)| is_same(one, other))
    }

    /// An array of rows, to read.
    pub(super) fn rows(&self, name: &str) -> Result<Rows<'_>, Refusal> {
        let Some(buffer) = self.call.frame.operand(name) else { return malformed(format!("there is no {name}")) };
        let View { data, stored, shape, strides } = self.view(name, buffer);
        match (stored, shape.split_last(), strides.split_last()) {
            (Stored::Floating(dtype), Some((&classes, shape)), Some((_, strides))) => {
                // SAFETY: the rows lie inside the buffer, which XLA leaves as it is during the call.
                Ok(unsafe { Rows::from_raw_parts(data, dtype, classes, shape, strides) })
            }
            _ => malformed(format!("{name} is no array of rows")),
        }
    }

    /// An array of rows, to write, if it is asked for.
    pub(super) fn rows_mut(&self, name: &str) -> Result<Option<RowsMut<'_>>, Refusal> {
        let Some(buffer) = self.call.frame.result(name) else { return Ok(None) };
        let View { data, stored, shape, strides } = self.view(name, buffer);
        match (stored, shape.split_last(), strides.split_last()) {
            (Stored::Floating(dtype), Some((&classes, shape)), Some((_, strides))) => {
                // SAFETY: the rows lie inside the buffer, which is the result's alone during the call.
                Ok(Some(unsafe { RowsMut::from_raw_parts(data, dtype, classes, shape, strides, "out") }?))
            }
            _ => malformed(format!("the result {name} is no array of rows")),
        }
    }

    /// Every element of an operand, in C order.
    fn elements<T>(&self, name: &str, buffer: &Buffer, read: impl Fn(*const u8) -> T) -> Result<Vec<T>, Error> {
        let View { data, shape, strides, .. } = self.view(name, buffer);
        let count = shape.iter().product();
        memory::collected((0..count).map(|index| {
            let (mut rest, mut offset) = (index, 0);
            for (&length, &stride) in shape.iter().zip(&strides).rev() {
                offset += (rest % length) as isize * stride;
                rest /= length;
            }
            // SAFETY: the element lies inside the array.
            read(unsafe { data.offset(offset) })
        }))
    }

    /// Real numbers.
    pub(super) fn numbers(&self, name: &str) -> Result<Option<Vec<f64>>, Refusal> {
        let Some(buffer) = self.call.frame.operand(name) else { return Ok(None) };
        let numbers = match buffer.stored {
            Stored::Floating(dtype) => self.elements(name, buffer, |element| {
                // SAFETY: one element, wherever it lies, is read as a row of one.
                unsafe { Rows::from_raw_parts(element, dtype, 1, &[1], &[0]) }.row(0).get(0)
            })?,
            stored => self.elements(name, buffer, |element| integer(stored, element) as f64)?,
        };
        Ok(Some(numbers))
    }

    /// Integers.
    fn integers(&self, name: &str) -> Result<Option<Vec<i64>>, Refusal> {
        let Some(buffer) = self.call.frame.operand(name) else { return Ok(None) };
        match buffer.stored {
            // Those beyond int64 have other numbers there.
            Stored::Bool | Stored::Integer { bytes: 8, signed: false } | Stored::Floating(_) => {
                malformed(format!("{name} are no integers that int64 holds"))
            }
            stored @ Stored::Integer { .. } => {
                Ok(Some(self.elements(name, buffer, |element| integer(stored, element) as i64)?))
            }
        }
    }

    pub(super) fn labels(&self) -> Result<Option<Vec<i64>>, Refusal> {
        self.integers("labels")
    }

    /// Booleans, or integers 0 and 1.
    pub(super) fn marks(&self) -> Result<Option<Vec<bool>>, Refusal> {
        let name = "where";
        let Some(buffer) = self.call.frame.operand(name) else { return Ok(None) };
        let numbers = match buffer.stored {
            Stored::Floating(_) => return malformed("where is no mask"),
            stored => self.elements(name, buffer, |element| integer(stored, element))?,
        };
        if let Some(index) = numbers.iter().position(|number| !(0..=1).contains(number)) {
            return Err(Error::Mask { argument: name, index, value: numbers[index] }.into());
        }
        Ok(Some(memory::collected(numbers.iter().map(|&number| number != 0))?))
    }

    /// One number: an operand, or an attribute.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, Refusal> {
        match self.numbers(name)?.as_deref() {
            None => self.call.frame.number(name),
            Some(&[number]) => Ok(Some(number)),
            Some(_) => malformed(format!("{name} is not one number")),
        }
    }

    /// One integer: an operand, or an attribute.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.integers(name)?.as_deref() {
            None => self.call.frame.integer(name),
            Some(&[number]) => Ok(Some(number)),
            Some(_) => malformed(format!("{name} is not one integer")),
        }
    }

    /// One number that a call has to have.
    pub(super) fn needed(&self, name: &str) -> Result<f64, Refusal> {
        self.number(name)?.map_or_else(|| malformed(format!("there is no {name}")), Ok)
    }

    /// The options of a batch of `rows`.
    pub(super) fn options<'a>(&self, sides: &'a Sides, rows: &Rows<'_>) -> Result<RowOptions<'a>, Refusal> {
        // The classes are the last axis of a shape.
        let shape = rows.shape();
        Ok(RowOptions {
            keep: sides.keep.as_deref(),
            weights: sides.weights.as_deref(),
            reduction: self.call.reduction,
            denominator: self.number("denominator")?,
            batch: if shape.len() > 1 { shape[0] } else { 1 },
            grad_output: sides.grad_output.as_deref(),
        })
    }

    /// Writes the value, if it is asked for.
    pub(super) fn write_value(&self, reduced: &Reduced) -> Result<(), Refusal> {
        match reduced.result {
            Some(result) => self.write_values(&[result]),
            None => self.write_values(&reduced.rows),
        }
    }

    /// Writes the values of rows, if they are asked for.
    pub(super) fn write_values(&self, numbers: &[f64]) -> Result<(), Refusal> {
        self.write("value", numbers)
    }

    /// Writes a result, if it is asked for.
    fn write(&self, name: &str, numbers: &[f64]) -> Result<(), Refusal> {
        let Some(buffer) = self.call.frame.result(name) else { return Ok(()) };
        let View { data, stored, shape, .. } = self.view(name, buffer);
        if shape.iter().product::<usize>() != numbers.len() {
            return malformed(format!("{} numbers are no {name} of shape {shape:?}", numbers.len()));
        }
        let Stored::Floating(dtype) = stored else { return malformed(format!("the {name} is not floating")) };
        // SAFETY: the elements of a part lie one after the other in the buffer, which is the result's alone: as one row.
        let row = unsafe { RowsMut::from_raw_parts(data, dtype, numbers.len(), &[1], &[0], "out")? };
        // SAFETY: it is written here only.
        let row = unsafe { row.row(0) };
        for (index, &number) in numbers.iter().enumerate() {
            row.set(index, number);
        }
        Ok(())
    }
}

/// What comes beside the rows of a part.
pub(super) struct Sides {
    keep: Option<Vec<bool>>,
    weights: Option<Vec<f64>>,
    pub(super) grad_output: Option<Vec<f64>>,
}

impl Sides {
    pub(super) fn of(part: &Part<'_>) -> Result<Self, Refusal> {
        let grad_output = match part.call.guess {
            Some(scale) => Some(vec![scale]),
            None => part.numbers("grad_output")?,
        };
        Ok(Sides { keep: part.marks()?, weights: part.numbers("weights")?, grad_output })
    }

    pub(super) fn keep(&self) -> Option<&[bool]> {
        self.keep.as_deref()
    }
}

/// Whether two buffers are the same memory.
fn is_same(one: &Buffer, other: &Buffer) -> bool {
    (one.stored, &one.dims) == (other.stored, &other.dims) && (one.data == other.data || one.bytes() == 0)
}

/// An integer or boolean in memory.
fn integer(stored: Stored, element: *const u8) -> i128 {
    // SAFETY: the caller's element has that many bytes; reads are unaligned.
    unsafe {
        match stored {
            Stored::Bool => (element.read() != 0).into(),
            Stored::Integer { bytes: 1, signed: true } => element.cast::<i8>().read().into(),
            Stored::Integer { bytes: 1, signed: false } => element.read().into(),
            Stored::Integer { bytes: 2, signed: true } => element.cast::<i16>().read_unaligned().into(),
            Stored::Integer { bytes: 2, signed: false } => element.cast::<u16>().read_unaligned().into(),
            Stored::Integer { bytes: 4, signed: true } => element.cast::<i32>().read_unaligned().into(),
            Stored::Integer { bytes: 4, signed: false } => element.cast::<u32>().read_unaligned().into(),
            Stored::Integer { signed: true, .. } => element.cast::<i64>().read_unaligned().into(),
            Stored::Integer { signed: false, .. } => element.cast::<u64>().read_unaligned().into(),
            Stored::Floating(_) => 0,
        }
    }
}
