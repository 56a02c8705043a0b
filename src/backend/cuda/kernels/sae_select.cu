// Which latents of a sample are active, and the lists of them.
//
//   positive  pre > 0                                              top    the k greatest pre |w_dec|, then pre > 0
//   batch     the greatest pre |w_dec| > 0 of the whole batch      jump   pre > threshold - width / 2; z = pre above that
//   gate      pi > 0                                               gated  pi > 0 and z > 0
//   dead      the k greatest pre |w_dec| of dead latents           silent dead latents below their thresholds
//
// Ties go to the lower latent, in a batch to the lower sample first. Keys are integers that order as the floats do; what is not
// a number has key 0 and is never kept. All counting is integer, so atomics may come in any order.
#include "sae_view.cuh"

#define SAE_CANDIDATES 1024

// -inf is the least above 0.
__device__ __forceinline__ u32 sae_key(float x) {
    u32 bits = __float_as_uint(x);
    return x != x ? 0u : bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ u32 sae_warp_sum(u32 x) {
#pragma unroll
    for (int apart = 16; apart > 0; apart >>= 1) x += __shfl_xor_sync(ALL_LANES, x, apart);
    return x;
}

// What a sample's row offers: a key for each latent, 0 where it is no candidate.
struct SaeOffer {
    const float *pre, *norm;
    const u32 *since, *level_of;  // nowhere: all latents, all levels
    u32 dead_after, level;
    __device__ __forceinline__ u32 key(u32 j) const {
        if (since && since[j] <= dead_after) return 0;
        if (level_of && level_of[j] != level) return 0;
        return sae_key(pre[j] * norm[j]);
    }
};

__device__ __forceinline__ SaeOffer sae_offer(const SaeView& v, u32 list, u32 s, u32 level) {
    const bool dead = list == SAE_DEAD;
    const u32* level_of = dead && v.flags & SAE_BY_LEVEL ? v.level_of : nullptr;
    return {v.pre + sae_at(s, v.m_pitch, 0), v.norm, dead ? v.since : nullptr, level_of, v.dead_after, level};
}

// The greatest key that at least k of the warp's numbers reach, 0 if there is none.
__device__ __forceinline__ u32 sae_kth_of(const u32* keys, u32 count, u32 k) {
    u32 found = 0;
#pragma unroll 1
    for (int bit = 31; bit >= 0; --bit) {
        u32 probe = found | 1u << bit, n = 0;
        for (u32 i = threadIdx.x & 31u; i < count; i += 32) n += keys[i] >= probe;
        if (sae_warp_sum(n) >= k) found = probe;
    }
    return found;
}

// The slow way, for rows with many ties or great k: four passes of eight bits. `bins` [256], `state` [2]: bits so far, still
// wanted.
__device__ __forceinline__ void sae_cut_by_bits(const SaeOffer& offer, u32 m, u32 k, u32* bins, u32* state) {
    const u32 t = threadIdx.x;
    if (t == 0) state[0] = 0, state[1] = k;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (u32 i = t; i < 256; i += blockDim.x) bins[i] = 0;
        __syncthreads();
        const u32 found = state[0], wanted = state[1];
        for (u32 j = t; j < m; j += blockDim.x) {
            const u32 key = offer.key(j);
            if (key && (shift == 24 || key >> (shift + 8) == found >> (shift + 8))) atomicAdd(&bins[key >> shift & 255u], 1u);
        }
        __syncthreads();
        if (t == 0) {
            u32 above = 0;
            int bin = 255;
            for (; bin >= 0 && above + bins[bin] < wanted; --bin) above += bins[bin];
            // Fewer candidates than k show in the first pass: all of them stay.
            state[0] = bin < 0 ? 0u : found | (u32)bin << shift;
            state[1] = bin < 0 ? 0u : wanted - above;
        }
        __syncthreads();
        if (state[1] == 0) break;
    }
}

