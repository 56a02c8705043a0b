// Trains models with neurons of their own, and the quadratic one: one block a model, n, m and the embedding at run time.
//
//     for each piece of samples:   u = x, or E x            target = x, or |x|
//         pre = W^T u + c          (h, s) = (act, act')(pre)
//         Z = V h + b              G = c (out(Z) - target) out'(Z)
//         dpre = s (V^T G)         dc += dpre,  db += G,  dW += u dpre^T,  dV += G h^T      (V = W where tied: both go into dW)
//     quadratic:                   y = b + |h|^2,  target = sum I x^2,  g = c (y - target),  dW += x (2 g h)^T,  db += g
//
// Every sample is walked, as on the CPU. The products are those of `toy_block`, and so is the shape of their sums.
#include "toy_block.cuh"
#include "toy_layers.cuh"

struct LayerMemory {
    Matrix w, dw;         // [inputs][m]
    Matrix v, dv;         // [n][m], those above where tied
    Matrix embedding;     // [n][inputs], in device memory
    float *c, *dc;        // [m]
    float *b, *db;        // [n]
    float* slopes;        // [n + 1]
    float *x, *g;         // [n][ss]
    float* u;             // [inputs][ss], x where there is no embedding
    float *h, *s, *dh;    // [m][ss]
};

__device__ __forceinline__ LayerMemory layer_memory(const ToyArgs& a, const LayerParts& parts, float* at, const Piece& p) {
    LayerMemory o;
    const u32 n4 = (a.n + 3) / 4 * 4, m4 = (a.m + 3) / 4 * 4;
    auto take = [&](u32 floats) {
        float* const here = at;
        at += floats;
        return here;
    };
    o.w = matrix(at, a.n_inputs, a.m), o.dw = matrix(o.w.end(), a.n_inputs, a.m);
    at = o.dw.end();
    o.v = o.w, o.dv = o.dw;
    if (parts.has_v) {
        o.v = matrix(at, a.n, a.m), o.dv = matrix(o.v.end(), a.n, a.m);
        at = o.dv.end();
    }
    o.c = take(m4), o.dc = take(m4);
    o.b = take(n4), o.db = take(n4), o.slopes = take(n4 + 4);
    o.x = take(n4 * p.ss), o.g = take(n4 * p.ss);
    o.u = a.embedding ? take(o.w.rows4 * p.ss) : o.x;
    o.h = take(m4 * p.ss), o.s = take(m4 * p.ss), o.dh = take(m4 * p.ss);
    o.embedding = matrix(const_cast<float*>(a.embedding), a.n, a.n_inputs);
    return o;
}

// h and s of the piece from the products in h.
__device__ __forceinline__ void layers_neurons(const ToyArgs& a, const LayerMemory& o, const Piece& p) {
    for (u32 e = threadIdx.x; e < o.w.columns4 * p.s; e += blockDim.x) {
        const u32 k = e / p.s, at = k * p.ss + e % p.s;
        const float product = o.h[at], pre = a.kind == KIND_MLP ? product + o.c[k] : product;
        o.h[at] = activate(a.activation, pre, o.s[at]);
    }
}

// g of the only output, then 2 g h in the place of h.
__device__ __forceinline__ void quadratic_residual(const LayerMemory& o, const Piece& p, u32 samples) {
    for (u32 s = threadIdx.x; s < p.s; s += blockDim.x) {
        float y = o.b[0], target = 0.0f;
        for (u32 k = 0; k < o.w.columns; ++k) y = fmaf(o.h[k * p.ss + s], o.h[k * p.ss + s], y);
        for (u32 i = 0; i < o.w.rows; ++i) target = fmaf(o.slopes[i] * o.x[i * p.ss + s], o.x[i * p.ss + s], target);
        o.g[s] = s < samples ? o.slopes[o.w.rows] * (y - target) : 0.0f;
    }
    __syncthreads();
    for (u32 e = threadIdx.x; e < o.w.columns4 * p.s; e += blockDim.x) {
        const u32 s = e % p.s, at = e / p.s * p.ss + s;
        o.h[at] *= o.g[s] + o.g[s];
    }
    block_sums(p, o.g, 1, o.db);
    __syncthreads();
    block_outer(p, o.dw, o.x, o.h, nullptr, nullptr);
}

