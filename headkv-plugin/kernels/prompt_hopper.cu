// Causal attention of a prompt for Hopper: warpgroup products fed by the copy engine.
//
// One warpgroup of a block copies tiles of keys and values into a ring in shared memory; the others hold 64 query rows
// each. While a warpgroup's softmax runs, its own product of the previous tile's weights with the values is under way,
// and the warpgroups take turns in starting products, so that one's softmax covers another's (FlashAttention-3, Shah
// et al. 2024, arXiv 2407.08608). Keys are walked from the last to the first: the diagonal comes first.
#include "headkv.h"
#include "hopper.cuh"
#include "prompt.cuh"
#include <limits.h>

namespace headkv {
namespace {

/// Keys per tile.
constexpr int KEYS = 128;
/// Tiles of keys, and as many of values, that the ring holds.
constexpr int STAGES = 3;

/// Sizes by head_dim: warpgroups that compute, and registers per thread of theirs and of the one that copies.
template <int D> struct Shape {
    static constexpr int GROUPS = D == 128 ? 2 : 3;
    static constexpr int REGISTERS = GROUPS == 2 ? 240 : 160, COPY_REGISTERS = GROUPS == 2 ? 24 : 32;
    static constexpr int THREADS = (GROUPS + 1) * WARPGROUP;
    static constexpr int ROWS = GROUPS * 64;
    static constexpr int PANELS = D * 2 / PANEL_BYTES;
    static constexpr int QUERY_BYTES = ROWS * D * 2, TILE_BYTES = KEYS * D * 2;
    /// The barriers come last; the first kilobyte is for alignment.
    static constexpr int BYTES = 1024 + QUERY_BYTES + 2 * STAGES * TILE_BYTES + (2 + 4 * STAGES) * 8;
};

/// Shared memory of a block.
template <int D> struct Memory {
    using S = Shape<D>;
    uint32_t at;

    __device__ inline uint32_t queries() const { return at; }
    __device__ inline uint32_t keys(int stage) const { return at + S::QUERY_BYTES + stage * S::TILE_BYTES; }
    __device__ inline uint32_t values(int stage) const { return keys(STAGES + stage); }
    __device__ inline Barrier barrier(int i) const { return {keys(2 * STAGES) + i * 8}; }
    __device__ inline Barrier queries_full() const { return barrier(0); }
    __device__ inline Barrier queries_free() const { return barrier(1); }
    __device__ inline Barrier keys_full(int stage) const { return barrier(2 + stage); }
    __device__ inline Barrier keys_free(int stage) const { return barrier(2 + STAGES + stage); }
    __device__ inline Barrier values_full(int stage) const { return barrier(2 + 2 * STAGES + stage); }
    __device__ inline Barrier values_free(int stage) const { return barrier(2 + 3 * STAGES + stage); }
};

/// A tile's place in the ring, counted over all of a block's work.
struct Slot {
    uint32_t tile = 0;

    __device__ inline int stage() const { return tile % STAGES; }
    __device__ inline uint32_t parity() const { return tile / STAGES % 2; }
    __device__ inline Slot next() const { return {tile + 1}; }
};

/// Some query rows of one head, and the tiles of keys that they see.
struct Work {
    int sequence, head, begin, first, last;

    /// A block's `turn`-th piece, or false. The longest pieces come first, and every other round goes backwards through
    /// the blocks, so that all get about as much.
    template <int ROWS> __device__ inline bool take(const HeadkvPrompt &a, int turn) {
        const int heads = a.batch * a.heads, blocks = (a.tokens + ROWS - 1) / ROWS;
        const int i = turn * gridDim.x + (turn % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
        if (i >= heads * blocks) return false;
        sequence = i % heads / a.heads, head = i % heads % a.heads, begin = (blocks - 1 - i / heads) * ROWS;
        last = (a.past + min(begin + ROWS, a.tokens) - 1) / KEYS;
        first = a.window > 0 ? max(a.past + begin - a.window + 1, 0) / KEYS : 0;
        return true;
    }
};

template <int D> __device__ inline void copy_rows(uint32_t to, const CUtensorMap &map, Barrier done, int rows, int token,
                                                  int head, int sequence) {
    done.expect(rows * D * 2);
#pragma unroll
    for (int panel = 0; panel < Shape<D>::PANELS; panel++)
        copy_box(to + panel * rows * PANEL_BYTES, map, done, panel * PANEL_BYTES / 2, token, head, sequence);
}

/// One thread's part: copies whatever the block's work needs, as fast as the ring becomes free.
template <int D> __device__ inline void copy(const HeadkvPrompt &a, const Memory<D> &memory, const CUtensorMap &q_map,
                                             const CUtensorMap &k_map, const CUtensorMap &v_map) {
    using S = Shape<D>;
    Slot slot;
    Work work;
    for (int turn = 0; work.take<S::ROWS>(a, turn); turn++) {
        const int kv_head = work.head / (a.heads / a.kv_heads);
        for (int tile = work.last; tile >= work.first; tile--, slot = slot.next()) {
            const int stage = slot.stage();
            memory.keys_free(stage).wait(slot.parity() ^ 1);
            copy_rows<D>(memory.keys(stage), k_map, memory.keys_full(stage), KEYS, tile * KEYS, kv_head, work.sequence);
            if (tile == work.last) {
                memory.queries_free().wait(turn % 2 ^ 1);
                copy_rows<D>(memory.queries(), q_map, memory.queries_full(), S::ROWS, work.begin, work.head,
                             work.sequence);
            }
            memory.values_free(stage).wait(slot.parity() ^ 1);
            copy_rows<D>(memory.values(stage), v_map, memory.values_full(stage), KEYS, tile * KEYS, kv_head,
                         work.sequence);
        }
    }
}

/// Rows r and r + 8 of a warp's 16, spread over the four lanes that share them.
struct Softmax {
    float most[2] = {-INFINITY, -INFINITY};
    /// Over this lane's keys only.
    float sum[2] = {0, 0};

