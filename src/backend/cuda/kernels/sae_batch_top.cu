// The greatest keys pre |w_dec| > 0 of a whole batch: the count-th greatest, found by three histograms of 11, 11 and 9 of its
// bits.
//
// Positive floats order as their bits do. What comes out in the memory: `cut`, the bits of the least key that is kept (0: all
// are), and `ties`, how many that equal it; `low` is the complement of the least of all keys, for batches with fewer than
// wanted.
#include "sae_view.cuh"

#define SAE_BINS 2048

__device__ __forceinline__ u32 sae_batch_shift(u32 pass) { return pass == 0 ? 20u : pass == 1 ? 9u : 0u; }
__device__ __forceinline__ u32 sae_batch_bins(u32 pass) { return pass == 2 ? 512u : 2048u; }

// One block of an autoencoder: what the step begins with, and dead latents counted.
KERNEL(sae_begin, SaeArgs, 256, 1) {
    __shared__ u32 dead[SAE_LEVELS];
    const SaeView& v = a.views[blockIdx.x];
    const u32 t = threadIdx.x;
    if (t < SAE_LEVELS) dead[t] = 0;
    if (t == 0) v.memory->cut = 0, v.memory->ties = 0, v.memory->wanted = sae_aim(a, blockIdx.x).k, v.memory->low = 0;
    __syncthreads();
    for (u32 j = t; j < v.m; j += 256)
        if (v.since[j] > v.dead_after) atomicAdd(&dead[v.flags & SAE_BY_LEVEL ? v.level_of[j] : 0u], 1u);
    __syncthreads();
    if (t < SAE_LEVELS) {
        const double share = v.aux_k ? (double)dead[t] / (double)v.aux_k : 0.0;
        v.memory->dead[t] = dead[t];
        v.memory->dead_weight[t] = share < 1.0 ? share : 1.0;
    }
}

// Rows of the batch go round the blocks. Most values are not positive and touch no counter.
KERNEL(sae_batch_count, SaeArgs, 256, 4) {
    __shared__ u32 bins[SAE_BINS];
    const SaeView& v = a.views[blockIdx.x / a.per];
    const u32 t = threadIdx.x, pass = a.which, shift = sae_batch_shift(pass), count = sae_batch_bins(pass), m = v.m;
    const u32 found = v.memory->cut >> (shift + (pass == 2 ? 9u : 11u));
    // A pass before has found that all are kept, or none.
    if (pass && v.memory->wanted == 0) return;
    for (u32 i = t; i < count; i += 256) bins[i] = 0;
    __syncthreads();
    u32 low = 0;
    for (u32 s = blockIdx.x % a.per; s < v.n; s += a.per) {
        const float *row = v.pre + sae_at(s, v.m_pitch, 0), *norm = v.norm;
        for (u32 j = t; j < m; j += 256) {
            const float x = row[j] * norm[j];
            const u32 key = x > 0.0f ? __float_as_uint(x) : 0u;
            if (key == 0) continue;
            low = max(low, ~key);
            if (pass == 0 || key >> (shift + (pass == 2 ? 9u : 11u)) == found) atomicAdd(&bins[key >> shift & (count - 1u)], 1u);
        }
    }
    if (pass == 0 && low) atomicMax(&v.memory->low, low);
    __syncthreads();
    for (u32 i = t; i < count; i += 256)
        if (bins[i]) atomicAdd(&v.histogram[i], bins[i]);
}

// One block of an autoencoder: from the top, the bin that holds what is wanted; clears the histogram. `wanted` falls by what is
// above.
KERNEL(sae_batch_pick, SaeArgs, 256, 1) {
    __shared__ u32 sums[256], place[3];
    const SaeView& v = a.views[blockIdx.x];
    const u32 t = threadIdx.x, pass = a.which, n = sae_batch_bins(pass), per = n / 256, wanted = v.memory->wanted;
    u32* bins = v.histogram;
    u32 sum = 0, before = 0;
    for (u32 i = 0; i < per; ++i) sum += bins[n - 1 - (t * per + i)];
    sums[t] = sum;
    if (t == 0) place[2] = 0;
    __syncthreads();
    for (u32 i = 0; i < t; ++i) before += sums[i];
    if (before < wanted && wanted - before <= sum) {
        u32 i = 0;
        for (; wanted - before > bins[n - 1 - (t * per + i)]; ++i) before += bins[n - 1 - (t * per + i)];
        place[0] = n - 1 - (t * per + i);
        place[1] = wanted - before;
        place[2] = bins[place[0]];
    }
    __syncthreads();
    for (u32 i = t; i < n; i += 256) bins[i] = 0;
    if (t) return;
    SaeMemory& memory = *v.memory;
    if (pass == 0 && wanted == 0) {
        memory.cut = 0xffffffffu;
        return;
    }
    // Only the first pass finds too few (0 stays the cut: all are kept), or an earlier one was the last.
    if (place[2] == 0) {
        memory.wanted = 0;
        return;
    }
    memory.cut |= place[0] << sae_batch_shift(pass);
    memory.wanted = place[1];
    if (pass == 2) memory.ties = place[1] == place[2] ? SAE_ALL_TIES : place[1];
}

// Block = sample: how many of its keys equal the cut, where not all of those are kept.
KERNEL(sae_batch_ties, SaeArgs, 128, 8) {
    __shared__ u32 scratch[4];
    const SaeView& v = a.views[blockIdx.x / a.per];
    const u32 s = blockIdx.x % a.per, cut = v.memory->cut;
    if (v.memory->ties == 0 || v.memory->ties == SAE_ALL_TIES) return;
    u32 count = 0;
    for (u32 j = threadIdx.x; j < v.m; j += 128) {
        const float x = v.pre[sae_at(s, v.m_pitch, j)] * v.norm[j];
        count += x > 0.0f && __float_as_uint(x) == cut;
    }
    count = sae_fold(count, scratch);
    if (threadIdx.x == 0) v.row_ties[s] = count;
}
