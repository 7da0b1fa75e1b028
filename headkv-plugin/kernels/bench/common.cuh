// What the check and the benchmark share: device buffers, random elements, and ragged caches to attend to.
#pragma once
#include "../element.cuh"
#include "../headkv.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#define CUDA(call)                                                                                                    \
    do {                                                                                                              \
        const cudaError_t error = cudaError_t(call);                                                                  \
        if (error != cudaSuccess) {                                                                                   \
            std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error));            \
            std::exit(1);                                                                                             \
        }                                                                                                             \
    } while (0)

/// Device memory of `count` elements.
template <typename T> struct Buffer {
    T *at = nullptr;
    size_t count = 0;

    explicit Buffer(size_t count = 0) : count(count) {
        if (count) CUDA(cudaMalloc(&at, count * sizeof(T)));
    }
    explicit Buffer(const std::vector<T> &host) : Buffer(host.size()) {
        CUDA(cudaMemcpy(at, host.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    }
    Buffer(Buffer &&other) : at(other.at), count(other.count) { other.at = nullptr; }
    Buffer(const Buffer &) = delete;
    ~Buffer() { cudaFree(at); }

    T *release() {
        T *p = at;
        at = nullptr;
        return p;
    }
    std::vector<T> host() const {
        std::vector<T> to(count);
        CUDA(cudaMemcpy(to.data(), at, count * sizeof(T), cudaMemcpyDeviceToHost));
        return to;
    }
    void fill(int byte) { CUDA(cudaMemset(at, byte, count * sizeof(T))); }
};


/// About normal: the sum of four even distributions, variance 1.
__host__ __device__ inline float noise(uint64_t seed, uint64_t i) {
    uint64_t x = (seed << 40) + i + 1;
    x ^= x >> 33, x *= 0xff51afd7ed558ccdull, x ^= x >> 33, x *= 0xc4ceb9fe1a85ec53ull, x ^= x >> 33;
    float sum = 0;
    for (int j = 0; j < 4; j++) sum += float(x >> (16 * j) & 0xffff) / 65536.f - 0.5f;
    return sum * 1.7320508f;
}

template <typename T> __global__ void randomize(T *to, size_t count, uint64_t seed) {
    for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x)
        to[i] = T(noise(seed, i));
}

template <typename T> Buffer<T> random_buffer(size_t count, uint64_t seed) {
    Buffer<T> b(count);
    randomize<<<2048, 256>>>(b.at, count, seed);
    CUDA(cudaGetLastError());
    return b;
}

/// Tokens of the tail's i-th block.
inline int tail_block(int i) { return i < 2 ? 64 : i < 6 ? 64 << (i - 1) : 1024; }

/// The caches of one layer for a batch, and the plan to attend to them.
template <typename T> struct Layer {
    int batch, heads, kv_heads, stored, dim;
    /// `batch x stored`.
    std::vector<int> kept;
    std::vector<size_t> offsets;
    Buffer<T> keys, values;
    /// By sequence and block: `(2, kv_heads, tokens, dim)`.
    std::vector<std::vector<Buffer<T>>> tails;
    Buffer<HeadkvItem> items;
    int slots = 0, units = 0;

    Layer(int batch, int heads, int kv_heads, int stored, int dim, std::vector<int> kept_by_head,
          const std::vector<int> &tail, uint64_t seed, int multiprocessors)
        : batch(batch), heads(heads), kv_heads(kv_heads), stored(stored), dim(dim), kept(std::move(kept_by_head)),
          offsets(1, 0), keys(total(kept) * dim + 8), values(total(kept) * dim + 8), tails(batch), items(0) {
        for (int n : kept) offsets.push_back(offsets.back() + n);
        randomize<<<2048, 256>>>(keys.at, keys.count, seed);
        randomize<<<2048, 256>>>(values.at, values.count, seed + 1);
        int64_t tokens = 0;
        std::vector<std::vector<HeadkvSegment>> segments(batch);
        std::vector<std::vector<HeadkvUnit>> lists(batch);
        const int share = heads / stored, per_kv = stored / kv_heads;
        for (int b = 0; b < batch; b++) {
            for (int room = 0, i = 0; room < tail[b]; room += tail_block(i++)) {
                tails[b].push_back(random_buffer<T>(size_t(2) * kv_heads * tail_block(i) * dim, seed + 2 + i));
            }
            for (int s = 0; s < stored; s++) {
                const size_t at = offsets[b * stored + s] * dim;
                for (int row = 0; row < share; row += HEADKV_MAX_ROWS) {
                    HeadkvUnit unit = {};
                    unit.head = s * share + row, unit.rows = std::min(share - row, HEADKV_MAX_ROWS);
                    unit.kv_head = s / per_kv, unit.appends = s % per_kv == 0 && row == 0;
                    unit.first_segment = int(segments[b].size());
                    segments[b].push_back({keys.at + at, values.at + at, kept[b * stored + s], -1});
                    int first = 0;
                    for (size_t i = 0; i < tails[b].size(); i++) {
                        const int room = tail_block(int(i));
                        T *block = tails[b][i].at;
                        segments[b].push_back({block + size_t(unit.kv_head) * room * dim,
                                               block + size_t(kv_heads + unit.kv_head) * room * dim, room, first});
                        first += room;
                    }
                    unit.segments = int(segments[b].size()) - unit.first_segment;
                    for (int i = 0; i < unit.segments; i++) tokens += segments[b][unit.first_segment + i].tokens;
                    lists[b].push_back(unit);
                }
            }
        }
        const int piece = headkv_decode_piece(tokens, multiprocessors);
        std::vector<std::vector<HeadkvItem>> cut(batch);
        std::vector<HeadkvCut> cuts;
        size_t all = 0;
        for (int b = 0; b < batch; b++) {
            int count = 0, of_sequence = 0;
            do {
                cut[b].resize(count);
                count = headkv_decode_cut(lists[b].data(), int(lists[b].size()), segments[b].data(), dim, piece, cut[b].data(),
                                          int(cut[b].size()), &of_sequence);
            } while (count > int(cut[b].size()));
            cuts.push_back({cut[b].data(), count, int(lists[b].size()), of_sequence});
            all += count, units += int(lists[b].size());
        }
        std::vector<HeadkvItem> plan(all);
        slots = headkv_decode_join(cuts.data(), batch, plan.data());
        items.at = Buffer<HeadkvItem>(plan).release();
        items.count = plan.size();
    }

    static size_t total(const std::vector<int> &kept) {
        size_t sum = 0;
        for (int n : kept) sum += n;
        return sum;
    }
};

inline int multiprocessors() {
    int n = 0;
    CUDA(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, 0));
    return n;
}
