//! The data law, version 1: which bits make up x. Every device that draws x follows this page; changing anything here
//! makes another version.
//!
//! **Words.** All words are Philox4x32-10 ([`philox`](crate::random::philox)) under the key of (seed, stream name). Of the
//! counter (c0, c1, c2, c3), c3 is the row block (samples in blocks of [`ROW_BLOCK`]), c2 the step, c1 = tag · 2^28 + id
//! says what is drawn ([`Tag`]) and c0 where in the row block. A batch of step t holds samples 0, 1, 2, ... of that
//! step, and sample s is sample s mod 1024 of row block s / 1024. It does not depend on how many samples are asked for.
//!
//! A *sample word* of (c1, s), s counted within the row block: call c0 = 8 ⌊s/32⌋ + ⌊(s mod 16)/2⌋, word
//! 2 (⌊s/16⌋ mod 2) + (s mod 2) of its four. So eight calls give the words of two tiles of sixteen samples.
//!
//! An *event* e = 0, 1, ... of c1: call c0 = ⌊e/2⌋, gap word e mod 2, magnitude word 2 + (e mod 2). So eight calls give
//! sixteen events.
//!
//! **Which fire.** A *unit* is a feature in no group (id: its index) or a group (id: n_features + its index). A unit with
//! p = 0 never fires.
//! - p > [`SKIP_AT_MOST`]: one coin a sample. With T = round(p 2^32) and the sample word u of ([`Tag::Coin`], id), it
//!   fires iff u < T.
//! - 0 < p ≤ [`SKIP_AT_MOST`]: geometric skips. Features in no group with bitwise equal p form a class of g features in
//!   ascending order; its id is its least feature. A group is a class of its own, g = 1. Positions are s·g + (place in the
//!   class), within the row block. Event e stands at position Σ_{j≤e} (gap_j + 1) − 1, with
//!   gap = trunc(min(ln(w) · r, 2^30)), w = (⌊word/256⌋ | 1) · 2^-24, r = f32(1 / ln(1 − p)); the product is rounded once.
//!   Events are taken until the row block ends. c1 = ([`Tag::Skip`], id).
//!
//! (A coin costs one word a sample at any p, a skip two words an event: they cross near p = .12. No machine's speed
//! enters: the rule depends on the world alone.)
//!
//! When a group fires in a sample, a `Together` fires every member, an `Exclusive` fires member
//! ⌊u · size / 2^32⌋ with the sample word u of ([`Tag::Pick`], id).
//!
//! **Magnitudes.** Each magnitude is a function of one integer k, uniform on 0 .. T:
//! - coin of a feature: k = u and T as above (a uniform that is below T is uniform on 0 .. T);
//! - skip of a class of features: k = the event's magnitude word, T = 2^32;
//! - group: k = the sample word of ([`Tag::Value`], id), T = 2^32, where id is the member for `Together` and the group's for
//!   `Exclusive`;
//! - [`MagnitudeSharing::Sample`] replaces all of these by the sample word of ([`Tag::Share`], 0), T = 2^32.
//!
//! From (k, T), in f32, `fma` rounding once ([`Scale`] holds s and r, [`variate`](crate::backend::ops::draw::variate)
//! the polynomials):
//! - uniform: v = fma(⌊k/2⌋, s, s/2), in (0, 1], where s is the greatest f32 ≤ f32(2/T) with which v of k = T − 1 is not
//!   above 1;
//! - normal: with m = min(k, T − 1 − k), q = fma(m, r, r/2), r = f32(1/T), the probability of a tail: |z| = Φ^-1(1 − q), and
//!   z < 0 where k ≤ T − 1 − k;
//! - exponential: e = −ln v.
//!
//! The value is fma(base, slope, offset) with slope and offset of the feature in f32, then a clip:
//!
//! | magnitude | base | slope | offset | clip |
//! |---|---|---|---|---|
//! | `Uniform` | v | high − low | low | |
//! | `Constant` | v | 0 | the constant | |
//! | `Normal` | z | std | mean | y where y > 0, else 0 |
//! | `FoldedNormal` | z | std | mean | absolute value |
//! | `Exponential` | e | mean | 0 | |
//! | `Symmetric` | v | 2a | −a | |
//!
//! **Linked worlds.** Where features depend on each other through a [`Correlation`](super::Correlation) or a
//! [`Hierarchy`](super::Hierarchy), this section takes the place of "Which fire" and of the k of magnitudes; everything above
//! stands for all other worlds, bit for bit as it was. ([`linked`](super::linked) makes the numbers named here.)
//!
//! Let F be the factor of the copula, `[n_features, r]`, D the variance that is a feature's own (F Fᵀ + D has unit diagonal),
//! t_i = Φ^-1(1 − p_i), and F'_i = F_i/√D_i, t'_i = t_i/√D_i; r = 0 and D = 1 without a correlation. For a full matrix F is
//! its factor, D = 0, and F' = F, t' = t: eps decides all. F', t' are computed in f64 and rounded to f32.
//! - eps_k of a sample is the normal variate (T = 2^32) of the sample word of ([`Tag::Factor`], k).
//! - z_i: for a feature without a parent, from −t'_i on, for k ascending, z = fma(F'_ik, eps_k, z). For one with a parent,
//!   sixteen sums, from 0 on, for k ascending, sum_(k mod 16) = fma(F'_ik, eps_k, sum_(k mod 16)), folded by halves
//!   ([`Simd::fold`](crate::backend::simd::Simd::fold)), minus t'_i.
//! - The *call* of (feature, sample): c0 = s within the row block, c1 = ([`Tag::Fire`], i). Word 0 decides whether it fires,
//!   word 1 is the k of its magnitude, T = 2^32; word 2 see below.
//! - A feature without a parent: let j be the largest of 0, 2, 5, 8 with z ≤ [`QUANTILES`] of j (Φ there is at most 2^-j). It
//!   fires iff j fair coins all show heads and z > Φ^-1(2^-j u), u from word 0: for j = 0 the normal variate of word 0, else
//!   minus the size of the tail q = fma(⌊word/2⌋, ρ, ρ/2), ρ = 2^-(31+j). Coin m = 0 .. 7 of feature i is bit s mod 32 of word
//!   2 (m mod 2) + (i mod 2) of call c0 = 32 ⌊s/32⌋ + 8 ⌊m/2⌋ + ⌊(i mod 16)/2⌋ of c1 = ([`Tag::Heads`], ⌊i/16⌋).
//! - A feature with a parent that is on fires iff z > normal variate of word 0; one whose parent is off is 0.
//! - Where D = 0 both fire iff z > 0.
//! - The value of a feature whose node's parent scales its children is multiplied by (parent's value / parent's mean), each
//!   rounded. A feature is on where its value is not 0.
//! - Of an exclusive family with c members on, one stays on: number ⌊w·c / 2^32⌋ of them in the order of the tree, where w
//!   is word 2 of the family's first member. Families below a feature come after its own.
//!
//! *Why this is the law of a copula:* given eps, and so given z and j, P(fires) = 2^-j · P(u < 2^j Φ(z)) = Φ(z), as
//! 2^j Φ(z) ≤ 1; coins and u are independent over features and of eps. A child of a dead parent is zero whatever its own
//! words say, so they need not be drawn: only children of live parents are, and about one free feature in a hundred reaches a quantile.
//!
//! Resolution: a coin's probability is exact to 2^-33; v has steps of at most 2^-23 and z reaches 6.3 standard deviations.
//! The polynomial ln holds the rate of skips to 1e-6 of p, for p ≥ 1e-6; below, gaps come in steps, but the rate stays.