    /// Turns logits into weights; what was summed before must be multiplied by `shrink`.
    __device__ inline void weigh(float (&s)[KEYS / 2], float scale, float (&shrink)[2]) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float even = s[2 * i], odd = s[2 * i + 1];
#pragma unroll
            for (int n = 1; n < KEYS / 8; n++)
                even = fmaxf(even, s[4 * n + 2 * i]), odd = fmaxf(odd, s[4 * n + 2 * i + 1]);
            float m = fmaxf(even, odd);
            m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
            m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
            const float all = fmaxf(most[i], m), offset = all == -INFINITY ? 0 : all * scale;
            shrink[i] = exp2_fast(most[i] * scale - offset);
            most[i] = all;
            even = odd = 0;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
                float &x = s[4 * n + 2 * i], &y = s[4 * n + 2 * i + 1];
                x = exp2_fast(x * scale - offset), y = exp2_fast(y * scale - offset);
                even += x, odd += y;
            }
            sum[i] = sum[i] * shrink[i] + (even + odd);
        }
    }
};

/// Hides the keys that a lane's two rows do not see, whose first row stands `ahead` positions after the lane's first key.
__device__ inline void mask(float (&s)[KEYS / 2], int ahead, int window) {
    const int behind = window > 0 ? ahead - window : INT_MIN / 2;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int key = n * 8 + e % 2 - e / 2 * 8;
            if (key > ahead || key <= behind) s[4 * n + e] = -INFINITY;
        }
}

template <typename T> __device__ inline void pack_weights(uint32_t (&p)[KEYS / 16][4], const float (&s)[KEYS / 2]) {
#pragma unroll
    for (int j = 0; j < KEYS / 16; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) p[j][i] = pack<T>(s[8 * j + 2 * i], s[8 * j + 2 * i + 1]);
}

template <typename T, int D> __device__ inline void multiply_keys(float (&s)[KEYS / 2], uint32_t queries, uint32_t keys) {
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
        const int panel = d / 4, within = d % 4 * 32;
        multiply<T>(s, operand(queries + panel * Shape<D>::ROWS * PANEL_BYTES + within),
                    operand(keys + panel * KEYS * PANEL_BYTES + within), d > 0);
    }
    commit_products();
}

template <typename T, int D>
__device__ inline void multiply_values(float (&out)[D / 2], const uint32_t (&p)[KEYS / 16][4], uint32_t values) {
#pragma unroll
    for (int j = 0; j < KEYS / 16; j++)
        multiply<T>(out, p[j], operand(values + j * 16 * PANEL_BYTES, KEYS * PANEL_BYTES));
    commit_products();
}

/// Transposes 4 x 4 registers over the four lanes that share a row.
__device__ inline void transpose4x4(uint32_t (&x)[4], int c) {
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & bit) continue;
            uint32_t &low = x[i], &high = x[i + bit];
            const uint32_t received = __shfl_xor_sync(~0u, c & bit ? low : high, bit);
            (c & bit ? low : high) = received;
        }
}

