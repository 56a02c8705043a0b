// Gradients of a latent's numbers from the entries of its samples, ascending.
//
//   dW_dec[j] = sum z g_s      dW_enc[j] = sum dz (h_s - b_dec)      db_enc[j] = sum dz, and sums of what else entries have
//   then the penalty's pull along W_dec[j]; tied: dW_dec += dW_enc; frozen: dW_dec = 0; unit rows: less the part along
//
// Block = latent. Samples go by 1024: their bits become a list in shared memory, which all threads then walk with 4 columns
// each. A latent without entries writes no gradient: `active` says so. The masks are 0 again afterwards.
#include "sae_view.cuh"

#define SAE_SAMPLES 1024u
// Sums of a latent: dz of all lists; of those that pass a gate's bias; z that is paid for; what else entries have, and of
// silent latents apart; squares of z.
enum { SAE_SUM_DZ, SAE_SUM_BIAS, SAE_SUM_PAID, SAE_SUM_MORE0, SAE_SUM_MORE1, SAE_SUM_SILENT, SAE_SUM_SQUARE, SAE_SUMS };

struct SaeSamples {
    u32 sample[SAE_SAMPLES];
    float z[SAE_SAMPLES], dz[SAE_SAMPLES];
    u32 words[32], before[33];
    float sums[SAE_SUMS];
    u32 fired;
};

// The samples of latent j in [first, first + 1024) of a list; returns how many.
__device__ __forceinline__ u32 sae_gather(const SaeView& v, const SaeList& list, u32 j, u32 first, bool last_use,
                                          SaeSamples& found) {
    const u32 t = threadIdx.x, word = first / 32 + t;
    __syncthreads();
    if (t < 32) {
        u32 bits = 0;
        if (word < v.words) {
            bits = list.mask[sae_at(j, v.words, word)];
            if (last_use) list.mask[sae_at(j, v.words, word)] = 0;
        }
        const u32 count = __popc(bits);
        u32 sum = count;
        for (u32 by = 1; by < 32; by *= 2) {
            const u32 other = __shfl_up_sync(ALL_LANES, sum, by);
            if (t >= by) sum += other;
        }
        found.words[t] = bits;
        found.before[t] = sum - count;
        if (t == 31) found.before[32] = sum;
    }
    __syncthreads();
    const u32 end = min(SAE_SAMPLES, v.n - first);
    if (found.before[32])
        for (u32 i = t; i < end; i += blockDim.x) {
            const u32 bits = found.words[i >> 5], bit = i & 31u;
            if (!(bits >> bit & 1u)) continue;
            const u32 at = found.before[i >> 5] + __popc(bits & ((1u << bit) - 1u)), s = first + i;
            const u64 entry = sae_at(s, list.cap, list.slot[sae_at(j, v.n, s)]);
            found.sample[at] = s;
            found.z[at] = list.z[entry];
            found.dz[at] = list.dz[entry];
        }
    __syncthreads();
    return found.before[32];
}

// Whether a list has a part in a sum.
__device__ __forceinline__ bool sae_has_part(const SaeView& v, u32 which, u32 q) {
    const bool gated = v.rule == SAE_GATED, priced = v.penalty == SAE_L1 || v.penalty == SAE_L1_NORM;
    switch (q) {
    case SAE_SUM_DZ: return true;
    // The magnitude's entries of a gated autoencoder do not pass its gate's bias; elsewhere all do.
    case SAE_SUM_BIAS: return gated && which != SAE_MAIN;
    case SAE_SUM_PAID: return priced && which == (gated ? (u32)SAE_GATE : (u32)SAE_MAIN);
    case SAE_SUM_SILENT: return which == SAE_SILENT;
    case SAE_SUM_SQUARE: return which == SAE_MAIN && v.sort == SAE_CONTRIBUTION;
    default: return v.lists[which].more[0] != nullptr;
    }
}

