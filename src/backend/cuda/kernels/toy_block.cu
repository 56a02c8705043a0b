// Trains larger tied toy models, one block a model, everything but the moments in shared memory; n and m at run time.
//
//     for each piece of samples:  H = W^T X,  Z = W H + b,  G = c (Z - X) where open,  DH = W^T G
//                                 dW += G H^T + X DH^T,  db += G
//     add silent samples, step
#include "toy_block.cuh"

// Where things are.
struct BlockMemory {
    Matrix w, dw;      // [n][m]
    float *b, *db, *c; // [n]
    float *x, *g;      // [n][ss]
    float *h, *dh;     // [m][ss]
};

__device__ __forceinline__ BlockMemory block_memory(float* at, u32 n, u32 m, const Piece& p) {
    BlockMemory o;
    o.w = matrix(at, n, m), o.dw = matrix(o.w.end(), n, m);
    o.b = o.dw.end(), o.db = o.b + o.w.rows4, o.c = o.db + o.w.rows4;
    o.x = o.c + o.w.rows4, o.g = o.x + o.w.rows4 * p.ss;
    o.h = o.g + o.w.rows4 * p.ss, o.dh = o.h + o.w.columns4 * p.ss;
    return o;
}

// One step's gradient into dw and db, without silent samples.
__device__ __forceinline__ void block_gradient(const BlockMemory& o, const Piece& p, const Walk& walk, bool linear) {
    const Outputs of = {o.b, o.c, linear, false};
    block_zero(o.dw.at, o.dw.rows4 * o.dw.stride);
    block_zero(o.db, o.w.rows4);
    for (u32 first = 0; first < walk.count; first += p.s) {
        __syncthreads();
        block_copy(p, walk, first, o.w.rows, o.x);
        __syncthreads();
        block_project(p, o.w, o.x, o.h);
        __syncthreads();
        block_residual(p, o.w, of, o.h, o.x, walk.count - first, o.g);
        __syncthreads();
        block_project(p, o.w, o.g, o.dh);
        block_sums(p, o.g, o.w.rows, o.db);
        __syncthreads();
        block_outer(p, o.dw, o.g, o.h, o.x, o.dh);
    }
    __syncthreads();
}

KERNEL(toy_block, ToyArgs, 256, 2) {
    DYNAMIC_SHARED(float, shared);
    const u32 t = threadIdx.x, weights = a.n * a.m;
    const ToyBlock block = a.blocks[blockIdx.x];
    const Piece p = {a.stage, a.stage + 4};
    const BlockMemory o = block_memory(shared, a.n, a.m, p);
    const u64 origin = (u64)block.first * (weights + a.n);
    float *const parameters = a.parameters + origin, *const first = a.first + origin, *const second = a.second + origin;
    const bool linear = !a.relu;
    block_load(o.w, parameters);
    for (u32 i = t; i < o.w.rows4; i += blockDim.x) {
        o.b[i] = i < a.n ? parameters[weights + i] : 0.0f;
        o.c[i] = i < a.n ? a.slopes[(u64)block.first * a.n + i] : 0.0f;
    }
    // Rows past the last feature stay zero.
    block_zero(o.x, o.w.rows4 * p.ss);
    const ToyStep* const steps = a.steps + (u64)a.settings[block.first] * a.steps_stride + a.from;
    const ToyBatch batch = a.batches[block.batch];
#pragma unroll 1
    for (u32 step = 0; step < a.n_steps; ++step) {
        const Walk walk = walk_of(batch, a.from + step);
        block_gradient(o, p, walk, linear);
        const ToyStep numbers = steps[step];
        block_update(numbers, o.w, o.dw, first, second);
        for (u32 j = t; j < a.n; j += blockDim.x) {
            const float g = with_silent(o.db[j], o.b[j], o.c[j], walk.silent, linear);
            o.b[j] = toy_update(numbers, o.b[j], g, first[weights + j], second[weights + j]);
        }
        __syncthreads();
    }
    block_store(o.w, parameters);
    for (u32 j = t; j < a.n; j += blockDim.x) parameters[weights + j] = o.b[j];
}
