// The best-ranked positions of each head, by radix selection, and the copy of what is kept into the ragged store.
#include "headkv.h"
#include "element.cuh"
#include "order.cuh"

namespace headkv {
namespace {

constexpr int THREADS = 1024;
constexpr int WARPS = THREADS / 32;
/// Consecutive scores that a thread takes at once: their loads overlap.
constexpr int EACH = 16;

/// The keys of EACH positions from `first` on; a row is padded to a multiple of four.
__device__ inline void load_keys(uint32_t (&keys)[EACH], const float *scores, int first, int candidates) {
    float4 fours[EACH / 4];
#pragma unroll
    for (int j = 0; j < EACH / 4; j++)
        fours[j] = first + 4 * j < candidates ? reinterpret_cast<const float4 *>(scores + first)[j] : make_float4(0, 0, 0, 0);
#pragma unroll
    for (int j = 0; j < EACH / 4; j++) {
        keys[4 * j] = order(fours[j].x), keys[4 * j + 1] = order(fours[j].y);
        keys[4 * j + 2] = order(fours[j].z), keys[4 * j + 3] = order(fours[j].w);
    }
}

/// Sum over the threads before this one; `total` receives the block's.
__device__ inline uint32_t sum_before(uint32_t x, uint32_t *shared, uint32_t &total) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t sum = x;
    for (int s = 1; s < 32; s *= 2) {
        const uint32_t other = __shfl_up_sync(~0u, sum, s);
        if (lane >= s) sum += other;
    }
    __syncthreads();
    if (lane == 31) shared[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        const uint32_t mine = shared[lane];
        uint32_t run = mine;
        for (int s = 1; s < WARPS; s *= 2) {
            const uint32_t other = __shfl_up_sync(~0u, run, s);
            if (lane >= s) run += other;
        }
        shared[lane] = run - mine;
        if (lane == WARPS - 1) shared[WARPS] = run;
    }
    __syncthreads();
    total = shared[WARPS];
    return shared[warp] + sum - x;
}

/// One block per head.
__global__ __launch_bounds__(THREADS) void select(const float *all_scores, int64_t stride, int candidates, int tokens,
                                                  int recent, const int *counts, const int *offsets, uint32_t *all_positions) {
    __shared__ uint32_t bins[BINS], scratch[WARPS + 1], digit, above;
    const int tid = threadIdx.x, head = blockIdx.x, count = counts[head];
    const float *scores = all_scores + head * stride;
    uint32_t *positions = all_positions + offsets[head];
    for (int i = tid; i < recent; i += THREADS) positions[count + i] = tokens - recent + i;
    if (count == 0) return;

    // The `wanted` best of those whose highest bits are `prefix` are kept, and all with higher bits.
    uint32_t prefix = 0, known = 0, wanted = count;
    for (int shift = 21, width = 11; known != ~0u;) {
        for (int i = tid; i < BINS; i += THREADS) bins[i] = 0;
        __syncthreads();
        const uint32_t mask = (1u << width) - 1;
        for (int i = tid * EACH; i < candidates; i += THREADS * EACH) {
            uint32_t keys[EACH];
            load_keys(keys, scores, i, candidates);
#pragma unroll
            for (int j = 0; j < EACH; j++)
                if (i + j < candidates && (keys[j] & known) == prefix) atomicAdd(&bins[keys[j] >> shift & mask], 1);
        }
        __syncthreads();
        // Two bins per thread, highest first.
        const int high = BINS - 1 - 2 * tid;
        const uint32_t x = bins[high], y = bins[high - 1];
        uint32_t total;
        const uint32_t before = sum_before(x + y, scratch, total);
        if (before < wanted && wanted <= before + x) digit = high, above = before;
        if (before + x < wanted && wanted <= before + x + y) digit = high - 1, above = before + x;
        __syncthreads();
        prefix |= digit << shift, known |= mask << shift, wanted -= above;
        width = shift < 11 ? shift : 11;
        shift -= width;
        __syncthreads();
    }

    // Everything above `prefix`, and the first `wanted` that equal it, in order of position.
    uint32_t higher_before = 0, equal_before = 0;
    for (int base = 0; base < candidates; base += THREADS * EACH) {
        const int i = base + tid * EACH;
        uint32_t keys[EACH], found = 0;
        load_keys(keys, scores, i, candidates);
        // Both counts of a block fit 16 bits.
#pragma unroll
        for (int j = 0; j < EACH; j++)
            if (i + j < candidates) found += (keys[j] > prefix ? 1u : 0u) + (keys[j] == prefix ? 1u << 16 : 0u);
        uint32_t total;
        const uint32_t before = sum_before(found, scratch, total);
        uint32_t higher = higher_before + (before & 0xffff), equal = equal_before + (before >> 16);
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            if (i + j >= candidates) break;
            const bool above = keys[j] > prefix, same = keys[j] == prefix;
            if (above || (same && equal < wanted)) positions[higher + min(equal, wanted)] = i + j;
            higher += above, equal += same;
        }
        higher_before += total & 0xffff, equal_before += total >> 16;
    }
}

constexpr int COPY_THREADS = 256;
constexpr int COPY_ROWS = 64;

/// Block (x, y): rows x of stored head y.
__global__ __launch_bounds__(COPY_THREADS) void gather(const __grid_constant__ HeadkvGather a) {
    const int head = blockIdx.y, words = a.head_dim / 8;
    const int first = a.offsets[head], begin = first + blockIdx.x * COPY_ROWS;
    const int rows = min(COPY_ROWS, a.offsets[head + 1] - begin);
    for (int i = threadIdx.x; i < rows * words; i += COPY_THREADS) {
        const int row = begin + i / words, word = i % words;
        const int64_t at = a.positions ? a.positions[row] : row - first;
        const auto copy = [&](const void *from, int64_t per_head, int64_t per_token, void *to) {
            const uint16_t *source = static_cast<const uint16_t *>(from) + head / a.share * per_head + at * per_token;
            static_cast<uint4 *>(to)[int64_t(row) * words + word] = reinterpret_cast<const uint4 *>(source)[word];
        };
        copy(a.k, a.k_head, a.k_token, a.kept_k);
        copy(a.v, a.v_head, a.v_token, a.kept_v);
    }
}

} // namespace
} // namespace headkv

extern "C" int32_t headkv_select(const float *scores, int64_t stride, int32_t heads, int32_t candidates, int32_t tokens,
                                 int32_t recent, const int32_t *counts, const int32_t *offsets, uint32_t *positions,
                                 cudaStream_t stream) {
    headkv::select<<<heads, headkv::THREADS, 0, stream>>>(scores, stride, candidates, tokens, recent, counts, offsets, positions);
    return cudaGetLastError();
}

extern "C" int32_t headkv_gather(const HeadkvGather *args, cudaStream_t stream) {
    using namespace headkv;
    if (args->head_dim % 8) return cudaErrorInvalidValue;
    if (args->longest == 0) return cudaSuccess;
    const dim3 grid((args->longest + COPY_ROWS - 1) / COPY_ROWS, args->heads);
    gather<<<grid, COPY_THREADS, 0, stream>>>(*args);
    return cudaGetLastError();
}
