// What every kernel shares: its form, the counter generator, Adam, folds.
//
// A kernel takes one structure by value, the same as the `#[repr(C)]` one of its launcher in Rust: KERNEL(name, Args, threads, blocks
// a multiprocessor) { .. }. Addresses are 8 bytes on both sides.
//
// Floats know +, -, *, fmaf, IEEE division and square root and nothing else. Kernels are compiled with -fmad=false, and through
// emulation.h with -ffp-contract=off, so a fused multiply-add happens where fmaf is written. All of these round correctly on every
// machine: what equals the CPU's operations in their order equals its bits. No expf, logf, rsqrtf, and no atomics of floats.
#pragma once
#ifdef TEGUM_EMULATED
#include "emulation.h"
#define KERNEL(name, Args, threads, per_multiprocessor)                                                                          \
    static void name(const Args& a);                                                                                             \
    extern "C" void emulate_##name(unsigned blocks, unsigned size, size_t shared, unsigned order, unsigned workers, const void* args) { \
        static_assert(std::is_trivially_copyable<Args>::value, "copied byte by byte");                                           \
        if (size > threads) {                                                                                                    \
            fprintf(stderr, #name ": %u threads are more than its %u\n", size, unsigned(threads));                               \
            abort();                                                                                                             \
        }                                                                                                                        \
        Args a;                                                                                                                  \
        memcpy(&a, args, sizeof a);                                                                                              \
        emulation::launch(blocks, size, shared, [&] { name(a); }, order, workers);                                               \
    }                                                                                                                            \
    static void name(const Args& a)
#define DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(emulation::shared_memory())
#else
// Kernels of a module share this one array and cast it: two of different types would clash.
extern __shared__ __align__(16) unsigned char tegum_shared[];
#define KERNEL(name, Args, threads, per_multiprocessor) \
    extern "C" __global__ void __launch_bounds__(threads, per_multiprocessor) name(const __grid_constant__ Args a)
#define DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(tegum_shared)
#endif
typedef unsigned int u32;
typedef unsigned long long u64;

#define ALL_LANES 0xffffffffu

struct Words {
    u32 v[4];
};

// Philox4x32 with ten rounds: `random::philox`.
__device__ __forceinline__ Words philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
#pragma unroll
    for (int r = 0; r < 10; ++r) {
        u64 a = (u64)0xD2511F53u * c0, b = (u64)0xCD9E8D57u * c2;
        c0 = (u32)(b >> 32) ^ c1 ^ k0;
        c1 = (u32)b;
        c2 = (u32)(a >> 32) ^ c3 ^ k1;
        c3 = (u32)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// Additions are commutative bit for bit, so after a butterfly every lane has the same bits: lanes 8, 4, 2, 1 apart, as the CPU
// folds its sixteen.
__device__ __forceinline__ float fold16(float x) {
#pragma unroll
    for (int apart = 8; apart > 0; apart >>= 1) x += __shfl_xor_sync(ALL_LANES, x, apart);
    return x;
}
__device__ __forceinline__ float fold32(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 16);
    return fold16(x);
}
