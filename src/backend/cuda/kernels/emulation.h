// Runs CUDA C++ kernels on a CPU, for tests: one fiber for each CUDA thread, a block at a time on each thread of the machine.
//
// What it looks for beside wrong results:
// - order: fibers and blocks run forwards, backwards or shuffled; results that differ mean a barrier is missing. The shuffled order
//   draws a new permutation in every round and starves one warp for up to 300 of them, so that another may be a whole phase ahead.
// - memory nobody wrote: dynamic shared memory is NaN before every block and lies between fences that must stay.
// - warps: lanes that wait in different operations, masks that are not full, shuffles from lanes that are gone end the program.
// Not seen: weak memory order, lanes of a warp that run apart without an operation between them, bank conflicts, launch limits.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static thread_local
#define __constant__ static
#define __align__(n) __attribute__((aligned(n)))
#ifndef __restrict__
#define __restrict__ __restrict
#endif

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
inline float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }
inline float2 make_float2(float a, float b) { return {a, b}; }

namespace emulation {

enum State { READY, AT_BLOCK, AT_WARP, DONE };

// What a fiber waits for at a warp operation; a warp whose lanes wait for different ones has diverged.
enum Wait { SHUFFLE_PUT = 1, SHUFFLE_GOT, BALLOT_PUT, BALLOT_GOT, MMA_PUT, MMA_GOT, SYNC_WARP };

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    State state = READY;
    int wait = 0;
    unsigned index = 0;
    uint64_t slot = 0;
};

struct Block {
    std::vector<Fiber> fibers;
    dim3 block_index, block_size, grid_size, thread_index;
    Fiber* current = nullptr;
    void* main_stack_pointer = nullptr;
    const std::function<void()>* body = nullptr;
    std::vector<char> memory;
    char* shared = nullptr;
    size_t shared_bytes = 0;
    int votes = 0, counted = 0;
};

inline Block*& here() {
    static thread_local Block* block = nullptr;
    return block;
}

// Saves the six registers that a call must keep, and goes on with another stack.
extern "C" void tegum_switch_fiber(void** save, void* to);
#if defined(__x86_64__)
asm(".text\n.globl tegum_switch_fiber\n.type tegum_switch_fiber,@function\ntegum_switch_fiber:\n"
    "pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
    "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n ret\n");
#else
#error "write the switch of fibers for this processor"
#endif

[[noreturn]] inline void fail(const char* what) {
    Block* b = here();
    fprintf(stderr, "emulated kernel: %s (block %u, thread %u)\n", what, b->block_index.x, b->current ? b->current->index : 0);
    abort();
}

__attribute__((noinline)) inline void leave() {
    Block* b = here();
    tegum_switch_fiber(&b->current->stack_pointer, b->main_stack_pointer);
}

inline void fiber_main() {
    (*here()->body)();
    here()->current->state = DONE;
    leave();
    abort();
}

inline void resume(Block* b, Fiber& fiber) {
    b->current = &fiber;
    b->thread_index = dim3(fiber.index);
    tegum_switch_fiber(&b->main_stack_pointer, fiber.stack_pointer);
}

inline void wait_for_block() {
    here()->current->state = AT_BLOCK;
    leave();
}

inline void wait_for_warp(int wait) {
    Fiber* me = here()->current;
    me->state = AT_WARP;
    me->wait = wait;
    leave();
}

inline unsigned lane() { return here()->current->index & 31u; }

inline void must_be_full(unsigned mask) {
    if (mask != 0xffffffffu) fail("a mask of some lanes");
}

// `from` is a lane of the warp; without `valid` a lane keeps its own.
template <class T> T shuffle(T value, unsigned from, bool valid) {
    static_assert(sizeof(T) <= 8, "a lane exchanges 8 bytes at most");
    Block* b = here();
    Fiber* me = b->current;
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    me->slot = bits;
    wait_for_warp(SHUFFLE_PUT);
    unsigned source = (me->index & ~31u) + from;
    T result = value;
    if (valid) {
        if (source >= b->fibers.size() || b->fibers[source].state == DONE) fail("a shuffle from a lane that is not there");
        memcpy(&result, &b->fibers[source].slot, sizeof result);
    }
    wait_for_warp(SHUFFLE_GOT);
    return result;
}

inline unsigned ballot(bool vote) {
    Block* b = here();
    unsigned first = b->current->index & ~31u, mask = 0;
    b->current->slot = vote;
    wait_for_warp(BALLOT_PUT);
    for (unsigned i = 0; i < 32 && first + i < b->fibers.size(); ++i)
        if (b->fibers[first + i].state != DONE) mask |= unsigned(b->fibers[first + i].slot != 0) << i;
    wait_for_warp(BALLOT_GOT);
    return mask;
}

// Nearest number of 11 bits, ties away from 0: cvt.rna.tf32.f32. What is too large becomes infinite.
inline float round_to_tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0x7fffffffu;  // NaN
    else if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & 0xffffe000u;
    memcpy(&x, &bits, 4);
    return x;
}