// Block = sample (and level): the k-th greatest key of its row, and how many that equal it are kept. The k-th greatest of the
// threads' maxima is a lower bound of it, and a tight one: few more than k pass, and those are ranked among themselves.
KERNEL(sae_top, SaeArgs, 256, 4) {
    __shared__ u32 maxima[256], candidates[SAE_CANDIDATES], bins[256], state[2], bound, found;
    const SaeView& v = a.views[blockIdx.x / a.per];
    const u32 t = threadIdx.x, b = blockIdx.x % a.per, m = v.m, n = v.n, level = b / n, s = b % n;
    const SaeList& list = v.lists[a.which];
    const u32 k = a.which == SAE_DEAD ? v.aux_k : sae_aim(a, blockIdx.x / a.per).k;
    if (level >= list.levels) return;
    const SaeOffer offer = sae_offer(v, a.which, s, level);
    u32 top = 0;
    for (u32 j = t; j < m; j += blockDim.x) top = max(top, offer.key(j));
    maxima[t] = top;
    if (t == 0) found = 0, state[0] = k ? 0u : 0xffffffffu, state[1] = 0;
    __syncthreads();
    if (t < 32) {
        const u32 low = k && k <= blockDim.x ? sae_kth_of(maxima, blockDim.x, k) : 0u;
        if (t == 0) bound = max(low, 1u);
    }
    __syncthreads();
    const u32 low = bound;
    if (k)
        for (u32 j = t; j < m; j += blockDim.x) {
            const u32 key = offer.key(j);
            if (key >= low) {
                const u32 at = atomicAdd(&found, 1u);
                if (at < SAE_CANDIDATES) candidates[at] = key;
            }
        }
    __syncthreads();
    const u32 count = found;
    if (count > SAE_CANDIDATES) {
        sae_cut_by_bits(offer, m, k, bins, state);
    } else {
        for (u32 i = t; i < count; i += blockDim.x) {
            const u32 key = candidates[i];
            u32 above = 0, equal = 0;
            for (u32 o = 0; o < count; ++o) above += candidates[o] > key, equal += candidates[o] == key;
            // All threads that come here write the same.
            if (above < k && k <= above + equal) state[0] = key, state[1] = k - above;
        }
        __syncthreads();
    }
    if (t == 0) {
        list.cut[sae_at(level, n, s)] = state[0];
        list.ties[sae_at(level, n, s)] = state[1];
    }
}

// Whether a latent is in a list: 0 no, 1 if the ties last, 2 yes.
struct SaeChooser {
    SaeOffer offer;
    const float *theta, *shift, *factor, *bias;  // per latent, where the rule has them
    u32 kind, cut;
    float half;
    __device__ __forceinline__ u32 judge(u32 j, float pre) const {
        switch (kind) {
        case SAE_POSITIVE: return pre > 0.0f ? 2u : 0u;
        case SAE_JUMP: return pre > theta[j] - half ? 2u : 0u;
        case SAE_GATED: return pre > 0.0f && magnitude(j, pre) > 0.0f ? 2u : 0u;
        case SAE_BATCH_TOP: {
            const float key = pre * offer.norm[j];
            const u32 bits = key > 0.0f ? __float_as_uint(key) : 0u;
            return bits > cut ? 2u : bits == cut && cut ? 1u : 0u;
        }
        default: {
            const u32 key = offer.key(j);
            return key > cut ? 2u : key == cut && cut ? 1u : 0u;
        }
        }
    }
    // exp(r_mag) u + b_mag, u = pi - b_gate
    __device__ __forceinline__ float magnitude(u32 j, float pi) const { return fmaf(factor[j], pi - bias[j], shift[j]); }
    // What it is worth; what a rule without ReLU keeps may be negative.
    __device__ __forceinline__ float worth(u32 j, float pre) const {
        if (kind == SAE_JUMP) return pre > theta[j] ? pre : 0.0f;
        return kind == SAE_GATED ? magnitude(j, pre) : pre;
    }
};

