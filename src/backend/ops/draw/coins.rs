//! One word a sample and feature.

use super::variate::{uniform, variate};
use super::{Block, finish, finish_one, words, words4};
use crate::backend::simd::{Lanes, Simd};
use crate::data::law::{Coin, GroupDraw, GroupPlan, Plan, Scale, Tag};
use crate::data::world::GroupRule;

/// Where a feature's coins go: to its own column of x, or to its place among the features that coins decide.
#[derive(Clone, Copy)]
pub(super) struct CoinColumns {
    pub compact: bool,
    pub stride: usize,
}

impl CoinColumns {
    #[inline(always)]
    fn of(self, feature: usize, column: usize) -> usize {
        if self.compact { column } else { feature }
    }
}

/// Features with coins of their own. Lanes past the last sample are written too.
#[inline(always)]
pub(super) fn coins<S: Simd>(plan: &Plan, block: Block, share: &[Lanes], columns: CoinColumns, x: &mut [Lanes]) {
    let tiles = block.samples.div_ceil(16);
    let mut tile = 0;
    while tile < tiles {
        let x = &mut x[tile * columns.stride..];
        let width = (tiles - tile).min(4);
        for coin in &plan.coins {
            match width {
                4 => some_tiles::<S, 4>(plan, block, coin, tile, share, columns, x),
                3 => some_tiles::<S, 3>(plan, block, coin, tile, share, columns, x),
                2 => some_tiles::<S, 2>(plan, block, coin, tile, share, columns, x),
                _ => some_tiles::<S, 1>(plan, block, coin, tile, share, columns, x),
            }
        }
        tile += width;
    }
}

/// `TILES` tiles of one feature from `tile` on, a multiple of four.
#[inline(always)]
fn some_tiles<S: Simd, const TILES: usize>(
    plan: &Plan,
    block: Block,
    coin: &Coin,
    tile: usize,
    share: &[Lanes],
    columns: CoinColumns,
    x: &mut [Lanes],
) {
    let at = block.address(Tag::Coin.with(coin.feature));
    let mut word = [S::splat_u(0); 4];
    if TILES > 2 {
        word = words4::<S>(at, 4 * tile as u32);
    } else {
        [word[0], word[1]] = words::<S>(at, 4 * tile as u32);
    }
    let last = S::splat_u(coin.scale.last);
    let column = columns.of(coin.feature, coin.column);
    if plan.unit {
        // At p = 1 there is nothing to compare.
        let certain = coin.scale.last == u32::MAX;
        for t in 0..TILES {
            let value = uniform::<S>(word[t], &coin.scale);
            let value = if certain { value } else { S::where_at_most_u(word[t], last, value) };
            S::store(value, &mut x[t * columns.stride + column]);
        }
        return;
    }
    let (slope, offset) = (S::splat(plan.slope[coin.feature]), S::splat(plan.offset[coin.feature]));
    for t in 0..TILES {
        let base = if plan.shared { S::load(&share[tile + t]) } else { variate::<S>(plan.base, word[t], &coin.scale) };
        let value = finish::<S>(plan.clip, base, slope, offset);
        S::store(S::where_at_most_u(word[t], last, value), &mut x[t * columns.stride + column]);
    }
}

/// Groups with coins. Lanes past the last sample are written too.
#[inline(always)]
pub(super) fn coin_groups<S: Simd>(plan: &Plan, block: Block, share: &[Lanes], columns: CoinColumns, x: &mut [Lanes]) {
    let tiles = block.samples.div_ceil(16);
    for group in &plan.groups {
        let GroupDraw::Coin { last } = group.draw else { continue };
        for tile in (0..tiles).step_by(2) {
            let coin = words::<S>(block.address(Tag::Coin.with(group.id)), 4 * tile as u32);
            let width = (tiles - tile).min(2);
            let (x, share) =
                (&mut x[tile * columns.stride..][..width * columns.stride], share.get(tile..).unwrap_or_default());
            match group.rule {
                GroupRule::Together => {
                    for &(feature, column) in &group.members {
                        let base = group_base::<S>(plan, block, feature, tile, share);
                        for t in 0..width {
                            let (slope, offset) = (S::splat(plan.slope[feature]), S::splat(plan.offset[feature]));
                            let value = finish::<S>(plan.clip, base[t], slope, offset);
                            let value = S::where_at_most_u(coin[t], S::splat_u(last), value);
                            S::store(value, &mut x[t * columns.stride + columns.of(feature, column)]);
                        }
                    }
                }
                GroupRule::Exclusive => {
                    let base = group_base::<S>(plan, block, group.id, tile, share);
                    let pick = words::<S>(block.address(Tag::Pick.with(group.id)), 4 * tile as u32);
                    for t in 0..width {
                        let x = &mut x[t * columns.stride..][..columns.stride];
                        pick_lanes::<S>(plan, group, columns, coin[t], last, pick[t], base[t], x);
                    }
                }
            }
        }
    }
}

/// Base variates of two tiles of a group's member, or of the group itself.
#[inline(always)]
fn group_base<S: Simd>(plan: &Plan, block: Block, id: usize, tile: usize, share: &[Lanes]) -> [S::F; 2] {
    if plan.shared {
        return [S::load(&share[0]), S::load(&share[1])];
    }
    let k = words::<S>(block.address(Tag::Value.with(id)), 4 * tile as u32);
    [variate::<S>(plan.base, k[0], &Scale::FULL), variate::<S>(plan.base, k[1], &Scale::FULL)]
}

/// One tile of an exclusive group: which member fires differs by lane.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "each is one vector or one constant of the same tile")]
fn pick_lanes<S: Simd>(
    plan: &Plan,
    group: &GroupPlan,
    columns: CoinColumns,
    coin: S::U,
    last: u32,
    pick: S::U,
    base: S::F,
    x: &mut [Lanes],
) {
    let (mut coins, mut picks, mut bases) = ([0; 16], [0; 16], Lanes::default());
    S::store_u(coin, &mut coins);
    S::store_u(pick, &mut picks);
    S::store(base, &mut bases);
    for &(feature, column) in &group.members {
        x[columns.of(feature, column)] = Lanes::default();
    }
    for lane in 0..16 {
        if coins[lane] <= last {
            let (feature, column) = group.members[picked(picks[lane], group.members.len())];
            x[columns.of(feature, column)].0[lane] = finish_one(plan, bases.0[lane], feature);
        }
    }
}

/// Which of `size` members a word picks.
#[inline(always)]
pub(super) fn picked(word: u32, size: usize) -> usize {
    ((word as u64 * size as u64) >> 32) as usize
}
