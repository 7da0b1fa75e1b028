// Scores of the positions before the window by the window's attention (SnapKV, arXiv 2404.14469, sections 4.1 and 4.2).
//
// The first kernel reads K once and leaves logits, and each block's softmax state; the second turns them into scores,
// reduces those of the query heads that share a set, and pools. Between the two, `drop.cu` makes something else of the
// logits; scores of any other origin are reduced and pooled by the second alone.
#include "headkv.h"
#include "tile.cuh"
#include "window.cuh"

namespace headkv {
namespace {

/// The largest number of tiles of columns that a block takes.
constexpr int MOST_TILES = 8;

/// Block (x, y, z): keys x, KV head y, columns from z * TILES * COLUMNS on, of the group's `group * window`.
template <typename T, int D, int TILES>
__global__ __launch_bounds__(THREADS) void logits(const __grid_constant__ HeadkvRank a) {
    using K = Keys<T, D>;
    __shared__ uint4 queries[TILES][K::CHUNKS][32];
    __shared__ float2 states[WARPS][TILES * COLUMNS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, c = lane % 4;
    const int kv_head = blockIdx.y, group = a.heads / a.kv_heads, columns = group * a.window;
    const int first_column = blockIdx.z * TILES * COLUMNS, first_row = a.tokens - a.window;
    const Logits work(a);
    const Logit logit = {a.scale, a.softcap};

    for (int tile = warp; tile < TILES; tile += WARPS) {
        const int column = first_column + tile * COLUMNS + r;
        const T *row = nullptr;
        if (column < columns)
            row = static_cast<const T *>(a.q) + (kv_head * group + column / a.window) * a.q_head +
                  (first_row + column % a.window) * a.q_token;
#pragma unroll
        for (int i = 0; i < K::CHUNKS; i++) queries[tile][i][lane] = query_part<T, D>(row, lane, i);
    }
    __syncthreads();

    const int begin = blockIdx.x * KEYS, end = min(begin + KEYS, a.tokens);
    const T *k = static_cast<const T *>(a.k) + kv_head * a.k_head;
    const auto rows_from = [&](int t) {
        return [=, &a](int i) { return t + i < end ? k + (t + i) * a.k_token : nullptr; };
    };
    float most[TILES][2], sum[TILES][2];
#pragma unroll
    for (int n = 0; n < TILES; n++) most[n][0] = most[n][1] = LOWEST, sum[n][0] = sum[n][1] = 0;

    K keys;
    int t = begin + warp * TILE;
    if (t < end) keys.load(lane, rows_from(t));
    for (; t < end; t += WARPS * TILE) {
        const K now = keys;
        if (t + WARPS * TILE < end) keys.load(lane, rows_from(t + WARPS * TILE));
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            float s[4] = {};
            now.dot(s, [&](int i) { return queries[n][i][lane]; });
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int column = first_column + n * COLUMNS + 2 * c + i;
                if (column >= columns) continue;
                const int head = kv_head * group + column / a.window, row = column % a.window;
                float *to = work.logits + (int64_t(head) * a.window + row) * aligned(a.tokens);
                float x[2];
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int at = t + r + 8 * half;
                    x[half] = at <= first_row + row ? logit(s[i + 2 * half]) : -INFINITY;
                    if (at < end) to[at] = x[half];
                }
                const float all = fmaxf(most[n][i], fmaxf(x[0], x[1]));
                sum[n][i] = sum[n][i] * exp2_fast(most[n][i] - all) + exp2_fast(x[0] - all) + exp2_fast(x[1] - all);
                most[n][i] = all;
            }
        }
    }

#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            for (int s = 4; s < 32; s *= 2) {
                const float other = __shfl_xor_sync(~0u, most[n][i], s), more = __shfl_xor_sync(~0u, sum[n][i], s);
                join(most[n][i], sum[n][i], other, more);
            }
            if (r == 0) states[warp][n * COLUMNS + 2 * c + i] = make_float2(most[n][i], sum[n][i]);
        }
    __syncthreads();
    for (int n = threadIdx.x; n < TILES * COLUMNS && first_column + n < columns; n += THREADS) {
        float2 state = states[0][n];
        for (int w = 1; w < WARPS; w++) join(state.x, state.y, states[w][n].x, states[w][n].y);
        const int row = kv_head * columns + first_column + n;
        work.states[int64_t(row) * gridDim.x + blockIdx.x] = state;
    }
}

constexpr int POOL_THREADS = 256;
/// Positions per block of the second kernel.
constexpr int POSITIONS = 512;

/// What is summed to a head's scores: `(heads, per_head, stride)`.
struct Rows {
    const float *values;
    int64_t stride;
    int per_head;
};

