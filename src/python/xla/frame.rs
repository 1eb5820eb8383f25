//! A call that XLA makes, as Rust sees it: buffers and attributes, each checked before it is read.

use std::ffi::c_int;
use std::hash::{Hash, Hasher};

use super::c_api::{self, data_type};
use crate::{Dtype, Error};

/// Why a call is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// What it asks for.
    Refused(Error),
    /// A call frame that `kldiv.jax` does not make.
    Malformed(String),
    /// Nothing of the call: a fault of this crate.
    Panicked,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Refused(error)
    }
}

pub(super) fn malformed<T>(what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Malformed(what.into()))
}

/// How the numbers of a buffer are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stored {
    Bool,
    Integer { bytes: usize, signed: bool },
    Floating(Dtype),
}

impl Stored {
    fn of(dtype: c_int) -> Option<Self> {
        let integer = |bytes, signed| Stored::Integer { bytes, signed };
        Some(match dtype {
            data_type::PRED => Stored::Bool,
            data_type::S8 => integer(1, true),
            data_type::S16 => integer(2, true),
            data_type::S32 => integer(4, true),
            data_type::S64 => integer(8, true),
            data_type::U8 => integer(1, false),
            data_type::U16 => integer(2, false),
            data_type::U32 => integer(4, false),
            data_type::U64 => integer(8, false),
            data_type::F16 => Stored::Floating(Dtype::F16),
            data_type::F32 => Stored::Floating(Dtype::F32),
            data_type::F64 => Stored::Floating(Dtype::F64),
            data_type::BF16 => Stored::Floating(Dtype::Bf16),
            _ => return None,
        })
    }

    pub(super) fn size(self) -> usize {
        match self {
            Stored::Bool => 1,
            Stored::Integer { bytes, .. } => bytes,
            Stored::Floating(dtype) => dtype.size(),
        }
    }
}

/// A dense array in C order, of XLA's memory.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) data: *mut u8,
    pub(super) stored: Stored,
    pub(super) dims: Vec<usize>,
}

impl Buffer {
    pub(super) fn bytes(&self) -> usize {
        self.dims.iter().product::<usize>() * self.stored.size()
    }
}

/// An argument or a result, by the name that it is passed under.
pub(super) type Named<'a> = (&'a str, Buffer);

#[derive(Clone, Copy, Debug)]
enum Attribute<'a> {
    Number(f64),
    Integer(i64),
    Text(&'a str),
}

/// The call.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) operands: Vec<Named<'a>>,
    pub(super) results: Vec<Named<'a>>,
    attributes: Vec<(&'a str, Attribute<'a>)>,
}

impl<'a> Frame<'a> {
    /// The attributes `operands` and `results` name the buffers, in their order.
    ///
    /// # Safety
    /// What the frame points to is as the header says, and stays so for `'a`.
    pub(super) unsafe fn read(frame: &'a c_api::CallFrame) -> Result<Self, Refusal> {
        // SAFETY: as promised.
        let attributes = unsafe { attributes(&frame.attrs) }?;
        let mut found = Frame { operands: Vec::new(), results: Vec::new(), attributes };
        // SAFETY: as promised.
        found.operands = unsafe { named(&frame.args, found.text("operands")?) }?;
        // SAFETY: as promised.
        found.results = unsafe { named(&frame.rets, found.text("results")?) }?;
        Ok(found)
    }

    fn attribute(&self, name: &str) -> Option<Attribute<'a>> {
        self.attributes.iter().find(|one| one.0 == name).map(|one| one.1)
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, Refusal> {
        match self.attribute(name) {
            Some(Attribute::Text(text)) => Ok(text),
            _ => malformed(format!("the attribute {name} is no text")),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, Refusal> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Number(number)) => Ok(Some(number)),
            Some(_) => malformed(format!("the attribute {name} is no float64")),
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Integer(number)) => Ok(Some(number)),
            Some(_) => malformed(format!("the attribute {name} is no int64")),
        }
    }

    /// Of what a call for value and gradients and one for gradients alone have in common.
    pub(super) fn hash_of_loss(&self, hasher: &mut impl Hasher) {
        for (name, attribute) in &self.attributes {
            match attribute {
                _ if ["operands", "results"].contains(name) => {}
                Attribute::Number(number) => (name, number.to_bits()).hash(hasher),
                Attribute::Integer(number) => (name, number).hash(hasher),
                Attribute::Text(text) => (name, text).hash(hasher),
            }
        }
        for (name, buffer) in &self.results {
            if !["value", "scale"].contains(name) {
                (name, &buffer.dims).hash(hasher);
            }
        }
    }

    pub(super) fn operand(&self, name: &str) -> Option<&Buffer> {
        self.operands.iter().find(|one| one.0 == name).map(|one| &one.1)
    }

    pub(super) fn result(&self, name: &str) -> Option<&Buffer> {
        self.results.iter().find(|one| one.0 == name).map(|one| &one.1)
    }
}

