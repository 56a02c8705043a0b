// Loss of models on one batch before its step, and whether their parameters are finite: what guards and traces need.
//
//     for each sample:  h = W x,  z = W^T h + b,  r = out(z) - x,  loss += c r^2 / 2
//
// One block a model, a thread a sample, n and m at run time. Features are one chain in f32, the samples of a tile fold 8, 4, 2, 1
// apart, tiles add in order in f64, silent samples come last: the CPU's order, so the same bits. It runs once in many steps, hence
// no tiles of registers.
#include "toy.cuh"

// c r^2 summed over features for the thread's sample. `h` is [m][threads], this thread's column.
__device__ __forceinline__ float sample_loss(const ToyArgs& a, const float* parameters, const float* slopes, const float* x, float* h) {
    const u32 n = a.n, m = a.m;
    for (u32 k = 0; k < m; ++k) {
        float sum = 0.0f;
        for (u32 i = 0; i < n; ++i) sum = fmaf(parameters[i * m + k], x[i * TILE], sum);
        h[k * blockDim.x] = sum;
    }
    float loss = 0.0f;
    for (u32 j = 0; j < n; ++j) {
        float z = parameters[n * m + j];
        for (u32 k = 0; k < m; ++k) z = fmaf(parameters[j * m + k], h[k * blockDim.x], z);
        const float r = ((z > 0.0f) | !a.relu ? z : 0.0f) - x[j * TILE];
        loss = fmaf(slopes[j] * r, r, loss);
    }
    return loss;
}

KERNEL(toy_loss, ToyArgs, 128, 4) {
    DYNAMIC_SHARED(float, h);  // [m][threads]
    __shared__ float tile_losses[8];
    __shared__ u32 wrong;      // ~0 - the first parameter that is not finite, or 0
    const u32 t = threadIdx.x, model = blockIdx.x, n = a.n, m = a.m;
    const float* const parameters = a.parameters + (u64)model * (n * m + n);
    const float* const slopes = a.slopes + (u64)model * n;
    const Walk walk = walk_of(a.batches[a.batch_of[model]], a.from);
    if (t == 0) wrong = 0;
    __syncthreads();
    for (u32 e = t; e < n * m + n; e += blockDim.x)
        if ((__float_as_uint(parameters[e]) & 0x7f800000u) == 0x7f800000u) atomicMax(&wrong, ~0u - e);
    double loss = 0.0;
    const u32 at_once = blockDim.x / TILE;
    for (u32 first = 0; first < walk.tiles; first += at_once) {
        const u32 tile = first + t / TILE, sample = tile * TILE + t % TILE;
        float of_sample = 0.0f;
        if (sample < walk.count) of_sample = sample_loss(a, parameters, slopes, walk.x + (u64)tile * n * TILE + t % TILE, h + t);
        const float of_tile = fold16(of_sample);
        if (t % TILE == 0) tile_losses[t / TILE] = of_tile;
        __syncthreads();
        if (t == 0)
            for (u32 j = 0; j < min(at_once, walk.tiles - first); ++j) loss += (double)tile_losses[j];
        __syncthreads();
    }
    if (t != 0) return;
    loss *= 0.5;
    if (walk.silent) {
        double sum = 0.0;
        for (u32 j = 0; j < n; ++j) {
            const float b = parameters[n * m + j], y = (b > 0.0f) | !a.relu ? b : 0.0f;
            sum += (double)slopes[j] * (double)y * (double)y;
        }
        loss += 0.5 * (double)walk.silent * sum;
    }
    a.losses[model] = loss;
    a.wrong[model] = ~0u - wrong;
}
