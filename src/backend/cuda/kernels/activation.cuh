// What neurons do: `ops::activation`, operation by operation.
#pragma once
#include "variate.cuh"

enum Activation { ACTIVATION_IDENTITY, ACTIVATION_RELU, ACTIVATION_GELU };

// exp(-y) for y in 0 .. 80.
__device__ __forceinline__ float exp_of_minus(float y) {
    const float n = (float)(u32)fmaf(y, 1.44269504088896341f, 0.5f), minus = 0.0f - y;
    const float r = fmaf(n, -2.1219444e-4f, fmaf(n, 0.6933594f, minus));
    // 2^-n by its exponent.
    const float scale = __uint_as_float((u32)((127.0f - n) * 8388608.0f));
    float sum = fmaf(0.0013941213f, r, 0.00837521f);
    sum = fmaf(sum, r, 0.04166635f);
    sum = fmaf(sum, r, 0.16666414f);
    sum = fmaf(sum, r, 0.5f);
    sum = fmaf(sum, r, 1.0f);
    return fmaf(sum, r, 1.0f) * scale;
}

__device__ __forceinline__ float gelu(float z) {
    const float size = fabsf(z), a = size < 9.0f ? size : 9.0f;
    const float bell = exp_of_minus(0.5f * a * a), t = __fdiv_rn(1.0f, fmaf(0.26f, a, 1.0f));
    const float tail = bell * t * polynomial(t, 0.03338709f, -0.16725113f, 0.28233662f, -0.18772395f, 0.18764427f, 0.038958743f,
                                             0.10634528f, 0.10251124f, 0.10379182f);
    return z > 0.0f ? z - a * tail : (0.0f - a) * tail;
}

__device__ __forceinline__ float activate(u32 activation, float z) {
    if (activation == ACTIVATION_GELU) return gelu(z);
    return activation == ACTIVATION_IDENTITY || z > 0.0f ? z : 0.0f;
}
