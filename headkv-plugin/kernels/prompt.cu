// Causal attention of a prompt on tensor cores, without ever forming a tokens x tokens matrix. The kernel here runs on
// every GPU from Ampere on; Hopper has a faster one for the usual shapes (prompt_hopper.cu).
//
// A block takes some query rows of one head and walks over the keys up to them; keys and values arrive by asynchronous
// copies one tile ahead, and logits stay in registers (FlashAttention-2, Dao 2023, arXiv 2307.08691).
#include "element.cuh"
#include "headkv.h"
#include "prompt.cuh"
#include <limits.h>

namespace headkv {
namespace {

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * 32;
/// Elements that pad a row in shared memory: the 8 rows of a matrix load then fall into different banks.
constexpr int PAD = 8;

/// Sizes by head_dim: query rows per warp in units of 16, keys per tile, blocks per multiprocessor.
template <int D> struct Shape {
    static constexpr int UNITS = D <= 128 ? 2 : 1;
    static constexpr int KEYS = D <= 128 ? 64 : 32;
    static constexpr int BLOCKS = 2;
    static constexpr int ROWS = WARPS * UNITS * 16;
    static constexpr int STRIDE = D + PAD;
    static constexpr int BYTES = (ROWS + 4 * KEYS) * STRIDE * 2;
};

__device__ inline void copy_async(uint32_t to, const void *from, bool valid) {
    // With 0 source bytes the destination is filled with zeros.
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0));
}
__device__ inline void commit() { asm volatile("cp.async.commit_group;"); }
template <int PENDING> __device__ inline void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING)); }

__device__ inline void matrices(uint32_t (&x)[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at));
}
__device__ inline void matrices_transposed(uint32_t (&x)[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at));
}

/// Starts copying rows `first ..` of a head into shared memory; rows from `tokens` on become zeros.
template <typename T, int D, int ROWS>
__device__ inline void fetch(uint32_t to, const T *from, int64_t stride, int first, int tokens) {
    constexpr int WORDS = D / 8;
    static_assert(ROWS * WORDS % THREADS == 0, "every thread copies as much");
#pragma unroll
    for (int i = 0; i < ROWS * WORDS / THREADS; i++) {
        const int at = i * THREADS + threadIdx.x, row = at / WORDS, word = at % WORDS;
        const bool valid = first + row < tokens;
        copy_async(to + (row * (D + PAD) + word * 8) * 2, from + (valid ? first + row : 0) * stride + word * 8, valid);
    }
}