// Kinds beyond those of rules.
enum { SAE_AMONG_DEAD = 16, SAE_AMONG_SILENT };

__device__ __forceinline__ SaeChooser sae_chooser(const SaeView& v, u32 which, u32 s, u32 level) {
    const SaeList& list = v.lists[which];
    u32 kind = v.rule, cut = 0;
    if (which == SAE_GATE) kind = SAE_POSITIVE;
    if (which == SAE_DEAD) kind = SAE_AMONG_DEAD;
    if (kind == SAE_TOP || kind == SAE_AMONG_DEAD) cut = list.cut[sae_at(level, v.n, s)];
    if (kind == SAE_BATCH_TOP) cut = v.memory->cut;
    return {sae_offer(v, which, s, level), v.more[0].w, v.more[1].w, v.factor, v.bias.w, kind, cut, v.bandwidth * 0.5f};
}

// The ties of a sample that are kept, as an ordinal among those of its row.
__device__ __forceinline__ u32 sae_ties(const SaeView& v, u32 which, u32 s, u32 level, u32* scratch) {
    const SaeList& list = v.lists[which];
    if (which == SAE_DEAD || v.rule == SAE_TOP) return list.ties[sae_at(level, v.n, s)];
    if (which != SAE_MAIN || v.rule != SAE_BATCH_TOP) return 0;
    const u32 all = v.memory->ties;
    if (all == SAE_ALL_TIES) return all;
    u32 before = 0;
    for (u32 i = threadIdx.x; i < s; i += blockDim.x) before += v.row_ties[i];
    before = sae_fold(before, scratch);
    return before < all ? all - before : 0u;
}

// How many of a lane's four are before those of this lane: `mine` has a bit each.
__device__ __forceinline__ u32 sae_before(u32 mine, u32& total) {
    const u32 below = (1u << (threadIdx.x & 31u)) - 1u;
    u32 before = 0;
    total = 0;
#pragma unroll
    for (u32 e = 0; e < 4; ++e) {
        const u32 votes = __ballot_sync(ALL_LANES, (int)(mine >> e & 1u));
        before += __popc(votes & below);
        total += __popc(votes);
    }
    return before;
}

// Walks a warp's part [from, to) of a row, 128 latents at a time in ascending order. `tied` ties came before; returns how many
// are kept (`emit`: and writes them from place `at` on), or with `count_ties` how many ties there are.
struct SaeWalk {
    const SaeChooser& choose;
    const SaeList& list;
    u32 s, n, words, from, to, ties, relu;
    __device__ __forceinline__ u32 judge(u32 j, float& pre) const {
        pre = j < to ? choose.offer.pre[j] : 0.0f;
        return j < to ? choose.judge(j, pre) : 0u;
    }
    __device__ __forceinline__ u32 count_ties() const {
        u32 count = 0;
        float pre;
        for (u32 j = from + (threadIdx.x & 31u); j < to; j += 32) count += judge(j, pre) == 1u;
        return sae_warp_sum(count);
    }
    template <bool EMIT> __device__ __forceinline__ u32 go(u32 tied, u32 at) const {
        const u32 first = at;
        for (u32 base = from; base < to; base += 128) {
            const u32 j0 = base + 4u * (threadIdx.x & 31u);
            u32 keep = 0, equal = 0, total;
            float pre[4];
#pragma unroll
            for (u32 e = 0; e < 4; ++e) {
                const u32 said = judge(j0 + e, pre[e]);
                keep |= (said == 2u) << e, equal |= (said == 1u) << e;
            }
            if (ties) {
                u32 rank = tied + sae_before(equal, total);
                tied += total;
#pragma unroll
                for (u32 e = 0; e < 4; ++e)
                    if (equal >> e & 1u) keep |= (rank < ties) << e, ++rank;
            }
            if (relu)
#pragma unroll
                for (u32 e = 0; e < 4; ++e) keep &= ~((u32) !(pre[e] > 0.0f) << e);
            u32 place = at + sae_before(keep, total);
            at += total;
            if (EMIT)
#pragma unroll
                for (u32 e = 0; e < 4; ++e)
                    if (keep >> e & 1u) put(place++, j0 + e, pre[e]);
        }
        return at - first;
    }
    __device__ __forceinline__ void put(u32 place, u32 j, float pre) const {
        const u64 entry = sae_at(s, list.cap, place);
        list.latent[entry] = j;
        list.z[entry] = choose.worth(j, pre);
        list.slot[sae_at(j, n, s)] = place;
        atomicOr(&list.mask[sae_at(j, words, s >> 5)], 1u << (s & 31u));
    }
};

