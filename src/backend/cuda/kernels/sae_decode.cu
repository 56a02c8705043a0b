// From active latents to what they hear of the loss.
//
//   reconstruction of level l   r_l = b_dec + sum of z_j W_dec[j] over latents of levels up to l, latents ascending in each level
//   error                       e_l = r_l - h;  dead latents: e_l = sum over those of level l + what the main list left there
//   heard by level l            g_l = sum of scale_l' e_l' over l' >= l (detached: l' = l), outermost first
//   back to an entry            dz = g_level(j) . W_dec[j], and what penalties and the rule make of it
//
// Block = sample. A row of W_dec is read twice, the second time from L1. Threads hold 4 columns each, further ones 4 blockDim
// apart.
#include "sae_view.cuh"

struct SaeDecode {
    const SaeView& v;
    const SaeList& list;
    const SaeAim& aim;
    const float* h;  // the batch
    double each;
    u32 which, s, levels, count;
    u64 from;  // of the sample's entries
    float* errors;  // shared, [levels][pitch]
};

// Columns c .. c + 3 of the sum of a level's latents, added to r.
__device__ __forceinline__ float4 sae_sum_level(const SaeDecode& x, float4 r, u32 level, u32 c) {
    const u32 pitch = x.v.pitch, count = x.count;
    const u32* latent = x.list.latent + x.from;
    const float *z = x.list.z + x.from, *w = x.v.dec.w + c;
    if (x.levels == 1) {
#pragma unroll 4
        for (u32 e = 0; e < count; ++e) r = sae_add4(r, z[e], sae_load4(w + sae_at(latent[e], pitch, 0)));
        return r;
    }
    const u32* level_of = x.v.level_of;
    for (u32 e = 0; e < count; ++e)
        if (level_of[latent[e]] == level) r = sae_add4(r, z[e], sae_load4(w + sae_at(latent[e], pitch, 0)));
    return r;
}

// Errors of this thread's columns, every level.
__device__ __forceinline__ void sae_errors(const SaeDecode& x) {
    const u32 pitch = x.v.pitch, n = x.v.n;
    const bool dead = x.which == SAE_DEAD, by_level = x.v.flags & SAE_BY_LEVEL;
    for (u32 c = 4u * threadIdx.x; c < pitch; c += 4u * blockDim.x) {
        const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f), h = dead ? zero : sae_load4(x.h + sae_at(x.s, pitch, c));
        float4 r = dead ? zero : sae_load4(x.v.center.w + c);
        for (u32 level = 0; level < x.levels; ++level) {
            if (dead) r = zero;
            r = sae_sum_level(x, r, level, c);
            float4 e = make_float4(r.x - h.x, r.y - h.y, r.z - h.z, r.w - h.w);
            float* kept = x.v.errors + (x.v.errors ? sae_at3(by_level ? level : 0, n, x.s, pitch, c) : 0);
            if (dead) {
                e = x.v.memory->dead[level] ? sae_add4(sae_load4(kept), 1.0f, r) : zero;
            } else if (x.which == SAE_MAIN && x.v.errors && (by_level || level + 1 == x.levels)) {
                sae_store4(kept, e);
            }
            sae_store4(x.errors + level * pitch + c, e);
        }
    }
}

// Squares of the errors, and in their place what each level hears.
__device__ __forceinline__ void sae_hear(const SaeDecode& x, float* scratch) {
    const u32 pitch = x.v.pitch, n = x.v.n, step = 4u * blockDim.x;
    for (u32 level = 0; level < x.levels; ++level) {
        float square = 0.0f;
        for (u32 c = 4u * threadIdx.x; c < pitch; c += step) {
            const float4 e = sae_load4(x.errors + level * pitch + c);
            square = sae_dot4(square, e, e);
        }
        square = sae_fold(square, scratch);
        if (threadIdx.x == 0) x.list.squares[sae_at(level, n, x.s)] = square;
    }
    const bool alone = x.which != SAE_MAIN || x.v.flags & SAE_DETACHED;
    for (u32 c = 4u * threadIdx.x; c < pitch; c += step) {
        float4 g = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (u32 level = x.levels; level-- > 0;) {
            float scale = x.aim.level_scale[level];
            if (x.which == SAE_GATE) scale = (float)(2.0 / n);
            if (x.which == SAE_DEAD) scale = (float)(2.0 * x.v.memory->dead_weight[level] / n);
            if (alone) g = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            g = sae_add4(g, scale, sae_load4(x.errors + level * pitch + c));
            sae_store4(x.errors + level * pitch + c, g);
            sae_store4(x.list.heard + sae_at3(level, n, x.s, pitch, c), g);
        }
    }
}

// What the penalty takes for one unit of z.
__device__ __forceinline__ float sae_price(const SaeView& v, double each, u32 j) {
    if (v.penalty == SAE_L1) return (float)each;
    return v.penalty == SAE_L1_NORM ? (float)(each * (double)v.norm[j]) : 0.0f;
}