use super::linked::Linked;
use super::world::{GroupRule, Magnitude, MagnitudeSharing, World};

/// The version of this law, part of what a run records.
pub const DATA_LAW: u32 = 1;

/// Samples of a row block: the unit in which c3 counts.
pub const ROW_BLOCK: usize = 1024;

/// Version of the data law, part of every cell's id.
pub const VERSION: u32 = 1;

/// Units whose probability is at most this are drawn by skips, others by coins.
pub const SKIP_AT_MOST: f64 = 0.12;

/// Samples that linked worlds are drawn in: a piece of a batch may start at any multiple of this.
pub const PIECE: usize = 32;

/// Φ^-1 of 2^-2, 2^-5 and 2^-8, rounded down: where z is at most this, two, five or eight coins come first.
pub const QUANTILES: [f32; 3] = [-0.674_490_5, -1.862_733, -2.660_069];

/// What a word is for: the upper four bits of c1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Sample words: does the unit fire?
    Coin = 0,
    /// Events: where does the class fire next, and with which magnitude?
    Skip = 1,
    /// Sample words: magnitudes inside groups.
    Value = 2,
    /// Sample words: which member of an exclusive group?
    Pick = 3,
    /// Sample words: the magnitude shared by all features of a sample.
    Share = 4,
    /// Noise on hidden states, see [`hidden`](crate::hidden).
    Noise = 5,
    /// Sample words: what features of a correlated world share.
    Factor = 6,
    /// Linked worlds: coins of sixteen features.
    Heads = 7,
    /// Linked worlds: the call of a feature and a sample.
    Fire = 8,
}

