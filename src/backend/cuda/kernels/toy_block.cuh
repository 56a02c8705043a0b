// Small products over a piece of samples in shared memory, by all threads of a block: what `toy_block` and `toy_layers` are made
// of.
//
//     project     out = W^T v               over rows, eight lanes a tile, lane q takes rows q, q + 8, ..; folded 4, 2, 1 apart
//     residual    Z = V H + b, G = c (Z - X) where open       over k in order
//     outer       dW += A B^T + C D^T       over samples, four lanes a tile: lane q takes samples 4 q .. 4 q + 3, then 16 later;
//                                           folded 2, 1 apart and added to the sum over pieces
//     sums        db += G                   over samples in order
//
// S, the samples of a piece, belongs to the shape (`layout.rs`), so the sums do. Rows of samples are S + 4 floats and those of
// matrices an odd number of float4: the eight lanes of a quarter of a warp then read eight different groups of four banks. All
// sizes are padded with zeros to multiples of 4, which changes no bit.
#pragma once
#include "toy.cuh"

// Samples at a time, and the row that holds them.
struct Piece {
    u32 s, ss;
};

// Rows of floats, both sides rounded up to multiples of 4 and filled with zeros.
struct Matrix {
    float* at;
    u32 rows, rows4, columns, columns4, stride;
    __device__ __forceinline__ float* end() const { return at + rows4 * stride; }
};
__device__ __forceinline__ Matrix matrix(float* at, u32 rows, u32 columns) {
    const u32 columns4 = (columns + 3) / 4 * 4;
    return {at, rows, (rows + 3) / 4 * 4, columns, columns4, 4 * (columns4 / 4 | 1u)};
}

