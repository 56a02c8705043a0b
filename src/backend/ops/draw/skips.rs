//! From event to event: geometric gaps.

use super::coins::picked;
use super::variate::{ln_unit, variate};
use super::{Block, finish, finish_one, words, words4};
use crate::backend::simd::{Lanes, Simd};
use crate::data::events::{Divide, Events};
use crate::data::law::{GroupPlan, Plan, Scale, SkipClass, Tag, sample_word};
use crate::data::world::GroupRule;
use crate::random::philox;

/// Takes the events of a class as they come, sixteen at a time, the first `count` of which lie inside the row block.
/// Values are finished where slope and offset are common to all features and magnitudes are not shared, else base variates.
pub(super) trait Receive {
    fn take<S: Simd>(&mut self, position: S::U, value: S::F, count: usize);
}

/// Takes entries of x.
pub(super) trait Sink {
    fn put(&mut self, sample: usize, feature: usize, value: f32);
}

/// The events of one class over `places` places a sample.
#[inline(always)]
pub(super) fn skips<S: Simd, R: Receive>(plan: &Plan, block: Block, class: &SkipClass, places: usize, to: &mut R) {
    let end = (block.samples * places) as u32;
    if end == 0 {
        return;
    }
    let at = block.address(class.high);
    let mut walk = Walk::<S> {
        plan,
        common: if plan.shared { None } else { plan.common },
        inverse: S::splat(class.inverse),
        // The law cuts gaps at 2^30. Any cut not below `end` does: such an event lies outside, and so does all that
        // follows it. With this one sixteen gaps stay below 2^32 (`Plan` bounds the number of features).
        longest: S::splat((end as f32).next_up()),
        before: S::splat_u(u32::MAX),
        last: S::splat_u(end - 1),
    };
    let expected = end as f64 * class.probability;
    let mut call = 0;
    loop {
        // What is still to come decides only how many words are drawn at once, never which.
        let inside = if expected - 2.0 * call as f64 > 12.0 {
            let [gap, k, more_gap, more_k] = words4::<S>(at, call);
            call += 16;
            walk.sixteen(gap, k, to) && walk.sixteen(more_gap, more_k, to)
        } else {
            let [gap, k] = words::<S>(at, call);
            call += 8;
            walk.sixteen(gap, k, to)
        };
        if !inside {
            return;
        }
    }
}

/// Where a class's events have come to.
struct Walk<'a, S: Simd> {
    plan: &'a Plan,
    common: Option<(f32, f32)>,
    inverse: S::F,
    longest: S::F,
    /// Position of the last event, in every lane; 2^32 - 1 before the first.
    before: S::U,
    /// Last place of the row block.
    last: S::U,
}

impl<S: Simd> Walk<'_, S> {
    /// Hands on sixteen events. False once one lies outside the row block.
    #[inline(always)]
    fn sixteen<R: Receive>(&mut self, gap: S::U, k: S::U, to: &mut R) -> bool {
        let gap = S::to_u32(S::min(S::mul(ln_unit::<S>(gap), self.inverse), self.longest));
        let position = S::add_u(self.before, S::prefix_sum(S::add_u(gap, S::splat_u(1))));
        self.before = S::splat_last(position);
        let inside = S::at_most_bits(position, self.last).count_ones() as usize;
        let mut value = variate::<S>(self.plan.base, k, &Scale::FULL);
        if let Some((slope, offset)) = self.common {
            value = finish::<S>(self.plan.clip, value, S::splat(slope), S::splat(offset));
        }
        to.take::<S>(position, value, inside);
        inside == 16
    }
}

/// Events of a class of all features: their positions are those of x.
pub(super) struct Direct<'a> {
    plan: &'a Plan,
    share: &'a [Lanes],
    divide: Divide,
    base: u32,
    events: &'a mut Events,
}

impl<'a> Direct<'a> {
    /// Events of the row block whose first place is `base`.
    pub fn new(plan: &'a Plan, share: &'a [Lanes], base: u32, events: &'a mut Events) -> Self {
        Direct { plan, share, divide: Divide::by(plan.n_features as u32), base, events }
    }
}