impl Tag {
    /// c1 of this tag and an id below 2^28.
    pub const fn with(self, id: usize) -> u32 {
        (self as u32) << 28 | id as u32
    }
}

/// Call and word of a sample word, `sample` counted within its row block.
#[inline(always)]
pub const fn sample_word(sample: usize) -> (u32, usize) {
    (8 * (sample / 32) as u32 + (sample % 16 / 2) as u32, 2 * (sample / 16 % 2) + sample % 2)
}

/// What turns an integer uniform on 0 .. T into base variates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// T - 1, the greatest word that fires.
    pub last: u32,
    /// s of the uniform.
    pub uniform: f32,
    /// r of the normal's tail.
    pub tail: f32,
}

impl Scale {
    /// T = 2^32: every word counts.
    pub const FULL: Scale =
        Scale { last: u32::MAX, uniform: 1.0 / (1u64 << 31) as f32, tail: 1.0 / (1u64 << 32) as f32 };

    /// The scale of a coin of probability `p`, above [`SKIP_AT_MOST`].
    pub fn coin(p: f64) -> Scale {
        let threshold = (p * 4_294_967_296.0).round();
        let last = (threshold as u64 - 1) as u32;
        let mut uniform = (2.0 / threshold) as f32;
        while ((last >> 1) as f32).mul_add(uniform, 0.5 * uniform) > 1.0 {
            uniform = uniform.next_down();
        }
        Scale { last, uniform, tail: (1.0 / threshold) as f32 }
    }
}

/// The variate a magnitude is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Uniform on (0, 1].
    Uniform,
    /// Standard normal.
    Normal,
    /// Exponential of mean 1.
    Exponential,
}

/// What happens to slope * base + offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clip {
    /// Nothing.
    None,
    /// 0 where it is not positive.
    Positive,
    /// The absolute value.
    Absolute,
}

impl Clip {
    /// The clip of one number.
    #[inline(always)]
    pub fn apply(self, y: f32) -> f32 {
        match self {
            Clip::None => y,
            Clip::Positive => {
                if y > 0.0 {
                    y
                } else {
                    0.0
                }
            }
            Clip::Absolute => y.abs(),
        }
    }
}

/// A feature with a coin of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coin {
    /// The feature.
    pub feature: usize,
    /// Its place in [`Plan::coin_features`].
    pub column: usize,
    /// T and what follows from it.
    pub scale: Scale,
}

/// Features drawn by skips over their common flat order.
#[derive(Clone, Debug, PartialEq)]
pub struct SkipClass {
    /// c1 of its events.
    pub high: u32,
    /// f32(1 / ln(1 - p)).
    pub inverse: f32,
    /// p, to foresee how many events come.
    pub probability: f64,
    /// Ascending; empty for a group, whose one place is the group itself.
    pub features: Vec<u32>,
}

