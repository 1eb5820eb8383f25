//! The divergences: one trait, one table, one file each, and the vocabularies they are written in: [`Pair`],
//! [`DisjointPair`] and [`Probabilities`].
//!
//! To add one: a file with a type that implements [`Divergence`], and a line in the table below.

mod adaptive_kl;
mod alpha_divergence;
mod chi_squared;
mod description;
mod disjoint_pair;
mod forms;
mod jeffreys;
mod jensen_shannon;
mod kl;
mod lk_hybrid;
mod neg_log_acceptance;
mod pair;
mod powers;
mod probabilities;
mod renyi;
mod skew_kl;
mod squared_hellinger;
mod statistic;
#[cfg(test)]
mod tests;
mod total_variation;

pub use description::{Description, Parameter, Properties};
pub(crate) use disjoint_pair::DisjointPair;
pub(crate) use forms::{Class, Disjoint, DisjointFacts, DisjointView, Divergence, Infinite, OfProbabilities, Outer};
pub(crate) use jensen_shannon::JensenShannon;
pub(crate) use neg_log_acceptance::NegLogAcceptance;
pub(crate) use pair::Pair;
pub(crate) use probabilities::Probabilities;
pub(crate) use statistic::Statistic;
pub(crate) use total_variation::TotalVariation;

use crate::error::Error;
use std::f64::consts::LN_2;

/// Something to be done with a divergence of whatever type.
pub(crate) trait Visitor {
    /// What it gives back.
    type Output;
    /// What is done.
    fn visit<D: Divergence>(self, divergence: D) -> Self::Output;
}

/// `table! { Kl => "kl", kl::Kl, Properties { … }; JensenShannon(beta: Parameter { … }) => "jensen_shannon", …; }`
/// expands to `pub enum Kind { Kl, JensenShannon { beta: f64 } }`, to the constants with what is known of each, to
/// `Kind::new(name, parameter)`, and to `Kind::visit`, which makes the type of the right-hand side from the parameter and
/// hands it to the visitor.
macro_rules! table {
    ($(
        $(#[$doc:meta])*
        $variant:ident $(($field:ident: $parameter:expr))? => $name:literal, $make:expr, $properties:expr;
    )*) => {
        /// Which divergence, with its parameter.
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Kind {
            $($(#[$doc])* $variant $({
                /// Its parameter.
                $field: f64
            })?,)*
        }

        impl Kind {
            /// The names of all divergences.
            pub const NAMES: &[&str] = &[$($name),*];

            /// What is known of each.
            pub const DESCRIPTIONS: &[Description] = &[$(Description {
                name: $name,
                parameter: table!(@optional $($parameter)?),
                properties: $properties,
            }),*];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Kind::$variant { .. } => $name,)*
                }
            }

            /// Its parameter, if it has one.
            fn parameter(self) -> Option<f64> {
                match self {
                    $(Kind::$variant $({ $field })? => table!(@optional $($field)?),)*
                }
            }

            fn properties(self) -> Properties {
                match self {
                    $(Kind::$variant { .. } => $properties,)*
                }
            }

            fn named(name: &str, parameter: f64) -> Option<Self> {
                let _ = parameter;
                match name {
                    $($name => Some(Kind::$variant $({ $field: parameter })?),)*
                    _ => None,
                }
            }

            /// Hands the divergence to `visitor` as its own type.
            pub(crate) fn visit<T: Visitor>(self, visitor: T) -> Result<T::Output, Error> {
                match self {
                    $(Kind::$variant $({ $field })? => {
                        $(
                            $parameter.check($field)?;
                            $properties.check(stringify!($field), $field)?;
                        )?
                        Ok(visitor.visit($make $(($field))?))
                    })*
                }
            }
        }
    };
    (@optional) => { None };
    (@optional $value:expr) => { Some($value) };
}

