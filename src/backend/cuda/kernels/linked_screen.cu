// The upper half of linked worlds: eps, and which features without a parent fire.
#include "linked.cuh"

// A thread: one k, the four samples of one call.
KERNEL(linked_factor, LinkedArgs, 128, 8) {
    const u32 width = a.has_children ? a.columns : a.rank;
    const u64 thread = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= (u64)a.steps * a.tiles * width * 8u) return;
    // The launcher keeps the number of threads below 2^32.
    const u32 pair = (u32)thread % 8u, k = (u32)thread / 8u % width, tile = (u32)thread / 8u / width;
    const LinkedTile t = linked_tile(a, tile / a.tiles, tile % a.tiles);
    float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (k < a.rank) {
        const Words w = call(a.draw, t.at, t.first / 4u + pair, TAG_FACTOR | k);
#pragma unroll
        for (u32 i = 0; i < 4u; ++i) v[i] = normal(w.v[i], FULL_SCALE);
    }
#pragma unroll
    for (u32 i = 0; i < 4u; ++i) {
        const u32 sample = 16u * (i / 2u) + 2u * pair + i % 2u;
        if (k < a.rank) a.eps[((u64)tile * a.rank + k) * 32u + sample] = v[i];
        if (a.has_children) a.rows[((u64)tile * 32u + sample) * a.columns + k] = v[i];
    }
}

#define SCREEN_WARPS 4u

// A warp's own memory: candidates of sixteen features and 32 samples, coins, and what fires.
struct LinkedScreen {
    float z[512];
    unsigned short candidate[512];  // sample + 32 (feature + 16 level)
    u32 heads[16][4];  // of a feature: samples whose first two, five, eight coins show heads
    u32 fires[32];     // of a sample: features
};

// The coins of a block: each lane makes one call, which holds two coins of two features for 32 samples.
__device__ __forceinline__ void throw_coins(const LinkedArgs& a, const LinkedTile& t, u32 block, LinkedScreen& mine) {
    const u32 lane = threadIdx.x % 32u;
    const Words w = call(a.draw, t.at, t.first + lane, TAG_HEADS | block);
#pragma unroll
    for (u32 odd = 0; odd < 2u; ++odd) {
        // Lane 8 c + f holds coins 2 c and 2 c + 1 of features 2 f and 2 f + 1.
        const u32 one = w.v[odd], both = one & w.v[2u + odd];
        const u32 two = __shfl_sync(ALL_LANES, both, lane % 8u), four = two & __shfl_sync(ALL_LANES, both, lane % 8u + 8u);
        const u32 five = four & __shfl_sync(ALL_LANES, one, lane % 8u + 16u);
        const u32 six = four & __shfl_sync(ALL_LANES, both, lane % 8u + 16u);
        const u32 eight = six & __shfl_sync(ALL_LANES, both, lane % 8u + 24u);
        if (lane < 8u) {
            mine.heads[2u * lane + odd][0] = two;
            mine.heads[2u * lane + odd][1] = five;
            mine.heads[2u * lane + odd][2] = eight;
        }
    }
}

// A warp: sixteen features, 32 samples. A lane has one sample's sums of all sixteen; what z and coins leave in play, about one in a
// hundred, is gathered and then decided lane by lane.
KERNEL(linked_screen, LinkedArgs, 128, 4) {
    __shared__ LinkedScreen memory[SCREEN_WARPS];
    const u32 lane = threadIdx.x % 32u;
    const u64 warp = (u64)blockIdx.x * SCREEN_WARPS + threadIdx.x / 32u;
    if (warp >= (u64)a.steps * a.tiles * a.n_blocks) return;  // whole warps leave
    LinkedScreen& mine = memory[threadIdx.x / 32u];
    const u32 at = (u32)warp % a.n_blocks, tile = (u32)warp / a.n_blocks;
    const LinkedBlock block = a.blocks[at];
    const LinkedTile t = linked_tile(a, tile / a.tiles, tile % a.tiles);

    float z[16];
#pragma unroll
    for (u32 l = 0; l < 16u; ++l) z[l] = -a.threshold[16u * block.index + l];
    const float* eps = a.eps + (u64)tile * a.rank * 32u + lane;
    const float4* panel = reinterpret_cast<const float4*>(a.panels + (u64)at * a.rank * 16u);
#pragma unroll 1
    for (u32 k = 0; k < a.rank; ++k) {
        const float e = eps[32u * k];
#pragma unroll
        for (u32 q = 0; q < 4u; ++q) {
            const float4 f = panel[4u * k + q];
            z[4u * q] = fmaf(f.x, e, z[4u * q]);
            z[4u * q + 1u] = fmaf(f.y, e, z[4u * q + 1u]);
            z[4u * q + 2u] = fmaf(f.z, e, z[4u * q + 2u]);
            z[4u * q + 3u] = fmaf(f.w, e, z[4u * q + 3u]);
        }
    }
    if (!a.sure) throw_coins(a, t, block.index, mine);
    mine.fires[lane] = 0;
    __syncwarp();  // fibers cannot miss this: lanes meet at shuffles and ballots, but see what others wrote only here

    const u32 before = (1u << lane) - 1u;
    u32 count = 0;
#pragma unroll
    for (u32 l = 0; l < 16u; ++l) {
        // The quantiles of 2^-2, 2^-5 and 2^-8, rounded down: `data::law::QUANTILES`.
        const bool over[3] = {z[l] > -0.6744905f, z[l] > -1.862733f, z[l] > -2.660069f};
        bool left = a.sure && z[l] > 0.0f;
        if (!a.sure) {
            const u32* heads = mine.heads[l];
            left = over[0] || (over[1] && heads[0] >> lane & 1u) || (over[2] && heads[1] >> lane & 1u) || (heads[2] >> lane & 1u);
        }
        left = left && (block.free >> l & 1u);
        const u32 mask = __ballot_sync(ALL_LANES, left);
        if (left) {
            const u32 place = count + __popc(mask & before), level = over[0] + over[1] + over[2];
            mine.z[place] = z[l];
            mine.candidate[place] = (unsigned short)(lane + 32u * (l + 16u * level));
        }
        count += __popc(mask);
    }
    __syncwarp();
    for (u32 place = lane; place < count; place += 32u) {
        const u32 candidate = mine.candidate[place], sample = candidate % 32u, l = candidate / 32u % 16u, level = candidate / 512u;
        bool fires = true;
        if (!a.sure) {
            const Words w = call(a.draw, t.at, t.first + sample, TAG_FIRE | (16u * block.index + l));
            fires = mine.z[place] > linked_bar(w.v[0], level == 3u ? 0u : level == 2u ? 2u : level == 1u ? 5u : 8u);
        }
        if (fires) atomicOr(&mine.fires[sample], 1u << l);
    }
    __syncwarp();
    a.bits[((u64)tile * 32u + lane) * a.n_blocks + at] = (unsigned short)mine.fires[lane];
}
