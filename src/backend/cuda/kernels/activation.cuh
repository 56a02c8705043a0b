// What neurons do: `ops::activation`, operation by operation.
#pragma once
#include "common.cuh"

enum Activation { ACTIVATION_IDENTITY, ACTIVATION_RELU, ACTIVATION_GELU };

template <int N> __device__ __forceinline__ float polynomial(const float (&coefficients)[N], float x) {
    float sum = coefficients[0];
#pragma unroll
    for (int i = 1; i < N; ++i) sum = fmaf(sum, x, coefficients[i]);
    return sum;
}

// exp(-y) for y in 0 ..= 80, as `ops::activation` has it.
__device__ __forceinline__ float exp_of_minus(float y) {
    const float taylor[7] = {0.0013941213f, 0.00837521f, 0.04166635f, 0.16666414f, 0.5f, 1.0f, 1.0f};
    const float n = (float)(u32)fmaf(y, 1.44269504f, 0.5f);
    const float r = fmaf(n, -2.1219444e-4f, fmaf(n, 0.6933594f, -y));
    // 2^-n by its exponent: (127 - n) 2^23 is below 2^31 and exact.
    const float scale = __uint_as_float((u32)((127.0f - n) * 8388608.0f));
    return polynomial(taylor, r) * scale;
}

// z Phi(z) and its derivative, operation by operation as `ops::activation`.
__device__ __forceinline__ float gelu(float z, float& slope) {
    const float chebyshev[9] = {0.03338709f,  -0.16725113f, 0.28233662f, -0.18772395f, 0.18764427f,
                                0.038958743f, 0.10634528f,  0.10251124f, 0.10379182f};
    const float size = z < 0.0f ? -z : z, a = size < 9.0f ? size : 9.0f;
    const float bell = exp_of_minus(0.5f * a * a), t = __fdiv_rn(1.0f, fmaf(0.26f, a, 1.0f));
    const float tail = bell * t * polynomial(chebyshev, t);
    const bool up = z > 0.0f;
    const float clamped = up ? a : 0.0f - a;
    slope = fmaf(clamped, 0.3989423f * bell, up ? 1.0f - tail : tail);
    return up ? z - a * tail : clamped * tail;
}

// What a neuron makes of its pre-activation.
__device__ __forceinline__ float activate(u32 activation, float z, float& slope) {
    if (activation == ACTIVATION_GELU) return gelu(z, slope);
    const bool open = (z > 0.0f) | (activation == ACTIVATION_IDENTITY);
    slope = open ? 1.0f : 0.0f;
    return open ? z : 0.0f;
}

__device__ __forceinline__ float activate(u32 activation, float z) {
    float slope;
    return activate(activation, z, slope);
}
