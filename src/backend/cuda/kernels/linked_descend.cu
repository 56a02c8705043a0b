// The lower half of linked worlds: one sample's features, from those without a parent to the leaves, then in order.
#include "linked.cuh"

// A sample, and the list of what is on in it.
struct LinkedSample {
    LinkedTile tile;
    u32 within;  // the sample, within its row block
    float share;  // base variate of all its magnitudes, where it is shared
    const float* eps;  // [columns]
    u32* features;
    float* values;
};

// The value of a feature that fires, before its parent's scale; w is its call.
__device__ __forceinline__ float linked_value(const LinkedArgs& a, const LinkedSample& s, u32 feature, const Words& w) {
    const Draw& d = a.draw;
    return finish(d.clip, d.shared ? s.share : variate(d.base, w.v[1], FULL_SCALE), d.law[feature]);
}

// Adds the features of the lanes whose value is not 0, in the order of lanes.
__device__ __forceinline__ void append(const LinkedSample& s, u32 feature, float value, u32& count) {
    const u32 lane = threadIdx.x % 32u, mask = __ballot_sync(ALL_LANES, value != 0.0f);
    if (value != 0.0f) {
        const u32 place = count + __popc(mask & ((1u << lane) - 1u));
        s.features[place] = feature;
        s.values[place] = value;
    }
    count += __popc(mask);
}

// Features without a parent that fire. A lane looks at sixteen of them, and all lanes take their next one together.
__device__ __forceinline__ u32 linked_roots(const LinkedArgs& a, const LinkedSample& s, const unsigned short* bits) {
    const u32 lane = threadIdx.x % 32u;
    u32 count = 0;
    for (u32 first = 0; first < a.n_blocks; first += 32u) {
        const u32 at = first + lane;
        u32 left = at < a.n_blocks ? bits[at] : 0u;
        while (__any_sync(ALL_LANES, left != 0)) {
            u32 feature = 0;
            float value = 0.0f;
            if (left != 0) {
                feature = 16u * a.blocks[at].index + __ffs(left) - 1u;
                left &= left - 1u;
                value = linked_value(a, s, feature, call(a.draw, s.tile.at, s.within, TAG_FIRE | feature));
            }
            append(s, feature, value, count);
        }
    }
    __syncwarp();  // fibers cannot miss this: the vote is where lanes meet, this is where they see what others wrote
    return count;
}

// Which of `on` members stay: the one that word 2 of the first member's call names.
__device__ __forceinline__ u32 linked_pick(const LinkedArgs& a, const LinkedSample& s, u32 first, u32 on) {
    return __umulhi(call(a.draw, s.tile.at, s.within, TAG_FIRE | first).v[2], on);
}

// Takes out what has lost, marked by the value 0, from `from` on. Returns the end.
__device__ __forceinline__ u32 linked_compact(const LinkedSample& s, u32 from, u32 end) {
    const u32 lane = threadIdx.x % 32u;
    u32 to = from;
    for (u32 first = from; first < end; first += 32u) {
        const bool there = first + lane < end;
        const u32 feature = there ? s.features[first + lane] : 0u;
        const float value = there ? s.values[first + lane] : 0.0f;
        __syncwarp();  // fibers cannot miss this: all have read before one writes, and the ballot between orders no memory
        append(s, feature, value, to);
        __syncwarp();
    }
    return to;
}

// Leaves one of each exclusive family without a parent. Members stand anywhere among the `count` that are on.
__device__ __forceinline__ u32 linked_choose_at_top(const LinkedArgs& a, const LinkedSample& s, u32 count) {
    if (a.n_top == 0) return count;
    for (u32 at = threadIdx.x % 32u; at < count; at += 32u) {
        const u32 feature = s.features[at], family = a.top_family[feature];
        if (family == NO_FAMILY) continue;
        u32 on = 0, before = 0;
        for (u32 other = 0; other < count; ++other) {
            const u32 rival = s.features[other];
            if (a.top_family[rival] != family) continue;
            ++on;
            before += a.top_order[rival] < a.top_order[feature];
        }
        if (on > 1u && before != linked_pick(a, s, a.top[family], on)) s.values[at] = 0.0f;
    }
    return linked_compact(s, 0, count);
}