/// # Safety
/// `data` points to `count` elements that stay as they are for `'a`, or nothing is counted.
unsafe fn slice<'a, T>(data: *const T, count: i64) -> Result<&'a [T], Refusal> {
    match usize::try_from(count) {
        Ok(0) => Ok(&[]),
        // SAFETY: as promised.
        Ok(count) if !data.is_null() => Ok(unsafe { std::slice::from_raw_parts(data, count) }),
        _ => malformed(format!("{count} elements at {data:p}")),
    }
}

/// # Safety
/// As for [`Frame::read`].
unsafe fn text<'a>(span: *const c_api::ByteSpan) -> Result<&'a str, Refusal> {
    // SAFETY: as promised, a span or null.
    let Some(span) = (unsafe { span.as_ref() }) else { return malformed("a text is null") };
    // SAFETY: the bytes of the span.
    let bytes = unsafe { slice(span.ptr.cast::<u8>(), span.len as i64) }?;
    std::str::from_utf8(bytes).or_else(|_| malformed("a text is not UTF-8"))
}

/// # Safety
/// As for [`Frame::read`].
unsafe fn attributes<'a>(attrs: &c_api::Attrs) -> Result<Vec<(&'a str, Attribute<'a>)>, Refusal> {
    if attrs.struct_size < size_of::<c_api::Attrs>() {
        return malformed("XLA_FFI_Attrs is too small");
    }
    // SAFETY: as promised, one of each for every attribute.
    let (types, names, values) =
        unsafe { (slice(attrs.types, attrs.size)?, slice(attrs.names, attrs.size)?, slice(attrs.values, attrs.size)?) };
    let mut found = Vec::with_capacity(types.len());
    for ((&kind, &name), &value) in types.iter().zip(names).zip(values) {
        // SAFETY: as promised.
        let name = unsafe { text(name) }?;
        let attribute = match kind {
            // SAFETY: a value of that type.
            c_api::STRING => Attribute::Text(unsafe { text(value.cast::<c_api::ByteSpan>()) }?),
            c_api::SCALAR => {
                // SAFETY: a value of that type, or null.
                let scalar = unsafe { value.cast::<c_api::Scalar>().as_ref() };
                let Some(scalar) = scalar.filter(|scalar| !scalar.value.is_null()) else {
                    return malformed(format!("the attribute {name} is null"));
                };
                match scalar.dtype {
                    // SAFETY: an element of that dtype.
                    data_type::F64 => Attribute::Number(unsafe { scalar.value.cast::<f64>().read_unaligned() }),
                    // SAFETY: an element of that dtype.
                    data_type::S64 => Attribute::Integer(unsafe { scalar.value.cast::<i64>().read_unaligned() }),
                    other => return malformed(format!("the attribute {name} has data type {other}")),
                }
            }
            other => return malformed(format!("the attribute {name} has type {other}")),
        };
        found.push((name, attribute));
    }
    Ok(found)
}

/// # Safety
/// As for [`Frame::read`].
unsafe fn named<'a>(buffers: &c_api::Buffers, names: &'a str) -> Result<Vec<Named<'a>>, Refusal> {
    if buffers.struct_size < size_of::<c_api::Buffers>() {
        return malformed("XLA_FFI_Args is too small");
    }
    // SAFETY: as promised, one of each for every buffer.
    let (types, values) = unsafe { (slice(buffers.types, buffers.size)?, slice(buffers.values, buffers.size)?) };
    let names: Vec<&str> = names.split_ascii_whitespace().collect();
    if names.len() != values.len() {
        return malformed(format!("{} buffers have {} names", values.len(), names.len()));
    }
    let mut found = Vec::with_capacity(names.len());
    for ((name, &kind), &value) in names.into_iter().zip(types).zip(values) {
        if kind != c_api::BUFFER {
            return malformed(format!("{name} is no buffer"));
        }
        // SAFETY: a buffer, or null.
        let Some(buffer) = (unsafe { value.cast::<c_api::Buffer>().as_ref() }) else {
            return malformed(format!("{name} is null"));
        };
        if buffer.struct_size < size_of::<c_api::Buffer>() {
            return malformed("XLA_FFI_Buffer is too small");
        }
        let Some(stored) = Stored::of(buffer.dtype) else {
            return malformed(format!("{name} has data type {}", buffer.dtype));
        };
        // SAFETY: as many lengths as axes.
        let lengths = unsafe { slice(buffer.dims.cast_const(), buffer.rank) }?;
        let dims: Result<Vec<usize>, _> = lengths.iter().map(|&length| usize::try_from(length)).collect();
        let Ok(dims) = dims else { return malformed(format!("{name} has shape {lengths:?}")) };
        let bytes = dims.iter().try_fold(stored.size(), |bytes, &length| bytes.checked_mul(length));
        let Some(bytes) = bytes.filter(|&bytes| isize::try_from(bytes).is_ok()) else {
            return malformed(format!("{name} has shape {dims:?}"));
        };
        if bytes > 0 && buffer.data.is_null() {
            return malformed(format!("{name} has no memory"));
        }
        found.push((name, Buffer { data: buffer.data.cast(), stored, dims }));
    }
    Ok(found)
}
