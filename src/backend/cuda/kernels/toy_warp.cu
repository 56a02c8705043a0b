// Trains small tied toy models, one warp a model; n and m at run time, padded with zeros to a ladder of compiled sizes.
//
// Lane = (chain of samples c = lane mod 16, parity of features f = lane / 16): it has W, b and their gradients for the features 2
// q + f in registers, and takes the samples of its chain. A sample exchanges M partial sums of h and M of dh with the lane 16
// away; nothing else leaves the registers, and no weight is loaded in the loop over samples.
//
// x lies in shared memory as in device memory, [tile][n][16]: feature 2 q + f of chain c is 32 q + lane from the tile's start, so
// every lane reads its own bank. Where n < 2 q + f that is another number of x: the weights and the slope there are zero, so it
// moves nothing that is kept.
//
// Sums over samples are the CPU's; h and dh are two chains, of even and of odd features, and one addition.
#include "toy.cuh"

template <int Q, int M> struct WarpModel {
    float w[Q][M], b[Q];
};

// A tile: one sample a lane. `open_here` is false where the lane has no sample.
template <int Q, int M>
__device__ __forceinline__ void warp_tile(const WarpModel<Q, M>& model, const float* x_at, const float* slopes, bool linear,
                                          bool open_here, WarpModel<Q, M>& sums) {
    float x[Q], h[M], dh[M];
#pragma unroll
    for (u32 q = 0; q < Q; ++q) x[q] = x_at[32 * q];
#pragma unroll
    for (u32 k = 0; k < M; ++k) h[k] = dh[k] = 0.0f;
#pragma unroll
    for (u32 q = 0; q < Q; ++q)
#pragma unroll
        for (u32 k = 0; k < M; ++k) h[k] = fmaf(model.w[q][k], x[q], h[k]);
#pragma unroll
    for (u32 k = 0; k < M; ++k) h[k] += __shfl_xor_sync(ALL_LANES, h[k], 16);
#pragma unroll
    for (u32 q = 0; q < Q; ++q) {
        float z = model.b[q];
#pragma unroll
        for (u32 k = 0; k < M; ++k) z = fmaf(model.w[q][k], h[k], z);
        const float cr = slopes[q] * (z - x[q]), g = ((z > 0.0f) | linear) & open_here ? cr : 0.0f;
        sums.b[q] += g;
#pragma unroll
        for (u32 k = 0; k < M; ++k) {
            dh[k] = fmaf(model.w[q][k], g, dh[k]);
            sums.w[q][k] = fmaf(g, h[k], sums.w[q][k]);
        }
    }
#pragma unroll
    for (u32 k = 0; k < M; ++k) dh[k] += __shfl_xor_sync(ALL_LANES, dh[k], 16);
#pragma unroll
    for (u32 q = 0; q < Q; ++q)
#pragma unroll
        for (u32 k = 0; k < M; ++k) sums.w[q][k] = fmaf(x[q], dh[k], sums.w[q][k]);
}

// What a warp has in shared memory, touched once a step: in registers it would push the loop over samples into spills.
struct WarpMemory {
    float *parameters, *gradient, *first, *second;  // [n m + n]
    float* slopes;                                  // [2][Q], by parity
};

template <int Q, int M>
__device__ __forceinline__ void warp_load(WarpModel<Q, M>& model, const WarpMemory& memory, u32 n, u32 m, u32 parity) {
#pragma unroll
    for (u32 q = 0; q < Q; ++q) {
        const u32 i = 2 * q + parity;
#pragma unroll
        for (u32 k = 0; k < M; ++k) model.w[q][k] = i < n && k < m ? memory.parameters[i * m + k] : 0.0f;
        model.b[q] = i < n ? memory.parameters[n * m + i] : 0.0f;
    }
}

// Folds the chains and stores the gradient.
template <int Q, int M>
__device__ __forceinline__ void warp_fold(const WarpModel<Q, M>& sums, const WarpMemory& memory, u32 n, u32 m, u32 lane) {
#pragma unroll
    for (u32 q = 0; q < Q; ++q) {
        const u32 i = 2 * q + lane / TILE;
        const bool mine = lane % TILE == 0 && i < n;
#pragma unroll
        for (u32 k = 0; k < M; ++k) {
            const float sum = fold16(sums.w[q][k]);
            if (mine && k < m) memory.gradient[i * m + k] = sum;
        }
        const float sum = fold16(sums.b[q]);
        if (mine) memory.gradient[n * m + i] = sum;
    }
}