// G from h, and back to dpre and the gradients.
__device__ __forceinline__ void layers_back(const ToyArgs& a, const LayerParts& parts, const LayerMemory& o, const Piece& p,
                                            u32 samples) {
    const Outputs of = {o.b, o.slopes, !a.relu, a.kind == KIND_ABSOLUTE_VALUE};
    block_residual(p, o.v, of, o.h, o.x, samples, o.g);
    __syncthreads();
    block_project(p, o.v, o.g, o.dh);
    block_sums(p, o.g, parts.biases, o.db);
    __syncthreads();
    for (u32 e = threadIdx.x; e < o.w.columns4 * p.s; e += blockDim.x) {
        const u32 at = e / p.s * p.ss + e % p.s;
        o.dh[at] *= o.s[at];
    }
    __syncthreads();
    if (parts.has_c) block_sums(p, o.dh, a.m, o.dc);
    if (parts.tied) {
        block_outer(p, o.dw, o.g, o.h, o.x, o.dh);
    } else {
        block_outer(p, o.dw, o.u, o.dh, nullptr, nullptr);
        block_outer(p, o.dv, o.g, o.h, nullptr, nullptr);
    }
}

__device__ __forceinline__ void layers_gradient(const ToyArgs& a, const LayerParts& parts, const LayerMemory& o, const Piece& p,
                                                const Walk& walk) {
    block_zero(o.dw.at, o.dw.rows4 * o.dw.stride);
    block_zero(o.dv.at, o.dv.rows4 * o.dv.stride);
    block_zero(o.dc, o.w.columns4);
    block_zero(o.db, (a.n + 3) / 4 * 4);
    for (u32 first = 0; first < walk.count; first += p.s) {
        __syncthreads();
        block_copy(p, walk, first, a.n, o.x);
        __syncthreads();
        if (a.embedding) {
            block_project(p, o.embedding, o.x, o.u);
            __syncthreads();
        }
        block_project(p, o.w, o.u, o.h);
        __syncthreads();
        if (a.kind == KIND_QUADRATIC) {
            quadratic_residual(o, p, walk.count - first);
            continue;
        }
        layers_neurons(a, o, p);
        __syncthreads();
        layers_back(a, parts, o, p, walk.count - first);
    }
    __syncthreads();
}

// The optimiser's step of biases.
__device__ __forceinline__ void layers_update(const ToyStep& numbers, float* b, const float* db, u32 count, float* first,
                                              float* second, float factor) {
    for (u32 j = threadIdx.x; j < count; j += blockDim.x) b[j] = toy_update(numbers, b[j], db[j], first[j], second[j]) * factor;
}

KERNEL(toy_layers, ToyArgs, 256, 1) {
    DYNAMIC_SHARED(float, shared);
    const u32 t = threadIdx.x;
    const ToyBlock block = a.blocks[blockIdx.x];
    const Piece p = {a.stage, a.stage + 4};
    const LayerParts parts = layer_parts(a);
    const LayerMemory o = layer_memory(a, parts, shared, p);
    const u64 origin = (u64)block.first * parts.end;
    float *const parameters = a.parameters + origin, *const first = a.first + origin, *const second = a.second + origin;
    const u32 n_slopes = a.n + (a.kind == KIND_QUADRATIC);
    block_load(o.w, parameters);
    if (parts.has_v) block_load(o.v, parameters + parts.v);
    for (u32 k = t; k < o.w.columns4; k += blockDim.x) o.c[k] = parts.has_c && k < a.m ? parameters[parts.c + k] : 0.0f;
    for (u32 i = t; i < (a.n + 3) / 4 * 4; i += blockDim.x) o.b[i] = i < parts.biases ? parameters[parts.b + i] : 0.0f;
    const float* const slopes = a.slopes + (u64)block.first * n_slopes;
    for (u32 i = t; i < (a.n + 3) / 4 * 4 + 4; i += blockDim.x) o.slopes[i] = i < n_slopes ? slopes[i] : 0.0f;
    // Rows past the last feature stay zero.
    block_zero(o.x, (a.n + 3) / 4 * 4 * p.ss);
    const ToyStep* const steps = a.steps + (u64)a.settings[block.first] * a.steps_stride + a.from;
    const ToyBatch batch = a.batches[block.batch];
#pragma unroll 1
    for (u32 step = 0; step < a.n_steps; ++step) {
        layers_gradient(a, parts, o, p, walk_of(batch, a.from + step));
        const ToyStep numbers = steps[step];
        block_update(numbers, o.w, o.dw, first, second);
        if (parts.has_c) layers_update(numbers, o.c, o.dc, a.m, first + parts.c, second + parts.c, numbers.hidden_bias);
        if (parts.has_v) block_update(numbers, o.v, o.dv, first + parts.v, second + parts.v);
        layers_update(numbers, o.b, o.db, parts.biases, first + parts.b, second + parts.b, 1.0f);
        __syncthreads();
    }
    block_store(o.w, parameters);
    if (parts.has_v) block_store(o.v, parameters + parts.v);
    for (u32 k = t; parts.has_c && k < a.m; k += blockDim.x) parameters[parts.c + k] = o.c[k];
    for (u32 j = t; j < parts.biases; j += blockDim.x) parameters[parts.b + j] = o.b[j];
}
