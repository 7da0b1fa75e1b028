// Attention of one new token per sequence over heads of any lengths, in one launch.
//
// Each block takes one item of the plan: some tokens of one (sequence, stored head), and every query row that reads
// them. Its warps keep a partial softmax each (largest logit, sum, weighted values), the block merges them, and the
// last block of a unit merges the unit's partial results ("flash decoding" with work cut by length, not by head).
#include "early.cuh"
#include "headkv.h"
#include "tile.cuh"

namespace headkv {
namespace {

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * 32;
constexpr int ROWS = HEADKV_MAX_ROWS;
constexpr int PARTS = HEADKV_MAX_PARTS;

/// Partial results of units that are cut into parts.
struct Partials {
    /// `(slots, ROWS, head_dim)`: values weighted relative to the largest logit.
    float4 *values;
    /// `(slots, ROWS)`: largest logit and sum.
    float2 *state;

    static size_t bytes(int slots, int d) { return size_t(slots) * ROWS * (d * sizeof(float) + sizeof(float2)); }
    __device__ Partials(const HeadkvDecode &a) {
        values = static_cast<float4 *>(a.partials);
        state = reinterpret_cast<float2 *>(values + int64_t(a.slots) * ROWS * (a.head_dim / 4));
    }
};

/// What results are scaled by: one over the sum of all weights, the sink's of that head included.
__device__ inline float inverse_of(float sum, float most, const HeadkvDecode &a, int head) {
    if (a.sinks) sum += exp2_fast(a.sinks[head] * LOG2E - most);
    return sum > 0 ? 1 / sum : 0;
}

/// exp2(m - most), where a softmax over nothing has m = most = -inf.
__device__ inline float weight(float m, float most) { return m == -INFINITY ? 0 : exp2_fast(m - most); }

template <typename T> __device__ inline void store4(T *to, float4 x) {
    *reinterpret_cast<uint2 *>(to) = make_uint2(pack<T>(x.x, x.y), pack<T>(x.z, x.w));
}

__device__ inline void add4(float4 &to, float4 x, float w) {
    to.x += w * x.x, to.y += w * x.y, to.z += w * x.z, to.w += w * x.w;
}

/// The tokens of an item as tiles: those of its first run, then those of its second.
template <typename T, int D> struct Tiles {
    const HeadkvItem &item;
    const T *k_new, *v_new;
    int fresh;
    int held[2], first, count;

    __device__ Tiles(const HeadkvItem &item, const HeadkvDecode &a) : item(item), fresh(a.fresh[item.sequence]) {
        const int tail = a.tail[item.sequence];
        k_new = static_cast<const T *>(a.k_new) + item.sequence * a.k_batch + item.kv_head * a.k_head;
        v_new = static_cast<const T *>(a.v_new) + item.sequence * a.v_batch + item.kv_head * a.v_head;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const HeadkvSegment &run = item.runs[i];
            held[i] = run.tail_first < 0 ? run.tokens : max(0, min(tail - run.tail_first, run.tokens));
        }
        first = (held[0] + TILE - 1) / TILE;
        count = first + (held[1] + TILE - 1) / TILE;
    }

    struct Tile {
        T *keys, *values;
        /// Tokens in it, and which of them is the new one (none: -1).
        int tokens, fresh;
    };

    __device__ inline Tile operator[](int t) const {
        const int i = t >= first, at = (i ? t - first : t) * TILE;
        const HeadkvSegment &run = item.runs[i];
        const int fresh = run.tail_first < 0 ? -1 : this->fresh - run.tail_first - at;
        const int tokens = min(TILE, (i ? held[1] : held[0]) - at);
        // Behind a block's last token lies another head's: the new token is stored where it is read.
        return {static_cast<T *>(run.keys) + int64_t(at) * D, static_cast<T *>(run.values) + int64_t(at) * D, tokens,
                fresh < tokens ? fresh : -1};
    }

