// The window's logits, as `window.cu` leaves them, and the softmax states that go with them.
#pragma once
#include "headkv.h"
#include "element.cuh"

namespace headkv {

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * 32;
/// Keys per block.
constexpr int KEYS = 512;
/// Columns (query head, window row) of one instruction.
constexpr int COLUMNS = 8;
/// Smaller than any logit, but finite: differences stay numbers.
constexpr float LOWEST = -1e30f;

__host__ __device__ inline int blocks_of_keys(int tokens) { return (tokens + KEYS - 1) / KEYS; }
__host__ __device__ inline int64_t aligned(int tokens) { return (int64_t(tokens) + 31) / 32 * 32; }

/// Logits times log2(e), `(heads, window, aligned(tokens))`, and per block of keys the rows' softmax states.
struct Logits {
    float *logits;
    float2 *states;

    __host__ __device__ static size_t bytes(const HeadkvRank &a) {
        return size_t(a.heads) * a.window * (aligned(a.tokens) * sizeof(float) + blocks_of_keys(a.tokens) * sizeof(float2));
    }
    __host__ __device__ Logits(const HeadkvRank &a) {
        logits = static_cast<float *>(a.workspace);
        states = reinterpret_cast<float2 *>(logits + int64_t(a.heads) * a.window * aligned(a.tokens));
    }
};

/// (m, l) += one more softmax state.
__device__ inline void join(float &most, float &sum, float most2, float sum2) {
    const float all = fmaxf(most, most2);
    sum = sum * exp2_fast(most - all) + sum2 * exp2_fast(most2 - all);
    most = all;
}

/// A row's (m, 1 / l) over all keys and its head's sink, from its states by block; for a whole warp.
__device__ inline float2 all_keys(const HeadkvRank &a, const Logits &work, int64_t row, int lane) {
    const int blocks = blocks_of_keys(a.tokens);
    const float2 *states = work.states + row * blocks;
    float most = LOWEST, sum = 0;
    for (int b = lane; b < blocks; b += 32) join(most, sum, states[b].x, states[b].y);
    for (int s = 16; s; s /= 2) {
        const float other = __shfl_xor_sync(~0u, most, s), more = __shfl_xor_sync(~0u, sum, s);
        join(most, sum, other, more);
    }
    if (a.sinks) join(most, sum, a.sinks[row / a.window] * LOG2E, 1);
    return make_float2(most, 1 / sum);
}

} // namespace headkv

extern "C" {
/// Bytes behind the logits that headkv_drop works with.
size_t headkv_drop_workspace(const HeadkvRank *args);
/// Puts in the place of each logit how far its query's output moves if that position is dropped, squared.
int32_t headkv_drop(const HeadkvRank *args, cudaStream_t stream);
}
