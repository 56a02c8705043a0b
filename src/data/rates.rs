//! How often features of a hierarchy fire, and which probabilities of their own make them fire as often as asked.
//!
//! A feature's *own* probability is that of its own coin; its *rate* is P(x_i > 0), after parents and siblings have had their say. Given
//! the factor eps of the copula all coins are independent, so with A_q(eps) the probability that parent q is on,
//!
//! ```text
//! P_i(eps) = Phi((F_i·eps - t_i) / sqrt(D_i)) · P(value of i > 0)
//! A_i(eps) = A_q(eps) · P_i(eps) · E[1 / (1 + passing siblings)]      the last factor where siblings exclude each other
//! rate_i   = E over eps of A_i(eps)
//! ```
//!
//! Without a correlation nothing depends on eps and this is exact. With one the mean is taken over a fixed sample of eps: for each tree
//! eps is drawn given that its root fires (a correction of an unconditional draw, Matheron's rule, with evenly spread quantiles for the
//! root's g and every draw used with both signs), so that the rarity of the root costs no accuracy. The samples come from the seed 0 of their
//! own stream, and sums have one order: a world's numbers are the same everywhere.

use rayon::prelude::*;

use super::hierarchy::{Family, Hierarchy};
use super::linked::Copula;
use super::normal;
use super::world::{Magnitude, World};
use crate::random::{Draws, Stream};

/// How the firing probabilities of features in trees are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rates {
    /// As the features' own: children fire less often than they say (SAELens without compensation).
    AsGiven,
    /// SAELens's compensation: p_i / p_parent, times 1 + (Σ p of siblings) / p_parent among exclusive siblings, at most 1. Rates
    /// come near what was asked on the first levels only.
    FirstOrder,
    /// As rates: each feature's own probability is solved for.
    Exact,
    /// As P(x_i > 0 | parent on); as rates for features without a parent.
    Conditional,
}

/// Numbers of one factor sample times features of a tree, at most this many products.
const WORK: usize = 1 << 26;

/// Most samples of eps.
const MOST_SAMPLES: usize = 1 << 16;

/// Fewest samples of eps.
const FEWEST_SAMPLES: usize = 1 << 10;

/// Relative error at which rates of siblings count as solved.
const SOLVED: f64 = 1e-12;

impl World {
    /// This world with its firing probabilities read as `rates` says: they become the features' own, and what was asked is kept
    /// in the [`Hierarchy`]. A rate that cannot be (a child more frequent than its parent) ends at the most that can.
    ///
    /// # Panics
    /// If the world has no hierarchy.
    #[must_use]
    pub fn with_rates(mut self, rates: Rates) -> World {
        let hierarchy = self.hierarchy.as_mut().expect("rates are those of a hierarchy");
        let asked = self.firing_probability.clone();
        hierarchy.asked = Some(asked.clone());
        let families = hierarchy.families();
        self.firing_probability = match rates {
            Rates::AsGiven => asked,
            Rates::FirstOrder => first_order(&families, &asked),
            Rates::Exact => self.solve(&families, |i, _| asked[i]),
            Rates::Conditional => self.solve(&families, |i, parent| asked[i] * parent),
        };
        self
    }

    /// P(x_i > 0) in a world with a hierarchy, `[n_features]`: see the [module](self).
    pub(super) fn hierarchy_rates(&self, hierarchy: &Hierarchy) -> Vec<f64> {
        let setting = Setting::of(self);
        let mut rates: Vec<f64> = self.firing_probability.iter().zip(&setting.value).map(|(p, a)| p * a).collect();
        for (i, _, rate) in each_tree(&setting, &hierarchy.families(), &self.firing_probability, None) {
            rates[i] = rate;
        }
        rates
    }