/// How a group's own firing is drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupDraw {
    /// By coins; the last word that fires.
    Coin { last: u32 },
    /// By skips.
    Skip(SkipClass),
}

/// A group that can fire.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupPlan {
    /// Unit id: n_features + index of the group.
    pub id: usize,
    /// Which members fire with it.
    pub rule: GroupRule,
    /// Each with its place in [`Plan::coin_features`] (meaningful for coins only).
    pub members: Vec<(usize, usize)>,
    /// Coins or skips.
    pub draw: GroupDraw,
}

/// A world laid out for drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Features of the world.
    pub n_features: usize,
    /// Variate of the magnitude law.
    pub base: Base,
    /// Its last step.
    pub clip: Clip,
    /// Whether one draw serves all features of a sample.
    pub shared: bool,
    /// `[n_features]`
    pub slope: Vec<f32>,
    /// `[n_features]`
    pub offset: Vec<f32>,
    /// Slope and offset, where all features have the same.
    pub common: Option<(f32, f32)>,
    /// Features in no group with p above [`SKIP_AT_MOST`], ascending.
    pub coins: Vec<Coin>,
    /// Features in no group with p at most that, by class.
    pub classes: Vec<SkipClass>,
    /// Groups that can fire.
    pub groups: Vec<GroupPlan>,
    /// All features that coins decide, members of groups among them, ascending.
    pub coin_features: Vec<u32>,
    /// Whether a firing feature may have the value 0.
    pub zeros: bool,
    /// Whether the value is the base variate itself, a uniform on (0, 1].
    pub unit: bool,
    /// A linked world's own part; coins, classes and groups are then empty.
    pub linked: Option<Linked>,
}

impl Plan {
    /// Lays out a world.
    ///
    /// # Panics
    /// If a vector has not `n_features` entries, a probability is outside [0, 1], a group names a feature that is not
    /// there or that another group has, there are 2^17 features or more, or a linked world is none (see [`Linked::of`]): a
    /// checked experiment has none of these.
    pub fn new(world: &World) -> Plan {
        check(world);
        let n = world.n_features;
        let (base, clip, slope, offset) = magnitude(world);
        let common = (0..n).all(|i| slope[i] == slope[0] && offset[i] == offset[0]);
        let grouped = grouped(world);
        let linked = Linked::of(world);
        let p = |i: usize| if grouped[i] || linked.is_some() { 0.0 } else { world.firing_probability[i] };
        let mut coin_features: Vec<u32> = (0..n).filter(|&i| p(i) > SKIP_AT_MOST).map(|i| i as u32).collect();
        for group in world.groups.iter().filter(|g| g.firing_probability > SKIP_AT_MOST) {
            coin_features.extend(group.members.iter().map(|&i| i as u32));
        }
        coin_features.sort_unstable();
        let column = |feature: usize| coin_features.binary_search(&(feature as u32)).unwrap_or(0);
        let coins = (0..n).filter(|&i| p(i) > SKIP_AT_MOST);
        let coins = coins.map(|i| Coin { feature: i, column: column(i), scale: Scale::coin(p(i)) }).collect();
        let live = world.groups.iter().enumerate().filter(|(_, g)| g.firing_probability > 0.0 && !g.members.is_empty());
        let groups = live.map(|(index, group)| GroupPlan {
            id: n + index,
            rule: group.rule,
            members: group.members.iter().map(|&i| (i, column(i))).collect(),
            draw: match group.firing_probability {
                p if p > SKIP_AT_MOST => GroupDraw::Coin { last: Scale::coin(p).last },
                p => GroupDraw::Skip(skip_class(n + index, p, vec![])),
            },
        });
        Plan {
            n_features: n,
            base,
            clip,
            shared: world.magnitude_sharing == MagnitudeSharing::Sample,
            zeros: !matches!(world.magnitude, Magnitude::Uniform { low, high } if low >= 0.0 && high > low),
            unit: world.magnitude == Magnitude::Uniform { low: 0.0, high: 1.0 }
                && world.magnitude_sharing == MagnitudeSharing::Independent,
            common: (n > 0 && common).then(|| (slope[0], offset[0])),
            groups: groups.collect(),
            classes: classes(n, p),
            linked,
            slope,
            offset,
            coins,
            coin_features,
        }
    }

