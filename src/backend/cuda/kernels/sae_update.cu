// One step of the optimiser for every number of an autoencoder, and what the next step reads of the moved rows.
//
//   g  = scale gradient + decay p                              Adam and SGD: decay is part of the gradient
//   m += (1 - beta1) (g - m)        v += (1 - beta2) (g^2 - v)
//   p  = p + shrink p - lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + epsilon)           SGD: u = momentum u + g, p -= lr u
//   unit rows: w_dec /= |w_dec|;  thresholds at least 0;  norm = |w_dec|,  offset = b_enc - w_enc . b_dec
//
// The operations of each number are the CPU's, one for one: moments of 1e-30 and less are stored as 0, and so are gradients of
// 1e-15 and less on their way into v. A row's weights, two moments and gradient are read and written once: this is bound by
// memory.
#include "sae_view.cuh"

enum { SAE_MOVE, SAE_REFRESH };

__device__ __forceinline__ float sae_above(float least, float x) { return fabsf(x) - least > 0.0f ? x : 0.0f; }

__device__ __forceinline__ float sae_moved(const SaeAim& aim, float scale, float p, float g, float& m, float& v) {
    g = fmaf(aim.decay, p, scale * g);
    if (!aim.adaptive) {
        if (aim.momentum != 0.0f) g = fmaf(aim.momentum, m, g), m = sae_above(1e-30f, g);
        return fmaf(aim.rate, g, p);
    }
    const float counted = sae_above(1e-15f, g);
    m = fmaf(aim.take[0], g - m, m);
    v = fmaf(aim.take[1], counted * counted - v, v);
    const float direction = __fdiv_rn(m, __fsqrt_rn(v * aim.scale) + aim.epsilon);
    // A gradient that is not a number has reached `direction`, so masking the moments does not hide it.
    p = fmaf(aim.rate, direction, fmaf(aim.shrink, p, p));
    m = sae_above(1e-30f, m), v = sae_above(1e-30f, v);
    return p;
}

__device__ __forceinline__ void sae_move(const SaeTensor& x, const SaeAim& aim, float scale, u64 at) {
    float m = x.first ? x.first[at] : 0.0f, v = x.second ? x.second[at] : 0.0f;
    x.w[at] = sae_moved(aim, scale, x.w[at], x.gradient[at], m, v);
    if (x.first) x.first[at] = m;
    if (x.second) x.second[at] = v;
}

// Four columns of a row; returns them. `active`: whether there is a gradient.
__device__ __forceinline__ float4 sae_move4(const SaeTensor& x, const SaeAim& aim, float scale, u64 at, bool active) {
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f), g = active ? sae_load4(x.gradient + at) : zero;
    float4 w = sae_load4(x.w + at), m = x.first ? sae_load4(x.first + at) : zero, v = x.second ? sae_load4(x.second + at) : zero;
    w.x = sae_moved(aim, scale, w.x, g.x, m.x, v.x);
    w.y = sae_moved(aim, scale, w.y, g.y, m.y, v.y);
    w.z = sae_moved(aim, scale, w.z, g.z, m.z, v.z);
    w.w = sae_moved(aim, scale, w.w, g.w, m.w, v.w);
    sae_store4(x.w + at, w);
    if (x.first) sae_store4(x.first + at, m);
    if (x.second) sae_store4(x.second + at, v);
    return w;
}

// The decoder's bias, before the rows: their offsets read it. One block of an autoencoder.
KERNEL(sae_update_bias, SaeArgs, 256, 1) {
    const SaeView& v = a.views[blockIdx.x];
    if (v.memory->halted || v.flags & SAE_FROZEN) return;
    for (u32 c = threadIdx.x; c < v.pitch; c += blockDim.x) sae_move(v.center, sae_aim(a, blockIdx.x), v.memory->scale, c);
}

// The numbers of latent j beside its rows; whether they are finite.
__device__ __forceinline__ bool sae_update_numbers(const SaeView& v, const SaeAim& aim, float scale, u32 j, bool move) {
    bool finite = true;
    if (move) sae_move(v.bias, aim, scale, j);
    for (u32 i = 0; i < 2; ++i) {
        if (!v.more[i].w) continue;
        if (move) sae_move(v.more[i], aim, scale, j);
        // A threshold that is not a number stays one, to be found.
        if (v.rule == SAE_JUMP && v.more[i].w[j] < 0.0f) v.more[i].w[j] = 0.0f;
        finite = finite && sae_finite(v.more[i].w[j]);
    }
    if (v.rule == SAE_GATED) v.factor[j] = (float)sae_exp((double)v.more[0].w[j]);
    return finite;
}

// Block = latent. SAE_REFRESH: nothing moves, norms and offsets alone.
KERNEL(sae_update, SaeArgs, 256, 4) {
    __shared__ float scratch[8];
    const SaeView& v = a.views[blockIdx.x / a.per];
    const SaeAim& aim = sae_aim(a, blockIdx.x / a.per);
    const u32 t = threadIdx.x, j = blockIdx.x % a.per, pitch = v.pitch, flags = v.flags, step = 4u * blockDim.x;
    const bool move = a.which == SAE_MOVE, active = move && v.active[j];
    if (move && v.memory->halted) return;
    const float scale = v.memory->scale;
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float square = 0.0f, along = 0.0f;
    for (u32 c = 4u * t; c < pitch; c += step) {
        const u64 at = sae_at(j, pitch, c);
        const float4 dec = move && !(flags & SAE_FROZEN) ? sae_move4(v.dec, aim, scale, at, active) : sae_load4(v.dec.w + at);
        float4 enc = zero;
        if (!(flags & SAE_TIED)) enc = move ? sae_move4(v.enc, aim, scale, at, active) : sae_load4(v.enc.w + at);
        square = sae_dot4(square, dec, dec);
        along = sae_dot4(along, enc, sae_load4(v.center.w + c));
    }
    float norm = __fsqrt_rn(sae_fold(square, scratch));
    const bool unit = move && flags & SAE_UNIT && norm > 0.0f;
    if (unit || flags & SAE_TIED)
        for (u32 c = 4u * t; c < pitch; c += step) {
            const u64 at = sae_at(j, pitch, c);
            float4 w = sae_load4(v.dec.w + at);
            if (unit) w = make_float4(__fdiv_rn(w.x, norm), __fdiv_rn(w.y, norm), __fdiv_rn(w.z, norm), __fdiv_rn(w.w, norm));
            sae_store4(v.dec.w + at, w);
            if (!(flags & SAE_TIED)) continue;
            sae_store4(v.enc.w + at, w);
            along = sae_dot4(along, w, sae_load4(v.center.w + c));
        }
    if (unit) norm = __fdiv_rn(norm, norm);
    along = sae_fold(along, scratch);
    if (t) return;
    const bool finite = sae_update_numbers(v, aim, scale, j, move);
    const float offset = v.bias.w[j] - along;
    v.norm[j] = norm, v.offset[j] = offset;
    // Any weight that is not finite makes one of the two so: products with 0 of an infinity are not numbers.
    if (!finite || !sae_finite(norm) || !sae_finite(offset)) atomicOr(&v.memory->broken, 1u);
}