// Sums of single numbers, one to a warp: entry i of 1024 samples goes to chain i mod 32, chains fold 16, 8, 4, 2, 1 apart.
__device__ __forceinline__ void sae_sum_up(const SaeView& v, u32 which, u32 j, u32 count, SaeSamples& found) {
    const u32 lane = threadIdx.x & 31u;
    const SaeList& list = v.lists[which];
    for (u32 q = threadIdx.x >> 5; q < SAE_SUMS; q += blockDim.x >> 5) {
        if (!sae_has_part(v, which, q)) continue;
        const float* more = list.more[q == SAE_SUM_MORE0 ? 0 : 1];
        float sum = 0.0f;
        for (u32 i = lane; i < count; i += 32) {
            const float z = found.z[i];
            if (q == SAE_SUM_DZ || q == SAE_SUM_BIAS) {
                sum += found.dz[i];
            } else if (q == SAE_SUM_PAID) {
                sum += z;
            } else if (q == SAE_SUM_SQUARE) {
                sum = fmaf(z, z, sum);
            } else {
                const u32 s = found.sample[i];
                sum += more[sae_at(s, list.cap, list.slot[sae_at(j, v.n, s)])];
            }
        }
        sum = fold32(sum);
        if (lane == 0) found.sums[q] += sum;
    }
    if (which != SAE_MAIN || threadIdx.x >= 32) return;
    u32 fired = 0;
    for (u32 i = lane; i < count; i += 32) fired += found.z[i] > 0.0f;
#pragma unroll
    for (int apart = 16; apart > 0; apart >>= 1) fired += __shfl_xor_sync(ALL_LANES, fired, apart);
    if (lane == 0) found.fired += fired;
}

// What is noted of a latent: the penalty for it, since when it has not fired, how much it is used.
__device__ __forceinline__ void sae_note(const SaeView& v, u32 j, const SaeSamples& found, float price) {
    const double norm = (double)v.norm[j];
    v.price[j] = (double)price * (double)found.sums[SAE_SUM_PAID] + (double)found.sums[SAE_SUM_SILENT] * norm;
    if (v.memory->halted) return;
    v.since[j] = found.fired ? 0u : v.since[j] + (v.since[j] != 0xffffffffu);
    double now = (double)found.fired;
    if (v.sort == SAE_NO_SORT) return;
    if (v.sort == SAE_CONTRIBUTION) now = (double)found.sums[SAE_SUM_SQUARE] * norm * norm;
    v.usage[j] = 0.99 * v.usage[j] + (1.0 - 0.99) * now / (double)v.n;
}

struct SaeRowPart {
    float4 dec, enc;
};

// Adds the entries of one list to 4 columns of the gradient rows.
__device__ __forceinline__ SaeRowPart sae_add_entries(const SaeView& v, const SaeList& list, u32 which, u32 j, u32 c, u32 count,
                                                      const SaeSamples& found, SaeRowPart sum, float4 center,
                                                      const float* batch) {
    const u32 pitch = v.pitch, level = list.levels > 1 ? v.level_of[j] : 0u;
    const float *heard = list.heard + (which == SAE_SILENT ? 0 : sae_at3(level, v.n, 0, pitch, c)), *h = batch + c;
    const bool decoder = which != SAE_SILENT && !(which == SAE_GATE && v.flags & SAE_HOLD_DECODER);
#pragma unroll 4
    for (u32 i = 0; i < count; ++i) {
        const u64 at = sae_at(found.sample[i], pitch, 0);
        const float4 q = sae_load4(h + at);
        if (decoder) sum.dec = sae_add4(sum.dec, found.z[i], sae_load4(heard + at));
        sum.enc = sae_add4(sum.enc, found.dz[i], make_float4(q.x - center.x, q.y - center.y, q.z - center.z, q.w - center.w));
    }
    return sum;
}

__device__ __forceinline__ float4 sae_plus4(float4 x, float4 y) {
    return make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
}

