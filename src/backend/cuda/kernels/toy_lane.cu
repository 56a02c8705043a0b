// Trains the smallest tied toy models, one lane a model: n m + n <= 15.
//
//     stage x of the step in shared memory
//     for each chain of samples:  h = W x,  z = W^T h + b,  g = c (z - x) where open,  dh = W g,  dW += g h + x dh,  db += g
//     fold the chains, add silent samples, step
//
// A model's weights and sums are in its lane's registers, so nothing is exchanged, and every sum is the CPU's: the same bits.
// Chains go in the order 0 8 4 12 2 .. (bits reversed): folding 8, 4, 2, 1 apart is then a binary counter with four pending sums
// instead of sixteen. What is touched a few times a step lies in shared memory: those, and what the optimiser moves. Hidden
// dimensions are padded with zeros up to M, which changes no bit.
#include "toy.cuh"

// Weights, then biases: of a model or of its gradient.
template <int N, int M> struct LaneSums {
    float p[N * M + N];
};

template <int N, int M> struct LaneModel {
    float p[N * M + N], slope[N];
};

// One sample; x_i stands at x[16 i], the same for all lanes.
template <int N, int M>
__device__ __forceinline__ void lane_sample(const LaneModel<N, M>& model, const float* x_at, bool linear, LaneSums<N, M>& sums) {
    float x[N], h[M], dh[M];
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = x_at[i * TILE];
#pragma unroll
    for (int k = 0; k < M; ++k) {
        h[k] = dh[k] = 0.0f;
#pragma unroll
        for (int i = 0; i < N; ++i) h[k] = fmaf(model.p[i * M + k], x[i], h[k]);
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
        float z = model.p[N * M + j];
#pragma unroll
        for (int k = 0; k < M; ++k) z = fmaf(model.p[j * M + k], h[k], z);
        const float cr = model.slope[j] * (z - x[j]), g = (z > 0.0f) | linear ? cr : 0.0f;
        sums.p[N * M + j] += g;
#pragma unroll
        for (int k = 0; k < M; ++k) {
            dh[k] = fmaf(model.p[j * M + k], g, dh[k]);
            sums.p[j * M + k] = fmaf(g, h[k], sums.p[j * M + k]);
        }
    }
#pragma unroll
    for (int i = 0; i < N; ++i)
#pragma unroll
        for (int k = 0; k < M; ++k) sums.p[i * M + k] = fmaf(x[i], dh[k], sums.p[i * M + k]);
}

// The folded gradient of one batch. `pending` is [4][P][threads], this lane's column.
template <int N, int M>
__device__ __forceinline__ LaneSums<N, M> lane_gradient(const LaneModel<N, M>& model, const Walk& walk, u32 stage, bool linear,
                                                        float* xs, float* pending) {
    constexpr int P = N * M + N;
    LaneSums<N, M> sums;
#pragma unroll 1
    for (u32 q = 0; q < TILE; ++q) {
        const u32 chain = (q & 1u) << 3 | (q & 2u) << 1 | (q & 4u) >> 1 | (q & 8u) >> 3;
#pragma unroll
        for (int e = 0; e < P; ++e) sums.p[e] = 0.0f;
#pragma unroll 1
        for (u32 first = 0; first < walk.tiles; first += stage) {
            const u32 tiles = min(stage, walk.tiles - first);
            // What does not fit at once is copied again for every chain.
            if (q == 0 || walk.tiles > stage) {
                __syncthreads();
                copy_block(xs, walk.x + (u64)first * N * TILE, tiles * N * TILE);
                __syncthreads();
            }
            const u32 rest = walk.count - first * TILE, samples = rest > chain ? (rest - chain + TILE - 1) / TILE : 0;
            const u32 mine = min(tiles, samples);
#pragma unroll 2
            for (u32 j = 0; j < mine; ++j) lane_sample<N, M>(model, xs + j * N * TILE + chain, linear, sums);
        }
        u32 level = 0;
        for (; q >> level & 1u; ++level)
#pragma unroll
            for (int e = 0; e < P; ++e) sums.p[e] += pending[(level * P + e) * blockDim.x];
        if (level < 4)
#pragma unroll
            for (int e = 0; e < P; ++e) pending[(level * P + e) * blockDim.x] = sums.p[e];
    }
    return sums;
}

// Parameters and moments of a lane, touched once a step: columns of [P][threads] in shared memory.
struct LaneMemory {
    float *parameters, *first, *second;
};

// The optimiser's step, a loop that is not unrolled: there is one division and one root in the kernel. `gradient` is a column
// too.
template <int N, int M>
__device__ __forceinline__ void lane_update(const ToyArgs& a, const LaneMemory& memory, const float* gradient,
                                            const float* slopes, const ToyStep& numbers, u32 silent) {
    constexpr u32 P = N * M + N;
#pragma unroll 1
    for (u32 e = 0; e < P; ++e) {
        const u32 at = e * blockDim.x;
        // Padding stays zero.
        if (e < N * M && e % M >= a.m) continue;
        float g = gradient[at];
        if (e >= N * M) g = with_silent(g, memory.parameters[at], slopes[e - N * M], silent, !a.relu);
        memory.parameters[at] = toy_update(numbers, memory.parameters[at], g, memory.first[at], memory.second[at]);
    }
}

