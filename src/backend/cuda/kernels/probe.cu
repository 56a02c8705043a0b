// A kernel that uses what all others rest on, for a test of the device itself: words of the generator, summed over a warp.
#include "common.cuh"

struct ProbeArgs {
    u32* out;  // [2 n]: words, then exclusive sums over each warp
    u32 n, key0, key1;
};

KERNEL(probe, ProbeArgs, 128, 1) {
    DYNAMIC_SHARED(u32, words);
    u32 t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    words[t] = i < a.n ? philox(i, 0, 0, 0, a.key0, a.key1).v[0] : 0;
    __syncthreads();
    // The neighbour's word, so that the barrier above matters.
    u32 word = words[(t + 1) % blockDim.x], sum = word;
    for (u32 by = 1; by < 32; by *= 2) {
        u32 before = __shfl_up_sync(ALL_LANES, sum, by);
        if ((t & 31u) >= by) sum += before;
    }
    if (i < a.n) {
        a.out[i] = word;
        a.out[a.n + i] = sum - word;
    }
}
