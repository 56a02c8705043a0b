// What the kernels for toy models share: their arguments, one step of the optimiser, copies of x.
//
// Sums over samples have the shape of the CPU (`ops/toy_step`): sample s of those that are walked belongs to chain s mod 16, a
// chain adds in ascending order, chains fold 8, 4, 2, 1 apart, and silent samples that are not walked enter by their closed form.
// Neither the models of a block nor the steps of a launch enter a sum.
#pragma once
#include "common.cuh"

// Samples of a tile, and chains of a sum over samples.
constexpr u32 TILE = 16;

// Batches that models share, a step after another.
struct ToyBatch {
    const float* x;     // [steps][tiles][n][16]: the samples that are walked; lanes past the last are 0
    const u32* counts;  // [steps]: how many are walked; null where all are
    u64 x_stride;       // floats from a step to the next, 0 where every step has the same batch
    u32 count_stride;   // the same for counts
    u32 samples;        // of a batch, silent ones among them
};

// Models that a block of threads trains.
struct ToyBlock {
    u32 batch, first, count, unused;
};

constexpr u32 RULE_ADAPTIVE = 0, RULE_SGD = 1;

// `optimizer::Step`.
struct ToyStep {
    u32 rule;
    float first;   // 1 - beta1, or the momentum
    float second;  // 1 - beta2
    float rate, scale, epsilon, decay, shrink;
    float hidden_bias;  // factor of an mlp's hidden bias after the step
    u32 unused;
};

struct ToyArgs {
    const ToyBlock* blocks;
    const ToyBatch* batches;
    float* parameters;      // [models][n m + n]: W as [n][m], then b
    float* first;           // moments, likewise
    float* second;
    const float* slopes;    // [models][n]
    const u32* settings;    // [models]: row of `steps`
    const ToyStep* steps;   // [settings][steps_stride]
    const u32* batch_of;    // [models], for toy_loss alone, as what follows
    double* losses;         // [models]
    u32* wrong;             // [models]: the first parameter that is not finite, or ~0
    u32 n, m;
    u32 from, n_steps;      // steps of the batches that are walked
    u32 steps_stride, relu;
    u32 stage;              // what of x is in shared memory at a time: tiles, of toy_block and toy_layers samples
    u32 kind, activation;   // of toy_layers: KIND_.., ACTIVATION_..
    u32 n_inputs;           // rows of W: n, or the dimensions of the embedding
    const float* embedding; // [n][n_inputs rounded up to an odd number of float4], zeros in the padding; null where there is none
};

constexpr u32 KIND_TIED = 0, KIND_RELU_HIDDEN = 1, KIND_ABSOLUTE_VALUE = 2, KIND_MLP = 3, KIND_QUADRATIC = 4;

static_assert(sizeof(ToyBatch) == 32 && sizeof(ToyBlock) == 16 && sizeof(ToyStep) == 40 && sizeof(ToyArgs) == 136, "as in Rust");

// `optimizer::TINY` and its root: moments at most this large are stored as zero.
__device__ __forceinline__ float above(float limit, float x) {
    return (x < 0.0f ? -x : x) > limit ? x : 0.0f;
}

// The parameter after one step of `ops::optimizer`, operation by operation; moments are moved in place.
__device__ __forceinline__ float toy_update(const ToyStep& s, float p, float gradient, float& first, float& second) {
    const float g = fmaf(s.decay, p, gradient);
    if (s.rule == RULE_SGD) {
        float u = g;
        if (s.first != 0.0f) {
            u = fmaf(s.first, first, g);
            first = above(1e-30f, u);
        }
        return fmaf(s.rate, u, p);
    }
    const float counted = above(1e-15f, g);
    const float m = fmaf(s.first, g - first, first), v = fmaf(s.second, counted * counted - second, second);
    const float direction = __fdiv_rn(m, __fsqrt_rn(v * s.scale) + s.epsilon);
    first = above(1e-30f, m);
    second = above(1e-30f, v);
    return fmaf(s.rate, direction, fmaf(s.shrink, p, p));
}

// One step's batch.
struct Walk {
    const float* x;
    u32 count, silent, tiles;
};
__device__ __forceinline__ Walk walk_of(const ToyBatch& batch, u32 step) {
    Walk w;
    w.x = batch.x + step * batch.x_stride;
    w.count = batch.counts ? batch.counts[step * batch.count_stride] : batch.samples;
    w.silent = batch.samples - w.count;
    w.tiles = (w.count + TILE - 1) / TILE;
    return w;
}

// db_j with the silent samples: `toy_step::silent`.
__device__ __forceinline__ float with_silent(float db, float b, float slope, u32 silent, bool linear) {
    const float y = (b > 0.0f) | linear ? b : 0.0f;
    return silent ? fmaf((float)silent * slope, y, db) : db;
}

// Copies `floats`, a multiple of 4, from 16-byte aligned memory; the threads of the block share the work.
__device__ __forceinline__ void copy_block(float* to, const float* from, u32 floats) {
    for (u32 e = 4 * threadIdx.x; e < floats; e += 4 * blockDim.x)
        *reinterpret_cast<float4*>(to + e) = *reinterpret_cast<const float4*>(from + e);
}