    /// Where row i of a tile is read from: the new token is not in the tail yet.
    __device__ static inline const T *row(const T *base, const T *fresh, const Tile &tile, int i) {
        return i >= tile.tokens ? nullptr : i == tile.fresh ? fresh : base + i * D;
    }
};

/// Stores the new token in the tail, by one warp.
template <typename T, int D, typename Tile>
__device__ inline void append(const Tile &tile, const T *k_new, const T *v_new, int lane) {
    for (int d = lane * 8; d < D; d += 256) {
        *reinterpret_cast<uint4 *>(tile.keys + tile.fresh * D + d) = *reinterpret_cast<const uint4 *>(k_new + d);
        *reinterpret_cast<uint4 *>(tile.values + tile.fresh * D + d) = *reinterpret_cast<const uint4 *>(v_new + d);
    }
}

/// Merges the partial results of an item's unit and writes its output; run by the unit's last block.
template <typename T, int D>
__device__ void merge(const HeadkvItem &item, const Partials &partials, const HeadkvDecode &a, T *out, float *shared) {
    const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32, parts = item.parts, rows = item.rows;
    // weights[row][part], scaled by 1 / sum.
    float *weights = shared;
    for (int row = warp; row < rows; row += WARPS) {
        float2 states[PARTS / 32];
        float most = -INFINITY, sum = 0;
#pragma unroll
        for (int i = 0; i < PARTS / 32; i++) {
            const int part = i * 32 + lane;
            states[i] = part < parts ? __ldcg(partials.state + (item.slot + part) * ROWS + row)
                                     : make_float2(-INFINITY, 0);
            most = fmaxf(most, states[i].x);
        }
        for (int s = 16; s; s /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, s));
#pragma unroll
        for (int i = 0; i < PARTS / 32; i++) sum += states[i].y * weight(states[i].x, most);
        for (int s = 16; s; s /= 2) sum += __shfl_xor_sync(~0u, sum, s);
        const float inverse = inverse_of(sum, most, a, item.head + row);
#pragma unroll
        for (int i = 0; i < PARTS / 32; i++)
            if (i * 32 + lane < parts) weights[row * PARTS + i * 32 + lane] = weight(states[i].x, most) * inverse;
    }
    __syncthreads();

    // Threads beyond one per four outputs share the parts.
    constexpr int QUADS = D / 4;
    const int quads = rows * QUADS, sharers = max(1, THREADS / quads);
    float4 *sums = reinterpret_cast<float4 *>(weights + ROWS * PARTS);
    for (int at = tid; at < quads * sharers; at += THREADS) {
        const int quad = at % quads, sharer = at / quads, row = quad / QUADS;
        const float4 *from = partials.values + int64_t(item.slot) * ROWS * QUADS + quad;
        float4 sum = {0, 0, 0, 0};
#pragma unroll 8
        for (int part = sharer; part < parts; part += sharers)
            add4(sum, __ldcg(from + int64_t(part) * ROWS * QUADS), weights[row * PARTS + part]);
        if (sharers == 1) store4(out + quad * 4, sum);
        else sums[at] = sum;
    }
    if (sharers == 1) return;
    __syncthreads();
    if (tid < quads) {
        float4 sum = sums[tid];
        for (int i = 1; i < sharers; i++) add4(sum, sums[i * quads + tid], 1);
        store4(out + tid * 4, sum);
    }
}

template <int D> struct Shared {
    // The warps' results; reused by the merge for its weights and sums.
    static constexpr int BLOCK = WARPS * ROWS * (D + 4), UNIT = ROWS * PARTS + THREADS * 4;
    static constexpr int FLOATS = BLOCK > UNIT ? BLOCK : UNIT;
};

template <typename T, int D>
__global__ __launch_bounds__(THREADS, D <= 128 ? 3 : 2) void decode(const __grid_constant__ HeadkvDecode a) {
    __shared__ __align__(16) HeadkvItem item;
    __shared__ float most_of[WARPS][ROWS], sum_of[WARPS][ROWS];
    __shared__ __align__(16) float shared[Shared<D>::FLOATS];
    __shared__ bool last;
    const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32, r = lane / 4, c = lane % 4;

    let_later_kernels_begin();
    wait_for_earlier_kernels();
    static_assert(sizeof(HeadkvItem) % 16 == 0, "copied in 16-byte words");
    if (tid < sizeof(HeadkvItem) / 16)
        reinterpret_cast<uint4 *>(&item)[tid] = reinterpret_cast<const uint4 *>(a.items + blockIdx.x)[tid];
    __syncthreads();
    const Tiles<T, D> tiles(item, a);
    const Partials partials(a);
    const Logit logit = {a.scale, a.softcap};

    using K = Keys<T, D>;
    using V = Values<T, D>;
    K keys;
    V values;
    typename Tiles<T, D>::Tile tile = {};
    const auto load_keys = [&] {
        keys.load(lane, [&](int i) { return Tiles<T, D>::row(tile.keys, tiles.k_new, tile, i); });
    };
    const auto load_values = [&] {
        values.load(lane, [&](int i) { return Tiles<T, D>::row(tile.values, tiles.v_new, tile, i); });
    };
    int t = warp;
    if (t < tiles.count) {
        tile = tiles[t];
        load_keys();
        load_values();
    }
    uint4 q[K::CHUNKS];
    {
        const T *row = static_cast<const T *>(a.q) + item.sequence * a.q_batch + (item.head + r) * a.q_head;
#pragma unroll
        for (int i = 0; i < K::CHUNKS; i++) q[i] = query_part<T, D>(r < item.rows ? row : nullptr, lane, i);
    }

    // Of queries 2c and 2c + 1; the sums are over this lane's tokens only.
    float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    float out[V::CHUNKS][4][4] = {};
    while (t < tiles.count) {
        if (tile.fresh >= 0 && item.appends) append<T, D>(tile, tiles.k_new, tiles.v_new, lane);
        const int tokens = tile.tokens;
        float s[4] = {};
        keys.dot(s, [&](int i) { return q[i]; });
        t += WARPS;
        const bool more = t < tiles.count;
        if (more) {
            tile = tiles[t];
            load_keys();
        }
#pragma unroll
        for (int i = 0; i < 4; i++) s[i] = r + i / 2 * 8 < tokens ? logit(s[i]) : -INFINITY;
        float grown[2];
        bool grew = false;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float m = fmaxf(s[i], s[i + 2]);
            m = fmaxf(m, __shfl_xor_sync(~0u, m, 4));
            m = fmaxf(m, __shfl_xor_sync(~0u, m, 8));
            m = fmaxf(m, __shfl_xor_sync(~0u, m, 16));
            grown[i] = fmaxf(most[i], m);
            grew |= grown[i] > most[i];
        }
        if (__any_sync(~0u, grew)) {
            const float shrink[2] = {weight(most[0], grown[0]), weight(most[1], grown[1])};
#pragma unroll
            for (int i = 0; i < V::CHUNKS; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++) out[i][j][e] *= shrink[e % 2];
            sum[0] *= shrink[0], sum[1] *= shrink[1];
            most[0] = grown[0], most[1] = grown[1];
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s[i] = exp2_fast(s[i] - most[i % 2]);
            sum[i % 2] += s[i];
        }
        values.add(out, s);
        if (more) load_values();
    }

    // Merge the warps.