// Block = sample; each warp has a part of its row, and finds out first how much the warps before it keep.
KERNEL(sae_emit, SaeArgs, 256, 4) {
    __shared__ u32 scratch[8], kept[8], tied[8];
    const SaeView& v = a.views[blockIdx.x / a.per];
    const u32 t = threadIdx.x, s = blockIdx.x % a.per, warps = blockDim.x >> 5, warp = t >> 5;
    const SaeList& list = v.lists[a.which];
    const u32 part = (v.m + 128u * warps - 1u) / (128u * warps) * 128u;
    const u32 from = min(v.m, warp * part), to = min(v.m, from + part);
    const u32 relu = a.which == SAE_MAIN && v.rule == SAE_TOP;
    u32 at = 0;
    for (u32 level = 0; level < (a.which == SAE_DEAD ? list.levels : 1u); ++level) {
        const SaeChooser choose = sae_chooser(v, a.which, s, level);
        const u32 ties = sae_ties(v, a.which, s, level, scratch);
        const SaeWalk walk = {choose, list, s, v.n, v.words, from, to, ties, relu};
        u32 tied_before = 0, before = at;
        if (ties && ties != SAE_ALL_TIES) {
            const u32 count = walk.count_ties();
            if ((t & 31u) == 0) tied[warp] = count;
            __syncthreads();
            for (u32 w = 0; w < warp; ++w) tied_before += tied[w];
        }
        const u32 count = walk.go<false>(tied_before, 0);
        __syncthreads();
        if ((t & 31u) == 0) kept[warp] = count;
        __syncthreads();
        for (u32 w = 0; w < warps; ++w) before += w < warp ? kept[w] : 0u, at += kept[w];
        walk.go<true>(tied_before, before);
    }
    if (t == 0) list.count[s] = at;
}

// Dead latents below their thresholds are pulled up: silent / n (threshold - pre) |w_dec| each. They take no part in the
// reconstruction.
KERNEL(sae_emit_silent, SaeArgs, 32, 16) {
    const SaeView& v = a.views[blockIdx.x / a.per];
    const u32 s = blockIdx.x % a.per, lane = threadIdx.x, m = v.m;
    const SaeList& list = v.lists[SAE_SILENT];
    const float each = (float)(v.silent / v.n);
    u32 at = 0;
    for (u32 base = 0; base < m; base += 32) {
        const u32 j = base + lane;
        const float pre = j < m ? v.pre[sae_at(s, v.m_pitch, j)] : 0.0f, theta = j < m ? v.more[0].w[j] : 0.0f;
        const bool take = j < m && v.since[j] > v.dead_after && pre < theta;
        const u32 votes = __ballot_sync(ALL_LANES, take), place = at + __popc(votes & ((1u << lane) - 1u));
        at += __popc(votes);
        if (!take) continue;
        const u64 entry = sae_at(s, list.cap, place);
        const float norm = v.norm[j];
        list.latent[entry] = j;
        list.z[entry] = 0.0f;
        list.dz[entry] = -each * norm;
        list.more[0][entry] = each * norm;
        list.more[1][entry] = each * (theta - pre);
        list.slot[sae_at(j, v.n, s)] = place;
        atomicOr(&list.mask[sae_at(j, v.words, s >> 5)], 1u << (s & 31u));
    }
    if (lane == 0) list.count[s] = at;
}