    /// Own probabilities for which the rate of feature i below a parent of rate r is `target(i, r)`.
    fn solve(&self, families: &[Family], target: impl Fn(usize, f64) -> f64 + Sync) -> Vec<f64> {
        let setting = Setting::of(self);
        let root = |i: usize| match setting.value[i] {
            0.0 => 0.0,
            value => (target(i, 1.0) / value).min(1.0),
        };
        let mut own: Vec<f64> = (0..self.n_features).map(root).collect();
        for (i, solved, _) in each_tree(&setting, families, &own.clone(), Some(&target)) {
            own[i] = solved;
        }
        own
    }
}

/// SAELens's `compute_probability_correction_factors`, applied.
fn first_order(families: &[Family], base: &[f64]) -> Vec<f64> {
    let mut own = base.to_vec();
    for family in families {
        let above = family.parent.map_or(1.0, |parent| base[parent]);
        if above <= 0.0 {
            continue;
        }
        let total: f64 = family.members.iter().map(|&i| base[i]).sum();
        for &i in &family.members {
            let siblings = if family.exclusive { (total - base[i]).max(0.0) / above } else { 0.0 };
            own[i] = (base[i] * (1.0 / above * (1.0 + siblings))).min(1.0);
        }
    }
    own
}

/// What stands at the top of a tree, and its families, parents first.
struct Branch<'a> {
    /// None for a node without feature.
    root: Option<usize>,
    families: Vec<&'a Family>,
}

/// What a feature's rate should be, of its index and its parent's rate.
type Target<'a> = &'a (dyn Fn(usize, f64) -> f64 + Sync);

/// Feature, own probability and rate of all features of trees, tree by tree; with a target own probabilities are solved for.
/// Trees go to whichever thread is free: none needs another.
fn each_tree(
    setting: &Setting,
    families: &[Family],
    own: &[f64],
    target: Option<Target<'_>>,
) -> Vec<(usize, f64, f64)> {
    let trees = branches(families, own.len());
    let found: Vec<Vec<(usize, f64, f64)>> =
        trees.into_par_iter().map(|branch| Tree::new(setting, branch, own).rates(target)).collect();
    found.concat()
}

/// The trees of families, in the order of their first family.
fn branches(families: &[Family], n_features: usize) -> Vec<Branch<'_>> {
    let mut tree_of: Vec<Option<usize>> = vec![None; n_features];
    let mut trees: Vec<Branch<'_>> = vec![];
    for family in families {
        let known = family.parent.and_then(|parent| tree_of[parent]);
        let tree = known.unwrap_or_else(|| {
            trees.push(Branch { root: family.parent, families: vec![] });
            trees.len() - 1
        });
        trees[tree].families.push(family);
        family.parent.iter().chain(&family.members).for_each(|&i| tree_of[i] = Some(tree));
    }
    trees
}

/// What the rates of a world are computed from.
struct Setting {
    copula: Copula,
    /// P(value > 0) where the feature fires.
    value: Vec<f64>,
    n_samples: usize,
}

impl Setting {
    fn of(world: &World) -> Setting {
        let copula = Copula::of(world.correlation.as_ref(), world.n_features);
        let n_samples = match copula.rank {
            0 => 1,
            rank => (WORK / (world.n_features * (rank + 8))).clamp(FEWEST_SAMPLES, MOST_SAMPLES) / 2 * 2,
        };
        let positive = |(mean, std): (&f64, &f64)| match *std {
            0.0 => (*mean > 0.0) as u8 as f64,
            std => normal::cdf(mean / std),
        };
        let value = match &world.magnitude {
            Magnitude::Normal { mean, std } => mean.iter().zip(std).map(positive).collect(),
            Magnitude::Constant(values) => values.iter().map(|v| (*v > 0.0) as u8 as f64).collect(),
            Magnitude::Exponential { mean } => mean.iter().map(|m| (*m > 0.0) as u8 as f64).collect(),
            _ => vec![1.0; world.n_features],
        };
        Setting { copula, value, n_samples }
    }
}

/// One tree, and the samples of eps on which it is looked at.
struct Tree<'a> {
    setting: &'a Setting,
    branch: Branch<'a>,
    own: &'a [f64],
    /// `[n_samples, rank]`
    eps: Vec<f64>,
}

