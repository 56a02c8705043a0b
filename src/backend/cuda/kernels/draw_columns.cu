// All of x, feature by feature, as far as coins decide it: features with a coin of their own, members of groups that have one.
// What nothing or only skips decide becomes 0.
//
//     a thread: one feature, samples b, b + 1, b + 16, b + 17 of each 32 (the four of one call), BATCH_OF samples in all
//     eight neighbouring threads write one tile's line of 64 bytes, the next eight that of the next feature
//
// One item a feature, whatever its group: a member of an exclusive group computes the group's coin and pick again. That costs calls,
// but stores stay whole lines, no lane waits for others and no memory is passed on.
#include "draw.cuh"

enum ColumnKind { COLUMN_SILENT, COLUMN_OWN, COLUMN_TOGETHER, COLUMN_EXCLUSIVE };

// One for each feature, in their order.
struct DrawColumn {
    u32 kind;
    u32 unit;            // id of whose coin decides: the feature or its group
    u32 last;            // the greatest word that fires
    u32 place, members;  // exclusive: which of how many
    float uniform, tail;  // own: Scale of its coin
    u32 unused;
};

struct DrawColumnsArgs {
    Draw draw;
    const DrawColumn* columns;  // [n]
    u32 chunks;                 // of BATCH_OF samples a step
    u32 threads;                // steps * chunks * n * 8
};

#define BATCH_OF 128u

// x of a column's four samples of one call, c0 of the row block `at`.
__device__ __forceinline__ void draw_four(const Draw& d, const RowBlock& at, const DrawColumn& c, u32 feature, u32 c0, float* v) {
    Words coin = call(d, at, c0, TAG_COIN | c.unit);
    Words pick = coin, k = coin;
    Scale scale = FULL_SCALE;
    if (c.kind == COLUMN_EXCLUSIVE) pick = call(d, at, c0, TAG_PICK | c.unit);
    if (d.shared) {
        k = call(d, at, c0, TAG_SHARE);
    } else if (c.kind == COLUMN_OWN) {
        scale = Scale{c.last, c.uniform, c.tail};
    } else {
        k = call(d, at, c0, TAG_VALUE | (c.kind == COLUMN_TOGETHER ? feature : c.unit));
    }
    const float2 law = d.law[feature];
#pragma unroll
    for (u32 i = 0; i < 4u; ++i) {
        bool fires = coin.v[i] <= c.last;
        if (c.kind == COLUMN_EXCLUSIVE) fires = fires && __umulhi(pick.v[i], c.members) == c.place;
        float value = finish(d.clip, variate(d.base, k.v[i], scale), law);
        v[i] = fires ? value : 0.0f;
    }
}

KERNEL(draw_columns, DrawColumnsArgs, 128, 8) {
    const Draw& d = a.draw;
    const u32 thread = blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= a.threads) return;
    const u32 pair = thread % 8u, feature = thread / 8u % d.n, rest = thread / 8u / d.n;
    const u32 chunk = rest % a.chunks, step = rest / a.chunks;
    const DrawColumn c = a.columns[feature];
    const u32 first = chunk * BATCH_OF, end = min(first + BATCH_OF, d.samples);
    const RowBlock at = {d.first_step + step, d.first_block + first / ROW_BLOCK};
    for (u32 s = first; s < end; s += 32u) {
        float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (c.kind != COLUMN_SILENT) draw_four(d, at, c, feature, 8u * (s % ROW_BLOCK / 32u) + pair, v);
#pragma unroll
        for (u32 half = 0; half < 2u; ++half) {
            // The first of the two samples, then its tile, of which the last may not be there.
            const u32 sample = s + 16u * half + 2u * pair, tile = s / 16u + half;
            if (tile >= d.tiles) continue;
            float* to = d.x + place_of(step, d.tiles, tile, d.n, feature) + 2u * pair;
            float2 both = make_float2(sample < d.samples ? v[2u * half] : 0.0f, sample + 1u < d.samples ? v[2u * half + 1u] : 0.0f);
            *reinterpret_cast<float2*>(to) = both;
        }
    }
}
