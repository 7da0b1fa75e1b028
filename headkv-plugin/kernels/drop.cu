// How far the outputs of the window's queries move if a position is dropped: the ranking `drop`.
//
// Without position j the output o of a query becomes (o - p_j v_j) / (1 - p_j), which is p_j / (1 - p_j) (o - v_j) away.
// Three kernels: the outputs from a block of keys each, their sums, and the squared distances, which take the logits' place.
// Products are of 16-bit elements; what outputs and probabilities lose by that is added in a second product.
#include "tile.cuh"
#include "window.cuh"

namespace headkv {
namespace {

/// The least part of a query's attention that stays when a position is dropped: keeps the quotient finite.
constexpr float LEAST = 1e-6f;
/// Tiles of columns that a block of the third kernel takes.
constexpr int TILES = 4;

/// What the kernels leave each other, by row (query head, window row).
struct Drop {
    /// (m, 1 / l) over all keys.
    float2 *states;
    /// The output's squared norm.
    float *norms;
    /// `(blocks of keys, rows, head_dim)`.
    float *partials;
    /// `(rows, head_dim)` each, in the elements' type: the output, and what that rounds off.
    uint16_t *high, *low;

    __host__ __device__ static size_t row_bytes(const HeadkvRank &a) {
        return sizeof(float2) + sizeof(float) + a.head_dim * (blocks_of_keys(a.tokens) * sizeof(float) + 2 * sizeof(uint16_t));
    }
    __device__ Drop(const HeadkvRank &a) {
        const int64_t rows = int64_t(a.heads) * a.window, elements = rows * a.head_dim;
        // In the order of their alignment; the first is a multiple of 16 bytes from the workspace's start.
        high = reinterpret_cast<uint16_t *>(static_cast<char *>(a.workspace) + (Logits::bytes(a) + 15) / 16 * 16);
        low = high + elements;
        states = reinterpret_cast<float2 *>(low + elements);
        partials = reinterpret_cast<float *>(states + rows);
        norms = partials + blocks_of_keys(a.tokens) * elements;
    }
};

/// Block (x, y): of KV head y, tile x % tiles of its columns and keys x / tiles.
template <typename T, int D>
__global__ __launch_bounds__(THREADS, D <= 128 ? 4 : 2) void outputs(const __grid_constant__ HeadkvRank a) {
    using V = Values<T, D>;
    __shared__ float sums[COLUMNS][V::CHUNKS * 64];
    __shared__ float2 states[COLUMNS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, c = lane % 4, kv_head = blockIdx.y;
    const int columns = a.heads / a.kv_heads * a.window, tiles = (columns + COLUMNS - 1) / COLUMNS;
    const int tile = blockIdx.x % tiles, block = blockIdx.x / tiles, blocks = blocks_of_keys(a.tokens);
    const int first_row = kv_head * columns + tile * COLUMNS, rows = min(COLUMNS, columns - tile * COLUMNS);
    const Logits work(a);
    const Drop drop(a);

    for (int row = warp; row < COLUMNS; row += WARPS) {
        float2 state = make_float2(0, 0);
        if (row < rows) state = all_keys(a, work, first_row + row, lane);
        if (lane == 0) {
            states[row] = state;
            if (row < rows && block == 0) drop.states[first_row + row] = state;
        }
    }
    for (int i = threadIdx.x; i < COLUMNS * V::CHUNKS * 64; i += THREADS) (&sums[0][0])[i] = 0;
    __syncthreads();

    const int begin = block * KEYS, end = min(begin + KEYS, a.tokens);
    const T *v = static_cast<const T *>(a.v) + kv_head * a.v_head;
    float out[V::CHUNKS][4][4] = {}, next[4];
    const auto load_logits = [&](int t) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = 2 * c + i % 2, at = t + r + 8 * (i / 2);
            next[i] = row < rows && at < end ? work.logits[(first_row + row) * aligned(a.tokens) + at] : -INFINITY;
        }
    };
    load_logits(begin + warp * TILE);
    for (int t = begin + warp * TILE; t < end; t += WARPS * TILE) {
        V values;
        values.load(lane, [&](int i) { return t + i < end ? v + (t + i) * a.v_token : nullptr; });
        float p[4], rest[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            p[i] = exp2_fast(next[i] - states[2 * c + i % 2].x) * states[2 * c + i % 2].y;
            rest[i] = p[i] - float(T(p[i]));
        }
        load_logits(t + WARPS * TILE);
        values.add(out, p);
        values.add(out, rest);
    }
    // One warp after the other: a sum does not depend on who comes first.
    for (int w = 0; w < WARPS; w++) {
        if (warp == w) {
#pragma unroll
            for (int i = 0; i < V::CHUNKS; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int k = 0; k < 4; k++) sums[2 * c + k % 2][64 * i + 8 * r + 2 * j + k / 2] += out[i][j][k];
        }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < rows * D; i += THREADS) {
        const int64_t row = int64_t(block) * a.heads * a.window + first_row + i / D;
        drop.partials[row * D + i % D] = sums[i / D][i % D];
    }
}

/// One block per row.
template <typename T> __global__ __launch_bounds__(THREADS) void combine(const __grid_constant__ HeadkvRank a) {
    __shared__ float norms[WARPS];
    const int64_t row = blockIdx.x, rows = gridDim.x;
    const int blocks = blocks_of_keys(a.tokens);
    const Drop drop(a);
    float norm = 0;
    for (int e = threadIdx.x; e < a.head_dim; e += THREADS) {
        float sum = 0;
#pragma unroll 8
        for (int b = 0; b < blocks; b++) sum += drop.partials[(b * rows + row) * a.head_dim + e];
        const T high = T(sum);
        reinterpret_cast<T *>(drop.high)[row * a.head_dim + e] = high;
        reinterpret_cast<T *>(drop.low)[row * a.head_dim + e] = T(sum - float(high));
        norm += sum * sum;
    }
    for (int s = 16; s; s /= 2) norm += __shfl_xor_sync(~0u, norm, s);
    if (threadIdx.x % 32 == 0) norms[threadIdx.x / 32] = norm;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < WARPS; w++) norm += norms[w];
        drop.norms[row] = norm;
    }
}

