// Hidden states: the directions of what is on, summed in the order of features, as `ops::hidden` sums them.
//
//     h = bias;  for each feature of the sample's list: h = fma(x, direction, h);  h = fma(normal, noise, h);  activation
#include "activation.cuh"
#include "draw.cuh"

struct HiddenArgs {
    const u32* counts;         // [steps][samples]
    const u32* features;       // [steps][samples][n]
    const float* values;
    const float* directions;   // [n][4 quads], zeros past d
    const float* bias;         // [4 quads]
    float* h;                  // [steps][samples][4 quads], zeros past d
    u64 threads;               // steps * samples * quads
    u32 n, d, quads, samples;
    u32 first_step, first_block, skip;  // skip: samples of the first row block before the first
    u32 key0, key1;            // of the noise
    float noise;               // its standard deviation, 0 for none
    u32 activation;
    u32 unused;
};

// A thread: four coordinates of one sample. Neighbours share the list, and read one row of the directions side by side.
KERNEL(hidden_rows, HiddenArgs, 128, 8) {
    const u64 thread = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= a.threads) return;
    const u64 row = thread / a.quads;
    const u32 quad = (u32)(thread % a.quads), count = a.counts[row];
    const u32* features = a.features + row * a.n;
    const float* values = a.values + row * a.n;
    const float4* directions = reinterpret_cast<const float4*>(a.directions) + quad;
    float4 h = reinterpret_cast<const float4*>(a.bias)[quad];
#pragma unroll 4
    for (u32 k = 0; k < count; ++k) {
        const float x = values[k];
        const float4 f = directions[(u64)features[k] * a.quads];
        h.x = fmaf(x, f.x, h.x);
        h.y = fmaf(x, f.y, h.y);
        h.z = fmaf(x, f.z, h.z);
        h.w = fmaf(x, f.w, h.w);
    }
    float out[4] = {h.x, h.y, h.z, h.w};
    const u32 j = 4u * quad;
    if (a.noise > 0.0f) {
        const u32 sample = a.skip + (u32)(row % a.samples);
        const u32 step = a.first_step + (u32)(row / a.samples), block = a.first_block + sample / ROW_BLOCK;
        // The sample words of c1 = (noise, sample), with the coordinate in the sample's place: two calls, half of each.
        const u32 c0 = 8u * (j / 32u) + j % 16u / 2u, c1 = TAG_NOISE | sample % ROW_BLOCK, high = 2u * (j / 16u % 2u);
#pragma unroll
        for (u32 i = 0; i < 4u; ++i) {
            const Words w = philox(c0 + i / 2u, c1, step, block, a.key0, a.key1);
            out[i] = fmaf(normal(word_at(w, high + i % 2u), FULL_SCALE), a.noise, out[i]);
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4u; ++i) out[i] = j + i < a.d ? activate(a.activation, out[i]) : 0.0f;
    reinterpret_cast<float4*>(a.h)[thread] = make_float4(out[0], out[1], out[2], out[3]);
}
