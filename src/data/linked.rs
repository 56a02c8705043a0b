//! Worlds whose features depend on each other through a [`Correlation`] or a [`Hierarchy`], laid out for drawing by the
//! [data law](super::law).

use super::correlation::Correlation;
use super::hierarchy::Family;
use super::normal;
use super::world::{Magnitude, World};
use crate::backend::simd::Lanes;

/// A correlation as g = F eps + sqrt(D) eta in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Copula {
    /// Columns of F; 0 for independent features.
    pub rank: usize,
    /// F, `[n_features, rank]`; rows of norm at most 1.
    pub factor: Vec<f64>,
    /// sqrt(D), `[n_features]`: 0 throughout for a full matrix.
    pub own: Vec<f64>,
}

impl Copula {
    /// Of a world of `n_features`; none: independent.
    ///
    /// A full matrix is factorised by Cholesky's method with pivots, the largest remaining variance first (the lowest index of
    /// equal ones): in f64, in one fixed order of operations. It ends where no variance above 1e-9 remains, so that singular
    /// matrices have fewer columns than rows; rows are then made unit, so that no probability moves.
    ///
    /// # Panics
    /// If a matrix has not the world's size.
    pub fn of(correlation: Option<&Correlation>, n_features: usize) -> Copula {
        match correlation {
            None => Copula { rank: 0, factor: vec![], own: vec![1.0; n_features] },
            Some(Correlation::LowRank { rank, factor, diagonal }) => {
                assert_eq!((factor.len(), diagonal.len()), (n_features * rank, n_features), "a row for each feature");
                Copula {
                    rank: *rank,
                    factor: factor.iter().map(|f| *f as f64).collect(),
                    own: diagonal.iter().map(|d| (*d as f64).sqrt()).collect(),
                }
            }
            Some(Correlation::Full { matrix }) => {
                assert_eq!(matrix.len(), n_features * n_features, "an entry for each pair of features");
                let (rank, factor) = pivoted_cholesky(n_features, matrix);
                Copula { rank, factor, own: vec![0.0; n_features] }
            }
        }
    }

    /// F_i.
    pub fn row(&self, feature: usize) -> &[f64] {
        &self.factor[feature * self.rank..][..self.rank]
    }

    /// Whether eps decides all.
    pub fn is_sure(&self) -> bool {
        self.rank > 0 && self.own.iter().all(|own| *own == 0.0)
    }
}

/// Variance that is taken for rounding.
const NO_VARIANCE: f64 = 1e-9;

/// Rank r and L, `[n, r]`, unit rows, with L Lᵀ the matrix.
fn pivoted_cholesky(n: usize, matrix: &[f64]) -> (usize, Vec<f64>) {
    let mut left: Vec<f64> = (0..n).map(|i| matrix[i * n + i]).collect();
    let mut columns: Vec<Vec<f64>> = vec![];
    while columns.len() < n {
        let pivot = (1..n).fold(0, |best, i| if left[i] > left[best] { i } else { best });
        if left[pivot] <= NO_VARIANCE {
            break;
        }
        let root = left[pivot].sqrt();
        let mut column: Vec<f64> = (0..n).map(|i| matrix[i * n + pivot]).collect();
        for earlier in &columns {
            let at = earlier[pivot];
            column.iter_mut().zip(earlier).for_each(|(c, e)| *c -= e * at);
        }
        for (i, c) in column.iter_mut().enumerate() {
            // What is used up stays used up: its rest is rounding.
            *c = if left[i] <= NO_VARIANCE { 0.0 } else { *c / root };
            left[i] -= *c * *c;
        }
        left[pivot] = 0.0;
        columns.push(column);
    }
    let rank = columns.len();
    let mut rows = vec![0.0; n * rank];
    for i in 0..n {
        let norm = columns.iter().map(|c| c[i] * c[i]).sum::<f64>().sqrt();
        for (k, column) in columns.iter().enumerate() {
            rows[i * rank + k] = column[i] / norm;
        }
    }
    (rank, rows)
}