// Shared memory: x [stage][n][16] and 32 Q numbers more, then for each warp its WarpMemory.
template <int Q, int M> __device__ __forceinline__ void toy_warp(const ToyArgs& a) {
    DYNAMIC_SHARED(float, xs);
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, parity = lane / TILE;
    const u32 n = a.n, m = a.m, parameters = n * m + n;
    const ToyBlock block = a.blocks[blockIdx.x];
    // Warps to spare repeat the first model and store nothing.
    const u32 model = block.first + (warp < block.count ? warp : 0u);
    const u64 origin = (u64)model * parameters;
    const bool linear = !a.relu;
    WarpMemory memory;
    memory.parameters = xs + a.stage * n * TILE + 32 * Q + warp * (4 * parameters + 2 * Q);
    memory.gradient = memory.parameters + parameters;
    memory.first = memory.gradient + parameters;
    memory.second = memory.first + parameters;
    memory.slopes = memory.second + parameters;
    // Read as x of features that are not there: finite is all it has to be.
    for (u32 e = threadIdx.x; e < a.stage * n * TILE + 32 * Q; e += blockDim.x) xs[e] = 0.0f;
    for (u32 e = lane; e < parameters; e += 32) {
        memory.parameters[e] = a.parameters[origin + e];
        memory.first[e] = a.first[origin + e];
        memory.second[e] = a.second[origin + e];
    }
    for (u32 i = lane; i < 2 * Q; i += 32) memory.slopes[i % 2 * Q + i / 2] = i < n ? a.slopes[(u64)model * n + i] : 0.0f;
    const float* const slopes = memory.slopes + parity * Q;
    const ToyStep* const steps = a.steps + (u64)a.settings[model] * a.steps_stride + a.from;
    const ToyBatch batch = a.batches[block.batch];
    WarpModel<Q, M> of, sums;
#pragma unroll 1
    for (u32 step = 0; step < a.n_steps; ++step) {
        const Walk walk = walk_of(batch, a.from + step);
        __syncwarp();
        warp_load<Q, M>(of, memory, n, m, parity);
#pragma unroll
        for (u32 q = 0; q < Q; ++q) {
            sums.b[q] = 0.0f;
#pragma unroll
            for (u32 k = 0; k < M; ++k) sums.w[q][k] = 0.0f;
        }
#pragma unroll 1
        for (u32 first = 0; first < walk.tiles; first += a.stage) {
            const u32 tiles = min(a.stage, walk.tiles - first);
            __syncthreads();
            copy_block(xs, walk.x + (u64)first * n * TILE, tiles * n * TILE);
            __syncthreads();
#pragma unroll 1
            for (u32 j = 0; j < tiles; ++j) {
                const bool open_here = (first + j) * TILE + lane % TILE < walk.count;
                warp_tile<Q, M>(of, xs + j * n * TILE + lane, slopes, linear, open_here, sums);
            }
        }
        warp_fold<Q, M>(sums, memory, n, m, lane);
        // A shuffle meets, but does not order memory; and the last numbers are stored after the last one.
        __syncwarp();
        const ToyStep numbers = steps[step];
        for (u32 e = lane; e < parameters; e += 32) {
            const float p = memory.parameters[e];
            float g = memory.gradient[e];
            if (e >= n * m) {
                const u32 i = e - n * m;
                g = with_silent(g, p, memory.slopes[i % 2 * Q + i / 2], walk.silent, linear);
            }
            memory.parameters[e] = toy_update(numbers, p, g, memory.first[e], memory.second[e]);
        }
    }
    if (warp < block.count)
        // A lane reads what it wrote.
        for (u32 e = lane; e < parameters; e += 32) {
            a.parameters[origin + e] = memory.parameters[e];
            a.first[origin + e] = memory.first[e];
            a.second[origin + e] = memory.second[e];
        }
}

// ceil(n / 2) and m of the ladder; `cuda/toy/layout.rs` has the same.
KERNEL(toy_warp_3_5, ToyArgs, 128, 4) { toy_warp<3, 5>(a); }
KERNEL(toy_warp_3_10, ToyArgs, 128, 4) { toy_warp<3, 10>(a); }
KERNEL(toy_warp_3_20, ToyArgs, 128, 2) { toy_warp<3, 20>(a); }
KERNEL(toy_warp_5_3, ToyArgs, 128, 4) { toy_warp<5, 3>(a); }
KERNEL(toy_warp_5_5, ToyArgs, 128, 4) { toy_warp<5, 5>(a); }
KERNEL(toy_warp_5_10, ToyArgs, 128, 3) { toy_warp<5, 10>(a); }
KERNEL(toy_warp_10_2, ToyArgs, 128, 4) { toy_warp<10, 2>(a); }
KERNEL(toy_warp_10_3, ToyArgs, 128, 3) { toy_warp<10, 3>(a); }
KERNEL(toy_warp_10_5, ToyArgs, 128, 3) { toy_warp<10, 5>(a); }
KERNEL(toy_warp_10_8, ToyArgs, 128, 2) { toy_warp<10, 8>(a); }
KERNEL(toy_warp_20_2, ToyArgs, 128, 2) { toy_warp<20, 2>(a); }
KERNEL(toy_warp_40_1, ToyArgs, 128, 2) { toy_warp<40, 1>(a); }