/// Block (x, y, z): keys x, KV head y, columns from z * TILES * COLUMNS on.
template <typename T, int D> __global__ __launch_bounds__(THREADS) void moves(const __grid_constant__ HeadkvRank a) {
    using K = Keys<T, D>;
    __shared__ uint4 high[TILES][K::CHUNKS][32], low[TILES][K::CHUNKS][32];
    __shared__ float2 states[TILES * COLUMNS];
    __shared__ float norms[TILES * COLUMNS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, c = lane % 4, kv_head = blockIdx.y;
    const int columns = a.heads / a.kv_heads * a.window, first_column = blockIdx.z * TILES * COLUMNS;
    const int rows = min(TILES * COLUMNS, columns - first_column), candidates = a.tokens - a.window;
    const int64_t first_row = int64_t(kv_head) * columns + first_column;
    const Logits work(a);
    const Drop drop(a);

    for (int tile = warp; tile < TILES; tile += WARPS) {
        const int row = tile * COLUMNS + r;
        const auto part = [&](const uint16_t *of, int i) {
            const T *output = row < rows ? reinterpret_cast<const T *>(of) + (first_row + row) * D : nullptr;
            return query_part<T, D>(output, lane, i);
        };
#pragma unroll
        for (int i = 0; i < K::CHUNKS; i++) high[tile][i][lane] = part(drop.high, i), low[tile][i][lane] = part(drop.low, i);
    }
    for (int row = threadIdx.x; row < rows; row += THREADS)
        states[row] = drop.states[first_row + row], norms[row] = drop.norms[first_row + row];
    __syncthreads();

    const int begin = blockIdx.x * KEYS, end = min(begin + KEYS, candidates);
    const T *v = static_cast<const T *>(a.v) + kv_head * a.v_head;
    for (int t = begin + warp * TILE; t < end; t += WARPS * TILE) {
        K values;
        values.load(lane, [&](int i) { return t + i < end ? v + (t + i) * a.v_token : nullptr; });
        float norm[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = 0;
#pragma unroll
            for (int i = 0; i < K::CHUNKS; i++) {
                const uint4 x = values.x[half][i];
                for (const uint32_t word : {x.x, x.y, x.z, x.w}) {
                    const float2 two = unpack<T>(word);
                    sum += two.x * two.x + two.y * two.y;
                }
            }
            sum += __shfl_xor_sync(~0u, sum, 1);
            norm[half] = sum + __shfl_xor_sync(~0u, sum, 2);
        }
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            if (n * COLUMNS >= rows) break;
            float s[4] = {};
            values.dot(s, [&](int i) { return high[n][i][lane]; });
            values.dot(s, [&](int i) { return low[n][i][lane]; });
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = n * COLUMNS + 2 * c + i % 2, at = t + r + 8 * (i / 2);
                if (row >= rows || at >= end) continue;
                float *to = work.logits + (first_row + row) * aligned(a.tokens) + at;
                const float p = exp2_fast(*to - states[row].x) * states[row].y;
                const float quotient = p / fmaxf(1 - p, LEAST);
                // fmaxf would make 0 of what is no number.
                const float distance = norm[i / 2] - 2 * s[i] + norms[row];
                *to = quotient * quotient * (distance < 0 ? 0 : distance);
            }
        }
    }
}

struct Launch {
    const HeadkvRank &a;
    cudaStream_t stream;

    template <typename T, int D> cudaError_t run() const {
        const int columns = a.heads / a.kv_heads * a.window, tiles = (columns + COLUMNS - 1) / COLUMNS;
        outputs<T, D><<<dim3(blocks_of_keys(a.tokens) * tiles, a.kv_heads), THREADS, 0, stream>>>(a);
        combine<T><<<a.heads * a.window, THREADS, 0, stream>>>(a);
        const dim3 grid(blocks_of_keys(a.tokens - a.window), a.kv_heads, (tiles + TILES - 1) / TILES);
        moves<T, D><<<grid, THREADS, 0, stream>>>(a);
        return cudaGetLastError();
    }
};

} // namespace
} // namespace headkv

extern "C" size_t headkv_drop_workspace(const HeadkvRank *args) {
    return 16 + size_t(args->heads) * args->window * headkv::Drop::row_bytes(*args);
}

extern "C" int32_t headkv_drop(const HeadkvRank *args, cudaStream_t stream) {
    return headkv::dispatch(args->type, args->head_dim, headkv::Launch{*args, stream});
}
