// What is one number a step: the loss, whether it is wrong, the gradient of the decoder's bias, the norm that gradients are
// clipped by.
//
//   db_dec = sum_s g_0(s) (+ those of the gate's reconstruction) - sum_j through_j W_enc[j],   through_j = sum of dz
//
// Both sums go over blocks of 64 rows first, then over blocks in order.
#include "sae_view.cuh"

#define SAE_PART 64

// Block = part and 128 columns.
KERNEL(sae_parts, SaeArgs, 128, 8) {
    const SaeView& v = a.views[blockIdx.x / a.per];
    const u32 b = blockIdx.x % a.per, pitch = v.pitch, across = (pitch + 127) / 128, part = b / across;
    const u32 c = b % across * 128 + threadIdx.x, of_samples = (v.n + SAE_PART - 1) / SAE_PART;
    if (c >= pitch) return;
    float sum = 0.0f;
    if (part < of_samples) {
        const u32 from = part * SAE_PART, to = min(v.n, from + SAE_PART);
        const float *heard = v.lists[SAE_MAIN].heard + c, *gate = v.lists[SAE_GATE].heard + c;
#pragma unroll 8
        for (u32 s = from; s < to; ++s) sum += heard[sae_at(s, pitch, 0)];
        if (v.rule == SAE_GATED && !(v.flags & SAE_HOLD_DECODER))
            for (u32 s = from; s < to; ++s) sum += gate[sae_at(s, pitch, 0)];
    } else {
        const u32 from = (part - of_samples) * SAE_PART, to = min(v.m, from + SAE_PART);
        const float *w = v.enc.w + c, *through = v.through;
        // Latents without entries add nothing and are not read.
        for (u32 j = from; j < to; ++j)
            if (through[j] != 0.0f) sum = fmaf(through[j], w[sae_at(j, pitch, 0)], sum);
    }
    v.parts[sae_at(part, pitch, c)] = sum;
}

// Chains over every 256th number, then the fold.
template <class T, class Term> __device__ __forceinline__ T sae_total(u32 count, T* scratch, Term term) {
    T sum = 0;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) sum += term(i);
    return sae_fold(sum, scratch);
}

struct SaeLoss {
    double mse, reconstruction, penalty, auxiliary;
    u64 fired;
};

__device__ __forceinline__ SaeLoss sae_loss(const SaeView& v, const SaeAim& aim, double* scratch, u64* counts) {
    SaeLoss loss = {0.0, 0.0, 0.0, 0.0, 0};
    const double n = (double)v.n;
    const SaeList &main = v.lists[SAE_MAIN], &gate = v.lists[SAE_GATE], &dead = v.lists[SAE_DEAD];
    for (u32 level = 0; level < main.levels; ++level) {
        const double mean = sae_total(v.n, scratch, [&](u32 s) { return (double)main.squares[sae_at(level, v.n, s)]; }) / n;
        loss.mse = mean;
        loss.reconstruction += aim.level_weight[level] * mean;
    }
    if (v.used >> SAE_GATE & 1u) loss.auxiliary = sae_total(v.n, scratch, [&](u32 s) { return (double)gate.squares[s]; }) / n;
    if (v.used >> SAE_DEAD & 1u)
        for (u32 level = 0; level < dead.levels; ++level) {
            if (v.memory->dead[level] == 0) continue;
            const double sum = sae_total(v.n, scratch, [&](u32 s) { return (double)dead.squares[sae_at(level, v.n, s)]; });
            loss.auxiliary += v.memory->dead_weight[level] * (sum / n);
        }
    loss.penalty = sae_total(v.n, scratch, [&](u32 s) { return v.row_penalty[s]; });
    loss.penalty += sae_total(v.m, scratch, [&](u32 j) { return v.price[j]; });
    loss.fired = sae_total(v.n, counts, [&](u32 s) { return (u64)v.row_fired[s]; });
    return loss;
}

