//! The space a row's numbers live in.

use crate::error::Error;

/// What the numbers of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// z with p = softmax(z / temperature); −∞ is a masked class.
    Logits,
    /// ln p, taken as given.
    LogProbs,
    /// p, taken as given.
    Probs,
    /// w ≥ 0 with p = w/Σw.
    Unnormalized,
}

impl Space {
    /// The space called `name`.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn from_name(name: &str) -> Result<Self, Error> {
        match name {
            "logits" => Ok(Space::Logits),
            "log_probs" => Ok(Space::LogProbs),
            "probs" => Ok(Space::Probs),
            "unnormalized" => Ok(Space::Unnormalized),
            _ => Err(Error::UnknownName {
                kind: "space",
                name: name.to_owned(),
                known: "logits, log_probs, probs or unnormalized".to_owned(),
            }),
        }
    }

    /// The element that stands for probability 0, and for classes past the end of a row.
    #[inline(always)]
    pub(crate) fn absent(self) -> f64 {
        match self {
            Space::Logits | Space::LogProbs => f64::NEG_INFINITY,
            Space::Probs | Space::Unnormalized => 0.0,
        }
    }

    /// Whether rows sum to one, whatever their numbers.
    pub(crate) fn is_normalized(self) -> bool {
        matches!(self, Space::Logits | Space::Unnormalized)
    }

    /// Whether the numbers are logarithms.
    #[inline(always)]
    pub(crate) fn is_logarithmic(self) -> bool {
        matches!(self, Space::Logits | Space::LogProbs)
    }
}