impl Receive for Direct<'_> {
    #[inline(always)]
    fn take<S: Simd>(&mut self, position: S::U, value: S::F, count: usize) {
        let (to_position, to_value) = self.events.room::<16>();
        S::store_u(S::add_u(position, S::splat_u(self.base)), to_position);
        S::store_to(value, to_value);
        if self.plan.shared || self.plan.common.is_none() {
            for (position, value) in to_position.iter().zip(to_value).take(count) {
                let (sample, feature) = self.divide.apply(position - self.base);
                *value = class_value(self.plan, self.share, *value, sample as usize, feature as usize);
            }
        }
        self.events.grow(count);
    }
}

/// Events of a class of some features.
pub(super) struct ClassEvents<'a, K> {
    plan: &'a Plan,
    class: &'a SkipClass,
    share: &'a [Lanes],
    divide: Divide,
    sink: &'a mut K,
}

impl<'a, K: Sink> ClassEvents<'a, K> {
    pub fn new(plan: &'a Plan, class: &'a SkipClass, share: &'a [Lanes], sink: &'a mut K) -> Self {
        ClassEvents { plan, class, share, divide: Divide::by(class.features.len() as u32), sink }
    }
}

impl<K: Sink> Receive for ClassEvents<'_, K> {
    #[inline(always)]
    fn take<S: Simd>(&mut self, at: S::U, values: S::F, count: usize) {
        let (mut position, mut value) = ([0; 16], [0.0; 16]);
        S::store_u(at, &mut position);
        S::store_to(values, &mut value);
        for l in 0..count {
            let (sample, place) = self.divide.apply(position[l]);
            let (sample, feature) = (sample as usize, self.class.features[place as usize] as usize);
            self.sink.put(sample, feature, class_value(self.plan, self.share, value[l], sample, feature));
        }
    }
}

/// The magnitude of an event, from what [`Receive`] got.
#[inline(always)]
fn class_value(plan: &Plan, share: &[Lanes], value: f32, sample: usize, feature: usize) -> f32 {
    if plan.shared {
        finish_one(plan, share[sample / 16].0[sample % 16], feature)
    } else if plan.common.is_none() {
        finish_one(plan, value, feature)
    } else {
        value
    }
}

/// Events of a group: position is the sample, and the members have their own words.
pub(super) struct GroupEvents<'a, K> {
    pub plan: &'a Plan,
    pub block: Block,
    pub group: &'a GroupPlan,
    pub share: &'a [Lanes],
    pub sink: &'a mut K,
}

impl<K: Sink> GroupEvents<'_, K> {
    #[inline(always)]
    fn word(&self, tag: Tag, id: usize, sample: usize) -> u32 {
        let (call, word) = sample_word(sample);
        philox([call, tag.with(id), self.block.step, self.block.block], self.block.key)[word]
    }

    #[inline(always)]
    fn put<S: Simd>(&mut self, sample: usize, feature: usize, value_id: usize) {
        let base = if self.plan.shared {
            self.share[sample / 16].0[sample % 16]
        } else {
            // Sixteen copies of one number: such events are few, and the bits are the vector code's by construction.
            let mut copies = Lanes::default();
            let k = S::splat_u(self.word(Tag::Value, value_id, sample));
            S::store(variate::<S>(self.plan.base, k, &Scale::FULL), &mut copies);
            copies.0[0]
        };
        self.sink.put(sample, feature, finish_one(self.plan, base, feature));
    }
}

impl<K: Sink> Receive for GroupEvents<'_, K> {
    #[inline(always)]
    fn take<S: Simd>(&mut self, at: S::U, _: S::F, count: usize) {
        let mut position = [0; 16];
        S::store_u(at, &mut position);
        for &sample in &position[..count] {
            let (sample, group) = (sample as usize, self.group);
            match group.rule {
                GroupRule::Together => {
                    for &(feature, _) in &group.members {
                        self.put::<S>(sample, feature, feature);
                    }
                }
                GroupRule::Exclusive => {
                    let pick = picked(self.word(Tag::Pick, group.id, sample), group.members.len());
                    self.put::<S>(sample, group.members[pick].0, group.id);
                }
            }
        }
    }
}