// The way back through a jump; returns the penalty's part of this entry. `slope`: derivative of the penalty by the sample's
// count.
__device__ __forceinline__ double sae_back_jump(const SaeDecode& x, u64 entry, u32 j, float z, float& dz, float slope) {
    const SaeView& v = x.v;
    const float theta = v.more[0].w[j], width = v.bandwidth;
    double penalty = 0.0;
    float pull = 0.0f;
    if (v.penalty == SAE_TANH) {
        const float norm = v.norm[j];
        // tanh of what is not negative
        const double t = 1.0 - 2.0 / (sae_exp(2.0 * v.penalty_scale * (double)z * (double)norm) + 1.0);
        const float steep = (float)(x.each * (1.0 - t * t) * v.penalty_scale);
        penalty = x.each * t;
        dz = fmaf(steep, norm, dz);
        pull = steep * z;
    }
    const bool inside = z - theta < width * 0.5f;
    const float through = inside ? fmaf(__fdiv_rn(theta, width), dz, __fdiv_rn(slope, width)) : 0.0f, open = z > 0.0f ? dz : 0.0f;
    x.list.more[0][entry] = -through;
    x.list.more[1][entry] = pull;
    dz = v.flags & SAE_INPUT_GRADIENT ? open + through : open;
    return penalty;
}

// dz of every entry, a warp each; returns this warp's part of the penalty (in its first lane).
__device__ __forceinline__ double sae_back(const SaeDecode& x, u32 fired) {
    const SaeView& v = x.v;
    const u32 lane = threadIdx.x & 31u, pitch = v.pitch;
    const bool jump = x.which == SAE_MAIN && v.rule == SAE_JUMP, gated = x.which == SAE_MAIN && v.rule == SAE_GATED;
    const bool pays = x.which == (v.rule == SAE_GATED ? (u32)SAE_GATE : (u32)SAE_MAIN);
    double penalty = 0.0;
    float slope = 0.0f;
    if (jump && v.penalty == SAE_STEP) slope = (float)x.each;
    const double over = (double)fired - v.penalty_target;
    if (jump && v.penalty == SAE_QUADRATIC) slope = (float)(x.each * 4.0 / v.penalty_target * over);
    for (u32 e = threadIdx.x >> 5; e < x.count; e += blockDim.x >> 5) {
        const u32 j = x.list.latent[x.from + e];
        const float *w = v.dec.w + sae_at(j, pitch, 0), *g = x.errors + (x.levels == 1 ? 0 : v.level_of[j] * pitch);
        float dz = 0.0f;
#pragma unroll 2
        for (u32 c = 4u * lane; c < pitch; c += 128) dz = sae_dot4(dz, sae_load4(w + c), sae_load4(g + c));
        dz = fold32(dz);
        if (lane) continue;
        const float z = x.list.z[x.from + e];
        if (jump) {
            penalty += sae_back_jump(x, x.from + e, j, z, dz, slope);
        } else if (gated) {
            // exp(r_mag) u = z - b_mag
            x.list.more[0][x.from + e] = dz * (z - v.more[1].w[j]);
            x.list.more[1][x.from + e] = dz;
            dz *= v.factor[j];
        } else if (pays) {
            dz += sae_price(v, x.each, j);
        }
        x.list.dz[x.from + e] = dz;
    }
    return penalty;
}

KERNEL(sae_decode, SaeArgs, 256, 3) {
    DYNAMIC_SHARED(float, errors);
    __shared__ float scratch[8];
    __shared__ double penalties[8];
    __shared__ u32 counts[8];
    const SaeView& v = a.views[blockIdx.x / a.per];
    const SaeList& list = v.lists[a.which];
    const u32 s = blockIdx.x % a.per, count = list.count[s];
    const SaeAim& aim = sae_aim(a, blockIdx.x / a.per);
    const SaeDecode x = {v,     list, aim, sae_batch(a, v), sae_each(v, aim), a.which, s, list.levels, count, sae_at(s, list.cap, 0),
                         errors};
    u32 fired = 0;
    for (u32 e = threadIdx.x; e < count; e += blockDim.x) fired += list.z[x.from + e] > 0.0f;
    fired = sae_fold(fired, counts);
    sae_errors(x);
    // Barriers within tell every thread of the block that the first is done; each thread has read its own columns alone.
    sae_hear(x, scratch);
    __syncthreads();
    const double penalty = sae_back(x, fired);
    if (a.which != SAE_MAIN) return;
    if ((threadIdx.x & 31u) == 0) penalties[threadIdx.x >> 5] = penalty;
    __syncthreads();
    if (threadIdx.x) return;
    double total = 0.0;
    for (u32 w = 0; w < blockDim.x >> 5; ++w) total += penalties[w];
    const double l0 = (double)fired, target = v.penalty_target;
    if (v.rule == SAE_JUMP && v.penalty == SAE_STEP) total += x.each * l0;
    if (v.rule == SAE_JUMP && v.penalty == SAE_QUADRATIC) total += x.each * 2.0 / target * (l0 - target) * (l0 - target);
    v.row_penalty[s] = total;
    v.row_fired[s] = fired;
}