impl<'a> Tree<'a> {
    fn new(setting: &'a Setting, branch: Branch<'a>, own: &'a [f64]) -> Tree<'a> {
        let eps = samples(setting, branch.root, branch.root.map_or(1.0, |root| own[root]));
        Tree { setting, branch, own, eps }
    }

    /// Feature, own probability and rate of the root and of all members; with a target own probabilities are first changed to
    /// meet it.
    fn rates(&self, target: Option<Target<'_>>) -> Vec<(usize, f64, f64)> {
        let n = self.setting.n_samples;
        let top = match self.branch.root {
            Some(root) => self.own[root] * self.setting.value[root],
            None => 1.0,
        };
        // A_i(eps) / n of each feature that families hang from: of the others only the mean is needed.
        let mut on: Vec<(Option<usize>, Vec<f64>)> = vec![(self.branch.root, vec![top / n as f64; n])];
        let mut rates: Vec<_> = self.branch.root.map(|root| (root, self.own[root], top)).into_iter().collect();
        let families = &self.branch.families;
        for family in families {
            let above = on.iter().find(|(feature, _)| *feature == family.parent).expect("parents come first").1.clone();
            let rate_above = above.iter().sum::<f64>();
            let mut siblings: Vec<Sibling> = family.members.iter().map(|&i| self.sibling(i)).collect();
            if let Some(target) = target {
                let targets: Vec<f64> = family.members.iter().map(|&i| target(i, rate_above)).collect();
                self.meet(&mut siblings, family.exclusive, &above, &targets);
            }
            let passes: Vec<Vec<f64>> = siblings.iter().map(|s| self.passes(s)).collect();
            let mut counts = vec![];
            for (k, &i) in family.members.iter().enumerate() {
                let mut kept = |s: usize| kept(&passes, k, s, family.exclusive, &mut counts);
                let alive: Vec<f64> = (0..n).map(|s| above[s] * passes[k][s] * kept(s)).collect();
                rates.push((i, siblings[k].own, alive.iter().sum()));
                if families.iter().any(|other| other.parent == Some(i)) {
                    on.push((Some(i), alive));
                }
            }
        }
        rates
    }

    fn sibling(&self, feature: usize) -> Sibling {
        let row = self.setting.copula.row(feature);
        let dot = |eps: &[f64]| row.iter().zip(eps).map(|(f, e)| f * e).sum();
        let shared = self.eps.chunks_exact(row.len().max(1)).map(dot).collect();
        Sibling { feature, own: self.own[feature], shared }
    }

    /// P_i(eps) at each sample.
    fn passes(&self, sibling: &Sibling) -> Vec<f64> {
        let value = self.setting.value[sibling.feature];
        if self.setting.copula.rank == 0 {
            return vec![sibling.own * value];
        }
        let (t, own) = (normal::threshold(sibling.own), self.setting.copula.own[sibling.feature]);
        sibling.shared.iter().map(|m| value * pass(m - t, own)).collect()
    }

    /// Changes own probabilities until the rates are the targets, or as near as can be.
    fn meet(&self, siblings: &mut [Sibling], exclusive: bool, above: &[f64], targets: &[f64]) {
        let n = above.len();
        // One by one, each with its siblings as they stand: more of one means more of all, so this climbs to the solution.
        siblings.iter_mut().for_each(|s| s.own = 0.0);
        let mut passes: Vec<Vec<f64>> = siblings.iter().map(|s| self.passes(s)).collect();
        let mut counts = vec![];
        for _ in 0..if exclusive { 200 } else { 1 } {
            let mut change: f64 = 0.0;
            for k in 0..siblings.len() {
                let weights: Vec<f64> =
                    (0..n).map(|s| above[s] * kept(&passes, k, s, exclusive, &mut counts)).collect();
                let before = siblings[k].own;
                siblings[k].own = self.own_for(&siblings[k], &weights, targets[k]);
                passes[k] = self.passes(&siblings[k]);
                change = change.max((siblings[k].own - before).abs() / siblings[k].own.max(f64::MIN_POSITIVE));
            }
            if change <= SOLVED {
                break;
            }
        }
    }

    /// The own probability at which Σ weights · P_i is the target.
    fn own_for(&self, sibling: &Sibling, weights: &[f64], target: f64) -> f64 {
        let value = self.setting.value[sibling.feature];
        let most = weights.iter().sum::<f64>() * value;
        if target <= 0.0 || most <= 0.0 {
            return 0.0;
        }
        if target >= most {
            return 1.0;
        }
        if self.setting.copula.rank == 0 {
            return target / most;
        }
        let own = self.setting.copula.own[sibling.feature];
        let rate = |t: f64| {
            let each = weights.iter().zip(&sibling.shared).map(|(w, m)| w * pass(m - t, own));
            value * each.sum::<f64>()
        };
        // Rates fall with t; |g| of a sample does not come near 40.
        let (mut low, mut high) = (-40.0, 40.0);
        let mut t = normal::threshold(target / most);
        for _ in 0..200 {
            let found = rate(t);
            if (found / target - 1.0).abs() <= SOLVED {
                break;
            }
            if found > target {
                low = t
            } else {
                high = t
            }
            let slope = match own {
                0.0 => 0.0,
                own => {
                    let each = weights.iter().zip(&sibling.shared).map(|(w, m)| w * normal::density((m - t) / own));
                    value * each.sum::<f64>() / own
                }
            };
            // Newton's step where it stays inside, else half way.
            let step = t + (found - target) / slope;
            let next = if step > low && step < high { step } else { 0.5 * (low + high) };
            if next == t || high - low < 1e-13 {
                break;
            }
            t = next;
        }
        normal::cdf(-t)
    }
}

/// A member of a family on the samples of its tree.
struct Sibling {
    feature: usize,
    own: f64,
    /// F_i·eps, `[n_samples]`.
    shared: Vec<f64>,
}

/// P(g > t | eps) from F·eps - t and sqrt(D).
fn pass(above: f64, own: f64) -> f64 {
    match own {
        0.0 => (above > 0.0) as u8 as f64,
        own => normal::cdf(above / own),
    }
}

/// E[1 / (1 + siblings of k that pass)] at sample s: the share of its passes that feature k is the one that stays on.
/// `counts` is memory to use again.
fn kept(passes: &[Vec<f64>], k: usize, s: usize, exclusive: bool, counts: &mut Vec<f64>) -> f64 {
    if !exclusive {
        return 1.0;
    }
    // P(j of the others pass), others one by one.
    counts.clear();
    counts.push(1.0);
    for (_, pass) in passes.iter().enumerate().filter(|(other, _)| *other != k) {
        let p = pass[s];
        counts.push(0.0);
        for j in (0..counts.len()).rev() {
            counts[j] = counts[j] * (1.0 - p) + if j > 0 { counts[j - 1] * p } else { 0.0 };
        }
    }
    counts.iter().enumerate().map(|(j, p)| p / (1 + j) as f64).sum()
}

/// Samples of eps given that the root fires, `[n_samples, rank]`; unconditional ones where there is no root. Without a copula
/// one empty sample.
fn samples(setting: &Setting, root: Option<usize>, own: f64) -> Vec<f64> {
    let (copula, n) = (&setting.copula, setting.n_samples);
    if copula.rank == 0 {
        // One chunk of nothing would be no chunk.
        return vec![0.0];
    }
    let mut draws = Draws::new(0, Stream::Hierarchy, 1 + root.map_or(0, |root| root as u64 + 1));
    let mut eps = Vec::with_capacity(n * copula.rank);
    for pair in 0..n / 2 {
        let half: Vec<f64> = (0..copula.rank).map(|_| draws.normal()).collect();
        let eta = draws.normal();
        for (sign, s) in [(1.0, 2 * pair), (-1.0, 2 * pair + 1)] {
            let mut sample: Vec<f64> = half.iter().map(|e| sign * e).collect();
            if let Some(root) = root {
                let row = copula.row(root);
                let g: f64 = row.iter().zip(&sample).map(|(f, e)| f * e).sum::<f64>() + sign * copula.own[root] * eta;
                let wanted = normal::threshold(own * spread(s));
                sample.iter_mut().zip(row).for_each(|(e, f)| *e += f * (wanted - g));
            }
            eps.extend(sample);
        }
    }
    eps
}

/// Van der Corput's sequence in base 2, moved off 0: fills (0, 1) evenly at every length.
fn spread(s: usize) -> f64 {
    ((s as u32).reverse_bits() as f64 + 0.5) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Correlation, MagnitudeSharing, Node, Trees};