/// A [`Family`] in the tables of [`Linked`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyPlan {
    /// Its first member among [`Linked::members`].
    pub first: u32,
    /// How many.
    pub len: u32,
    /// At most one stays on.
    pub exclusive: bool,
    /// Values are multiplied by the parent's over its mean.
    pub scale: bool,
}

/// A linked world laid out for drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct Linked {
    /// Columns of F.
    pub rank: usize,
    /// z > 0 decides: eps is all there is.
    pub sure: bool,
    /// F' = F / sqrt(D) (F itself where `sure`), `[n_features, stride]`, zeros past `rank`.
    pub factor: Vec<Lanes>,
    /// Vectors of a row of `factor`.
    pub stride: usize,
    /// t' = t / sqrt(D), `[n_features]` and ∞ up to whole blocks.
    pub threshold: Vec<f32>,
    /// Blocks of sixteen neighbouring features of which some have no parent, ascending.
    pub blocks: Vec<Block>,
    /// `[blocks, rank]`: F' of those sixteen, column by column.
    pub panels: Vec<Lanes>,
    /// Families below feature i are `families[starts[i] .. starts[i + 1]]`.
    pub starts: Vec<u32>,
    /// Families by parent.
    pub families: Vec<FamilyPlan>,
    /// Their members.
    pub members: Vec<u32>,
    /// First member of each exclusive family without a parent.
    pub top: Vec<u32>,
    /// `[n_features]`: of those families' members which family it is, and which of its members; [`u32::MAX`] for all others.
    /// Empty where there are none.
    pub top_place: Vec<(u32, u32)>,
    /// Mean magnitude of each feature, as scaled children divide by it; `[n_features]`.
    pub mean: Vec<f32>,
}

/// Sixteen neighbouring features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of the block: features 16 `index` .. 16 `index` + 16.
    pub index: u32,
    /// Bit l is set where feature 16 `index` + l has no parent and may fire.
    pub free: u16,
}

impl Linked {
    /// The plan of a world; none where features fire independently or in groups.
    ///
    /// # Panics
    /// If the world has groups beside a correlation or a hierarchy, or a hierarchy and magnitudes below 0: a checked experiment
    /// has none of these.
    pub fn of(world: &World) -> Option<Linked> {
        if !world.is_linked() {
            return None;
        }
        assert!(world.groups.is_empty(), "features are linked by groups, or by a correlation and a hierarchy");
        assert!(world.hierarchy.is_none() || !world.is_signed(), "a parent is on where its value is above 0");
        let n = world.n_features;
        let copula = Copula::of(world.correlation.as_ref(), n);
        let (rank, sure, stride) = (copula.rank, copula.is_sure(), copula.rank.div_ceil(16));
        let scale = |i: usize| if sure { 1.0 } else { 1.0 / copula.own[i] };
        let mut factor = vec![Lanes::default(); n * stride];
        for i in 0..n {
            for (k, f) in copula.row(i).iter().enumerate() {
                factor[i * stride + k / 16].0[k % 16] = (f * scale(i)) as f32;
            }
        }
        let threshold = |i: usize| (normal::threshold(world.firing_probability[i]) * scale(i)) as f32;
        let families = world.hierarchy.as_ref().map_or(vec![], |h| h.families());
        let parents = world.parents();
        let mut blocks: Vec<Block> = vec![];
        for i in (0..n).filter(|i| !parents.contains_key(i) && world.firing_probability[*i] > 0.0) {
            let index = i as u32 / 16;
            if blocks.last().is_none_or(|block| block.index != index) {
                blocks.push(Block { index, free: 0 });
            }
            // The block was pushed a line before, if it was not there.
            blocks.last_mut().expect("a block").free |= 1 << (i % 16);
        }
        let mut panels = vec![Lanes::default(); blocks.len() * rank];
        for (block, panel) in blocks.iter().zip(panels.chunks_exact_mut(rank.max(1))) {
            for l in (0..16).filter(|l| 16 * block.index as usize + l < n) {
                let row = &factor[(16 * block.index as usize + l) * stride..];
                (0..rank).for_each(|k| panel[k].0[l] = row[k / 16].0[k % 16]);
            }
        }
        let (starts, plans, members) = by_parent(n, &families);
        let top: Vec<&Family> = families.iter().filter(|f| f.parent.is_none() && f.exclusive).collect();
        let mut top_place = vec![(u32::MAX, 0); if top.is_empty() { 0 } else { n }];
        for (index, family) in top.iter().enumerate() {
            family.members.iter().enumerate().for_each(|(k, &i)| top_place[i] = (index as u32, k as u32));
        }
        Some(Linked {
            rank,
            sure,
            factor,
            stride,
            threshold: (0..n)
                .map(threshold)
                .chain(std::iter::repeat_n(f32::INFINITY, n.next_multiple_of(16) - n))
                .collect(),
            blocks,
            panels,
            starts,
            families: plans,
            members,
            top: top.iter().map(|f| f.members[0] as u32).collect(),
            top_place,
            mean: world.configured_means().into_iter().map(|mean| mean as f32).collect(),
        })
    }
}

