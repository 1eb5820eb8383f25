//! What a teacher of which only some classes are known is taken for.

use crate::divergence::Parameter;
use crate::error::Error;

/// What the classes that a teacher does not state are taken for, on both sides. K are the classes it states, τ what a side has
/// outside of them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// Both sides divided by what they have on K.
    Renormalize,
    /// K and one class more, of τ, on both sides.
    Tail,
    /// The terms of the classes of K only, of both sides as they are.
    Truncate,
    /// The teacher divided by what it has on K, and without any other class; the student as it is.
    RenormalizeP,
    /// The teacher's τ in equal parts on all other classes; the student as it is.
    UniformTail,
    /// ln p = `floor` on all other classes; the student as it is.
    Floor {
        /// ln p.
        floor: f64,
    },
    /// Classes that were drawn, with weights whose expectation is p.
    Sampled,
}

/// What is known of a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RuleDescription {
    /// Its name.
    pub name: &'static str,
    /// Its parameter, for one that has one.
    pub parameter: Option<Parameter>,
    /// Whether the teacher's probabilities must be those of all classes, and not only in proportion to each other.
    pub needs_normalizer: bool,
    /// Whether it is for classes that were drawn, and only it.
    pub samples: bool,
}

const FLOOR: Parameter = Parameter {
    name: "floor",
    default: Some(-100.0),
    low: -1e30,
    high: 0.0,
    smallest: 0.0,
    domain: "a log-probability from -1e30 to 0",
};

/// One line a rule.
const TABLE: [(Rule, RuleDescription); 7] = [
    (Rule::Renormalize, described("renormalize", false)),
    (Rule::Tail, described("tail", true)),
    (Rule::Truncate, described("truncate", true)),
    (Rule::RenormalizeP, described("renormalize_p", false)),
    (Rule::UniformTail, described("uniform_tail", true)),
    (Rule::Floor { floor: -100.0 }, RuleDescription { parameter: Some(FLOOR), ..described("floor", true) }),
    (Rule::Sampled, RuleDescription { samples: true, ..described("sampled", true) }),
];

const fn described(name: &'static str, needs_normalizer: bool) -> RuleDescription {
    RuleDescription { name, parameter: None, needs_normalizer, samples: false }
}

impl Rule {
    /// What is known of each.
    pub fn descriptions() -> impl Iterator<Item = RuleDescription> {
        TABLE.into_iter().map(|(_, description)| description)
    }

    /// The rule called `name`; `parameter` is ignored by those without one.
    ///
    /// # Errors
    /// [`Error::UnknownName`], [`Error::Parameter`].
    pub fn new(name: &str, parameter: f64) -> Result<Self, Error> {
        let Some((rule, _)) = TABLE.into_iter().find(|(_, description)| description.name == name) else {
            let names: Vec<&str> = Self::descriptions().map(|one| one.name).collect();
            return Err(Error::UnknownName { kind: "rule", name: name.to_owned(), known: names.join(", ") });
        };
        let rule = if let Rule::Floor { .. } = rule { Rule::Floor { floor: parameter } } else { rule };
        rule.check()?;
        Ok(rule)
    }

    /// Refuses a parameter out of its domain.
    pub(crate) fn check(self) -> Result<(), Error> {
        if let Rule::Floor { floor } = self { FLOOR.check(floor) } else { Ok(()) }
    }

    /// What is known of it.
    #[must_use]
    pub fn description(self) -> RuleDescription {
        let same = |rule: &Rule| std::mem::discriminant(rule) == std::mem::discriminant(&self);
        let known = TABLE.into_iter().find(|(rule, _)| same(rule));
        known.map_or(described("", false), |(_, description)| description)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_the_name_it_is_found_by() {
        for (rule, one) in TABLE {
            assert_eq!(rule.description(), one);
            let parameter = one.parameter.and_then(|parameter| parameter.default).unwrap_or(0.0);
            assert_eq!(Rule::new(one.name, parameter).map(|rule| rule.description().name), Ok(one.name));
        }
    }
}
