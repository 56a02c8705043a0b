// Packs the samples in which something fires, in order, into tiles of their own: once for all models that see them.
//
// One block a step of one stream. A sample's place is the number of live samples before it: bits counted in whole words of the
// mask, then in its own.
#include "toy.cuh"

// A stream of batches.
struct ToyPack {
    const float* x;    // [steps][tiles][n][16]
    const u32* live;   // [steps][words]: bit s of word s / 32: something fires in sample s
    float* packed;     // as x, with room for as many
    u32* counts;       // [steps]
    u64 x_stride;      // floats from a step to the next, of x and of packed
    u32 live_stride, samples, n, unused;
};

struct ToyPackArgs {
    const ToyPack* packs;
    u32 steps, unused;
};
static_assert(sizeof(ToyPack) == 56 && sizeof(ToyPackArgs) == 16, "as in Rust");

KERNEL(toy_pack, ToyPackArgs, 128, 8) {
    __shared__ u32 words[32], before[32];
    __shared__ u32 total;
    const ToyPack pack = a.packs[blockIdx.x / a.steps];
    const u32 step = blockIdx.x % a.steps, t = threadIdx.x, n = pack.n;
    const float* const x = pack.x + step * pack.x_stride;
    const u32* const live = pack.live + (u64)step * pack.live_stride;
    float* const packed = pack.packed + step * pack.x_stride;
    const u32 n_words = (pack.samples + 31) / 32, tiles = (pack.samples + TILE - 1) / TILE;
    u32 count = 0;
    for (u32 first = 0; first < n_words; first += 32) {
        if (t < 32) {
            const u32 word = first + t < n_words ? live[first + t] : 0;
            u32 sum = __popc(word);
            for (u32 by = 1; by < 32; by *= 2) {
                const u32 below = __shfl_up_sync(ALL_LANES, sum, by);
                if (t >= by) sum += below;
            }
            words[t] = word;
            before[t] = sum - __popc(word);
            if (t == 31) total = sum;
        }
        __syncthreads();
        // 64 tiles of a group of words, as far as there are.
        const u32 rows = min(64u, tiles - 2 * first) * n;
        for (u32 o = t; o < rows * TILE; o += blockDim.x) {
            const u32 row = o / TILE, tile = row / n, i = row % n, s = tile * TILE + o % TILE, word = words[s / 32];
            if (word >> s % 32 & 1u) {
                const u32 to = count + before[s / 32] + __popc(word & ((1u << s % 32) - 1u));
                packed[((u64)(to / TILE) * n + i) * TILE + to % TILE] = x[(u64)2 * first * n * TILE + o];
            }
        }
        count += total;
        __syncthreads();
    }
    // Lanes past the last sample are zero.
    const u32 spare = (TILE - count % TILE) % TILE;
    for (u32 o = t; o < spare * n; o += blockDim.x)
        packed[((u64)(count / TILE) * n + o / spare) * TILE + count % TILE + o % spare] = 0.0f;
    if (t == 0) pack.counts[step] = count;
}
