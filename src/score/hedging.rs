//! Does a dictionary change when it gets room for more?

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::vector::{Directions, dot, mean, square};
use super::{Undefined, Value};

pub const HEDGING: Definition = Definition {
    name: "hedging",
    version: 1,
    meaning: "how far the rows of the next narrower dictionary move into the span of the new rows of this one, beyond chance",
    formula: "max(0, (P - P0) / (1 - P0)); delta_j = row j here - row j there, unit rows, P = mean |delta_j on the span of the n new rows|, P0 = mean |delta_j| G((n+1)/2) G(d/2) / (G(n/2) G((d+1)/2)); of one seed row j starts the same in both",
    source: "after Chanin et al. 2025, Feature hedging, arXiv 2505.11756, with the exact mean in place of random draws",
    needs: &[Need::Dictionary, Need::OtherWidth],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "hedging rate",
    better: Some(Better::Lower),
};

/// Rows whose part outside the span of those before is shorter than this share of the longest add nothing to it.
const CUT_OFF: f64 = 1e-10;

/// [`HEDGING`]: the rate of a narrow dictionary against a wider one grown from it, whose first latents are the same.
///
/// Δ_j is how far unit row j has moved. P = mean norm of Δ_j's projection on the span of the new unit rows, P0 = mean norm of
/// Δ_j times the mean share of a random subspace of as many dimensions, Γ((n+1)/2) Γ(d/2) / (Γ(n/2) Γ((d+1)/2)), 1 for
/// n >= d. Rate = max(0, (P - P0) / (1 - P0)).
///
/// After Chanin et al. 2025, "Feature Hedging", arXiv 2505.11756, with the exact mean in place of random draws.
///
/// # Panics
/// If the widths of rows differ or the second dictionary is not wider.
pub fn hedging(narrow: &Directions, wide: &Directions) -> Value {
    assert!(narrow.d_hidden == wide.d_hidden && narrow.n < wide.n, "a wider dictionary of the same space");
    let (w, n, d) = (narrow.n, wide.n - narrow.n, narrow.d_hidden);
    let span = orthonormal((w..wide.n).map(|k| wide.unit(k)));
    let moved: Vec<Vec<f64>> =
        (0..w).map(|j| wide.unit(j).iter().zip(narrow.unit(j)).map(|(b, a)| b - a).collect()).collect();
    let within = |delta: &Vec<f64>| span.iter().map(|direction| dot(direction, delta).powi(2)).sum::<f64>().sqrt();
    let nothing = Undefined("there are no latents");
    let p = mean(moved.iter().map(within)).ok_or(nothing)?;
    let p0 = mean(moved.iter().map(|delta| square(delta).sqrt())).ok_or(nothing)? * share(n, d);
    if p0 >= 1.0 {
        return Err(Undefined("the dictionaries have nothing to do with each other"));
    }
    Ok(((p - p0) / (1.0 - p0)).max(0.0))
}

/// Mean length of a unit vector's projection on a random subspace of n dimensions in d.
fn share(n: usize, d: usize) -> f64 {
    if n >= d {
        return 1.0;
    }
    let half = |k: usize| libm::lgamma(k as f64 / 2.0);
    libm::exp(half(n + 1) + half(d) - half(n) - half(d + 1))
}

/// An orthonormal basis of the span of some rows: the one furthest from the span so far joins, each taken out of it twice.
fn orthonormal<'a>(rows: impl Iterator<Item = &'a [f64]>) -> Vec<Vec<f64>> {
    let mut left: Vec<Vec<f64>> = rows.map(<[f64]>::to_vec).collect();
    let longest = left.iter().map(|row| square(row).sqrt()).fold(0.0, f64::max);
    let mut basis: Vec<Vec<f64>> = vec![];
    while let Some((place, length)) =
        left.iter().map(|row| square(row).sqrt()).enumerate().max_by(|a, b| a.1.total_cmp(&b.1))
    {
        if length <= CUT_OFF * longest || basis.len() == left.first().map_or(0, Vec::len) {
            break;
        }
        let mut next = left.swap_remove(place);
        // Once more against what rounding left of the others.
        for direction in &basis {
            let along = dot(direction, &next);
            next.iter_mut().zip(direction).for_each(|(next, b)| *next -= along * b);
        }
        let length = square(&next).sqrt();
        next.iter_mut().for_each(|x| *x /= length);
        for row in &mut left {
            let along = dot(&next, row);
            row.iter_mut().zip(&next).for_each(|(x, b)| *x -= along * b);
        }
        basis.push(next);
    }
    basis
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    fn rate(narrow: &[[f64; 3]], wide: &[[f64; 3]]) -> Value {
        hedging(&Directions::new(arr2(narrow).view()), &Directions::new(arr2(wide).view()))
    }

    #[test]
    fn a_dictionary_that_stays_as_it_was_does_not_hedge() {
        assert_eq!(rate(&[[1.0, 0.0, 0.0]], &[[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), Ok(0.0));
    }

    /// From (.8, .6, 0) to (1, 0, 0) when (0, 1, 0) gets its own latent: Δ = (.2, -.6, 0), P = .6, norm √.4; a random direction in
    /// three dimensions has a mean share of 1/2.
    #[test]
    fn what_was_hedged_goes_where_the_new_latent_is() {
        let p0 = 0.4f64.sqrt() / 2.0;
        let found = rate(&[[0.8, 0.6, 0.0]], &[[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]]).unwrap();
        assert!((found - (0.6 - p0) / (1.0 - p0)).abs() < 1e-14, "{found}");
    }

    /// Twice the same new row spans one direction.
    #[test]
    fn dependent_new_rows_span_no_more() {
        let basis = orthonormal([&[0.0, 1.0, 0.0][..], &[0.0, 1.0, 0.0], &[0.0, -0.5, 0.0]].into_iter());
        assert_eq!(basis.len(), 1);
        assert!((share(1, 3) - 0.5).abs() < 1e-14 && share(3, 3) == 1.0 && share(4, 3) == 1.0);
    }
}
