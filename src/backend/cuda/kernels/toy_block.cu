// Trains larger tied toy models, one block a model, everything but the moments in shared memory; n and m at run time.
//
// For each piece of S samples four small products, as register tiles over shared memory:
//
//     H = W^T X      over features, eight lanes a tile, lane q takes features q, q + 8, ..; folded 4, 2, 1 apart
//     Z = W H + b    over k in order; G = c (Z - X) where open
//     DH = W^T G     as H
//     dW += G H^T + X DH^T    over samples, four lanes a tile: lane q takes samples 4 q .. 4 q + 3, then 16 later; folded 2, 1 apart
//                             and added to the sum over pieces
//     db += G        over samples in order
//
// S belongs to the shape (`stage`: layout.rs), so the sums do. Rows of X, G, H, DH are S + 4 floats and those of W an odd number of
// float4: the eight lanes of a quarter of a warp then read eight different groups of four banks. n and m are padded with zeros to
// multiples of 4, which changes no bit.
#include "toy.cuh"

constexpr u32 BLOCK_THREADS = 256;

// Where things are.
struct BlockMemory {
    u32 n, m, n4, m4;  // sizes, and these rounded up to multiples of 4
    u32 ws, ss, s;     // rows of W; rows of X, G, H, DH; samples of a piece
    float *w, *dw;     // [n4][ws]
    float *b, *db, *c; // [n4]
    float *x, *g;      // [n4][ss]
    float *h, *dh;     // [m4][ss]
};

__device__ __forceinline__ BlockMemory block_memory(float* at, u32 n, u32 m, u32 s) {
    BlockMemory o;
    o.n = n, o.m = m, o.s = s, o.n4 = (n + 3) / 4 * 4, o.m4 = (m + 3) / 4 * 4;
    o.ws = 4 * (o.m4 / 4 | 1u), o.ss = s + 4;
    o.w = at, o.dw = o.w + o.n4 * o.ws;
    o.b = o.dw + o.n4 * o.ws, o.db = o.b + o.n4, o.c = o.db + o.n4;
    o.x = o.c + o.n4, o.g = o.x + o.n4 * o.ss;
    o.h = o.g + o.n4 * o.ss, o.dh = o.h + o.m4 * o.ss;
    return o;
}

__device__ __forceinline__ float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ __forceinline__ void store4(float* to, const float (&x)[4]) { *reinterpret_cast<float4*>(to) = {x[0], x[1], x[2], x[3]}; }
__device__ __forceinline__ void unpack4(float (&to)[4], const float* from) {
    const float4 v = load4(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
template <int A> __device__ __forceinline__ void zero4(float (&x)[A][4]) {
#pragma unroll
    for (int i = 0; i < A; ++i) x[i][0] = x[i][1] = x[i][2] = x[i][3] = 0.0f;
}

// out[k][s] = sum over i of W[i][k] v[i][s].
__device__ __forceinline__ void block_project(const BlockMemory& o, const float* v, float* out) {
    const u32 q = threadIdx.x % 8, across = o.s / 4, units = o.m4 / 4 * across;
    // All lanes of a warp go round equally often: they fold together.
    for (u32 base = threadIdx.x / 32 * 4; base < units; base += blockDim.x / 8) {
        const u32 unit = base + threadIdx.x % 32 / 8, k = unit / across * 4, s = unit % across * 4;
        const bool in = unit < units;
        float sum[4][4];
        zero4(sum);
        if (in)
            for (u32 i = q; i < o.n; i += 8) {
                float w[4], x[4];
                unpack4(w, o.w + i * o.ws + k);
                unpack4(x, v + i * o.ss + s);
#pragma unroll
                for (int r = 0; r < 4; ++r)
#pragma unroll
                    for (int e = 0; e < 4; ++e) sum[r][e] = fmaf(w[r], x[e], sum[r][e]);
            }
#pragma unroll
        for (u32 r = 0; r < 4; ++r) {
#pragma unroll
            for (int e = 0; e < 4; ++e)
#pragma unroll
                for (int apart = 4; apart > 0; apart /= 2) sum[r][e] += __shfl_xor_sync(ALL_LANES, sum[r][e], apart);
            if (in && q == r) store4(out + (k + r) * o.ss + s, sum[r]);
        }
    }
}

// G from H and X. `samples` of the piece are there.
__device__ __forceinline__ void block_residual(const BlockMemory& o, u32 samples, bool linear) {
    const u32 across = o.s / 4, down = o.n4 / 4;
    for (u32 unit = threadIdx.x; unit < down * across; unit += blockDim.x) {
        // Rows j, j + down, ..: neighbours read neighbouring rows.
        const u32 j = unit / across, s = unit % across * 4;
        float z[4][4];
#pragma unroll
        for (int r = 0; r < 4; ++r) z[r][0] = z[r][1] = z[r][2] = z[r][3] = o.b[j + r * down];
        for (u32 k = 0; k < o.m4; k += 4) {
            float h[4][4];
#pragma unroll
            for (int e = 0; e < 4; ++e) unpack4(h[e], o.h + (k + e) * o.ss + s);
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                float w[4];
                unpack4(w, o.w + (j + r * down) * o.ws + k);
#pragma unroll
                for (int kk = 0; kk < 4; ++kk)
#pragma unroll
                    for (int e = 0; e < 4; ++e) z[r][e] = fmaf(w[kk], h[kk][e], z[r][e]);
            }
        }
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            float x[4], g[4];
            const u32 row = j + r * down;
            unpack4(x, o.x + row * o.ss + s);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float cr = o.c[row] * (z[r][e] - x[e]);
                g[e] = ((z[r][e] > 0.0f) | linear) & (s + e < samples) ? cr : 0.0f;
            }
            store4(o.g + row * o.ss + s, g);
        }
    }
}