__device__ __forceinline__ float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ __forceinline__ void store4(float* to, const float (&x)[4]) {
    *reinterpret_cast<float4*>(to) = {x[0], x[1], x[2], x[3]};
}
__device__ __forceinline__ void unpack4(float (&to)[4], const float* from) {
    const float4 v = load4(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
template <int A> __device__ __forceinline__ void zero4(float (&x)[A][4]) {
#pragma unroll
    for (int i = 0; i < A; ++i) x[i][0] = x[i][1] = x[i][2] = x[i][3] = 0.0f;
}

// out[k][s] = sum over i of W[i][k] v[i][s].
__device__ __forceinline__ void block_project(const Piece& o, const Matrix& w, const float* v, float* out) {
    const u32 q = threadIdx.x % 8, across = o.s / 4, units = w.columns4 / 4 * across;
    // All lanes of a warp go round equally often: they fold together.
    for (u32 base = threadIdx.x / 32 * 4; base < units; base += blockDim.x / 8) {
        const u32 unit = base + threadIdx.x % 32 / 8, k = unit / across * 4, s = unit % across * 4;
        const bool in = unit < units;
        float sum[4][4];
        zero4(sum);
        if (in)
            for (u32 i = q; i < w.rows; i += 8) {
                float weight[4], x[4];
                unpack4(weight, w.at + i * w.stride + k);
                unpack4(x, v + i * o.ss + s);
#pragma unroll
                for (int r = 0; r < 4; ++r)
#pragma unroll
                    for (int e = 0; e < 4; ++e) sum[r][e] = fmaf(weight[r], x[e], sum[r][e]);
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

// What outputs need beside their weights.
struct Outputs {
    const float *b, *c;  // [rows4]: biases, slopes
    bool linear;         // or through a ReLU
    bool magnitude;      // the target is |x|
};

// G from H and X: `samples` of the piece are there.
__device__ __forceinline__ void block_residual(const Piece& o, const Matrix& v, const Outputs& of, const float* hidden,
                                               const float* target, u32 samples, float* to) {
    const u32 across = o.s / 4, down = v.rows4 / 4;
    for (u32 unit = threadIdx.x; unit < down * across; unit += blockDim.x) {
        // Rows j, j + down, ..: neighbours read neighbouring rows.
        const u32 j = unit / across, s = unit % across * 4;
        float z[4][4];
#pragma unroll
        for (int r = 0; r < 4; ++r) z[r][0] = z[r][1] = z[r][2] = z[r][3] = of.b[j + r * down];
        for (u32 k = 0; k < v.columns4; k += 4) {
            float h[4][4];
#pragma unroll
            for (int e = 0; e < 4; ++e) unpack4(h[e], hidden + (k + e) * o.ss + s);
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                float w[4];
                unpack4(w, v.at + (j + r * down) * v.stride + k);
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
            unpack4(x, target + row * o.ss + s);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                if (of.magnitude && x[e] < 0.0f) x[e] = -x[e];
                const float cr = of.c[row] * (z[r][e] - x[e]);
                g[e] = ((z[r][e] > 0.0f) | of.linear) & (s + e < samples) ? cr : 0.0f;
            }
            store4(to + row * o.ss + s, g);
        }
    }
}

// dW += A B^T + C D^T of the piece; with C null the first alone.
__device__ __forceinline__ void block_outer(const Piece& o, const Matrix& dw, const float* a, const float* b, const float* c,
                                            const float* d) {
    const u32 q = threadIdx.x % 32 / 8, down = dw.rows4 / 4, units = (down + 7) / 8 * (dw.columns4 / 4);
    for (u32 unit = threadIdx.x / 32; unit < units; unit += blockDim.x / 32) {
        const u32 k = unit % (dw.columns4 / 4) * 4, i = unit / (dw.columns4 / 4) * 8 + threadIdx.x % 8;
        const bool in = i < down;
        float sum[4][4];
        zero4(sum);
        if (in)
            for (u32 s = 4 * q; s < o.s; s += 16) {
                float left[4][4], right[4][4];
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    if (half && !c) continue;
#pragma unroll
                    for (int r = 0; r < 4; ++r) {
                        unpack4(left[r], (half ? c : a) + (i + r * down) * o.ss + s);
                        unpack4(right[r], (half ? d : b) + (k + r) * o.ss + s);
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
                float total[4], *const at = dw.at + (i + r * down) * dw.stride + k;
                unpack4(total, at);
#pragma unroll
                for (int kk = 0; kk < 4; ++kk) total[kk] += sum[r][kk];
                store4(at, total);
            }
        }
    }
}

// Samples first .. of the walk as rows of features; zeros where there are none.
__device__ __forceinline__ void block_copy(const Piece& o, const Walk& walk, u32 first, u32 n, float* to) {
    const u32 quads = o.s / 4;
    for (u32 e = threadIdx.x; e < n * quads; e += blockDim.x) {
        // Four neighbours are the sixteen samples of a row.
        const u32 in_row = e % 4, i = e / 4 % n, tile = e / 4 / n, at = first / TILE + tile;
        float4 x = {0.0f, 0.0f, 0.0f, 0.0f};
        if (at < walk.tiles) x = load4(walk.x + ((u64)at * n + i) * TILE + 4 * in_row);
        *reinterpret_cast<float4*>(to + i * o.ss + tile * TILE + 4 * in_row) = x;
    }
}

// to[j] += sum over the piece of g[j][s].
__device__ __forceinline__ void block_sums(const Piece& o, const float* g, u32 rows, float* to) {
    for (u32 j = threadIdx.x; j < rows; j += blockDim.x) {
        float sum = to[j];
        for (u32 s = 0; s < o.s; s += 4) {
            const float4 at = load4(g + j * o.ss + s);
            sum = (((sum + at.x) + at.y) + at.z) + at.w;
        }
        to[j] = sum;
    }
}

__device__ __forceinline__ void block_zero(float* at, u32 floats) {
    for (u32 e = threadIdx.x; e < floats; e += blockDim.x) at[e] = 0.0f;
}

// A matrix from a part of the flat parameters, its padding zero.
__device__ __forceinline__ void block_load(const Matrix& w, const float* from) {
    for (u32 e = threadIdx.x; e < w.rows4 * w.stride; e += blockDim.x) {
        const u32 i = e / w.stride, k = e % w.stride;
        w.at[e] = i < w.rows && k < w.columns ? from[i * w.columns + k] : 0.0f;
    }
}
__device__ __forceinline__ void block_store(const Matrix& w, float* to) {
    for (u32 e = threadIdx.x; e < w.rows * w.columns; e += blockDim.x) to[e] = w.at[e / w.columns * w.stride + e % w.columns];
}
// The optimiser's step of such a part; `first` and `second` are the moments of this part.
__device__ __forceinline__ void block_update(const ToyStep& numbers, const Matrix& w, const Matrix& dw, float* first,
                                             float* second) {
    for (u32 e = threadIdx.x; e < w.rows * w.columns; e += blockDim.x) {
        const u32 at = e / w.columns * w.stride + e % w.columns;
        w.at[at] = toy_update(numbers, w.at[at], dw.at[at], first[e], second[e]);
    }
}
