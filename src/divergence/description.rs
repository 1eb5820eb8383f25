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
    /// [special value](Parameter::special).
    #[must_use]
    pub fn name_at(&self, parameter: f64) -> &'static str {
        self.parameter.and_then(|one| one.special_name(parameter)).unwrap_or(self.name)
    }
}

/// The parameter of a divergence.
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
    /// Both in words, to complete "… must be".
    pub domain: &'static str,
    /// The value at which the divergence is symmetric in p and q.
    pub symmetric_at: Option<f64>,
    /// Values at which the divergence is, as a limit, another one, with the name of that.
    pub special: &'static [(f64, &'static str)],
}

impl Parameter {
    /// Refuses values outside the domain, and special ones.
    pub(crate) fn check(&self, value: f64) -> Result<(), Error> {
        let domain = if !(self.low..=self.high).contains(&value) {
            self.domain
        } else if self.special_name(value).is_some() {
            "other than where this is another divergence, which `Kind::new` finds"
        } else {
            return Ok(());
        };
        Err(Error::Parameter { name: self.name, value, domain })
    }

    fn special_name(&self, value: f64) -> Option<&'static str> {
        self.special.iter().find(|(at, _)| *at == value).map(|(_, name)| *name)
    }
}

/// Properties of a divergence, whatever its parameter, of rows that sum to one.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Properties {
    /// Whether p and q can be exchanged.
    pub symmetric: bool,
    /// The name of the divergence that it is with p and q exchanged, of one that is not symmetric.
    pub exchanged: Option<&'static str>,
    /// Whether its type computes it from q and p.
    pub(crate) exchanges_rows: bool,
    /// Whether it is Σ q·f(p/q) with a convex f.
    pub f_divergence: bool,
    /// The least number that it does not exceed.
    pub bound: Option<f64>,
}

impl Properties {
    /// None of them.
    pub(crate) const NONE: Self =
        Properties { symmetric: false, exchanged: None, exchanges_rows: false, f_divergence: false, bound: None };
}