table! {
    /// Σ p (ln p − ln q).
    Kl => "kl", kl::Kl,
        Properties { exchanged: Some("reverse_kl"), f_divergence: true, ..Properties::NONE };
    /// Σ q (ln q − ln p): [`Kind::Kl`] with the rows exchanged.
    ReverseKl => "reverse_kl", kl::Kl,
        Properties { exchanged: Some("kl"), exchanges_rows: true, f_divergence: true, ..Properties::NONE };
    /// Σ (p − q)(ln p − ln q) = KL(p‖q) + KL(q‖p).
    Jeffreys => "jeffreys", jeffreys::Jeffreys,
        Properties { symmetric: true, f_divergence: true, ..Properties::NONE };
    /// β KL(p‖m) + (1−β) KL(q‖m) with m = βp + (1−β)q.
    JensenShannon(beta: Parameter {
        name: "beta",
        default: Some(0.5),
        low: 0.0,
        high: 1.0,
        smallest: 0.0,
        domain: "from 0 to 1",
    }) => "jensen_shannon", jensen_shannon::JensenShannon::new,
        Properties { symmetric_at: Some(0.5), f_divergence: true, bound: Some(LN_2), ..Properties::NONE };
    /// KL(p‖αp + (1−α)q); α = 0 is refused, use [`Kind::Kl`].
    SkewKl(alpha: Parameter {
        name: "alpha",
        default: Some(0.1),
        low: 0.0,
        high: 1.0,
        smallest: 0.0,
        domain: "from 0 to 1",
    }) => "skew_kl", skew_kl::SkewKl::new,
        Properties {
            exchanged: Some("skew_reverse_kl"),
            special: &[(0.0, "kl")],
            f_divergence: true,
            ..Properties::NONE
        };
    /// KL(q‖(1−α)p + αq): [`Kind::SkewKl`] with the rows exchanged; α = 0 is refused, use [`Kind::ReverseKl`].
    SkewReverseKl(alpha: Parameter {
        name: "alpha",
        default: Some(0.1),
        low: 0.0,
        high: 1.0,
        smallest: 0.0,
        domain: "from 0 to 1",
    }) => "skew_reverse_kl", skew_kl::SkewKl::new,
        Properties {
            exchanged: Some("skew_kl"),
            exchanges_rows: true,
            special: &[(0.0, "reverse_kl")],
            f_divergence: true,
            ..Properties::NONE
        };
    /// ½ Σ |p − q|.
    TotalVariation => "total_variation", total_variation::TotalVariation,
        Properties { symmetric: true, f_divergence: true, bound: Some(1.0), kinked: true, ..Properties::NONE };
    /// −ln Σ min(p, q).
    NegLogAcceptance => "neg_log_acceptance", neg_log_acceptance::NegLogAcceptance::NEW,
        Properties { symmetric: true, kinked: true, ..Properties::NONE };
    /// 1 − Σ √(pq).
    SquaredHellinger => "squared_hellinger", squared_hellinger::SquaredHellinger,
        Properties { symmetric: true, f_divergence: true, bound: Some(1.0), ..Properties::NONE };
    /// ln(Σ p^α q^(1−α)) / (α − 1); α = 1 is refused, use [`Kind::Kl`].
    ///
    /// Inverses of the smallest and of the largest order, and products with probabilities, stay in the range of f64.
    Renyi(alpha: Parameter {
        name: "alpha",
        default: None,
        low: 1e-300,
        high: 1e300,
        smallest: 1e-300,
        domain: "from 1e-300 to 1e300",
    }) => "renyi", renyi::Renyi::new,
        Properties { symmetric_at: Some(0.5), special: &[(1.0, "kl")], ..Properties::NONE };
    /// λ·[`Kind::Kl`] + (1−λ)·[`Kind::TotalVariation`] with λ = e^(−η·Σ min(p, q)); η = 0 is refused, use [`Kind::Kl`].
    ///
    /// Gradients are those for a λ that stays as it is.
    LkHybrid(eta: Parameter {
        name: "eta",
        default: Some(3.0),
        low: 0.0,
        high: 1e300,
        smallest: 0.0,
        domain: "from 0 to 1e300",
    }) => "lk_hybrid", lk_hybrid::LkHybrid::new,
        Properties { special: &[(0.0, "kl")], kinked: true, detached: true, ..Properties::NONE };
    /// g·[`Kind::Kl`] + (1−g)·[`Kind::ReverseKl`], with g the share of the head of p in Σ |p − q|: of its most probable classes,
    /// as few as hold μ of it; μ = 0 is refused, use [`Kind::ReverseKl`].
    ///
    /// Gradients are those for a g that stays as it is.
    AdaptiveKl(mu: Parameter {
        name: "mu",
        default: Some(0.5),
        low: 0.0,
        high: 1.0,
        smallest: 0.0,
        domain: "from 0 to 1",
    }) => "adaptive_kl", adaptive_kl::AdaptiveKl::new,
        Properties { special: &[(0.0, "reverse_kl")], detached: true, ..Properties::NONE };
    /// (Σ p^α q^(1−α) − 1) / (α(α − 1)); α = 1 and α = 0 are refused, use [`Kind::Kl`] and [`Kind::ReverseKl`].
    AlphaDivergence(alpha: Parameter {
        name: "alpha",
        default: None,
        low: -1e300,
        high: 1e300,
        smallest: 1e-300,
        domain: "0, or of a magnitude from 1e-300 to 1e300",
    }) => "alpha_divergence", alpha_divergence::AlphaDivergence::new,
        Properties {
            symmetric_at: Some(0.5),
            special: &[(1.0, "kl"), (0.0, "reverse_kl")],
            f_divergence: true,
            ..Properties::NONE
        };
    /// Σ (p − q)²/q.
    ChiSquared => "chi_squared", chi_squared::ChiSquared,
        Properties { f_divergence: true, ..Properties::NONE };
}

impl Kind {
    /// The divergence called `name`; `parameter` is ignored by those without one. Where it makes the divergence another
    /// one, as the order 1 makes Rényi's that of Kullback and Leibler, it is that.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn new(name: &str, parameter: f64) -> Result<Self, Error> {
        let described = Self::DESCRIPTIONS.iter().find(|one| one.name == name);
        described.and_then(|one| Self::named(one.name_at(parameter), parameter)).ok_or_else(|| Error::UnknownName {
            kind: "divergence",
            name: name.to_owned(),
            known: Self::NAMES.join(", "),
        })
    }

    /// Whether a class with p > 0 = q, and one with q > 0 = p, makes the value infinite.
    ///
    /// # Errors
    /// [`Error::Parameter`].
    pub fn infinite_where(self) -> Result<(bool, bool), Error> {
        let Infinite { q_zero, p_zero } = self.visit(InfiniteWhere)?;
        Ok(if self.exchanges_rows() { (p_zero, q_zero) } else { (q_zero, p_zero) })
    }

    /// Whether p and q can be exchanged.
    pub(crate) fn is_symmetric(self) -> bool {
        let properties = self.properties();
        properties.symmetric || (properties.symmetric_at.is_some() && properties.symmetric_at == self.parameter())
    }

    /// Whether the divergence of its type is that of q and p, not of p and q.
    pub(crate) fn exchanges_rows(self) -> bool {
        self.properties().exchanges_rows
    }
}

/// x·ln, of which 0·ln 0 is 0.
#[cfg(test)]
fn times(x: f64, ln: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x * ln }
}

struct InfiniteWhere;

impl Visitor for InfiniteWhere {
    type Output = Infinite;

    fn visit<D: Divergence>(self, divergence: D) -> Infinite {
        divergence.infinite_where()
    }
}
