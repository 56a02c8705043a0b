// The encoder's product: pre[s][j] = offset[j] + sum_c h[s][c] W_enc[j][c], offset = b_enc - W_enc b_dec.
//
// The one dense product of a step. Every number is one chain of fused multiply-adds that starts at the offset and goes over c =
// 0, 1, .. d - 1, as the CPU's product has it: tiles, stages and the chip change no bit. A library's product is faster by a
// little but promises no order; sae_encode_tf32.cu is the one that trades both for tensor cores.
//
// Tile 128 x 128, 256 threads, 8 x 8 numbers a thread as two strips of 4, 64 apart in both directions (16-byte shared loads, no
// bank conflict), 8 columns a stage, two stages: the next comes to registers while this one is used.
#include "sae_view.cuh"

#define SAE_DEPTH 8
#define SAE_TILE_PITCH (SAE_TILE + 4)

struct SaeFetch {
    float4 h, w;
};

// A thread: 4 columns of one row of both matrices, from where these point. Rows past the last are the last once more, and what
// they give is not stored. Whole quads of columns are inside or outside.
__device__ __forceinline__ SaeFetch sae_fetch(const float* h, const float* w, bool inside) {
    if (inside) return {sae_load4(h), sae_load4(w)};
    return {make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
}

// Transposed: [column][row].
__device__ __forceinline__ void sae_stage(const SaeFetch& f, float* h, float* w) {
    const u32 at = (threadIdx.x & 1u) * 4u * SAE_TILE_PITCH + (threadIdx.x >> 1);
    float *to_h = h + at, *to_w = w + at;
    to_h[0] = f.h.x, to_h[SAE_TILE_PITCH] = f.h.y, to_h[2 * SAE_TILE_PITCH] = f.h.z, to_h[3 * SAE_TILE_PITCH] = f.h.w;
    to_w[0] = f.w.x, to_w[SAE_TILE_PITCH] = f.w.y, to_w[2 * SAE_TILE_PITCH] = f.w.z, to_w[3 * SAE_TILE_PITCH] = f.w.w;
}

KERNEL(sae_encode, SaeArgs, 256, 2) {
    __shared__ __align__(16) float stages[2][2][SAE_DEPTH * SAE_TILE_PITCH];
    const SaeView& v = a.views[blockIdx.x / a.per];
    const u32 t = threadIdx.x, tr = (t >> 4) * 4u, tc = (t & 15u) * 4u, m = v.m, pitch = v.pitch, quad = (t & 1u) * 4u;
    const SaeTile tile = sae_tile(v, blockIdx.x % a.per);
    if (tile.row >= v.n) return;
    float acc[8][8];
#pragma unroll
    for (u32 j = 0; j < 8; ++j) {
        u32 latent = tile.column + tc + (j & 3u) + 64u * (j >> 2);
        float start = latent < m ? v.offset[latent] : 0.0f;
#pragma unroll
        for (u32 i = 0; i < 8; ++i) acc[i][j] = start;
    }
    const float* h = sae_batch(a, v) + sae_at(min(v.n - 1, tile.row + (t >> 1)), pitch, quad);
    const float* w = v.enc.w + sae_at(min(m - 1, tile.column + (t >> 1)), pitch, quad);
    sae_stage(sae_fetch(h, w, quad < pitch), stages[0][0], stages[0][1]);
    __syncthreads();
    for (u32 c0 = 0, now = 0; c0 < pitch; c0 += SAE_DEPTH, now ^= 1u) {
        const bool more = c0 + SAE_DEPTH < pitch;
        SaeFetch next;
        h += SAE_DEPTH, w += SAE_DEPTH;
        if (more) next = sae_fetch(h, w, c0 + SAE_DEPTH + quad < pitch);
        const float *x = stages[now][0], *y = stages[now][1];
        // Columns past the row were staged as zeros, which change no sum.
#pragma unroll
        for (u32 c = 0; c < SAE_DEPTH; ++c) {
            const float4 x0 = sae_load4(x + c * SAE_TILE_PITCH + tr), x1 = sae_load4(x + c * SAE_TILE_PITCH + tr + 64);
            const float4 y0 = sae_load4(y + c * SAE_TILE_PITCH + tc), y1 = sae_load4(y + c * SAE_TILE_PITCH + tc + 64);
            const float xs[8] = {x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w};
            const float ys[8] = {y0.x, y0.y, y0.z, y0.w, y1.x, y1.y, y1.z, y1.w};
#pragma unroll
            for (u32 i = 0; i < 8; ++i)
#pragma unroll
                for (u32 j = 0; j < 8; ++j) acc[i][j] = fmaf(xs[i], ys[j], acc[i][j]);
        }
        if (more) sae_stage(next, stages[now ^ 1u][0], stages[now ^ 1u][1]);
        __syncthreads();
    }
    const SaeView& out = a.views[blockIdx.x / a.per];
    const SaeTile to = sae_tile(out, blockIdx.x % a.per);
    const u32 n = out.n, m_pitch = out.m_pitch;
#pragma unroll
    for (u32 i = 0; i < 8; ++i) {
        const u32 s = to.row + tr + (i & 3u) + 64u * (i >> 2);
#pragma unroll
        for (u32 k = 0; k < 2; ++k) {
            const u32 j = to.column + tc + 64u * k;
            const float4 quad = make_float4(acc[i][4 * k], acc[i][4 * k + 1], acc[i][4 * k + 2], acc[i][4 * k + 3]);
            if (s < n && j < m_pitch) sae_store4(out.pre + sae_at(s, m_pitch, j), quad);
        }
    }
}