// Shared memory: x [stage][N][16], pending sums [4][P][threads], then LaneMemory [3][P][threads].
template <int N, int M> __device__ __forceinline__ void toy_lane(const ToyArgs& a) {
    constexpr u32 P = N * M + N;
    DYNAMIC_SHARED(float, xs);
    const u32 t = threadIdx.x, column = P * blockDim.x;
    float* const pending = xs + a.stage * N * TILE + t;
    const LaneMemory memory = {pending + 4 * column, pending + 5 * column, pending + 6 * column};
    const ToyBlock block = a.blocks[blockIdx.x];
    // Lanes to spare repeat the first model and store nothing.
    const u32 model = block.first + (t < block.count ? t : 0u);
    const u64 origin = (u64)model * (N * a.m + N);
    const float* const slopes = a.slopes + (u64)model * N;
    // Where entry e stands in the flat parameters, or ~0 in the padding.
    auto place = [&](u32 e) { return e >= N * M ? N * a.m + (e - N * M) : e % M < a.m ? e / M * a.m + e % M : ~0u; };
#pragma unroll 1
    for (u32 e = 0; e < P; ++e) {
        const u32 at = place(e), to = e * blockDim.x;
        memory.parameters[to] = at != ~0u ? a.parameters[origin + at] : 0.0f;
        memory.first[to] = at != ~0u ? a.first[origin + at] : 0.0f;
        memory.second[to] = at != ~0u ? a.second[origin + at] : 0.0f;
    }
    LaneModel<N, M> of;
#pragma unroll
    for (u32 i = 0; i < N; ++i) of.slope[i] = slopes[i];
    const ToyStep* const steps = a.steps + (u64)a.settings[model] * a.steps_stride + a.from;
    const ToyBatch batch = a.batches[block.batch];
#pragma unroll 1
    for (u32 step = 0; step < a.n_steps; ++step) {
        const Walk walk = walk_of(batch, a.from + step);
#pragma unroll
        for (u32 e = 0; e < P; ++e) of.p[e] = memory.parameters[e * blockDim.x];
        const LaneSums<N, M> sums = lane_gradient<N, M>(of, walk, a.stage, !a.relu, xs, pending);
        // The pending sums have been added: their first column is free.
#pragma unroll
        for (u32 e = 0; e < P; ++e) pending[e * blockDim.x] = sums.p[e];
        lane_update<N, M>(a, memory, pending, slopes, steps[step], walk.silent);
    }
    if (t >= block.count) return;
#pragma unroll 1
    for (u32 e = 0; e < P; ++e)
        if (place(e) != ~0u) {
            a.parameters[origin + place(e)] = memory.parameters[e * blockDim.x];
            a.first[origin + place(e)] = memory.first[e * blockDim.x];
            a.second[origin + place(e)] = memory.second[e * blockDim.x];
        }
}

// Every n with the m that are worth a kernel of their own; the ladder in `cuda/toy/layout.rs` is the same.
KERNEL(toy_lane_1_1, ToyArgs, 128, 4) { toy_lane<1, 1>(a); }
KERNEL(toy_lane_1_2, ToyArgs, 128, 4) { toy_lane<1, 2>(a); }
KERNEL(toy_lane_1_5, ToyArgs, 128, 4) { toy_lane<1, 5>(a); }
KERNEL(toy_lane_1_14, ToyArgs, 128, 3) { toy_lane<1, 14>(a); }
KERNEL(toy_lane_2_1, ToyArgs, 128, 4) { toy_lane<2, 1>(a); }
KERNEL(toy_lane_2_2, ToyArgs, 128, 4) { toy_lane<2, 2>(a); }
KERNEL(toy_lane_2_3, ToyArgs, 128, 4) { toy_lane<2, 3>(a); }
KERNEL(toy_lane_2_6, ToyArgs, 128, 3) { toy_lane<2, 6>(a); }
KERNEL(toy_lane_3_1, ToyArgs, 128, 4) { toy_lane<3, 1>(a); }
KERNEL(toy_lane_3_2, ToyArgs, 128, 4) { toy_lane<3, 2>(a); }
KERNEL(toy_lane_3_4, ToyArgs, 128, 3) { toy_lane<3, 4>(a); }
KERNEL(toy_lane_4_1, ToyArgs, 128, 4) { toy_lane<4, 1>(a); }
KERNEL(toy_lane_4_2, ToyArgs, 128, 3) { toy_lane<4, 2>(a); }
KERNEL(toy_lane_5_1, ToyArgs, 128, 4) { toy_lane<5, 1>(a); }
KERNEL(toy_lane_5_2, ToyArgs, 128, 3) { toy_lane<5, 2>(a); }
KERNEL(toy_lane_6_1, ToyArgs, 128, 3) { toy_lane<6, 1>(a); }
KERNEL(toy_lane_7_1, ToyArgs, 128, 3) { toy_lane<7, 1>(a); }