    /// Whether coins decide all that can fire.
    pub fn only_coins(&self) -> bool {
        self.classes.is_empty() && !self.groups.iter().any(|g| matches!(g.draw, GroupDraw::Skip(_)))
    }

    /// Whether one class of skips draws all features, so that its events are those of x in order.
    pub fn one_class(&self) -> bool {
        self.classes.len() == 1 && self.classes[0].features.len() == self.n_features
    }
}

/// Features with equal p in (0, SKIP_AT_MOST], classes in order of their least feature.
fn classes(n: usize, p: impl Fn(usize) -> f64) -> Vec<SkipClass> {
    let mut rare: Vec<usize> = (0..n).filter(|&i| p(i) > 0.0 && p(i) <= SKIP_AT_MOST).collect();
    rare.sort_by(|&a, &b| p(a).total_cmp(&p(b)).then(a.cmp(&b)));
    let mut classes: Vec<SkipClass> = rare
        .chunk_by(|&a, &b| p(a) == p(b))
        .map(|same| skip_class(same[0], p(same[0]), same.iter().map(|&i| i as u32).collect()))
        .collect();
    classes.sort_by_key(|class| class.high);
    classes
}

fn skip_class(id: usize, p: f64, features: Vec<u32>) -> SkipClass {
    SkipClass { high: Tag::Skip.with(id), inverse: (1.0 / libm::log1p(-p)) as f32, probability: p, features }
}

fn grouped(world: &World) -> Vec<bool> {
    let mut grouped = vec![false; world.n_features];
    for &member in world.groups.iter().flat_map(|g| &g.members) {
        assert!(!grouped[member], "feature {member} is in two groups");
        grouped[member] = true;
    }
    grouped
}

/// Base, clip, slopes and offsets of the magnitude law.
fn magnitude(world: &World) -> (Base, Clip, Vec<f32>, Vec<f32>) {
    let n = world.n_features;
    let all = |x: f64| vec![x as f32; n];
    let each = |x: &[f64]| {
        assert_eq!(x.len(), n, "a magnitude's parameter has an entry for each feature");
        x.iter().map(|&x| x as f32).collect::<Vec<f32>>()
    };
    match &world.magnitude {
        Magnitude::Uniform { low, high } => (Base::Uniform, Clip::None, all(high - low), all(*low)),
        Magnitude::Constant(value) => (Base::Uniform, Clip::None, all(0.0), each(value)),
        Magnitude::Normal { mean, std } => (Base::Normal, Clip::Positive, each(std), each(mean)),
        Magnitude::FoldedNormal { mean, std } => (Base::Normal, Clip::Absolute, each(std), each(mean)),
        Magnitude::Exponential { mean } => (Base::Exponential, Clip::None, each(mean), all(0.0)),
        Magnitude::Symmetric(bound) => (Base::Uniform, Clip::None, all(2.0 * bound), all(-bound)),
    }
}

fn check(world: &World) {
    let n = world.n_features;
    // Sixteen gaps of a row block's length must stay below 2^32, see the skips.
    assert!(n < 1 << 17, "{n} features");
    assert_eq!(world.firing_probability.len(), n, "firing_probability has an entry for each feature");
    let sets = world.groups.iter().map(|g| g.firing_probability);
    for p in world.firing_probability.iter().copied().chain(sets) {
        assert!((0.0..=1.0).contains(&p), "firing probability {p}");
    }
    assert!(world.groups.iter().flat_map(|g| &g.members).all(|&i| i < n), "a group names a feature that is not there");
}
