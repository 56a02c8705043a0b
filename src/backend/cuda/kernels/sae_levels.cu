// Which level each latent first belongs to in a step, where levels move: by its place among all latents, which is its number or
// follows how much it is used, falling, ties in order.
//
// A place is counted, not sorted for: m^2 comparisons from shared memory are little beside the products of a step.
#include "sae_view.cuh"

// Orders as the numbers do.
__device__ __forceinline__ u64 sae_usage_key(const double* usage, u32 j) {
    const u64 bits = reinterpret_cast<const u64*>(usage)[j];
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}

// Block = 256 latents, a thread each.
KERNEL(sae_levels, SaeArgs, 256, 4) {
    __shared__ u64 keys[256];
    const SaeView& v = a.views[blockIdx.x / a.per];
    const SaeAim& aim = sae_aim(a, blockIdx.x / a.per);
    const u32 t = threadIdx.x, m = v.m, j = blockIdx.x % a.per * 256 + t;
    u32 place = j;
    if (v.sort != SAE_NO_SORT) {
        const u64 own = sae_usage_key(v.usage, min(j, m - 1));
        place = 0;
        for (u32 first = 0; first < m; first += 256) {
            __syncthreads();
            if (first + t < m) keys[t] = sae_usage_key(v.usage, first + t);
            __syncthreads();
            const u32 count = min(256u, m - first);
            for (u32 i = 0; i < count; ++i) place += keys[i] > own || (keys[i] == own && first + i < j);
        }
    }
    if (j >= m) return;
    u32 level = 0;
    while (level + 1 < aim.levels && place >= aim.level_end[level]) ++level;
    v.level_of[j] = level;
}
