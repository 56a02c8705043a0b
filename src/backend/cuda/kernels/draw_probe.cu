// For a test of addresses in x.
#include "draw.cuh"

struct DrawPlaceArgs {
    const u32* cases;  // [n][5]: step, tiles of a step, tile, features, feature
    u64* places;
    u32 n, unused;
};

KERNEL(draw_place, DrawPlaceArgs, 32, 1) {
    const u32* c = a.cases + 5u * threadIdx.x;
    if (threadIdx.x < a.n) a.places[threadIdx.x] = place_of(c[0], c[1], c[2], c[3], c[4]);
}
