// Addresses of places far into the largest arrays, for a test of the arithmetic that all kernels share.
#include "sae_view.cuh"

struct SaeProbeArgs {
    u64* out;             // [2]
    u32 plane, rows, row, width, column, unused;
};

KERNEL(sae_probe, SaeProbeArgs, 32, 1) {
    if (threadIdx.x) return;
    a.out[0] = sae_at(a.row, a.width, a.column);
    a.out[1] = sae_at3(a.plane, a.rows, a.row, a.width, a.column);
}
