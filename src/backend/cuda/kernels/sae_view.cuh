// What the kernels of an SAE's training step share: one autoencoder as the device sees it, and folds over a block.
//
// A launch does one operation of many autoencoders of one shape: block b of the launch works on autoencoder b / per. Each has a
// view, which is the same in all steps, and an aim, which is what the host says about the step. Rows of width d take `pitch`
// floats, the next multiple of 4, and what is past d is 0 for ever.
//
// Several steps are queued at once. Of the step with number `slot` among them, batch and aims stand at place `slot` of theirs,
// so that one list of launches serves again and again.
//
// Lists hold the active latents. Sample s has places s cap .. s cap + count[s] of a list; bit s of mask row j says that latent
// j is in it, and slot[j][s] where. So the samples of a latent come in ascending order without a sort, and atomics touch bits
// alone.
//
// Sums: a chain over samples or latents is serial and ascending; a row of width d is a chain over the columns of each thread,
// then lanes 16, 8, 4, 2, 1 apart, then warps in order. Threads of a block follow from d alone, so nothing else is part of a
// sum.
#pragma once
#include "common.cuh"

#define SAE_LEVELS 16
#define SAE_ALL_TIES 0xffffffffu

enum { SAE_POSITIVE, SAE_TOP, SAE_BATCH_TOP, SAE_JUMP, SAE_GATED };
enum { SAE_NO_PENALTY, SAE_L1, SAE_L1_NORM, SAE_STEP, SAE_TANH, SAE_QUADRATIC };
// Lists: what reconstructs; what passes a gate; dead latents with the auxiliary loss; dead latents below their thresholds.
enum { SAE_MAIN, SAE_GATE, SAE_DEAD, SAE_SILENT, SAE_LISTS };
enum {
    SAE_UNIT = 1,             // decoder rows stay unit
    SAE_TIED = 2,             // one matrix is encoder and decoder
    SAE_FROZEN = 4,           // decoder and its bias stay
    SAE_HOLD_DECODER = 8,     // the gate's reconstruction holds the decoder and its bias constant
    SAE_DETACHED = 16,        // each level holds the one inside it constant
    SAE_INPUT_GRADIENT = 32,  // a jump's window reaches pre
    SAE_BY_LEVEL = 64,        // dead latents of each level reconstruct what that level leaves over
    SAE_LED = 128,            // a controller of L0 leads the penalty
};
enum { SAE_NO_SORT, SAE_FREQUENCY, SAE_CONTRIBUTION };

struct SaeTensor {
    float *w, *gradient, *first, *second;  // moments: nowhere if the optimiser has none
};

struct SaeList {
    u32* count;      // [n]
    u32* latent;     // [n][cap]
    float* z;        // [n][cap]
    float* dz;       // [n][cap]: what the loss changes by with pre
    float* more[2];  // [n][cap]: what it changes by with a latent's other numbers; nowhere if it has none
    u32* mask;       // [m][words]: 0 between steps
    u32* slot;       // [m][n]
    float* heard;    // [levels][n][pitch]: derivative of the loss by the reconstruction that a latent of this level hears of
    float* squares;  // [levels][n]
    u32* cut;        // [levels][n]: key of the last that a sample keeps
    u32* ties;       // [levels][n]: how many with that key
    u32 cap, levels;
};

// What is remembered from step to step beside the weights, and what kernels of a step hand each other.
struct SaeMemory {
    double first, threshold;  // mean squared error of the first step; running threshold of BatchTopK
    double multiplier, smoothed, rate;  // the controller of L0: factor of the penalty, running mean, its smoothed change
    double dead_weight[SAE_LEVELS];
    u32 dead[SAE_LEVELS];  // dead latents of each level
    u32 has_first, has_smoothed, halted, broken;
    float scale;  // of the gradient: below 1 where it is clipped
    u32 cut, ties, wanted, low, unused;
};

struct SaeReport {
    double mse, reconstruction, penalty, auxiliary;
    double multiplier, smoothed, rate;  // the controller after this step
    u64 fired;
    u32 halted, broken;  // broken: the step before left weights that are not finite
};

struct SaeView {
    const float* h;  // [slots][n][pitch]
    float* pre;      // [n][m_pitch]
    SaeTensor enc, bias, dec, center, more[2];  // W_enc, b_enc [m], W_dec, b_dec [pitch], then one number a latent [m]
    float *norm, *offset, *factor;              // [m]: |w_dec|, b_enc - w_enc b_dec, exp(r_mag)
    float *through, *squares;                   // [m]: sum of dz; square of the latent's part of the gradient
    double* price;                              // [m]: what the penalty takes for the latent
    u32 *active, *since;                        // [m]: whether gradient rows are there; steps since it fired
    double* usage;                              // [m]: running mean that the order of latents follows
    u32* level_of;                              // [m], or nowhere: one level
    float* errors;                              // [lists of dead latents][n][pitch], or nowhere
    double* row_penalty;                        // [n]
    u32 *row_fired, *row_ties;                  // [n]
    u32* histogram;                             // [2048]: 0 between steps
    float* parts;                               // [sample blocks + latent blocks][pitch]
    SaeMemory* memory;
    SaeReport* reports;
    SaeList lists[SAE_LISTS];
    double silent, penalty_target, penalty_scale;
    double wanted_l0, lead_rate, lead_approach, lead_ahead;
    float bandwidth;
    u32 n, m, d, pitch, m_pitch, words, rule, penalty, flags, dead_after, aux_k, sort, used;  // used: a bit a list
};

