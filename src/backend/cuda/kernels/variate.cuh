// From integers uniform on 0 .. T to variates: `ops::draw::variate`, operation by operation, so that the bits are the CPU's.
#pragma once
#include "common.cuh"

// `data::law::Scale`: what turns an integer uniform on 0 .. T into base variates.
struct Scale {
    u32 last;       // T - 1
    float uniform;  // s of the uniform
    float tail;     // r of the normal's tail
};

#define FULL_SCALE Scale{0xffffffffu, 0x1p-31f, 0x1p-32f}

enum Base { BASE_UNIFORM, BASE_NORMAL, BASE_EXPONENTIAL };

enum Clip { CLIP_NONE, CLIP_POSITIVE, CLIP_ABSOLUTE };

// Sums of products from the highest power on.
__device__ __forceinline__ float polynomial(
    float x, float c0, float c1, float c2, float c3, float c4, float c5, float c6, float c7, float c8) {
    float sum = fmaf(c0, x, c1);
    sum = fmaf(sum, x, c2);
    sum = fmaf(sum, x, c3);
    sum = fmaf(sum, x, c4);
    sum = fmaf(sum, x, c5);
    sum = fmaf(sum, x, c6);
    sum = fmaf(sum, x, c7);
    return fmaf(sum, x, c8);
}

// ln of a positive normal number: Cephes' reduction to a mantissa in [sqrt(1/2), sqrt(2)) and its polynomial.
__device__ __forceinline__ float ln(float u) {
    u32 offset = __float_as_uint(u) - 0x3F3504F3u;
    float exponent = (float)((int)offset >> 23);
    float x = __uint_as_float((offset & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;
    float poly = polynomial(x, 7.0376836e-2f, -1.151461e-1f, 1.1676999e-1f, -1.2420141e-1f, 1.4249323e-1f, -1.6668058e-1f,
                            2.0000715e-1f, -2.4999994e-1f, 3.333333e-1f);
    float x2 = x * x;
    float ln1p = fmaf(x2 * x, poly, fmaf(x2, -0.5f, x));
    return fmaf(exponent, 0.693147180559945309f, ln1p);
}

// ln of a word read as (word / 256 | 1) / 2^24, always inside (0, 1).
__device__ __forceinline__ float ln_unit(u32 word) { return ln((float)(word >> 8 | 1u) * 0x1p-24f); }

// Uniform on (0, 1].
__device__ __forceinline__ float uniform(u32 k, const Scale& scale) {
    return fmaf((float)(k >> 1), scale.uniform, scale.uniform * 0.5f);
}

// |Phi^-1(q)| for q below a half. Each lane computes the one polynomial it needs: the CPU computes both and takes one.
__device__ __forceinline__ float tail_size(float q) {
    float w = 0.0f - ln(4.0f * q * (1.0f - q));
    float ratio;
    if (5.0f - w > 0.0f) {
        ratio = polynomial(w - 2.5f, 3.196968e-8f, 4.8397885e-7f, -4.885796e-6f, -6.1947458e-6f, 3.0874111e-4f, -1.7730828e-3f,
                           -5.90766e-3f, 3.4880272e-1f, 2.1233134f);
    } else {
        ratio = polynomial(__fsqrt_rn(w) - 3.5f, 2.1463884e-5f, -2.4590228e-4f, 7.2381925e-4f, -1.0824631e-3f, 1.4927896e-3f,
                           -2.8579829e-3f, 4.641317e-3f, 1.4246272f, 4.717089f);
    }
    return ratio * fmaf(-2.0f, q, 1.0f);
}

// Standard normal: the quantile, from whichever tail is nearer.
__device__ __forceinline__ float normal(u32 k, const Scale& scale) {
    u32 other = scale.last - k, m = min(k, other);
    float q = fmaf((float)m, scale.tail, 0.5f * scale.tail);
    float size = tail_size(q);
    return k <= m ? size - (size + size) : size;
}

// The base variate of k in 0 .. T; of a greater k some number.
__device__ __forceinline__ float variate(u32 base, u32 k, const Scale& scale) {
    if (base == BASE_NORMAL) return normal(k, scale);
    float v = uniform(k, scale);
    return base == BASE_UNIFORM ? v : 0.0f - ln(v);
}

// slope * base + offset and the clip: the last step of every magnitude.
__device__ __forceinline__ float finish(u32 clip, float base, float2 law) {
    float y = fmaf(base, law.x, law.y);
    if (clip == CLIP_POSITIVE) return y > 0.0f ? y : 0.0f;
    return clip == CLIP_ABSOLUTE ? fabsf(y) : y;
}
