// What the kernels for models with a hidden layer of their own share: the parts of their parameters.
#pragma once
#include "activation.cuh"
#include "toy.cuh"

// Where the parts of the flat parameters begin, as `Shape::parts`: W [inputs][m], c [m], V [n][m], b.
struct LayerParts {
    u32 c, v, b, end;
    bool has_c, has_v, tied;
    u32 biases;
};
__device__ __forceinline__ LayerParts layer_parts(const ToyArgs& a) {
    LayerParts o;
    o.has_c = a.kind == KIND_MLP;
    o.has_v = a.kind == KIND_ABSOLUTE_VALUE || a.kind == KIND_MLP;
    o.tied = a.kind == KIND_RELU_HIDDEN;
    o.biases = a.kind == KIND_MLP ? 0 : a.kind == KIND_QUADRATIC ? 1 : a.n;
    o.c = a.n_inputs * a.m;
    o.v = o.c + (o.has_c ? a.m : 0);
    o.b = o.v + (o.has_v ? a.n * a.m : 0);
    o.end = o.b + o.biases;
    return o;
}

// Floats of a row of the embedding.
__device__ __forceinline__ u32 embedding_stride(const ToyArgs& a) { return 4 * ((a.n_inputs + 3) / 4 | 1u); }