    fn world(firing_probability: Vec<f64>, hierarchy: Hierarchy) -> World {
        World {
            n_features: firing_probability.len(),
            firing_probability,
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: None,
            hierarchy: Some(hierarchy),
        }
    }

    fn node(feature: impl Into<Option<usize>>, parent: impl Into<Option<usize>>, exclusive: bool) -> Node {
        Node { feature: feature.into(), parent: parent.into(), exclusive, scale_children: false }
    }

    fn tree(n: usize, nodes: Vec<Node>) -> Hierarchy {
        Hierarchy::new(n, nodes).expect("trees")
    }

    /// 0 {exclusive: 2 {6}, 3}; 1 {4, 5}; organisational {exclusive: 8, 9}; 7 free.
    fn small() -> Hierarchy {
        let nodes = vec![
            node(0, None, true),
            node(2, 0, false),
            node(6, 1, false),
            node(3, 0, false),
            node(1, None, false),
            node(4, 4, false),
            node(5, 4, false),
            node(None, None, true),
            node(8, 7, false),
            node(9, 7, false),
        ];
        tree(10, nodes)
    }

    fn numbers(value: &serde_json::Value) -> Vec<f64> {
        value.as_array().expect("numbers").iter().map(|v| v.as_f64().expect("a number")).collect()
    }

