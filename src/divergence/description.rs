//! What is known of a divergence beside its formula: name, parameter, properties.

use crate::error::Error;

/// What every front end, table and test knows of a divergence.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Description {
    /// Its name.
    pub name: &'static str,
    /// Its parameter, for those that have one.
    pub parameter: Option<Parameter>,
    /// Its properties.
    pub properties: Properties,
}

impl Description {
    /// The name of the divergence that this one is at a value of its parameter: its own, but at a
    /// [special value](Properties::special).
    #[must_use]
    pub fn name_at(&self, parameter: f64) -> &'static str {
        self.properties.special_name(parameter).unwrap_or(self.name)
    }
}

/// A number that a function takes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it is unless another value is given; `None` if one must be.
    pub default: Option<f64>,
    /// Its smallest value.
    pub low: f64,
    /// Its largest value.
    pub high: f64,
    /// The smallest magnitude of a value other than 0, where inverses are still in range.
    pub smallest: f64,
    /// All three in words, to complete "… must be".
    pub domain: &'static str,
}

impl Parameter {
    /// Refuses values outside the domain.
    pub(crate) fn check(&self, value: f64) -> Result<(), Error> {
        if (self.low..=self.high).contains(&value) && (value == 0.0 || value.abs() >= self.smallest) {
            Ok(())
        } else {
            Err(Error::Parameter { name: self.name, value, domain: self.domain })
        }
    }
}

/// Properties of a divergence, of rows that sum to one.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "properties that have nothing to do with each other")]
pub struct Properties {
    /// Whether p and q can be exchanged, whatever the parameter.
    pub symmetric: bool,
    /// The value of the parameter at which they can be.
    pub symmetric_at: Option<f64>,
    /// The name of the divergence that it is with p and q exchanged, of one that is not symmetric.
    pub exchanged: Option<&'static str>,
    /// Whether its type computes it from q and p.
    pub(crate) exchanges_rows: bool,
    /// Values of the parameter at which it is, as a limit, another divergence, with the name of that.
    pub special: &'static [(f64, &'static str)],
    /// Whether it is Σ q·f(p/q) with a convex f.
    pub f_divergence: bool,
    /// The least number that it does not exceed, whatever the parameter.
    pub bound: Option<f64>,
    /// Whether it has a kink where p = q, being of first order in p − q.
    pub kinked: bool,
    /// Whether it mixes others with weights that the rows give, which gradients take for constants.
    pub detached: bool,
}

impl Properties {
    /// None of them.
    pub(crate) const NONE: Self = Properties {
        symmetric: false,
        symmetric_at: None,
        exchanged: None,
        exchanges_rows: false,
        special: &[],
        f_divergence: false,
        bound: None,
        kinked: false,
        detached: false,
    };

    /// Refuses special values, whose formulas are those of other divergences.
    pub(crate) fn check(&self, name: &'static str, value: f64) -> Result<(), Error> {
        if self.special_name(value).is_none() {
            return Ok(());
        }
        Err(Error::Parameter {
            name,
            value,
            domain: "other than where this is another divergence, which `Kind::new` finds",
        })
    }

    fn special_name(&self, value: f64) -> Option<&'static str> {
        self.special.iter().find(|(at, _)| *at == value).map(|(_, name)| *name)
    }
}