// c += a b of a warp: mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32. With g = lane / 4 and t = lane % 4 a lane has
//   a: [g][t], [g + 8][t], [g][t + 4], [g + 8][t + 4] of 16 x 8
//   b: [t][g], [t + 4][g] of 8 x 8
//   c: [g][2t], [g][2t + 1], [g + 8][2t], [g + 8][2t + 1] of 16 x 8
// as the PTX ISA lays them out. The low 13 bits of a and b have no say. The hardware's order and rounding of the sum are its own;
// here a number is a chain of fused multiply-adds.
inline void mma_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
    struct Fragments {
        float a[4], b[2];
    } own;
    auto cut = [](float x) {
        uint32_t bits;
        memcpy(&bits, &x, 4);
        bits &= 0xffffe000u;
        memcpy(&x, &bits, 4);
        return x;
    };
    for (int i = 0; i < 4; ++i) own.a[i] = cut(a[i]);
    for (int i = 0; i < 2; ++i) own.b[i] = cut(b[i]);
    // Stacks of fibers are memory like any other: a lane shows the others where its fragments are.
    Block* block = here();
    const unsigned first = block->current->index & ~31u, g = lane() >> 2, t = lane() & 3u;
    block->current->slot = (uint64_t)&own;
    wait_for_warp(MMA_PUT);
    if (first + 32 > block->fibers.size()) fail("an mma of a warp that is not whole");
    auto of = [&](unsigned from) -> const Fragments& {
        const Fiber& fiber = block->fibers[first + from];
        if (fiber.state == DONE) fail("an mma with lanes that are gone");
        return *(const Fragments*)fiber.slot;
    };
    for (unsigned k = 0; k < 8; ++k) {
        const unsigned at = k & 3u, half = k >> 2;
        const float *row = of(4 * g + at).a + 2 * half, left = of(4 * (2 * t) + at).b[half], right = of(4 * (2 * t + 1) + at).b[half];
        for (int i = 0; i < 2; ++i) {
            c[2 * i] = std::fma(row[i], left, c[2 * i]);
            c[2 * i + 1] = std::fma(row[i], right, c[2 * i + 1]);
        }
    }
    wait_for_warp(MMA_GOT);
}

constexpr size_t STACK = 128 * 1024, FENCE = 64;

inline uint64_t next_random(uint64_t& state) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return state >> 33;
}

// Order 0 is forwards, 1 backwards, any other the seed of a shuffle.
inline std::vector<unsigned> permutation(unsigned n, unsigned order) {
    std::vector<unsigned> places(n);
    for (unsigned i = 0; i < n; ++i) places[i] = order == 1 ? n - 1 - i : i;
    uint64_t state = order;
    if (order > 1)
        for (unsigned i = n; i > 1; --i) std::swap(places[i - 1], places[next_random(state) % i]);
    return places;
}

inline void start_fibers(Block& b) {
    for (unsigned i = 0; i < b.fibers.size(); ++i) {
        Fiber& fiber = b.fibers[i];
        fiber.state = READY;
        fiber.index = i;
        void** sp = (void**)(((uintptr_t)fiber.stack + STACK) & ~(uintptr_t)15);
        *--sp = nullptr;
        *--sp = (void*)fiber_main;
        for (int k = 0; k < 6; ++k) *--sp = nullptr;
        fiber.stack_pointer = sp;
    }
}

// Lets warps go on whose lanes have all come to the same operation. Counts fibers that wait for the block and that are done.
inline void release_warps(Block& b, unsigned& at_block, unsigned& done) {
    unsigned n = b.fibers.size();
    at_block = done = 0;
    for (unsigned first = 0; first < n; first += 32) {
        unsigned end = std::min(n, first + 32), warp = 0, block = 0, gone = 0;
        int wait = 0;
        bool mixed = false;
        for (unsigned i = first; i < end; ++i) {
            const Fiber& fiber = b.fibers[i];
            block += fiber.state == AT_BLOCK;
            gone += fiber.state == DONE;
            if (fiber.state == AT_WARP) {
                mixed |= warp && fiber.wait != wait;
                wait = fiber.wait;
                ++warp;
            }
        }
        if (warp && block) fail("a warp with some lanes in a warp operation and some at __syncthreads");
        if (mixed) fail("a warp whose lanes wait in different operations");
        if (warp && warp + gone == end - first)
            for (unsigned i = first; i < end; ++i)
                if (b.fibers[i].state == AT_WARP) b.fibers[i].state = READY;
        at_block += block;
        done += gone;
    }
}