template <typename T, int D, bool CAPPED>
__global__ __launch_bounds__(THREADS, Shape<D>::BLOCKS) void prompt(const __grid_constant__ HeadkvPrompt a) {
    using S = Shape<D>;
    constexpr int UNITS = S::UNITS, KEYS = S::KEYS, STRIDE = S::STRIDE;
    extern __shared__ __align__(16) char shared[];
    const uint32_t q_at = uint32_t(__cvta_generic_to_shared(shared));
    const uint32_t k_at = q_at + S::ROWS * STRIDE * 2, v_at = k_at + 2 * KEYS * STRIDE * 2;
    constexpr uint32_t TILE_BYTES = KEYS * STRIDE * 2;

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, c = lane % 4;
    const int sequence = blockIdx.x / a.heads, head = blockIdx.x % a.heads, kv_head = head / (a.heads / a.kv_heads);
    // The longest blocks start first.
    const int begin = (gridDim.y - 1 - blockIdx.y) * S::ROWS;
    const T *q = static_cast<const T *>(a.q) + sequence * a.q_batch + head * a.q_head;
    const T *k = static_cast<const T *>(a.k) + sequence * a.k_batch + kv_head * a.k_head;
    const T *v = static_cast<const T *>(a.v) + sequence * a.v_batch + kv_head * a.v_head;
    // The keys that these rows see, in tiles.
    const int keys = a.past + a.tokens, first = a.window > 0 ? max(a.past + begin - a.window + 1, 0) / KEYS : 0;
    const int tiles = (a.past + min(begin + S::ROWS, a.tokens) + KEYS - 1) / KEYS - first;
    const int64_t skipped = int64_t(first) * KEYS;
    k += skipped * a.k_token, v += skipped * a.v_token;
    const int left = keys - int(skipped);

    fetch<T, D, S::ROWS>(q_at, q, a.q_token, begin, a.tokens);
    fetch<T, D, KEYS>(k_at, k, a.k_token, 0, left);
    commit();
    fetch<T, D, KEYS>(v_at, v, a.v_token, 0, left);
    commit();

    // This lane's addresses inside the 16 x 16 blocks that a matrix load takes.
    const int warp_row = warp * UNITS * 16;
    const uint32_t q_lane = q_at + ((warp_row + lane % 16) * STRIDE + lane / 16 * 8) * 2;
    const uint32_t k_lane = k_at + ((lane / 16 * 8 + lane % 8) * STRIDE + lane / 8 % 2 * 8) * 2;
    const uint32_t v_lane = v_at + ((lane / 8 % 2 * 8 + lane % 8) * STRIDE + lane / 16 * 8) * 2;

    const float scale = a.scale * LOG2E;
    float out[UNITS][D / 8][4] = {};
    // Of rows r and r + 8 of each unit; the sums are over this lane's keys only.
    float most[UNITS][2], sum[UNITS][2];
#pragma unroll
    for (int u = 0; u < UNITS; u++) most[u][0] = most[u][1] = -INFINITY, sum[u][0] = sum[u][1] = 0;

    for (int t = 0; t < tiles; t++) {
        const uint32_t k_tile = k_lane + t % 2 * TILE_BYTES, v_tile = v_lane + t % 2 * TILE_BYTES;
        wait<1>();
        __syncthreads();
        if (t + 1 < tiles) fetch<T, D, KEYS>(k_at + (t + 1) % 2 * TILE_BYTES, k, a.k_token, (t + 1) * KEYS, left);
        commit();

        float s[UNITS][KEYS / 8][4] = {};
#pragma unroll
        for (int d = 0; d < D / 16; d++) {
            uint32_t qs[UNITS][4];
#pragma unroll
            for (int u = 0; u < UNITS; u++) matrices(qs[u], q_lane + (u * 16 * STRIDE + d * 16) * 2);
#pragma unroll
            for (int n = 0; n < KEYS / 16; n++) {
                uint32_t ks[4];
                matrices(ks, k_tile + (n * 16 * STRIDE + d * 16) * 2);
#pragma unroll
                for (int u = 0; u < UNITS; u++) {
                    mma<T>(s[u][2 * n], qs[u][0], qs[u][1], qs[u][2], qs[u][3], ks[0], ks[1]);
                    mma<T>(s[u][2 * n + 1], qs[u][0], qs[u][1], qs[u][2], qs[u][3], ks[2], ks[3]);
                }
            }
        }

        // Whether a row of this warp does not see all of the tile.
        const int first_key = (first + t) * KEYS, lowest = a.past + begin + warp_row;
        const bool hides = first_key + KEYS - 1 > lowest ||
                           (a.window > 0 && first_key <= lowest + UNITS * 16 - 1 - a.window);
        uint32_t weights[UNITS][KEYS / 8][2];
#pragma unroll
        for (int u = 0; u < UNITS; u++) {
            if (CAPPED) {
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++) s[u][n][e] = a.softcap * tanhf(s[u][n][e] * a.scale / a.softcap);
            }
            if (hides) {
                const int position = lowest + u * 16 + r, below = a.window > 0 ? position - a.window : INT_MIN / 2;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        const int key = first_key + n * 8 + 2 * c + e % 2 - e / 2 * 8;
                        if (key > position || key <= below) s[u][n][e] = -INFINITY;
                    }
            }
            const float factor = CAPPED ? LOG2E : scale;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float m = s[u][0][2 * i];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++) m = fmaxf(m, fmaxf(s[u][n][2 * i], s[u][n][2 * i + 1]));
                m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
                m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
                const float all = fmaxf(most[u][i], m), offset = all == -INFINITY ? 0 : all * factor;
                const float shrink = exp2_fast(most[u][i] * factor - offset);
                most[u][i] = all;
                float total = 0;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++) {
                    const float x = exp2_fast(s[u][n][2 * i] * factor - offset);
                    const float y = exp2_fast(s[u][n][2 * i + 1] * factor - offset);
                    total += x + y;
                    weights[u][n][i] = pack<T>(x, y);
                }
                sum[u][i] = sum[u][i] * shrink + total;