// Leaves one of each exclusive family among from .. end, where members of a family stand together, in its order.
__device__ __forceinline__ u32 linked_choose(const LinkedArgs& a, const LinkedSample& s, u32 from, u32 end) {
    for (u32 at = from + threadIdx.x % 32u; at < end; at += 32u) {
        const u32 family = a.family_of[s.features[at]];
        const LinkedFamily rules = a.families[family];
        if (!rules.exclusive) continue;
        u32 before = 0, after = 0;
        while (at - before > from && a.family_of[s.features[at - before - 1u]] == family) ++before;
        while (at + after + 1u < end && a.family_of[s.features[at + after + 1u]] == family) ++after;
        const u32 on = before + after + 1u;
        if (on > 1u && before != linked_pick(a, s, rules.first, on)) s.values[at] = 0.0f;
    }
    return linked_compact(s, from, end);
}

// F' of a feature times eps, in sixteen sums, folded by halves.
__device__ __forceinline__ float linked_folded(const LinkedArgs& a, const LinkedSample& s, u32 feature) {
    const float4* row = reinterpret_cast<const float4*>(a.factor + (u64)feature * a.columns);
    const float4* eps = reinterpret_cast<const float4*>(s.eps);
    float sum[16];
#pragma unroll
    for (u32 l = 0; l < 16u; ++l) sum[l] = 0.0f;
#pragma unroll 1
    for (u32 k = 0; k < a.columns / 4u; k += 4u)
#pragma unroll
        for (u32 q = 0; q < 4u; ++q) {
            const float4 f = row[k + q], e = eps[k + q];
            sum[4u * q] = fmaf(f.x, e.x, sum[4u * q]);
            sum[4u * q + 1u] = fmaf(f.y, e.y, sum[4u * q + 1u]);
            sum[4u * q + 2u] = fmaf(f.z, e.z, sum[4u * q + 2u]);
            sum[4u * q + 3u] = fmaf(f.w, e.w, sum[4u * q + 3u]);
        }
    // Every loop has its own constant length: the compiler would keep an array that is folded in a nest of loops in memory.
#pragma unroll
    for (u32 l = 0; l < 8u; ++l) sum[l] += sum[l + 8u];
#pragma unroll
    for (u32 l = 0; l < 4u; ++l) sum[l] += sum[l + 4u];
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

// Value of a child of what is on with `parent_value`, 0 where it does not fire.
__device__ __forceinline__ float linked_child(const LinkedArgs& a, const LinkedSample& s, u32 child, u32 parent, float parent_value) {
    const float z = linked_folded(a, s, child) - a.threshold[child];
    const Words w = call(a.draw, s.tile.at, s.within, TAG_FIRE | child);
    if (!(z > (a.sure ? 0.0f : linked_bar(w.v[0], 0)))) return 0.0f;
    const float value = linked_value(a, s, child, w);
    return a.families[a.family_of[child]].scale ? value * __fdiv_rn(parent_value, a.mean[parent]) : value;
}

// Children of from .. end, added behind them: 32 parents at a time, whose children are dealt out to the lanes in order.
__device__ __forceinline__ u32 linked_children(const LinkedArgs& a, const LinkedSample& s, u32 from, u32 end) {
    const u32 lane = threadIdx.x % 32u;
    u32 count = end;
    for (u32 first = from; first < end; first += 32u) {
        const bool there = first + lane < end;
        const u32 parent = there ? s.features[first + lane] : 0u;
        const float value = there ? s.values[first + lane] : 0.0f;
        const u32 start = there ? a.starts[parent] : 0u, many = there ? a.starts[parent + 1u] - start : 0u;
        u32 sum = many;
#pragma unroll
        for (u32 by = 1; by < 32u; by *= 2u) {
            const u32 before = __shfl_up_sync(ALL_LANES, sum, by);
            if (lane >= by) sum += before;
        }
        const u32 all = __shfl_sync(ALL_LANES, sum, 31);
        for (u32 base = 0; base < all; base += 32u) {
            const u32 item = base + lane;
            // The first parent whose children, and those of all before it, are more than `item`.
            u32 whose = 0;
#pragma unroll
            for (u32 by = 16; by > 0; by /= 2u)
                if (__shfl_sync(ALL_LANES, sum, whose + by - 1u) <= item) whose += by;
            const u32 its_end = __shfl_sync(ALL_LANES, start + many, whose), its_sum = __shfl_sync(ALL_LANES, sum, whose);
            const u32 its_feature = __shfl_sync(ALL_LANES, parent, whose);
            const float its_value = __shfl_sync(ALL_LANES, value, whose);
            u32 child = 0;
            float v = 0.0f;
            if (item < all) {
                child = a.members[its_end - (its_sum - item)];
                v = linked_child(a, s, child, its_feature, its_value);
            }
            append(s, child, v, count);
        }
    }
    __syncwarp();
    return count;
}

// What is on, by feature: a feature's place is the number of features on before it.
__device__ __forceinline__ void linked_in_order(const LinkedArgs& a, const LinkedSample& s, u32 count, u32* on, u32* features, float* values) {
    const u32 lane = threadIdx.x % 32u, words = (a.draw.n + 31u) / 32u;
    u32* sums = on + words;
    for (u32 word = lane; word < words; word += 32u) on[word] = 0;
    __syncwarp();
    for (u32 at = lane; at < count; at += 32u) atomicOr(&on[s.features[at] / 32u], 1u << s.features[at] % 32u);
    __syncwarp();
    u32 before = 0;
    for (u32 first = 0; first < words; first += 32u) {
        const u32 mine = first + lane < words ? __popc(on[first + lane]) : 0u;
        u32 sum = mine;
#pragma unroll
        for (u32 by = 1; by < 32u; by *= 2u) {
            const u32 other = __shfl_up_sync(ALL_LANES, sum, by);
            if (lane >= by) sum += other;
        }
        if (first + lane < words) sums[first + lane] = before + sum - mine;
        before += __shfl_sync(ALL_LANES, sum, 31);
    }
    __syncwarp();  // fibers cannot miss this: the shuffle is where lanes meet, this is where they see the sums
    for (u32 at = lane; at < count; at += 32u) {
        const u32 feature = s.features[at], bit = feature % 32u;
        const u32 place = sums[feature / 32u] + __popc(on[feature / 32u] & ((1u << bit) - 1u));
        features[place] = feature;
        values[place] = s.values[at];
    }
}

// A warp: one sample. Shared memory: for each warp a bit a feature and the sums of these.
KERNEL(linked_descend, LinkedArgs, 128, 4) {
    DYNAMIC_SHARED(u32, memory);
    const u64 sample = (u64)blockIdx.x * (blockDim.x / 32u) + threadIdx.x / 32u;
    if (sample >= (u64)a.steps * a.draw.samples) return;  // whole warps leave
    const u32 step = (u32)(sample / a.draw.samples), at = (u32)(sample % a.draw.samples);
    LinkedSample s;
    s.tile = linked_tile(a, step, at / 32u);
    s.within = s.tile.first + at % 32u;
    const u64 row = ((u64)step * a.tiles + at / 32u) * 32u + at % 32u;
    s.eps = a.rows + row * a.columns;
    s.features = a.open_features + sample * a.draw.n;
    s.values = a.open_values + sample * a.draw.n;
    s.share = a.draw.shared ? variate(a.draw.base, sample_word(a.draw, s.tile.at, s.within, TAG_SHARE), FULL_SCALE) : 0.0f;
    u32 count = linked_choose_at_top(a, s, linked_roots(a, s, a.bits + row * a.n_blocks));
    if (a.has_children) {
        for (u32 from = 0; from < count;) {
            const u32 end = count;
            count = linked_choose(a, s, end, linked_children(a, s, from, end));
            from = end;
        }
    }
    const u32 words = (a.draw.n + 31u) / 32u;
    u32* mine = memory + threadIdx.x / 32u * 2u * words;
    linked_in_order(a, s, count, mine, a.features + sample * a.draw.n, a.values + sample * a.draw.n);
    if (threadIdx.x % 32u == 0) a.counts[sample] = count;
}

// A warp: one sample's list into x, which draw_columns has filled with 0.
KERNEL(linked_scatter, LinkedArgs, 128, 8) {
    const Draw& d = a.draw;
    const u64 sample = (u64)blockIdx.x * (blockDim.x / 32u) + threadIdx.x / 32u;
    if (sample >= (u64)a.steps * d.samples) return;
    const u32 step = (u32)(sample / d.samples), at = (u32)(sample % d.samples), count = a.counts[sample];
    for (u32 k = threadIdx.x % 32u; k < count; k += 32u) {
        const u64 place = sample * d.n + k;
        d.x[place_of(step, d.tiles, at / 16u, d.n, a.features[place]) + at % 16u] = a.values[place];
    }
}
