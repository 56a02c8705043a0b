// Loss of models on one batch before its step, and whether their parameters are finite: what guards and traces need.
//
//     for each sample:  h = W x,  z = W^T h + b,  r = out(z) - x,  loss += c r^2 / 2      (other kinds: `toy_layers`)
//
// One block a model, a thread a sample, n and m at run time. Features are one chain in f32, the samples of a tile fold 8, 4, 2, 1
// apart, tiles add in order in f64, silent samples come last: the CPU's order, so the same bits. It runs once in many steps,
// hence no tiles of registers.
#include "toy_layers.cuh"

// c r^2 summed over features for the thread's sample, of a tied model. `h` is [m][threads], this thread's column.
struct TiedLoss {
    __device__ __forceinline__ static u32 parameters(const ToyArgs& a) { return a.n * a.m + a.n; }
    __device__ __forceinline__ static u32 slopes(const ToyArgs& a) { return a.n; }
    __device__ __forceinline__ static float of_sample(const ToyArgs& a, const float* parameters, const float* slopes,
                                                      const float* x, float* h) {
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
};

// The same of a model with neurons, and of the quadratic one. `h` is [m + n_inputs][threads]: h, then u.
struct LayersLoss {
    __device__ __forceinline__ static u32 parameters(const ToyArgs& a) { return layer_parts(a).end; }
    __device__ __forceinline__ static u32 slopes(const ToyArgs& a) { return a.n + (a.kind == KIND_QUADRATIC); }
    __device__ __forceinline__ static float of_sample(const ToyArgs& a, const float* w, const float* slopes, const float* x,
                                                      float* h) {
        const LayerParts parts = layer_parts(a);
        const u32 m = a.m, stride = embedding_stride(a), threads = blockDim.x;
        float* const u = h + m * threads;
        for (u32 d = 0; d < a.n_inputs; ++d) {
            float sum = a.embedding ? 0.0f : x[d * TILE];
            for (u32 i = 0; a.embedding && i < a.n; ++i) sum = fmaf(a.embedding[i * stride + d], x[i * TILE], sum);
            u[d * threads] = sum;
        }
        for (u32 k = 0; k < m; ++k) {
            float sum = 0.0f, unused;
            for (u32 d = 0; d < a.n_inputs; ++d) sum = fmaf(w[d * m + k], u[d * threads], sum);
            if (parts.has_c) sum += w[parts.c + k];
            h[k * threads] = activate(a.activation, sum, unused);
        }
        return a.kind == KIND_QUADRATIC ? of_square(a, w[parts.b], slopes, x, h) : of_outputs(a, parts, w, slopes, x, h);
    }
    __device__ __forceinline__ static float of_square(const ToyArgs& a, float b, const float* slopes, const float* x,
                                                      const float* h) {
        float y = b, target = 0.0f;
        for (u32 k = 0; k < a.m; ++k) y = fmaf(h[k * blockDim.x], h[k * blockDim.x], y);
        for (u32 i = 0; i < a.n; ++i) target = fmaf(slopes[i] * x[i * TILE], x[i * TILE], target);
        const float r = y - target;
        return slopes[a.n] * r * r;
    }
    __device__ __forceinline__ static float of_outputs(const ToyArgs& a, const LayerParts& parts, const float* w,
                                                       const float* slopes, const float* x, const float* h) {
        const float* const v = parts.tied ? w : w + parts.v;
        float loss = 0.0f;
        for (u32 j = 0; j < a.n; ++j) {
            float z = parts.biases ? w[parts.b + j] : 0.0f, target = x[j * TILE];
            for (u32 k = 0; k < a.m; ++k) z = fmaf(v[j * a.m + k], h[k * blockDim.x], z);
            if (a.kind == KIND_ABSOLUTE_VALUE && target < 0.0f) target = -target;
            const float r = ((z > 0.0f) | !a.relu ? z : 0.0f) - target;
            loss = fmaf(slopes[j] * r, r, loss);
        }
        return loss;
    }
};

// Half the sum of c r^2 over the samples that are walked, in the first thread.
template <class Of> __device__ __forceinline__ double walked_loss(const ToyArgs& a, const Walk& walk, float* h) {
    __shared__ float tile_losses[8];
    const u32 t = threadIdx.x, at_once = blockDim.x / TILE;
    const float* const parameters = a.parameters + (u64)blockIdx.x * Of::parameters(a);
    const float* const slopes = a.slopes + (u64)blockIdx.x * Of::slopes(a);
    double loss = 0.0;
    for (u32 first = 0; first < walk.tiles; first += at_once) {
        const u32 tile = first + t / TILE, sample = tile * TILE + t % TILE;
        float of_sample = 0.0f;
        const float* const x = walk.x + (u64)tile * a.n * TILE + t % TILE;
        if (sample < walk.count) of_sample = Of::of_sample(a, parameters, slopes, x, h + t);
        const float of_tile = fold16(of_sample);
        if (t % TILE == 0) tile_losses[t / TILE] = of_tile;
        __syncthreads();
        if (t == 0)
            for (u32 j = 0; j < min(at_once, walk.tiles - first); ++j) loss += (double)tile_losses[j];
        __syncthreads();
    }
    return 0.5 * loss;
}

// What silent samples of a tied model add.
__device__ __forceinline__ double silent_loss(const ToyArgs& a, u32 silent) {
    const float* const b = a.parameters + (u64)blockIdx.x * (a.n * a.m + a.n) + a.n * a.m;
    const float* const slopes = a.slopes + (u64)blockIdx.x * a.n;
    double sum = 0.0;
    for (u32 j = 0; j < a.n; ++j) {
        const float y = (b[j] > 0.0f) | !a.relu ? b[j] : 0.0f;
        sum += (double)slopes[j] * (double)y * (double)y;
    }
    return 0.5 * (double)silent * sum;
}

// The first of some parameters that is not finite, or ~0; the same for all threads.
__device__ __forceinline__ u32 first_wrong(const float* parameters, u32 count) {
    __shared__ u32 wrong;  // ~0 - that, or 0
    if (threadIdx.x == 0) wrong = 0;
    __syncthreads();
    for (u32 e = threadIdx.x; e < count; e += blockDim.x)
        if ((__float_as_uint(parameters[e]) & 0x7f800000u) == 0x7f800000u) atomicMax(&wrong, ~0u - e);
    __syncthreads();
    return ~0u - wrong;
}

template <class Of> __device__ __forceinline__ void loss_of_model(const ToyArgs& a, float* h) {
    const u32 count = Of::parameters(a), wrong = first_wrong(a.parameters + (u64)blockIdx.x * count, count);
    const Walk walk = walk_of(a.batches[a.batch_of[blockIdx.x]], a.from);
    double loss = walked_loss<Of>(a, walk, h);
    if (threadIdx.x != 0) return;
    if (walk.silent) loss += silent_loss(a, walk.silent);
    a.losses[blockIdx.x] = loss;
    a.wrong[blockIdx.x] = wrong;
}

KERNEL(toy_loss, ToyArgs, 128, 4) {
    DYNAMIC_SHARED(float, h);
    loss_of_model<TiedLoss>(a, h);
}

KERNEL(toy_layers_loss, ToyArgs, 128, 4) {
    DYNAMIC_SHARED(float, h);
    loss_of_model<LayersLoss>(a, h);
}
