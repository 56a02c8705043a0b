// Hidden states as an autoencoder sees them: `sae::normalise` has the laws, and these are its operations one for one.
#include "common.cuh"

enum { SEE_SCALED, SEE_CONSTANT_NORM, SEE_LAYER_NORM };

struct SeeArgs {
    const float* h;  // [rows][pitch]
    float* seen;     // [rows][pitch], zeros past d
    u64 rows;
    u32 d, pitch, normalise;
    float scale;  // of all samples
};

// A thread: one sample, whose sums are chains over its coordinates in f64.
KERNEL(hidden_see, SeeArgs, 128, 8) {
    const u64 row = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= a.rows) return;
    const float* h = a.h + row * a.pitch;
    float* seen = a.seen + row * a.pitch;
    double shift = 0.0, divisor = 1.0, sum = 0.0, mean = -0.0;  // a sum of Rust begins at -0
    const double d = (double)a.d;
    if (a.normalise == SEE_CONSTANT_NORM) {
        for (u32 c = 0; c < a.d; ++c) {
            const double x = (double)(h[c] * a.scale);
            sum += x * x;
        }
        divisor = __ddiv_rn(__dsqrt_rn(sum), __dsqrt_rn(d));
    } else if (a.normalise == SEE_LAYER_NORM) {
        for (u32 c = 0; c < a.d; ++c) mean += (double)(h[c] * a.scale);
        shift = __ddiv_rn(mean, d);
        double square = 0.0;
        for (u32 c = 0; c < a.d; ++c) {
            const double off = (double)(h[c] * a.scale) - shift;
            square += off * off;
        }
        divisor = (a.d > 1 ? __dsqrt_rn(__ddiv_rn(square, d - 1.0)) : 0.0) + 1e-5;
    }
    for (u32 c = 0; c < a.pitch; ++c) {
        float x = c < a.d ? h[c] * a.scale : 0.0f;
        if (a.normalise != SEE_SCALED && c < a.d) x = divisor > 0.0 ? (float)__ddiv_rn((double)x - shift, divisor) : 0.0f;
        seen[c] = x;
    }
}