/// Divides by the sums and writes 16-byte pieces of a warp's rows.
template <typename T, int D>
__device__ inline void store(const HeadkvPrompt &a, const Work &work, const float (&out)[D / 2], const Softmax &softmax,
                             float sink, int row, int c) {
    T *to = static_cast<T *>(a.out) + work.sequence * a.o_batch + work.head * a.o_head;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float total = softmax.sum[i];
        total += __shfl_xor_sync(~0u, total, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        total += exp2_fast(sink - softmax.most[i] * (a.scale * LOG2E));
        const float inverse = 1 / total;
#pragma unroll
        for (int n = 0; n < D / 8; n += 4) {
            uint32_t x[4];
#pragma unroll
            for (int j = 0; j < 4; j++)
                x[j] = pack<T>(out[4 * (n + j) + 2 * i] * inverse, out[4 * (n + j) + 2 * i + 1] * inverse);
            transpose4x4(x, c);
            if (row + 8 * i < a.tokens)
                *reinterpret_cast<uint4 *>(to + (row + 8 * i) * a.o_token + (n + c) * 8) =
                    make_uint4(x[0], x[1], x[2], x[3]);
        }
    }
}

/// A computing warpgroup's part.
template <typename T, int D> __device__ inline void compute(const HeadkvPrompt &a, const Memory<D> &memory, int group) {
    using S = Shape<D>;
    const int lane = threadIdx.x % 32, c = lane % 4;
    const int row_in_block = group * 64 + threadIdx.x % WARPGROUP / 32 * 16;
    const uint32_t queries = memory.queries() + group * 64 * PANEL_BYTES;
    const float scale = a.scale * LOG2E;
    const int turn_barrier = 1 + group, next_barrier = 1 + (group + 1) % S::GROUPS;
    // Every warp says for itself that it is done with a tile.
    const auto release = [&](Barrier free) {
        if (lane == 0) free.arrive();
    };

    if (group == 0) give_turn(turn_barrier, 2 * WARPGROUP);
    Slot slot;
    Work work;
    for (int turn = 0; work.take<S::ROWS>(a, turn); turn++) {
        // The range of this warp's positions.
        const int lowest = a.past + work.begin + row_in_block, highest = lowest + 15;
        const auto hide = [&](float(&s)[KEYS / 2], int tile) {
            const int first_key = tile * KEYS;
            if (first_key + KEYS - 1 > lowest || (a.window > 0 && first_key <= highest - a.window))
                mask(s, lowest + lane / 4 - first_key - 2 * c, a.window);
        };
        Softmax softmax;
        float s[KEYS / 2], out[D / 2], shrink[2];
        uint32_t p[KEYS / 16][4];
#pragma unroll
        for (float &x : out) x = 0;

        memory.queries_full().wait(turn % 2);
        memory.keys_full(slot.stage()).wait(slot.parity());
        fence_products();
        multiply_keys<T, D>(s, queries, memory.keys(slot.stage()));
        wait_products<0>(s);
        release(memory.keys_free(slot.stage()));
        hide(s, work.last);
        softmax.weigh(s, scale, shrink);
        pack_weights<T>(p, s);

        for (int tile = work.last - 1; tile >= work.first; tile--) {
            const Slot next = slot.next();
            memory.values_full(slot.stage()).wait(slot.parity());
            memory.keys_full(next.stage()).wait(next.parity());
            wait_for_turn(turn_barrier, 2 * WARPGROUP);
            fence_products();
            multiply_keys<T, D>(s, queries, memory.keys(next.stage()));
            multiply_values<T, D>(out, p, memory.values(slot.stage()));
            give_turn(next_barrier, 2 * WARPGROUP);
            wait_products<1>(s);
            release(memory.keys_free(next.stage()));
            hide(s, tile);
            softmax.weigh(s, scale, shrink);
            // With three warpgroups the others' products cover the softmax wherever it stands, and this costs 3 %.
            if (S::GROUPS == 2) finish_before(softmax.sum[0] + softmax.sum[1], memory.at);
            wait_products<0>(out);
            release(memory.values_free(slot.stage()));
            pack_weights<T>(p, s);
#pragma unroll
            for (int n = 0; n < D / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) out[4 * n + e] *= shrink[e / 2];
            slot = next;
        }

        release(memory.queries_free());
        memory.values_full(slot.stage()).wait(slot.parity());
        fence_products();
        multiply_values<T, D>(out, p, memory.values(slot.stage()));
        wait_products<0>(out);
        release(memory.values_free(slot.stage()));
        slot = slot.next();

        const float sink = a.sinks ? a.sinks[work.head] * LOG2E : -INFINITY;
        store<T, D>(a, work, out, softmax, sink, work.begin + row_in_block + lane / 4, c);
    }
}