// dW += G H^T + X DH^T of the piece.
__device__ __forceinline__ void block_outer(const BlockMemory& o) {
    const u32 q = threadIdx.x % 32 / 8, down = o.n4 / 4, units = (down + 7) / 8 * (o.m4 / 4);
    for (u32 unit = threadIdx.x / 32; unit < units; unit += blockDim.x / 32) {
        const u32 k = unit % (o.m4 / 4) * 4, i = unit / (o.m4 / 4) * 8 + threadIdx.x % 8;
        const bool in = i < down;
        float sum[4][4];
        zero4(sum);
        if (in)
            for (u32 s = 4 * q; s < o.s; s += 16) {
                float left[4][4], right[4][4];
#pragma unroll
                for (int half = 0; half < 2; ++half) {
#pragma unroll
                    for (int r = 0; r < 4; ++r) {
                        unpack4(left[r], (half ? o.x : o.g) + (i + r * down) * o.ss + s);
                        unpack4(right[r], (half ? o.dh : o.h) + (k + r) * o.ss + s);
                    }
#pragma unroll
                    for (int e = 0; e < 4; ++e)
#pragma unroll
                        for (int r = 0; r < 4; ++r)
#pragma unroll
                            for (int kk = 0; kk < 4; ++kk) sum[r][kk] = fmaf(left[r][e], right[kk][e], sum[r][kk]);
                }
            }
#pragma unroll
        for (u32 r = 0; r < 4; ++r) {
#pragma unroll
            for (int kk = 0; kk < 4; ++kk)
#pragma unroll
                for (int apart = 16; apart > 4; apart /= 2) sum[r][kk] += __shfl_xor_sync(ALL_LANES, sum[r][kk], apart);
            if (in && q == r) {
                float dw[4], *const at = o.dw + (i + r * down) * o.ws + k;
                unpack4(dw, at);
#pragma unroll
                for (int kk = 0; kk < 4; ++kk) dw[kk] += sum[r][kk];
                store4(at, dw);
            }
        }
    }
}