#pragma unroll
                for (int n = 0; n < D / 8; n++) out[u][n][2 * i] *= shrink, out[u][n][2 * i + 1] *= shrink;
            }
        }

        wait<1>();
        __syncthreads();
        if (t + 1 < tiles) fetch<T, D, KEYS>(v_at + (t + 1) % 2 * TILE_BYTES, v, a.v_token, (t + 1) * KEYS, left);
        commit();
#pragma unroll
        for (int j = 0; j < KEYS / 16; j++) {
#pragma unroll
            for (int d = 0; d < D / 16; d++) {
                uint32_t vs[4];
                matrices_transposed(vs, v_tile + (j * 16 * STRIDE + d * 16) * 2);
#pragma unroll
                for (int u = 0; u < UNITS; u++) {
                    const auto &w0 = weights[u][2 * j], &w1 = weights[u][2 * j + 1];
                    mma<T>(out[u][2 * d], w0[0], w0[1], w1[0], w1[1], vs[0], vs[1]);
                    mma<T>(out[u][2 * d + 1], w0[0], w0[1], w1[0], w1[1], vs[2], vs[3]);
                }
            }
        }
    }

    T *to = static_cast<T *>(a.out) + sequence * a.o_batch + head * a.o_head;
    const float sink = a.sinks ? a.sinks[head] * LOG2E : -INFINITY;
#pragma unroll
    for (int u = 0; u < UNITS; u++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float total = sum[u][i];
            total += __shfl_xor_sync(~0u, total, 1);
            total += __shfl_xor_sync(~0u, total, 2);
            const int row = begin + warp_row + u * 16 + r + 8 * i;
            if (row >= a.tokens) continue;
            total += exp2_fast(sink - most[u][i] * (CAPPED ? LOG2E : scale));
            const float inverse = 1 / total;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *reinterpret_cast<uint32_t *>(to + row * a.o_token + n * 8 + 2 * c) =
                    pack<T>(out[u][n][2 * i] * inverse, out[u][n][2 * i + 1] * inverse);
        }
}

struct Launch {
    const HeadkvPrompt &a;
    cudaStream_t stream;

    template <typename T, int D> cudaError_t run() const {
        return a.softcap > 0 ? start<D>(prompt<T, D, true>) : start<D>(prompt<T, D, false>);
    }
    template <int D> cudaError_t start(void (*kernel)(HeadkvPrompt)) const {
        using S = Shape<D>;
        const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::BYTES);
        if (error != cudaSuccess) return error;
        const dim3 grid(a.batch * a.heads, (a.tokens + S::ROWS - 1) / S::ROWS);
        kernel<<<grid, THREADS, S::BYTES, stream>>>(a);
        return cudaGetLastError();
    }
};

} // namespace
} // namespace headkv

extern "C" int32_t headkv_prompt(const HeadkvPrompt *args, cudaStream_t stream) {
    if (args->batch * args->tokens == 0) return cudaSuccess;
    const cudaError_t error = headkv::prompt_hopper(*args, stream);
    if (error != cudaErrorNotSupported) return error;
    return headkv::dispatch(args->type, args->head_dim, headkv::Launch{*args, stream});
}