// The numbers of a latent beside its rows; returns the pull of the penalty along its decoder row. Thread 0 writes.
__device__ __forceinline__ float sae_finish_numbers(const SaeView& v, double each, u32 j, const SaeSamples& found) {
    const float norm = v.norm[j];
    float price = 0.0f, pull = 0.0f;
    if (v.penalty == SAE_L1) price = (float)each;
    if (v.penalty == SAE_L1_NORM) price = (float)(each * (double)norm);
    if (v.penalty == SAE_L1_NORM && norm > 0.0f) pull = __fdiv_rn(__fdiv_rn(price, norm) * found.sums[SAE_SUM_PAID], norm);
    if (v.rule == SAE_JUMP && norm > 0.0f) pull = __fdiv_rn(found.sums[SAE_SUM_MORE1], norm);
    if (threadIdx.x == 0) {
        v.through[j] = found.sums[SAE_SUM_DZ];
        v.bias.gradient[j] = found.sums[v.rule == SAE_GATED ? SAE_SUM_BIAS : SAE_SUM_DZ];
        if (v.more[0].w) v.more[0].gradient[j] = found.sums[SAE_SUM_MORE0];
        if (v.more[1].w) v.more[1].gradient[j] = found.sums[SAE_SUM_MORE1];
        sae_note(v, j, found, price);
    }
    return pull;
}

KERNEL(sae_rows, SaeArgs, 256, 3) {
    __shared__ SaeSamples found;
    __shared__ float scratch[8];
    const SaeView& v = a.views[blockIdx.x / a.per];
    const u32 t = threadIdx.x, j = blockIdx.x % a.per, pitch = v.pitch, step = 4u * blockDim.x;
    const float* w = v.dec.w + sae_at(j, pitch, 0);
    float *g_enc = v.enc.gradient + sae_at(j, pitch, 0), *g_dec = v.dec.gradient + sae_at(j, pitch, 0);
    if (t < SAE_SUMS) found.sums[t] = 0.0f;
    if (t == 0) found.fired = 0;
    float along = 0.0f, square = 0.0f, pull = 0.0f;
    bool any = false;
    for (u32 c0 = 0; c0 < pitch; c0 += step) {
        const u32 c = c0 + 4u * t;
        const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f), center = c < pitch ? sae_load4(v.center.w + c) : zero;
        SaeRowPart sum = {zero, zero};
        for (u32 which = 0; which < SAE_LISTS; ++which) {
            if (!(v.used >> which & 1u)) continue;
            const SaeList& list = v.lists[which];
            for (u32 first = 0; first < v.n; first += SAE_SAMPLES) {
                const u32 count = sae_gather(v, list, j, first, c0 + step >= pitch, found);
                if (count == 0) continue;
                any = true;
                if (c0 == 0) sae_sum_up(v, which, j, count, found);
                if (c < pitch) sum = sae_add_entries(v, list, which, j, c, count, found, sum, center, sae_batch(a, v));
            }
        }
        __syncthreads();
        if (c0 == 0) pull = sae_finish_numbers(v, sae_each(v, sae_aim(a, blockIdx.x / a.per)), j, found);
        if (!any || c >= pitch) continue;
        const float4 row = sae_load4(w + c);
        if (v.flags & SAE_TIED) sum = {sae_plus4(sum.dec, sum.enc), zero};
        sum.dec = v.flags & SAE_FROZEN ? zero : sae_add4(sum.dec, pull, row);
        along = sae_dot4(along, sum.dec, row);
        square = sae_dot4(square, sum.enc, sum.enc);
        if (!(v.flags & SAE_UNIT)) square = sae_dot4(square, sum.dec, sum.dec);
        sae_store4(g_enc + c, sum.enc);
        sae_store4(g_dec + c, sum.dec);
    }
    if (any && v.flags & SAE_UNIT) {
        along = sae_fold(along, scratch);
        for (u32 c = 4u * t; c < pitch; c += step) {
            const float4 g = sae_add4(sae_load4(g_dec + c), -along, sae_load4(w + c));
            square = sae_dot4(square, g, g);
            sae_store4(g_dec + c, g);
        }
    }
    square = sae_fold(square, scratch);
    if (t) return;
    const float bias = v.bias.gradient[j];
    square = fmaf(bias, bias, square);
    for (u32 i = 0; i < 2; ++i)
        if (v.more[i].w) square = fmaf(v.more[i].gradient[j], v.more[i].gradient[j], square);
    v.squares[j] = square;
    v.active[j] = any;
}