/// Block (x, y): positions x of stored head y. The rows are logits, or with LOGITS false what is summed. Dynamic shared
/// memory: the rows' states, then the unpooled scores.
template <bool LOGITS>
__global__ __launch_bounds__(POOL_THREADS) void pool(const __grid_constant__ HeadkvRank a, const Rows from) {
    extern __shared__ float shared[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, stored = blockIdx.y;
    const int rows = a.share * from.per_head, candidates = a.tokens - a.window;
    float2 *states = reinterpret_cast<float2 *>(shared);
    float *scores = shared + (LOGITS ? 2 * rows : 0);
    if (LOGITS) {
        const Logits work(a);
        for (int row = warp; row < rows; row += POOL_THREADS / 32) {
            const float2 state = all_keys(a, work, int64_t(stored) * rows + row, lane);
            if (lane == 0) states[row] = state;
        }
        __syncthreads();
    }

    const int begin = blockIdx.x * POSITIONS, end = min(begin + POSITIONS, candidates);
    // Positions that do not exist are never the largest, and nothing in a mean.
    const float outside = a.pool_max ? -INFINITY : 0.f;
    const float *values = from.values + int64_t(stored) * rows * from.stride;
    for (int i = threadIdx.x; i < end - begin + a.before + a.after; i += POOL_THREADS) {
        const int at = begin - a.after + i;
        float score = a.share_max ? -INFINITY : 0.f;
        if (at < 0 || at >= candidates) {
            score = outside;
        } else {
            for (int h = 0; h < a.share; h++) {
                float sum = 0;
#pragma unroll 8
                for (int row = h * from.per_head; row < (h + 1) * from.per_head; row++) {
                    const float x = values[row * from.stride + at];
                    sum += LOGITS ? exp2_fast(x - states[row].x) * states[row].y : x;
                }
                // What is no number is no attention.
                if (!isfinite(sum)) sum = 0;
                score = a.share_max ? fmaxf(score, sum) : score + sum;
            }
            if (!a.share_max) score /= a.share;
        }
        scores[i] = score;
    }
    __syncthreads();
    float *to = a.scores + stored * aligned(a.tokens);
    for (int i = threadIdx.x; i < end - begin; i += POOL_THREADS) {
        float pooled = 0;
        const float *own = scores + i + a.after;
        if (a.pool_max) {
            // A hit counts for what is after it, and for what is before it, less with every position.
            pooled = own[0];
            float left = a.decay;
            for (int j = 1; j <= a.after; j++, left *= a.decay) pooled = fmaxf(pooled, own[-j] * left);
            left = a.decay;
            for (int j = 1; j <= a.before; j++, left *= a.decay) pooled = fmaxf(pooled, own[j] * left);
        } else {
            for (int j = -a.after; j <= a.before; j++) pooled += own[j];
            pooled /= a.before + a.after + 1;
        }
        to[begin + i] = pooled;
    }
}

template <bool LOGITS> cudaError_t pool_rows(const HeadkvRank &a, const Rows &rows, cudaStream_t stream) {
    const int candidates = a.tokens - a.window;
    const size_t shared = ((LOGITS ? 2 * a.share * rows.per_head : 0) + POSITIONS + a.before + a.after) * sizeof(float);
    if (candidates <= 0 || shared > 48 * 1024) return cudaErrorInvalidValue;
    const dim3 grid((candidates + POSITIONS - 1) / POSITIONS, a.heads / a.share);
    pool<LOGITS><<<grid, POOL_THREADS, shared, stream>>>(a, rows);
    return cudaGetLastError();
}

struct Launch {
    const HeadkvRank &a;
    cudaStream_t stream;

    template <typename T, int D> cudaError_t run() const {
        const int tiles = (a.heads / a.kv_heads * a.window + COLUMNS - 1) / COLUMNS;
        if (tiles <= 1) return of<T, D, 1>(tiles);
        if (tiles <= 2) return of<T, D, 2>(tiles);
        if (tiles <= 4) return of<T, D, 4>(tiles);
        return of<T, D, MOST_TILES>(tiles);
    }
    template <typename T, int D, int TILES> cudaError_t of(int tiles) const {
        const dim3 grid(blocks_of_keys(a.tokens), a.kv_heads, (tiles + TILES - 1) / TILES);
        logits<T, D, TILES><<<grid, THREADS, 0, stream>>>(a);
        return cudaGetLastError();
    }
};

} // namespace
} // namespace headkv

extern "C" int64_t headkv_score_stride(int32_t tokens) { return headkv::aligned(tokens); }

extern "C" size_t headkv_rank_workspace(const HeadkvRank *args) {
    return headkv::Logits::bytes(*args) + (args->rule == HEADKV_DROP ? headkv_drop_workspace(args) : 0);
}

extern "C" int32_t headkv_rank(const HeadkvRank *args, cudaStream_t stream) {
    using namespace headkv;
    if (args->tokens <= args->window) return cudaErrorInvalidValue;
    const cudaError_t error = dispatch(args->type, args->head_dim, Launch{*args, stream});
    if (error != cudaSuccess) return error;
    const Rows rows = {static_cast<const float *>(args->workspace), aligned(args->tokens), args->window};
    if (args->rule != HEADKV_DROP) return pool_rows<true>(*args, rows, stream);
    const int32_t code = headkv_drop(args, stream);
    return code ? code : pool_rows<false>(*args, rows, stream);
}

extern "C" int32_t headkv_pool(const HeadkvRank *args, const float *values, int64_t stride, cudaStream_t stream) {
    return headkv::pool_rows<false>(*args, {values, stride, 1}, stream);
}