/// Families in the order of their parents, their starts and members.
fn by_parent(n: usize, families: &[Family]) -> (Vec<u32>, Vec<FamilyPlan>, Vec<u32>) {
    let mut order: Vec<(usize, &Family)> = families.iter().filter_map(|f| Some((f.parent?, f))).collect();
    order.sort_by_key(|(parent, _)| *parent);
    let (mut starts, mut plans, mut members) = (vec![0; n + 1], vec![], vec![]);
    for (parent, family) in order {
        let first = members.len() as u32;
        members.extend(family.members.iter().map(|&i| i as u32));
        let len = family.members.len() as u32;
        plans.push(FamilyPlan { first, len, exclusive: family.exclusive, scale: family.scale });
        starts[parent + 1] += 1;
    }
    (0..n).for_each(|i| starts[i + 1] += starts[i]);
    (starts, plans, members)
}

impl World {
    /// Whether features depend on each other through a correlation or a hierarchy.
    pub fn is_linked(&self) -> bool {
        self.correlation.is_some() || self.hierarchy.is_some()
    }

    /// What a parent's value is divided by where it scales its children, `[n_features]`: the mean of a normal before it is
    /// clipped, as SAELens has it; of the other laws the mean.
    pub fn configured_means(&self) -> Vec<f64> {
        match &self.magnitude {
            Magnitude::Normal { mean, .. } => mean.clone(),
            _ => self.magnitude_moments().into_iter().map(|moments| moments.mean).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rebuilt(copula: &Copula, n: usize) -> Vec<f64> {
        let dot = |i: usize, j: usize| copula.row(i).iter().zip(copula.row(j)).map(|(a, b)| a * b).sum();
        (0..n * n).map(|at| dot(at / n, at % n)).collect()
    }

    #[test]
    fn a_factor_gives_its_matrix_back_regular_or_singular() {
        let star = |n: usize, rho: f64| -> Vec<f64> {
            let entry = |(i, j): (usize, usize)| match (i, j) {
                (i, j) if i == j => 1.0,
                (0, _) | (_, 0) => rho,
                _ => 0.0,
            };
            (0..n * n).map(|at| entry((at / n, at % n))).collect()
        };
        // rho = .5 to four others: singular, as 4 rho² = 1.
        for (n, rho, rank) in [(5, 0.5, 4), (5, -0.5, 4), (5, 0.3, 5), (3, 0.0, 3), (1, 0.0, 1)] {
            let matrix = star(n, rho);
            let copula = Copula::of(Some(&Correlation::Full { matrix: matrix.clone() }), n);
            assert_eq!(copula.rank, rank, "{n} {rho}");
            assert!(copula.is_sure());
            for (got, expected) in rebuilt(&copula, n).iter().zip(&matrix) {
                // The variance that is left out is at most 1e-9, and moves an entry by its root at most.
                assert!((got - expected).abs() < 4e-5, "{n} {rho}: {got} {expected}");
            }
        }
        let all_one = Copula::of(Some(&Correlation::Full { matrix: vec![1.0; 16] }), 4);
        assert_eq!((all_one.rank, &all_one.factor[..]), (1, &[1.0; 4][..]));
    }
}
