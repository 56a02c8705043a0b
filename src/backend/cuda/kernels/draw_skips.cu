// What skips decide: geometric gaps from event to event, over the features of a class or the firings of a group.
//
//     a warp: one class in one row block of one step
//     until the row block ends:
//         a lane: the two events of one call; their gaps, summed over the warp, are positions
//         events inside are written to x, where draw_columns has left 0
//
// Sums of gaps are cut at 2^30, far outside any row block. Cut sums of numbers that are not negative do not depend on how they are
// bracketed, so positions are those of the CPU, which sums sixteen at a time.
#include "draw.cuh"

enum SkipKind { SKIP_FEATURES, SKIP_TOGETHER, SKIP_EXCLUSIVE };

struct DrawSkip {
    u32 kind;
    u32 c1;             // of its events
    float inverse;      // 1 / ln(1 - p)
    u32 places;         // positions of a sample: features of the class, 1 for a group
    u32 first;          // its features, or its group's members, among `features`
    u32 members;        // of a group
    u32 unit;           // id of a group
    u32 unused;
};

struct DrawSkipsArgs {
    Draw draw;
    const DrawSkip* skips;  // [n_skips]
    const u32* features;    // those of each class and group behind each other
    u32 n_skips;
    u32 row_blocks;  // of a step
    u32 warps;       // steps * row_blocks * n_skips
    u32 unused;
};

#define LONGEST_GAP (1u << 30)

__device__ __forceinline__ u32 add_cut(u32 a, u32 b) { return min(a + b, LONGEST_GAP); }

// How far an event is from the one before it, at least 1.
__device__ __forceinline__ u32 distance_of(u32 word, float inverse) {
    float gap = ln_unit(word) * inverse;
    return add_cut((u32)(gap < (float)LONGEST_GAP ? gap : (float)LONGEST_GAP), 1u);
}

// x of a feature in a sample (counted within the row block) that fires with magnitude integer k.
__device__ __forceinline__ void put(const Draw& d, u32 step, const RowBlock& at, u32 sample, u32 feature, u32 k) {
    const u32 tile = (at.block - d.first_block) * (ROW_BLOCK / 16u) + sample / 16u;
    d.x[place_of(step, d.tiles, tile, d.n, feature) + sample % 16u] =
        finish(d.clip, variate(d.base, k, FULL_SCALE), d.law[feature]);
}

__device__ __forceinline__ void put_event(
    const DrawSkipsArgs& a, const DrawSkip& skip, u32 step, const RowBlock& at, u32 position, u32 k) {
    const Draw& d = a.draw;
    const u32 sample = position / skip.places;
    const u32* features = a.features + skip.first;
    if (d.shared) k = sample_word(d, at, sample, TAG_SHARE);
    if (skip.kind == SKIP_FEATURES) {
        put(d, step, at, sample, features[position - sample * skip.places], k);
    } else if (skip.kind == SKIP_TOGETHER) {
        for (u32 m = 0; m < skip.members; ++m) {
            if (!d.shared) k = sample_word(d, at, sample, TAG_VALUE | features[m]);
            put(d, step, at, sample, features[m], k);
        }
    } else {
        if (!d.shared) k = sample_word(d, at, sample, TAG_VALUE | skip.unit);
        const u32 pick = __umulhi(sample_word(d, at, sample, TAG_PICK | skip.unit), skip.members);
        put(d, step, at, sample, features[pick], k);
    }
}

KERNEL(draw_skips, DrawSkipsArgs, 128, 8) {
    const Draw& d = a.draw;
    const u32 lane = threadIdx.x % 32u, warp = blockIdx.x * (blockDim.x / 32u) + threadIdx.x / 32u;
    if (warp >= a.warps) return;  // whole warps leave
    const DrawSkip skip = a.skips[warp % a.n_skips];
    const u32 rest = warp / a.n_skips, block = rest % a.row_blocks, step = rest / a.row_blocks;
    const RowBlock at = {d.first_step + step, d.first_block + block};
    const u32 end = min(d.samples - block * ROW_BLOCK, ROW_BLOCK) * skip.places;
    // The first position that the next event may have: the same in every lane.
    u32 next = 0;
    for (u32 c0 = lane; next < end; c0 += 32u) {
        const Words w = call(d, at, c0, skip.c1);
        const u32 one = distance_of(w.v[0], skip.inverse), both = add_cut(one, distance_of(w.v[1], skip.inverse));
        u32 sum = both;
#pragma unroll
        for (u32 by = 1; by < 32u; by *= 2u) {
            const u32 before = __shfl_up_sync(ALL_LANES, sum, by);
            if (lane >= by) sum = add_cut(sum, before);
        }
        const u32 before = __shfl_up_sync(ALL_LANES, sum, 1);
        const u32 first = next + add_cut(lane > 0 ? before : 0u, one) - 1u, second = next + sum - 1u;
        if (first < end) put_event(a, skip, step, at, first, w.v[2]);
        if (second < end) put_event(a, skip, step, at, second, w.v[3]);
        next += __shfl_sync(ALL_LANES, sum, 31);
    }
}
