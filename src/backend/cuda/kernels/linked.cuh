// Linked worlds on the device: copulas and hierarchies, from the top down (`ops::draw::linked` is the CPU's way).
//
//     linked_factor    eps of every sample
//     linked_screen    which features without a parent fire: a bit each
//     linked_descend   a warp a sample: their values, children of what is on, level by level; a list in order of features
//     linked_scatter   the lists into x
//
// A *tile* here is 32 samples of a row block. Lists have room for all features, so nothing is ever lost.
#pragma once
#include "draw.cuh"

// Sixteen neighbouring features of which some have no parent: bit l of `free`.
struct LinkedBlock {
    u32 index, free;
};

// Children of one parent that share its rules.
struct LinkedFamily {
    u32 first;  // its first member: whose call decides which one stays
    u32 exclusive, scale;
    u32 unused;
};

struct LinkedArgs {
    Draw draw;
    const LinkedBlock* blocks;      // [n_blocks]
    const float* panels;            // [n_blocks][rank][16]: F'
    const float* threshold;         // [n, up to whole blocks]: t'
    const float* factor;            // [n][columns]: F', zeros past the rank
    const u32* starts;              // [n + 1]: children of feature i are members[starts[i]] .. members[starts[i + 1]]
    const u32* members;             // family by family
    const u32* family_of;           // [n]: of what has a parent
    const LinkedFamily* families;
    const float* mean;              // [n]: what a parent's value is divided by
    const u32* top;                 // first member of each exclusive family without a parent
    const u32* top_family;          // [n] if there are such families: which, or NO_FAMILY
    const u32* top_order;           // [n]: and which of its members
    float* eps;                     // [steps][tiles32][rank][32]
    float* rows;                    // [steps][tiles32][32][columns], where there are children
    unsigned short* bits;           // [steps][tiles32][32][n_blocks]: bit l is feature l of the block
    u32* open_features;             // [steps][samples][n]: what is on, level by level
    float* open_values;
    u32* counts;                    // [steps][samples]
    u32* features;                  // [steps][samples][n]: what is on, ascending
    float* values;
    u32 n_blocks, rank, columns;
    u32 sure;        // z alone decides
    u32 n_top;
    u32 has_children;
    u32 skip;        // samples of the first row block before the first sample
    u32 tiles;       // of 32 samples, of a step
    u32 steps;
    u32 unused;
};

#define NO_FAMILY 0xffffffffu

// Where a tile's samples stand.
struct LinkedTile {
    RowBlock at;
    u32 first;  // within the row block: a multiple of 32
};

__device__ __forceinline__ LinkedTile linked_tile(const LinkedArgs& a, u32 step, u32 tile) {
    const u32 sample = a.skip + 32u * tile;
    return {{a.draw.first_step + step, a.draw.first_block + sample / ROW_BLOCK}, sample % ROW_BLOCK};
}

// What z must exceed: the normal variate of a word, or, after `coins` coins that all showed heads, minus the size of a smaller tail.
__device__ __forceinline__ float linked_bar(u32 word, u32 coins) {
    if (coins == 0) return normal(word, FULL_SCALE);
    const float rho = coins == 2u ? 0x1p-33f : coins == 5u ? 0x1p-36f : 0x1p-39f;
    return 0.0f - tail_size(fmaf((float)(word >> 1), rho, rho * 0.5f));
}
