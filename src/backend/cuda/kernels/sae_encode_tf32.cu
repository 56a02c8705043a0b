// The encoder's product on tensor cores: what sae_encode.cu computes, from h and W_enc rounded to TF32.
//
// TF32 keeps 11 of the 24 bits of an f32 and its whole exponent. Both matrices are rounded to the nearest, ties away from 0, as they
// are staged; products of two are exact, and sums are f32 that begin at the offset. What an mma sums in which order and how it
// rounds is the chip's: numbers are equal from run to run on one kind of chip and not promised between kinds.
//
// Tile 128 x 128, 256 threads. A warp has 64 samples x 32 latents of it: 4 x 4 products of 16 x 8, 8 columns at a time. A stage has
// 16 columns of both matrices; there are two, and the next comes to registers while this one is used.
//
// Which rows and columns stand where in an mma is free as long as both matrices and the result agree, so they stand as they are
// loaded. Lane (g, t) has columns 4t .. 4t + 3 of a stage: the first two for one mma, the others for a second. The 16 samples of
// an mma are 8 and those 64 after, which one thread stages: it interleaves them, so that 16 bytes are all that a lane has of h in
// an mma. And whatever 8 lanes ask for at once, to stage or to use, is 128 bytes that follow each other: no bank twice.
#include "sae_view.cuh"

#define TF32_DEPTH 16
#define TF32_HALF (SAE_TILE / 2 * TF32_DEPTH)

__device__ __forceinline__ float to_tf32(float x) {
#ifdef TEGUM_EMULATED
    return emulation::round_to_tf32(x);
#else
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
#endif
}

// c += a b; emulation.h has which numbers of the matrices are whose.
__device__ __forceinline__ void mma_tf32(float (&c)[4], float4 a, float b0, float b1) {
#ifdef TEGUM_EMULATED
    emulation::mma_tf32(c, {a.x, a.y, a.z, a.w}, {b0, b1});
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(__float_as_uint(a.x)), "r"(__float_as_uint(a.y)), "r"(__float_as_uint(a.z)), "r"(__float_as_uint(a.w)),
                   "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
#endif
}

// A thread: 4 columns of two rows, 64 apart, of both matrices.
struct Tf32Fetch {
    float4 h[2], w[2];
};

// Whole quads of columns are inside a row or outside.
__device__ __forceinline__ Tf32Fetch tf32_fetch(const float* const (&h)[2], const float* const (&w)[2], u32 c, bool inside) {
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (!inside) return {{zero, zero}, {zero, zero}};
    return {{sae_load4(h[0] + c), sae_load4(h[1] + c)}, {sae_load4(w[0] + c), sae_load4(w[1] + c)}};
}

__device__ __forceinline__ void tf32_store(float* to, float a, float b, float c, float d) {
    sae_store4(to, make_float4(to_tf32(a), to_tf32(b), to_tf32(c), to_tf32(d)));
}

// [half of the columns][row of 64][t][2 columns of the row and of the one 64 after]
__device__ __forceinline__ void tf32_stage(const Tf32Fetch& f, float* h, float* w) {
    const u32 at = threadIdx.x * 4u;
    tf32_store(h + at, f.h[0].x, f.h[1].x, f.h[0].y, f.h[1].y);
    tf32_store(h + at + TF32_HALF, f.h[0].z, f.h[1].z, f.h[0].w, f.h[1].w);
    tf32_store(w + at, f.w[0].x, f.w[0].y, f.w[1].x, f.w[1].y);
    tf32_store(w + at + TF32_HALF, f.w[0].z, f.w[0].w, f.w[1].z, f.w[1].w);
}

