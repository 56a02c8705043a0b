// What is not 0 in x: which samples have any, and lists of it; and x at unit norm.
#include "draw.cuh"

struct DrawLiveArgs {
    const float* x;
    u32* live;  // [steps][words]: bit s mod 32 of word s / 32 is sample s
    u32 n, tiles;
    u32 words;  // of a step: ceil(tiles / 2)
    u32 warps;  // steps * words
};

// A warp: 32 samples, a lane each.
KERNEL(draw_live, DrawLiveArgs, 128, 4) {
    const u32 lane = threadIdx.x % 32u, warp = blockIdx.x * (blockDim.x / 32u) + threadIdx.x / 32u;
    if (warp >= a.warps) return;  // whole warps leave
    const u32 step = warp / a.words, word = warp % a.words, tile = 2u * word + lane / 16u;
    bool fires = false;
    if (tile < a.tiles) {
        const float* x = a.x + place_of(step, a.tiles, tile, a.n, 0) + lane % 16u;
#pragma unroll 4
        for (u32 i = 0; i < a.n; ++i) fires |= x[(u64)i * 16u] != 0.0f;
    }
    const u32 bits = __ballot_sync(ALL_LANES, fires);
    if (lane == 0) a.live[(u64)step * a.words + word] = bits;
}

struct DrawListsArgs {
    const float* x;
    u32* counts;    // [steps][samples]
    u32* features;  // [steps][samples][n]: ascending
    float* values;
    u32 n, samples, tiles;
    u32 warps;  // steps * tiles
};

// A warp: sixteen samples; half a warp looks at even features, half at odd ones. Both halves count what is on in their sample.
KERNEL(draw_lists, DrawListsArgs, 128, 4) {
    const u32 lane = threadIdx.x % 32u, warp = blockIdx.x * (blockDim.x / 32u) + threadIdx.x / 32u;
    if (warp >= a.warps) return;  // whole warps leave
    const u32 step = warp / a.tiles, tile = warp % a.tiles, sample = 16u * tile + lane % 16u, half = lane / 16u;
    const u64 row = (u64)step * a.samples + sample;
    const float* x = a.x + place_of(step, a.tiles, tile, a.n, 0) + lane;
    u32 count = 0;
    for (u32 i = 0; i < a.n; i += 2u) {
        const float value = i + half < a.n ? x[(u64)i * 16u] : 0.0f;
        const u32 on = value != 0.0f, others = __shfl_xor_sync(ALL_LANES, on, 16);
        if (on && sample < a.samples) {
            const u64 place = row * a.n + count + (half ? others : 0u);
            a.features[place] = i + half;
            a.values[place] = value;
        }
        count += on + others;
    }
    if (half == 0 && sample < a.samples) a.counts[row] = count;
}

struct DrawNormaliseArgs {
    float* x;
    u64 threads;  // steps * tiles * 16
    u32 n;
    u32 unused;
};

// A thread: one sample. Squares are summed in f64, features ascending, as the CPU sums them.
KERNEL(draw_normalise, DrawNormaliseArgs, 128, 4) {
    const u64 thread = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= a.threads) return;
    float* x = a.x + thread / 16u * a.n * 16u + thread % 16u;
    double square = 0.0;
    for (u32 i = 0; i < a.n; ++i) {
        const double value = (double)x[(u64)i * 16u];
        square += value * value;
    }
    const double scale = square > 0.0 ? __ddiv_rn(1.0, __dsqrt_rn(square)) : 0.0;
    for (u32 i = 0; i < a.n; ++i) x[(u64)i * 16u] = (float)((double)x[(u64)i * 16u] * scale);
}
