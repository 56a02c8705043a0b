//! The two numbers on which the recovery of sparse codes depends, and the theory of where it ends.

use super::definition::{Definition, Kind, Need, Shape};
use super::{NO_SAMPLES, Undefined, Value};
use crate::toy::theory::recovery::{Codes, donoho_tanner as rho};

const UNIVERSALITY: &str =
    "Donoho & Tanner 2009, Observed universality of phase transitions in high-dimensional geometry";

pub const UNDERSAMPLING: Definition = Definition {
    name: "undersampling",
    version: 1,
    meaning: "dimensions per feature of the world",
    formula: "delta = d_hidden / n_features",
    source: UNIVERSALITY,
    needs: &[Need::Truth],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "undersampling \u{3b4} = d/n",
    better: None,
};

pub const ACTIVE_PER_DIMENSION: Definition = Definition {
    name: "active_per_dimension",
    version: 1,
    meaning: "mean number of firing features over the dimensions they share",
    formula: "rho = true_l0 / d_hidden, here with x != 0",
    source: UNIVERSALITY,
    needs: &[Need::Truth, Need::Features],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "active features per dimension \u{3c1} = k/d",
    better: None,
};

pub const DONOHO_TANNER: Definition = Definition {
    name: "donoho_tanner_limit",
    version: 1,
    meaning: "active features per dimension up to which the least L1 norm recovers codes from random directions, for large n",
    formula: "rho*(delta) of the weak phase transition, non-negative codes where the world has no negative magnitudes",
    source: "Donoho, Maleki & Montanari 2009, Message-passing algorithms for compressed sensing, equation 5",
    needs: &[Need::Truth, Need::World],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "Donoho-Tanner limit \u{3c1}*",
    better: None,
};

/// [`UNDERSAMPLING`].
pub fn undersampling(n_features: usize, d_hidden: usize) -> Value {
    if n_features == 0 { Err(Undefined("there are no features")) } else { Ok(d_hidden as f64 / n_features as f64) }
}

/// [`ACTIVE_PER_DIMENSION`] of samples with `active` entries that are not zero in all.
pub fn active_per_dimension(active: usize, samples: usize, d_hidden: usize) -> Value {
    if samples == 0 || d_hidden == 0 {
        return Err(NO_SAMPLES);
    }
    // One division of whole numbers: equal ratios are equal bits, so that figures find them in one row.
    Ok(active as f64 / (samples * d_hidden) as f64)
}

/// [`DONOHO_TANNER`]; null above one dimension per feature, where every code can be found.
pub fn donoho_tanner(n_features: usize, d_hidden: usize, signed: bool) -> Value {
    match undersampling(n_features, d_hidden)? {
        delta if delta > 0.0 && delta <= 1.0 => Ok(rho(delta, if signed { Codes::Signed } else { Codes::NonNegative })),
        _ => Err(Undefined("there are more dimensions than features")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_what_they_say_and_equal_ones_are_equal_bits() {
        assert_eq!(undersampling(200, 50), Ok(0.25));
        assert!(undersampling(0, 3).is_err());
        assert_eq!(active_per_dimension(60 * 3, 60, 30), active_per_dimension(40 * 7, 40, 70));
        assert!(active_per_dimension(0, 0, 5).is_err());
    }

    #[test]
    fn the_limit_depends_on_the_sign_of_codes() {
        assert!((donoho_tanner(100, 50, true).unwrap() - 0.386).abs() < 1e-3);
        assert!((donoho_tanner(100, 50, false).unwrap() - 0.558).abs() < 1e-3);
        assert!(donoho_tanner(50, 51, false).is_err());
    }
}