template <typename T, int D>
__global__ __launch_bounds__(Shape<D>::THREADS, 1) void prompt(const __grid_constant__ HeadkvPrompt a,
                                                               const __grid_constant__ CUtensorMap q_map,
                                                               const __grid_constant__ CUtensorMap k_map,
                                                               const __grid_constant__ CUtensorMap v_map) {
    using S = Shape<D>;
    extern __shared__ char shared[];
    const Memory<D> memory{(uint32_t(__cvta_generic_to_shared(shared)) + 1023) & ~1023u};
    // From one lane, so that the compiler knows it to be the same in the warp.
    const int group = __shfl_sync(~0u, threadIdx.x / WARPGROUP, 0);
    if (threadIdx.x == 0) {
        memory.queries_full().init(1), memory.queries_free().init(4 * S::GROUPS);
        for (int i = 0; i < STAGES; i++) {
            memory.keys_full(i).init(1), memory.keys_free(i).init(4 * S::GROUPS);
            memory.values_full(i).init(1), memory.values_free(i).init(4 * S::GROUPS);
        }
        fence_barriers();
    }
    __syncthreads();
    if (group == S::GROUPS) {
        give_registers<S::COPY_REGISTERS>();
        if (threadIdx.x % WARPGROUP == 0) copy<D>(a, memory, q_map, k_map, v_map);
    } else {
        take_registers<S::REGISTERS>();
        compute<T, D>(a, memory, group);
    }
}

/// `(batch, heads, tokens, head_dim)` in device memory, as the copy engine wants it described.
struct Tensor {
    const void *at;
    int64_t batch, head, token;
    int batches, heads, tokens, head_dim, type;

    /// Boxes of `rows` tokens and 128 bytes of their elements. False if the engine cannot read it.
    bool describe(CUtensorMap *map, int rows) const {
        static const auto encode = [] {
            void *function = nullptr;
            cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
            cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
#else
            cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
            return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
        }();
        if (!encode) return false;
        const cuuint64_t sizes[4] = {cuuint64_t(head_dim), cuuint64_t(tokens), cuuint64_t(heads), cuuint64_t(batches)};
        // The stride of a single element says nothing and may be anything.
        const auto bytes = [&](int64_t stride, int count) { return cuuint64_t(count > 1 ? stride : head_dim) * 2; };
        const cuuint64_t strides[3] = {bytes(token, tokens), bytes(head, heads), bytes(batch, batches)};
        const cuuint32_t box[4] = {PANEL_BYTES / 2, cuuint32_t(rows), 1, 1}, steps[4] = {1, 1, 1, 1};
        return encode(map, type == HEADKV_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4,
                      const_cast<void *>(at), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
    }
};

template <typename T, int D> cudaError_t start(const HeadkvPrompt &a, int multiprocessors, cudaStream_t stream) {
    using S = Shape<D>;
    const int keys = a.past + a.tokens;
    CUtensorMap q_map, k_map, v_map;
    const Tensor q{a.q, a.q_batch, a.q_head, a.q_token, a.batch, a.heads, a.tokens, D, a.type};
    const Tensor k{a.k, a.k_batch, a.k_head, a.k_token, a.batch, a.kv_heads, keys, D, a.type};
    const Tensor v{a.v, a.v_batch, a.v_head, a.v_token, a.batch, a.kv_heads, keys, D, a.type};
    if (!q.describe(&q_map, S::ROWS) || !k.describe(&k_map, KEYS) || !v.describe(&v_map, KEYS))
        return cudaErrorNotSupported;
    const cudaError_t error =
        cudaFuncSetAttribute(prompt<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::BYTES);
    if (error != cudaSuccess) return error;
    const int64_t pieces = int64_t(a.batch) * a.heads * ((a.tokens + S::ROWS - 1) / S::ROWS);
    const int blocks = int(pieces < multiprocessors ? pieces : multiprocessors);
    prompt<T, D><<<blocks, S::THREADS, S::BYTES, stream>>>(a, q_map, k_map, v_map);
    return cudaGetLastError();
}

} // namespace

cudaError_t prompt_hopper(const HeadkvPrompt &a, cudaStream_t stream) {
    if (a.softcap > 0 || (a.head_dim != 64 && a.head_dim != 128)) return cudaErrorNotSupported;
    if (uintptr_t(a.out) % 16 || a.o_batch % 8 || a.o_head % 8 || a.o_token % 8) return cudaErrorNotSupported;
    int device, major, minor, multiprocessors;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    if (error != cudaSuccess) return error;
    if (major != 9 || minor != 0) return cudaErrorNotSupported;
    const bool is_bf16 = a.type == HEADKV_BF16;
    if (a.head_dim == 64)
        return is_bf16 ? start<bf16, 64>(a, multiprocessors, stream) : start<f16, 64>(a, multiprocessors, stream);
    return is_bf16 ? start<bf16, 128>(a, multiprocessors, stream) : start<f16, 128>(a, multiprocessors, stream);
}

} // namespace headkv
