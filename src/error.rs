//! What can be wrong with a call, with the data its message needs.

use std::fmt;

/// A refused call. Nothing has been written to any output, but by one that was [`Interrupted`](Error::Interrupted).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// Two arrays that must agree in shape do not.
    ShapeMismatch {
        /// The role of the first array, as the caller knows it.
        first: &'static str,
        /// Its shape.
        first_shape: Vec<usize>,
        /// The role of the second array.
        second: &'static str,
        /// Its shape.
        second_shape: Vec<usize>,
    },
    /// Rows without classes.
    NoClasses {
        /// The role of the array.
        argument: &'static str,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A slice whose length is not a multiple of the number of classes.
    PartialRow {
        /// Length of the slice.
        len: usize,
        /// Classes in a row.
        classes: usize,
    },
    /// Rows of an array whose classes do not lie one after the other in memory.
    ClassStride {
        /// The role of the array.
        argument: &'static str,
        /// Elements from a class to the next.
        stride: isize,
    },
    /// A parameter outside its domain.
    Parameter {
        /// Its name.
        name: &'static str,
        /// The value given.
        value: f64,
        /// What is allowed, to complete "… must be".
        domain: &'static str,
    },
    /// A row's weight that is negative, infinite or NaN.
    Weight {
        /// The role of the weights.
        argument: &'static str,
        /// First offending position.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// A mask of other numbers than 0 and 1.
    Mask {
        /// The role of the mask.
        argument: &'static str,
        /// First offending row.
        index: usize,
        /// Its value.
        value: i128,
    },
    /// A class index outside `0..classes` that is not the ignored one.
    Label {
        /// First offending row.
        row: usize,
        /// Its value.
        label: i64,
        /// Classes in a row.
        classes: usize,
        /// The index that marks rows to be ignored, where there is one.
        ignore_index: Option<i64>,
    },
    /// A row that has not what is asked of it.
    Row {
        /// The role of the rows.
        argument: &'static str,
        /// First offending row.
        row: usize,
        /// What is wrong with it, to complete "row 3 of …".
        reason: &'static str,
    },
    /// A class among those named for a row that is outside `0..classes`, or there twice.
    ClassOfRow {
        /// The role of the classes.
        argument: &'static str,
        /// First offending row.
        row: usize,
        /// The class.
        class: i64,
        /// What is wrong with it, to complete "class 7 in row 3 of …".
        reason: &'static str,
        /// Classes in a row.
        classes: usize,
    },
    /// Offsets that do not divide the classes of a teacher into rows.
    Offsets {
        /// The first row without its classes.
        row: usize,
    },
    /// A class that two vocabularies are said to share, and that cannot be.
    SharedClass {
        /// The role of the classes.
        argument: &'static str,
        /// First offending position.
        index: usize,
        /// The class.
        class: i64,
        /// Classes in a row; `None` for a class that was there before.
        classes: Option<usize>,
    },
    /// A rule for teachers of some classes that gives a loss no meaning.
    Rule {
        /// The rule.
        rule: &'static str,
        /// The loss.
        loss: &'static str,
        /// Why, to complete a sentence.
        reason: &'static str,
    },
    /// An option that has no meaning together with another.
    Option {
        /// The whole sentence.
        reason: &'static str,
    },
    /// Gradient rows that share memory with each other.
    OverlappingOutput {
        /// The role of the output.
        argument: &'static str,
    },
    /// A name that is none of those known.
    UnknownName {
        /// What it names.
        kind: &'static str,
        /// The name given.
        name: String,
        /// The names known.
        known: String,
    },
    /// More rows than there is memory for their results.
    Memory {
        /// Rows in the batch.
        rows: usize,
        /// Bytes that could not be had.
        bytes: usize,
    },
    /// The caller asked to stop (Ctrl-C).
    Interrupted,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ShapeMismatch { first, first_shape, second, second_shape } => {
                write!(f, "{first} has shape {} but {second} has shape {}", Shape(first_shape), Shape(second_shape))
            }
            Error::NoClasses { argument, shape } => {
                write!(f, "{argument} has shape {}, without a class in a row", Shape(shape))
            }
            Error::PartialRow { len, classes } => {
                write!(f, "{len} elements are not whole rows of {classes} classes")
            }
            Error::ClassStride { argument, stride } => {
                write!(
                    f,
                    "the classes of {argument} are {stride} elements apart; expected its last axis to have stride 1"
                )
            }
            Error::Parameter { name, value, domain } => write!(f, "{name} must be {domain}, got {}", Number(*value)),
            Error::Weight { argument, index, value } => {
                write!(f, "{argument} must be finite and non-negative, but element {index} is {value}")
            }
            Error::Mask { argument, index, value } => {
                write!(
                    f,
                    "{argument} is a mask of booleans, or of integers 0 and 1, but holds {value} at index {index}"
                )
            }
            Error::Label { row, label, classes, ignore_index } => {
                write!(f, "label {label} in row {row} is out of range for {classes} classes")?;
                if let Some(index) = ignore_index {
                    write!(f, " (ignore_index is {index})")?;
                }
                write!(f, "; pass ignore_index={label} or mask the row with where")
            }
            Error::Row { argument, row, reason } => write!(f, "row {row} of {argument} {reason}"),
            Error::ClassOfRow { argument, row, class, reason, classes } => {
                write!(f, "class {class} in row {row} of {argument} {reason}; rows have {classes} classes")
            }
            Error::Offsets { row } => write!(f, "the offsets do not say which classes row {row} of the teacher has"),
            Error::SharedClass { argument, index, class, classes: Some(classes) } => {
                write!(f, "{argument}[{index}] is {class}, out of range for {classes} classes")
            }
            Error::SharedClass { argument, index, class, classes: None } => {
                write!(f, "{argument}[{index}] is {class}, which stands before it already")
            }
            Error::Rule { rule, loss, reason } => write!(f, "rule {rule:?} gives {loss} no meaning: {reason}"),
            Error::Option { reason } => f.write_str(reason),
            Error::OverlappingOutput { argument } => {
                write!(f, "rows of {argument} overlap in memory; pass an array whose elements are distinct")
            }
            Error::UnknownName { kind, name, known } => {
                write!(f, "unknown {kind} {name:?}; expected {known}")
            }
            Error::Memory { rows, bytes } => {
                write!(f, "no memory for {bytes} bytes, which the results of {rows} rows need")
            }
            Error::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Error {}

/// A number in as few characters as it takes.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Number(value) = self;
        if *value == 0.0 || (1e-4..1e16).contains(&value.abs()) { write!(f, "{value}") } else { write!(f, "{value:e}") }
    }
}

/// A shape as Python writes it.
struct Shape<'a>(&'a [usize]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [single] => write!(f, "({single},)"),
            many => {
                let sizes: Vec<String> = many.iter().map(ToString::to_string).collect();
                write!(f, "({})", sizes.join(", "))
            }
        }
    }
}