struct SaeAim {
    double each;  // coefficient of the penalty over n, but for the controller's multiplier
    double clip;  // greatest norm of the gradient; infinite: not clipped
    double level_weight[SAE_LEVELS];
    float level_scale[SAE_LEVELS];  // 2 weight / n
    u32 level_end[SAE_LEVELS];      // how many latents a level and those inside it have
    u32 k;                          // of a sample, or of the batch
    u32 report;                     // where the report goes
    u32 adaptive;                   // Adam and AdamW, else SGD
    float take[2], rate, scale, epsilon, decay, shrink, momentum;
    u32 levels, tunes, unused;  // how many levels; whether the controller moves
};

struct SaeArgs {
    const SaeView* views;        // [count]
    const SaeAim* aims;          // [slots][count]
    u32 per, which, slot, count;  // blocks of an autoencoder; list, pass or mode
};

static_assert(sizeof(void*) != 8 || (sizeof(SaeTensor) == 32 && sizeof(SaeList) == 104), "as the host has them");
static_assert(sizeof(void*) != 8 || (sizeof(SaeView) == 880 && sizeof(SaeArgs) == 32), "as the host has them");
static_assert(sizeof(SaeMemory) == 272 && sizeof(SaeReport) == 72 && sizeof(SaeAim) == 328, "as the host has them");

// What the host says of this step to autoencoder b, and its batch.
__device__ __forceinline__ const SaeAim& sae_aim(const SaeArgs& a, u32 b) { return a.aims[(u64)a.slot * a.count + b]; }
__device__ __forceinline__ const float* sae_batch(const SaeArgs& a, const SaeView& v) {
    return v.h + (u64)a.slot * v.n * v.pitch;
}
// What the penalty is multiplied by, over n.
__device__ __forceinline__ double sae_each(const SaeView& v, const SaeAim& aim) { return aim.each * v.memory->multiplier; }

// Arrays outgrow 32 bits.
__device__ __forceinline__ u64 sae_at(u32 row, u32 width, u32 column) { return (u64)row * width + column; }
__device__ __forceinline__ u64 sae_at3(u32 plane, u32 rows, u32 row, u32 width, u32 column) {
    return ((u64)plane * rows + row) * width + column;
}

// Samples and latents of the tile of the encoder's product that a block has.
#define SAE_TILE 128

// Where a block's tile begins. Read anew where it is needed, so that no register holds it through the product.
struct SaeTile {
    u32 row, column;
};
__device__ __forceinline__ SaeTile sae_tile(const SaeView& v, u32 b) {
    const u32 across = (v.m + SAE_TILE - 1) / SAE_TILE;
    return {b / across * SAE_TILE, b % across * SAE_TILE};
}

// Sums over a block of whole warps; every thread gets it. The first barrier keeps scratch of the fold before until it is read.
template <class T> __device__ __forceinline__ T sae_fold(T x, T* scratch) {
    u32 t = threadIdx.x;
#pragma unroll
    for (int apart = 16; apart > 0; apart >>= 1) x += __shfl_xor_sync(ALL_LANES, x, apart);
    __syncthreads();
    if ((t & 31u) == 0) scratch[t >> 5] = x;
    __syncthreads();
    T sum = scratch[0];
    for (u32 w = 1; w < blockDim.x >> 5; ++w) sum += scratch[w];
    return sum;
}

__device__ __forceinline__ float4 sae_load4(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ __forceinline__ void sae_store4(float* to, float4 x) { *reinterpret_cast<float4*>(to) = x; }
// to + factor x
__device__ __forceinline__ float4 sae_add4(float4 to, float factor, float4 x) {
    return make_float4(fmaf(factor, x.x, to.x), fmaf(factor, x.y, to.y), fmaf(factor, x.z, to.z), fmaf(factor, x.w, to.w));
}
// sum + a b, column after column
__device__ __forceinline__ float sae_dot4(float sum, float4 a, float4 b) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

__device__ __forceinline__ bool sae_finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

// 2^k, -1022 <= k <= 1023
__device__ __forceinline__ double sae_power_of_two(int k) {
#ifdef TEGUM_EMULATED
    u64 bits = (u64)(1023 + k) << 52;
    double x;
    memcpy(&x, &bits, 8);
    return x;
#else
    return __longlong_as_double((long long)(1023 + k) << 52);
#endif
}

// exp by fma alone, to a few units of 1e-16: x = k ln 2 + r, a Taylor series of r, and k goes into the exponent in two halves.
__device__ __forceinline__ double sae_exp(double x) {
    if (!(x > -746.0)) return x != x ? x : 0.0;
    if (x > 710.0) x = 710.0;  // becomes infinite below
    double k = (double)(int)(x * 1.4426950408889634 + (x < 0.0 ? -0.5 : 0.5));
    double r = fma(k, -1.9082149292705877e-10, fma(k, -6.93147180369123816490e-1, x)), p = 1.0 / 6227020800.0;
    p = fma(p, r, 1.0 / 479001600.0);
    p = fma(p, r, 1.0 / 39916800.0);
    p = fma(p, r, 1.0 / 3628800.0);
    p = fma(p, r, 1.0 / 362880.0);
    p = fma(p, r, 1.0 / 40320.0);
    p = fma(p, r, 1.0 / 5040.0);
    p = fma(p, r, 1.0 / 720.0);
    p = fma(p, r, 1.0 / 120.0);
    p = fma(p, r, 1.0 / 24.0);
    p = fma(p, r, 1.0 / 6.0);
    p = fma(p, r, 0.5);
    p = fma(p, r, 1.0);
    p = fma(p, r, 1.0);
    int half = (int)k / 2, rest = (int)k - half;
    return p * sae_power_of_two(half) * sae_power_of_two(rest);
}