// A stage's part of a warp's 64 x 32: h and w point to what the lane has of the warp's first row.
__device__ __forceinline__ void tf32_multiply(float (&acc)[4][4][4], const float* h, const float* w) {
#pragma unroll
    for (u32 half = 0; half < 2 * TF32_HALF; half += TF32_HALF) {
        const float4 y0 = sae_load4(w + half), y1 = sae_load4(w + half + 8u * TF32_DEPTH);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const float4 x = sae_load4(h + half + 8u * TF32_DEPTH * i);
            mma_tf32(acc[i][0], x, y0.x, y0.y);
            mma_tf32(acc[i][1], x, y0.z, y0.w);
            mma_tf32(acc[i][2], x, y1.x, y1.y);
            mma_tf32(acc[i][3], x, y1.z, y1.w);
        }
    }
}

KERNEL(sae_encode_tf32, SaeArgs, 256, 2) {
    __shared__ __align__(16) float stages[2][2][2 * TF32_HALF];
    const SaeView& v = a.views[blockIdx.x / a.per];
    const u32 t = threadIdx.x, g = (t & 31u) >> 2, pitch = v.pitch, quad = (t & 3u) * 4u;
    // Of the tile a warp has 32 samples and those 64 after, 16 latents and those 64 after.
    const u32 row = (t >> 7) * 32u, column = (t >> 5 & 3u) * 16u;
    const SaeTile tile = sae_tile(v, blockIdx.x % a.per);
    if (tile.row >= v.n) return;
    float acc[4][4][4];
#pragma unroll
    for (u32 j = 0; j < 4; ++j)
#pragma unroll
        for (u32 k = 0; k < 2; ++k) {
            const u32 latent = tile.column + column + 8u * (j >> 1) + 64u * (j & 1u) + (t & 3u) * 2u + k;
            const float start = latent < v.m ? v.offset[latent] : 0.0f;
#pragma unroll
            for (u32 i = 0; i < 4; ++i) acc[i][j][k] = acc[i][j][k + 2] = start;
        }
    // Rows past the last are the last once more, and what they give is not stored.
    const u32 s = tile.row + (t >> 2), l = tile.column + (t >> 2), s_end = v.n - 1, l_end = v.m - 1;
    const float* batch = sae_batch(a, v);
    const float* const h[2] = {batch + sae_at(min(s_end, s), pitch, quad), batch + sae_at(min(s_end, s + 64u), pitch, quad)};
    const float* const w[2] = {v.enc.w + sae_at(min(l_end, l), pitch, quad), v.enc.w + sae_at(min(l_end, l + 64u), pitch, quad)};
    const u32 x = (row + g) * TF32_DEPTH + quad, y = (column + g) * TF32_DEPTH + quad;
    tf32_stage(tf32_fetch(h, w, 0, quad < pitch), stages[0][0], stages[0][1]);
    __syncthreads();
    for (u32 c0 = 0, now = 0; c0 < pitch; c0 += TF32_DEPTH, now ^= 1u) {
        const u32 next = c0 + TF32_DEPTH;
        Tf32Fetch fetched;
        if (next < pitch) fetched = tf32_fetch(h, w, next, next + quad < pitch);
        // Columns past the row were staged as zeros, which change no sum.
        tf32_multiply(acc, stages[now][0] + x, stages[now][1] + y);
        if (next < pitch) tf32_stage(fetched, stages[now ^ 1u][0], stages[now ^ 1u][1]);
        __syncthreads();
    }
    const SaeView& out = a.views[blockIdx.x / a.per];
    const SaeTile to = sae_tile(out, blockIdx.x % a.per);
    const u32 n = out.n, m_pitch = out.m_pitch;
#pragma unroll
    for (u32 i = 0; i < 8; ++i) {
        const u32 sample = to.row + row + 8u * (i >> 1) + 64u * (i & 1u) + g;
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            const u32 latent = to.column + column + 8u * (j >> 1) + 64u * (j & 1u) + (t & 3u) * 2u;
            const float* pair = acc[i >> 1][j] + 2u * (i & 1u);
            // Pairs are whole, for the row's width is a multiple of 4.
            if (sample < n && latent < m_pitch)
                *reinterpret_cast<float2*>(out.pre + sae_at(sample, m_pitch, latent)) = make_float2(pair[0], pair[1]);
        }
    }
}