__device__ __forceinline__ bool sae_is_finite(double x) { return x - x == 0.0; }

// The controller of L0 (`sae::target_l0` has its law).
__device__ __forceinline__ void sae_lead(const SaeView& v, const SaeAim& aim, SaeMemory& memory, u64 fired) {
    const double l0 = (double)fired / (double)v.n, before = memory.has_smoothed ? memory.smoothed : l0;
    const double now = 0.99 * before + 0.01 * l0, rate = 0.95 * memory.rate + 0.05 * (now - before);
    memory.smoothed = now, memory.has_smoothed = 1, memory.rate = rate;
    if (!aim.tunes) return;
    const double error = now + v.lead_ahead * rate - v.wanted_l0, gain = error * rate < 0.0 ? v.lead_approach : 1.0;
    // tanh of what is not negative
    const double steep = 1.0 - 2.0 / (sae_exp(20.0 * fabs(error) / v.wanted_l0) + 1.0), step = v.lead_rate * gain * steep;
    const double moved = memory.multiplier * (error > 0.0 ? 1.0 + step : 1.0 - step);
    memory.multiplier = moved < 0.01 ? 0.01 : moved > 100.0 ? 100.0 : moved;
}

// The report, the controller, the running threshold, and whether the training has gone wrong: then nothing moves any more. Thread 0.
__device__ __forceinline__ void sae_judge(const SaeView& v, const SaeAim& aim, const SaeLoss& loss) {
    SaeMemory& memory = *v.memory;
    if (!memory.has_first) memory.has_first = 1, memory.first = loss.mse;
    const double total = loss.reconstruction + loss.penalty + loss.auxiliary;
    if (memory.broken || !sae_is_finite(total) || !(loss.mse <= 1e6 * memory.first + 1e3)) memory.halted = 1;
    if (v.flags & SAE_LED) sae_lead(v, aim, memory, loss.fired);
    v.reports[aim.report] = {loss.mse,        loss.reconstruction, loss.penalty, loss.auxiliary, memory.multiplier,
                           memory.smoothed, memory.rate,         loss.fired,   memory.halted,  memory.broken};
    if (v.rule != SAE_BATCH_TOP || memory.halted) return;
    const u32 least = memory.cut == 0xffffffffu ? 0u : memory.cut ? memory.cut : memory.low ? ~memory.low : 0u;
    if (least) memory.threshold = 0.99 * memory.threshold + (1.0 - 0.99) * (double)__uint_as_float(least);
}

// One block of an autoencoder.
KERNEL(sae_close, SaeArgs, 256, 1) {
    __shared__ double scratch[8];
    __shared__ u64 counts[8];
    const SaeView& v = a.views[blockIdx.x];
    const SaeAim& aim = sae_aim(a, blockIdx.x);
    const u32 pitch = v.pitch, of_samples = (v.n + SAE_PART - 1) / SAE_PART, of_latents = (v.m + SAE_PART - 1) / SAE_PART;
    const SaeLoss loss = sae_loss(v, aim, scratch, counts);
    if (threadIdx.x == 0) sae_judge(v, aim, loss);
    double square = 0.0;
    for (u32 c = threadIdx.x; c < pitch; c += blockDim.x) {
        float sum = 0.0f, through = 0.0f;
        for (u32 p = 0; p < of_samples; ++p) sum += v.parts[sae_at(p, pitch, c)];
        for (u32 p = of_samples; p < of_samples + of_latents; ++p) through += v.parts[sae_at(p, pitch, c)];
        const float g = v.flags & SAE_FROZEN ? 0.0f : sum - through;
        v.center.gradient[c] = g;
        square += (double)g * (double)g;
    }
    square = sae_fold(square, scratch);
    square += sae_total(v.m, scratch, [&](u32 j) { return (double)v.squares[j]; });
    if (threadIdx.x) return;
    const double share = aim.clip / (sqrt(square) + 1e-6);
    v.memory->scale = share < 1.0 ? (float)share : 1.0f;
}