inline void run_block(Block& b, unsigned order) {
    here() = &b;
    unsigned n = b.fibers.size();
    memset(b.memory.data(), 0xff, b.memory.size());  // NaN as a float, huge as an integer
    start_fibers(b);
    // Other orders in other blocks; mixed, because small seeds would all starve the same warp first.
    uint64_t state = (order + 977ull * b.block_index.x) * 0x9e3779b97f4a7c15ull;
    state = (state ^ state >> 29) * 0xbf58476d1ce4e5b9ull;
    unsigned starved = ~0u, rounds = 0;
    for (;;) {
        // A new permutation in every round: a fixed one would miss some races.
        std::vector<unsigned> places = permutation(n, order > 1 ? 2 + unsigned(next_random(state)) % 1000000 : order);
        if (order > 1 && n > 32 && rounds-- == 0) {
            starved = unsigned(next_random(state)) % ((n + 31) / 32);
            rounds = unsigned(next_random(state)) % 300;
        }
        bool ran = false;
        for (int everyone = 0; everyone < 2 && !ran; ++everyone)
            for (unsigned place : places) {
                Fiber& fiber = b.fibers[place];
                if (fiber.state == READY && (everyone || fiber.index / 32 != starved)) {
                    resume(&b, fiber);
                    ran = true;
                }
            }
        unsigned at_block, done;
        release_warps(b, at_block, done);
        if (done == n) break;
        if (at_block && at_block + done == n) {
            if (done) fail("threads left before a barrier that others wait at");
            b.counted = b.votes;
            b.votes = 0;
            for (auto& fiber : b.fibers) fiber.state = READY;
        }
    }
    for (size_t i = 0; i < FENCE; ++i)
        if ((unsigned char)b.shared[b.shared_bytes + i] != 0xff || (unsigned char)b.shared[-(std::ptrdiff_t)i - 1] != 0xff)
            fail("a write outside dynamic shared memory");
}

inline void launch(unsigned blocks, unsigned threads, size_t shared_bytes, const std::function<void()>& body, unsigned order, unsigned workers) {
    if (shared_bytes > 227 * 1024) {
        fprintf(stderr, "emulated kernel: %zu bytes of shared memory are more than a block has\n", shared_bytes);
        abort();
    }
    std::atomic<unsigned> next{0};
    std::vector<unsigned> places = permutation(blocks, order);
    auto work = [&] {
        Block b;
        b.fibers.resize(threads);
        std::unique_ptr<char[]> stacks(new char[threads * STACK]);
        for (unsigned i = 0; i < threads; ++i) b.fibers[i].stack = &stacks[i * STACK];
        b.memory.resize(shared_bytes + 2 * FENCE + 16);
        b.shared = (char*)(((uintptr_t)b.memory.data() + FENCE + 15) & ~(uintptr_t)15);
        b.shared_bytes = shared_bytes;
        b.body = &body;
        b.block_size = dim3(threads);
        b.grid_size = dim3(blocks);
        for (unsigned i; (i = next++) < blocks;) {
            b.block_index = dim3(places[i]);
            run_block(b, order);
        }
    };
    std::vector<std::thread> others;
    for (unsigned i = 1; i < workers; ++i) others.emplace_back(work);
    work();
    for (auto& other : others) other.join();
}

inline void* shared_memory() { return here()->shared; }

}  // namespace emulation

#define threadIdx (emulation::here()->thread_index)
#define blockIdx (emulation::here()->block_index)
#define blockDim (emulation::here()->block_size)
#define gridDim (emulation::here()->grid_size)

inline void __syncthreads() { emulation::wait_for_block(); }
inline int __syncthreads_count(int vote) {
    emulation::here()->votes += vote != 0;
    emulation::wait_for_block();
    return emulation::here()->counted;
}
inline int __syncthreads_or(int vote) { return __syncthreads_count(vote) != 0; }
inline void __syncwarp(unsigned mask = ~0u) {
    emulation::must_be_full(mask);
    emulation::wait_for_warp(emulation::SYNC_WARP);
}
template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    emulation::must_be_full(mask);
    return emulation::shuffle(value, (emulation::lane() & ~(width - 1)) + (from & (width - 1)), true);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int by, int = 32) {
    emulation::must_be_full(mask);
    return emulation::shuffle(value, emulation::lane() ^ by, true);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    emulation::must_be_full(mask);
    unsigned lane = emulation::lane();
    return emulation::shuffle(value, lane - by, lane % width >= by);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    emulation::must_be_full(mask);
    unsigned lane = emulation::lane();
    return emulation::shuffle(value, lane + by, lane % width + by < (unsigned)width);
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
    emulation::must_be_full(mask);
    return emulation::ballot(vote);
}
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, !vote) == 0; }

// There is no atomicAdd of floats: the hardware would choose the order of the sum.
inline unsigned atomicAdd(unsigned* to, unsigned x) { return __atomic_fetch_add(to, x, __ATOMIC_SEQ_CST); }
inline int atomicAdd(int* to, int x) { return __atomic_fetch_add(to, x, __ATOMIC_SEQ_CST); }
inline unsigned long long atomicAdd(unsigned long long* to, unsigned long long x) { return __atomic_fetch_add(to, x, __ATOMIC_SEQ_CST); }
inline unsigned atomicOr(unsigned* to, unsigned x) { return __atomic_fetch_or(to, x, __ATOMIC_SEQ_CST); }
inline unsigned atomicMax(unsigned* to, unsigned x) {
    unsigned seen = *to;
    while (seen < x && !__atomic_compare_exchange_n(to, &seen, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    return seen;
}

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs((int)x); }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __dsqrt_rn(double x) { return std::sqrt(x); }
inline double __ddiv_rn(double a, double b) { return a / b; }
template <class T> T __ldg(const T* from) { return *from; }
using std::max;
using std::min;
