// Drawing x on the device by the data law (`data::law`): what its kernels share.
//
// x is `[steps][tiles][n][16]`: tiles of sixteen samples as the CPU's batches have them, many steps of one world and seed behind each
// other. draw_columns writes every lane of it; draw_skips then adds what skips decide, draw_linked what linked worlds hold.
#pragma once
#include "variate.cuh"

// `data::law`: samples of a row block, and what a word is for (upper four bits of c1).
#define ROW_BLOCK 1024u
enum Tag : u32 {
    TAG_COIN = 0u << 28,
    TAG_SKIP = 1u << 28,
    TAG_VALUE = 2u << 28,
    TAG_PICK = 3u << 28,
    TAG_SHARE = 4u << 28,
    TAG_NOISE = 5u << 28,
    TAG_FACTOR = 6u << 28,
    TAG_HEADS = 7u << 28,
    TAG_FIRE = 8u << 28
};

// Which x. Kernels' structures begin with it.
struct Draw {
    float* x;
    const float2* law;  // [n]: slope and offset of a feature's magnitude
    u32 n, samples, tiles;
    u32 first_step;   // step of the first batch
    u32 first_block;  // row block of the first sample
    u32 key0, key1;
    u32 base, clip, shared;  // of magnitudes
};

// Where lane 0 of a tile and feature is in x. 64 bits from the first product on: x may have more than 2^32 numbers.
__device__ __forceinline__ u64 place_of(u32 step, u32 tiles, u32 tile, u32 n, u32 feature) {
    return (((u64)step * tiles + tile) * n + feature) * 16u;
}

// A row block of one step: the upper half of counters.
struct RowBlock {
    u32 step, block;
};

__device__ __forceinline__ Words call(const Draw& d, const RowBlock& at, u32 c0, u32 c1) {
    return philox(c0, c1, at.step, at.block, d.key0, d.key1);
}

// Word `at` of four, without an array that is indexed at run time.
__device__ __forceinline__ u32 word_at(const Words& w, u32 at) {
    u32 low = at & 1u ? w.v[1] : w.v[0], high = at & 1u ? w.v[3] : w.v[2];
    return at & 2u ? high : low;
}

// The word of a sample, counted within its row block.
__device__ __forceinline__ u32 sample_word(const Draw& d, const RowBlock& at, u32 sample, u32 c1) {
    Words w = call(d, at, 8u * (sample / 32u) + sample % 16u / 2u, c1);
    return word_at(w, 2u * (sample / 16u % 2u) + sample % 2u);
}