// Samples first .. of the walk as rows of features; zeros where there are none.
__device__ __forceinline__ void block_copy(const BlockMemory& o, const Walk& walk, u32 first) {
    const u32 quads = o.s / 4;
    for (u32 e = threadIdx.x; e < o.n * quads; e += blockDim.x) {
        // Four neighbours are the sixteen samples of a row.
        const u32 in_row = e % 4, i = e / 4 % o.n, tile = e / 4 / o.n, at = first / TILE + tile;
        float4 x = {0.0f, 0.0f, 0.0f, 0.0f};
        if (at < walk.tiles) x = load4(walk.x + ((u64)at * o.n + i) * TILE + 4 * in_row);
        *reinterpret_cast<float4*>(o.x + i * o.ss + tile * TILE + 4 * in_row) = x;
    }
}

// One step's gradient into dw and db, without silent samples.
__device__ __forceinline__ void block_gradient(const BlockMemory& o, const Walk& walk, bool linear) {
    for (u32 e = threadIdx.x; e < o.n4 * o.ws; e += blockDim.x) o.dw[e] = 0.0f;
    for (u32 j = threadIdx.x; j < o.n4; j += blockDim.x) o.db[j] = 0.0f;
    for (u32 first = 0; first < walk.count; first += o.s) {
        __syncthreads();
        block_copy(o, walk, first);
        __syncthreads();
        block_project(o, o.x, o.h);
        __syncthreads();
        block_residual(o, walk.count - first, linear);
        __syncthreads();
        block_project(o, o.g, o.dh);
        for (u32 j = threadIdx.x; j < o.n; j += blockDim.x) {
            float sum = o.db[j];
            for (u32 s = 0; s < o.s; s += 4) {
                const float4 g = load4(o.g + j * o.ss + s);
                sum = (((sum + g.x) + g.y) + g.z) + g.w;
            }
            o.db[j] = sum;
        }
        __syncthreads();
        block_outer(o);
    }
    __syncthreads();
}

KERNEL(toy_block, ToyArgs, 256, 2) {
    DYNAMIC_SHARED(float, shared);
    const u32 t = threadIdx.x, threads = blockDim.x;
    const ToyBlock block = a.blocks[blockIdx.x];
    const BlockMemory o = block_memory(shared, a.n, a.m, a.stage);
    const u64 origin = (u64)block.first * (a.n * a.m + a.n);
    const bool linear = !a.relu;
    for (u32 e = t; e < o.n4 * o.ws; e += threads) {
        const u32 i = e / o.ws, k = e % o.ws;
        o.w[e] = i < a.n && k < a.m ? a.parameters[origin + i * a.m + k] : 0.0f;
    }
    for (u32 i = t; i < o.n4; i += threads) {
        o.b[i] = i < a.n ? a.parameters[origin + a.n * a.m + i] : 0.0f;
        o.c[i] = i < a.n ? a.slopes[(u64)block.first * a.n + i] : 0.0f;
    }
    // Rows of X past the last feature stay zero.
    for (u32 e = t; e < o.n4 * o.ss; e += threads) o.x[e] = 0.0f;
    const ToyStep* const steps = a.steps + (u64)a.settings[block.first] * a.steps_stride + a.from;
    const ToyBatch batch = a.batches[block.batch];
    __syncthreads();
#pragma unroll 1
    for (u32 step = 0; step < a.n_steps; ++step) {
        const Walk walk = walk_of(batch, a.from + step);
        block_gradient(o, walk, linear);
        const ToyStep numbers = steps[step];
        for (u32 e = t; e < a.n * a.m; e += threads) {
            const u32 at = e / a.m * o.ws + e % a.m;
            o.w[at] = toy_update(numbers, o.w[at], o.dw[at], a.first[origin + e], a.second[origin + e]);
        }
        for (u32 j = t; j < a.n; j += threads) {
            const u64 at = origin + a.n * a.m + j;
            const float g = with_silent(o.db[j], o.b[j], o.c[j], walk.silent, linear);
            o.b[j] = toy_update(numbers, o.b[j], g, a.first[at], a.second[at]);
        }
        __syncthreads();
    }
    for (u32 e = t; e < a.n * a.m; e += threads) a.parameters[origin + e] = o.w[e / a.m * o.ws + e % a.m];
    for (u32 j = t; j < a.n; j += threads) a.parameters[origin + a.n * a.m + j] = o.b[j];
}