#pragma unroll
    for (int i = 0; i < 2; i++)
        for (int s = 4; s < 32; s *= 2) sum[i] += __shfl_xor_sync(~0u, sum[i], s);
    if (r == 0) {
        most_of[warp][2 * c] = most[0], most_of[warp][2 * c + 1] = most[1];
        sum_of[warp][2 * c] = sum[0], sum_of[warp][2 * c + 1] = sum[1];
    }
    __syncthreads();
    constexpr int STRIDE = D + 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = 2 * c + i;
        if (row >= item.rows) continue;
        float all = most_of[0][row];
        for (int w = 1; w < WARPS; w++) all = fmaxf(all, most_of[w][row]);
        const float factor = weight(most[i], all);
#pragma unroll
        for (int j = 0; j < V::CHUNKS; j++) {
            const int d = j * 64 + r * 8;
            if (D % 64 != 0 && d >= D) continue;
            float4 *to = reinterpret_cast<float4 *>(&shared[(warp * ROWS + row) * STRIDE + d]);
            const auto &o = out[j];
            to[0] = make_float4(o[0][i] * factor, o[0][i + 2] * factor, o[1][i] * factor, o[1][i + 2] * factor);
            to[1] = make_float4(o[2][i] * factor, o[2][i + 2] * factor, o[3][i] * factor, o[3][i + 2] * factor);
        }
    }
    __syncthreads();
    T *to = static_cast<T *>(a.out) + (int64_t(item.sequence) * a.heads + item.head) * D;
    constexpr int QUADS = D / 4;
    for (int quad = tid; quad < item.rows * QUADS; quad += THREADS) {
        const int row = quad / QUADS, d = quad % QUADS * 4;
        float4 x = {0, 0, 0, 0};
        float all = most_of[0][row], total = 0;
        for (int w = 1; w < WARPS; w++) all = fmaxf(all, most_of[w][row]);
        for (int w = 0; w < WARPS; w++) {
            add4(x, *reinterpret_cast<float4 *>(&shared[(w * ROWS + row) * STRIDE + d]), 1);
            total += sum_of[w][row] * weight(most_of[w][row], all);
        }
        if (item.parts == 1) {
            const float inverse = inverse_of(total, all, a, item.head + row);
            store4(to + quad * 4, make_float4(x.x * inverse, x.y * inverse, x.z * inverse, x.w * inverse));
        } else {
            const int64_t slot = item.slot + item.part;
            __stcg(partials.values + slot * ROWS * QUADS + quad, x);
            if (d == 0) __stcg(partials.state + slot * ROWS + row, make_float2(all, total));
        }
    }
    if (item.parts == 1) return;

    __threadfence();
    __syncthreads();
    if (tid == 0) {
        last = atomicAdd(&a.arrived[item.unit], 1) == item.parts - 1;
        if (last) a.arrived[item.unit] = 0;
        __threadfence();
    }
    __syncthreads();
    if (last) merge<T, D>(item, partials, a, to, shared);
}

struct Launch {
    const HeadkvDecode &a;
    cudaStream_t stream;
    template <typename T, int D> cudaError_t run() const {
        return launch_early<decode<T, D>>(a.item_count, THREADS, stream, a);
    }
};

} // namespace
} // namespace headkv

extern "C" size_t headkv_decode_partials(int32_t slots, int32_t head_dim) {
    return headkv::Partials::bytes(slots, head_dim);
}

extern "C" int32_t headkv_decode(const HeadkvDecode *args, cudaStream_t stream) {
    if (args->item_count == 0) return cudaSuccess;
    return headkv::dispatch(args->type, args->head_dim, headkv::Launch{*args, stream});
}
