//! Theory as lines that figures may draw, by name.

use super::recovery::{Codes, donoho_tanner};
use super::{boundary, interference, pentagon, uniform};

/// A line in values of a figure's x and y.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What figures call it.
    pub name: &'static str,
    /// In legends.
    pub label: &'static str,
    /// Unconnected pieces, each a row of points.
    pub pieces: Vec<Vec<[f64; 2]>>,
}

/// Names of the curves, in their order.
pub const NAMES: [&str; 12] = [
    "theory_boundary",
    "digon_threshold",
    "dimensions_per_feature",
    "pentagon_loss",
    "digons_loss",
    "donoho_tanner",
    "donoho_tanner_nonnegative",
    "welch_bound_2",
    "welch_bound_5",
    "welch_bound_10",
    "welch_bound_20",
    "least_interference",
];

/// Every curve, computed when first asked for.
///
/// | name | x | y |
/// |---|---|---|
/// | `theory_boundary` | importance r of the extra feature | density p where its phase changes (T1) |
/// | `digon_threshold` | density p | anything: the upright line at 4/7 |
/// | `dimensions_per_feature` | density p | D* of dedicated features and pairs (T3) |
/// | `pentagon_loss`, `digons_loss` | density p | least mean loss of five features in the plane (T5) |
/// | `donoho_tanner`, `donoho_tanner_nonnegative` | δ = d_hidden / n_features | ρ = active features / d_hidden |
/// | `welch_bound_2`, ... | features n | least coherence in 2, 5, 10, 20 dimensions |
/// | `least_interference` | features per dimension n / d | least mean interference, n / d - 1 |
pub fn curves() -> &'static [Curve] {
    static CURVES: std::sync::OnceLock<Vec<Curve>> = std::sync::OnceLock::new();
    CURVES.get_or_init(|| {
        let log = |low: f64, high: f64, count: usize| geometric(low, high, count);
        let single = |name, label, points| Curve { name, label, pieces: vec![points] };
        let over = |xs: Vec<f64>, f: &dyn Fn(f64) -> f64| -> Vec<[f64; 2]> { xs.iter().map(|&x| [x, f(x)]).collect() };
        let (deltas, p) = (linear(0.005, 1.0, 200), log(1e-3, 0.5, 60));
        let triple = uniform::DIGON_THRESHOLD;
        let welch = |name, label, d: usize| {
            let points = (d..=2000).step_by(1 + d / 20).map(|n| [n as f64, interference::welch_bound(n, d)]);
            single(name, label, points.collect())
        };
        vec![
            Curve {
                name: "theory_boundary",
                label: "closed form",
                pieces: vec![over(log(1e-2, 1e2, 201), &boundary), vec![[1.0, triple], [1.0, 10.0]]],
            },
            single("digon_threshold", "p = 4/7", vec![[triple, 1e-6], [triple, 1e6]]),
            Curve {
                name: "dimensions_per_feature",
                label: "closed form",
                pieces: vec![vec![[1e-6, 0.5], [triple, 0.5]], vec![[triple, 1.0], [1.0, 1.0]]],
            },
            single("pentagon_loss", "pentagon", over(p.clone(), &|p| pentagon::regular(p).0)),
            single("digons_loss", "two digons", over(p, &pentagon::regular_digons)),
            single("donoho_tanner", "Donoho-Tanner", over(deltas.clone(), &|d| donoho_tanner(d, Codes::Signed))),
            single(
                "donoho_tanner_nonnegative",
                "Donoho-Tanner, non-negative",
                over(deltas, &|d| donoho_tanner(d, Codes::NonNegative)),
            ),
            welch("welch_bound_2", "Welch bound, 2 dimensions", 2),
            welch("welch_bound_5", "Welch bound, 5 dimensions", 5),
            welch("welch_bound_10", "Welch bound, 10 dimensions", 10),
            welch("welch_bound_20", "Welch bound, 20 dimensions", 20),
            single("least_interference", "tight frame", over(log(1.0, 100.0, 200), &|ratio| ratio - 1.0)),
        ]
    })
}

/// `count` values from `low` to `high`, evenly spaced.
fn linear(low: f64, high: f64, count: usize) -> Vec<f64> {
    (0..count).map(|i| low + (high - low) * i as f64 / (count - 1) as f64).collect()
}

/// `count` values from `low` to `high`, each the same multiple of the one before.
fn geometric(low: f64, high: f64, count: usize) -> Vec<f64> {
    linear(libm::log10(low), libm::log10(high), count).into_iter().map(|e| libm::pow(10.0, e)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_have_names_of_their_own_and_finite_points() {
        let all = curves();
        assert!(all.iter().map(|curve| curve.name).eq(NAMES));
        for (k, curve) in all.iter().enumerate() {
            assert!(all[..k].iter().all(|other| other.name != curve.name), "{} twice", curve.name);
            assert!(curve.pieces.iter().all(|piece| piece.len() >= 2), "{}", curve.name);
            assert!(curve.pieces.iter().flatten().flatten().all(|value| value.is_finite()), "{}", curve.name);
        }
    }

    #[test]
    fn pentagon_and_digons_cross_once_where_the_table_says() {
        let of = |name: &str| &curves().iter().find(|c| c.name == name).expect("a curve").pieces[0];
        let gaps: Vec<[f64; 2]> =
            of("pentagon_loss").iter().zip(of("digons_loss")).map(|(a, b)| [a[0], a[1] - b[1]]).collect();
        let changes: Vec<f64> = gaps.windows(2).filter(|w| w[0][1] < 0.0 && w[1][1] >= 0.0).map(|w| w[1][0]).collect();
        assert!(changes.len() == 1 && (0.2..0.25).contains(&changes[0]), "{changes:?}");
    }
}