    fn hold(got: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(got.len(), expected.len());
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert!((got - expected).abs() <= tolerance, "{i}: {got} for {expected}");
        }
    }

    #[test]
    fn compensation_and_rates_of_the_small_tree_are_the_golden_ones() {
        let golden = crate::testing::json(crate::testing::golden("worlds.json"));
        let golden = &golden["hierarchy_small"];
        let (base, corrected) = (numbers(&golden["base"]), numbers(&golden["corrected"]));
        let parents = small().parents().into_iter().map(|(c, p)| (c.to_string(), p.into())).collect();
        assert_eq!(serde_json::Value::Object(parents), golden["parents"]);
        let world = world(base.clone(), small()).with_rates(Rates::FirstOrder);
        hold(&world.firing_probability, &corrected, 1e-12);
        hold(&world.marginal_probability(), &numbers(&golden["effective_if_independent"]), 1e-12);
        assert_eq!(world.asked_probability(), base);
        let clamped = &golden["clamped"];
        let pair = tree(2, vec![node(0, None, false), node(1, 0, false)]);
        let world = self::world(numbers(&clamped["base"]), pair).with_rates(Rates::FirstOrder);
        hold(&world.firing_probability, &numbers(&clamped["corrected"]), 1e-12);
    }

    #[test]
    fn compensation_of_the_benchmark_is_the_golden_table() {
        let golden = crate::testing::json(crate::testing::golden("worlds.json"));
        let golden = &golden["world_16k"];
        let settings = Trees {
            roots: 128,
            branching: [4, 4],
            depth: 3,
            exclusive: 1.0,
            exclusive_levels: [0, usize::MAX],
            scale_children: true,
        };
        let base = crate::data::Curve::Zipf { exponent: 0.5, max: 0.4, min: 5e-4 }.values(16384, 0);
        let own = first_order(&Hierarchy::generated(16384, &settings, 0).families(), &base);
        for row in golden["rows"].as_array().expect("rows") {
            let i = row["index"].as_u64().expect("an index") as usize;
            let number = |key: &str| row[key].as_f64().expect("a number");
            assert!((base[i] - number("base")).abs() < 1e-12 && (own[i] - number("corrected")).abs() < 1e-12, "{row}");
            assert!((normal::threshold(own[i]) - number("threshold")).abs() < 1e-9, "{row}");
        }
        let sum = golden["sum_corrected"].as_f64().expect("a number");
        assert!((own.iter().sum::<f64>() - sum).abs() < 1e-8);
    }

    #[test]
    fn exact_rates_without_a_correlation_are_exact() {
        let asked = vec![0.4, 0.2, 0.1, 0.05, 0.05, 0.02, 0.025, 0.3, 0.25, 0.125];
        let solved = world(asked.clone(), small()).with_rates(Rates::Exact);
        hold(&solved.marginal_probability(), &asked, 1e-11);
        // 4 of 1 alone: P(child | parent) = .05 / .2.
        assert!((solved.firing_probability[4] - 0.25).abs() < 1e-15);
        // Two rivals: q2 (1 - q3/2) = .25 and q3 (1 - q2/2) = .125.
        let (q2, q3) = (solved.firing_probability[2], solved.firing_probability[3]);
        hold(&[q2 * (1.0 - q3 / 2.0), q3 * (1.0 - q2 / 2.0)], &[0.25, 0.125], 1e-12);
        let conditional = world(asked.clone(), small()).with_rates(Rates::Conditional);
        let rates = conditional.marginal_probability();
        hold(&rates, &[0.4, 0.2, 0.04, 0.02, 0.01, 0.004, 0.001, 0.3, 0.25, 0.125], 1e-11);
        let as_given = world(asked.clone(), small()).with_rates(Rates::AsGiven);
        assert_eq!(as_given.firing_probability, asked);
    }

    #[test]
    fn the_clip_of_parents_counts_and_what_cannot_be_ends_at_the_most() {
        // Values are positive with probability Phi(1) = .841345.
        let magnitude = Magnitude::Normal { mean: vec![1.0; 3], std: vec![1.0; 3] };
        let nodes = vec![node(0, None, false), node(1, 0, false), node(2, 0, false)];
        let world = World { magnitude, ..world(vec![0.5, 0.2, 0.6], tree(3, nodes)) }.with_rates(Rates::Exact);
        hold(&world.marginal_probability(), &[0.5, 0.2, 0.5 * normal::cdf(1.0)], 1e-12);
        assert_eq!(world.firing_probability[2], 1.0);
        assert!((world.firing_probability[0] - 0.5 / normal::cdf(1.0)).abs() < 1e-15);
    }

    /// P(both of two normals of correlation rho exceed 0) = 1/4 + asin(rho) / 2pi (Sheppard 1899). The sample leaves a relative error
    /// below .5 % here; it is fixed, so that the test cannot fail by chance.
    #[test]
    fn rates_under_a_copula_are_those_of_the_orthant() {
        let pair = || tree(2, vec![node(0, None, false), node(1, 0, false)]);
        for rho in [-0.6, 0.0, 0.3, 0.8] {
            let correlation = Correlation::from_pairs(2, 0.0, &[(0, 1, rho)]).expect("a correlation");
            let f = (rho as f32).abs().sqrt();
            let factor = vec![f, if rho < 0.0 { -f } else { f }];
            let diagonal = vec![1.0 - f * f; 2];
            for correlation in [correlation, Correlation::LowRank { rank: 1, factor, diagonal }] {
                let world = World { correlation: Some(correlation), ..world(vec![0.5; 2], pair()) };
                let expected = 0.25 + libm::asin(rho) / std::f64::consts::TAU;
                let rates = world.marginal_probability();
                assert!((rates[1] / expected - 1.0).abs() < 0.005, "{rho}: {rates:?} for {expected}");
                let solved = World { firing_probability: vec![0.5, 0.1], ..world }.with_rates(Rates::Exact);
                // Of a full matrix a rate moves in steps of one sample, .5 / 2^16 = 7.6e-6.
                hold(&solved.marginal_probability(), &[0.5, 0.1], 8e-6);
            }
        }
    }
}
