// Sixteen tokens of one head in a warp's registers, straight from device memory in the tensor cores' layout.
//
// Lane `4 r + c` of a warp. A product over head_dim does not care about the order of its terms, so lane (r, c) takes 16
// consecutive bytes of tokens r and r + 8 and calls them the elements that the instruction wants; the query is read in
// the same order. Likewise over tokens, where values are paired up. No shared memory is needed, and every byte is read
// by one 16-byte access.
#pragma once
#include "element.cuh"

namespace headkv {

constexpr int TILE = 16;
#define HEADKV_ZERO4 make_uint4(0, 0, 0, 0)

/// Keys of a tile: the left operand of keys x queries.
template <typename T, int D> struct Keys {
    static constexpr int CHUNKS = (D + 31) / 32;
    uint4 x[2][CHUNKS];

    /// Row i is read from `row(i)`, a pointer to its elements or null for zeros.
    template <typename Row> __device__ inline void load(int lane, const Row &row) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const T *p = row(lane / 4 + 8 * half);
#pragma unroll
            for (int i = 0; i < CHUNKS; i++) {
                int d = i * 32 + lane % 4 * 8;
                x[half][i] = p && (D % 32 == 0 || d < D) ? load_once(p + d) : HEADKV_ZERO4;
            }
        }
    }

    /// s += keys x queries: lane (r, c) gets tokens r (s[0], s[1]) and r + 8 of queries 2c, 2c + 1.
    template <typename Query> __device__ inline void dot(float (&s)[4], const Query &query) const {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            const uint4 q = query(i), a = x[0][i], b = x[1][i];
            mma<T>(s, a.x, b.x, a.y, b.y, q.x, q.y);
            mma<T>(s, a.z, b.z, a.w, b.w, q.z, q.w);
        }
    }
};

/// Queries of at most 8 rows for Keys::dot: lane (r, c) holds part c of row r.
template <typename T, int D> __device__ inline uint4 query_part(const T *row, int lane, int chunk) {
    int d = chunk * 32 + lane % 4 * 8;
    return row && (D % 32 == 0 || d < D) ? *reinterpret_cast<const uint4 *>(row + d) : HEADKV_ZERO4;
}

/// Values of a tile: the left operand, transposed, of values x weights.
template <typename T, int D> struct Values {
    static constexpr int CHUNKS = (D + 63) / 64;
    uint4 x[4][CHUNKS];

    template <typename Row> __device__ inline void load(int lane, const Row &row) {
#pragma unroll
        for (int t = 0; t < 4; t++) {
            const T *p = row(lane % 4 * 2 + t % 2 + t / 2 * 8);
#pragma unroll
            for (int i = 0; i < CHUNKS; i++) {
                int d = i * 64 + lane / 4 * 8;
                x[t][i] = p && (D % 64 == 0 || d < D) ? load_once(p + d) : HEADKV_ZERO4;
            }
        }
    }

    /// out += values x weights, for `weights` as Keys::dot leaves them.
    ///
    /// out[i][j] of lane (r, c) belongs to elements 64 i + 8 r + 2 j (first two) and + 1 of queries 2c, 2c + 1.
    __device__ inline void add(float (&out)[CHUNKS][4][4], const float (&weights)[4]) const {
        const uint32_t w0 = transpose8x8(pack<T>(weights[0], weights[1]));
        const uint32_t w1 = transpose8x8(pack<T>(weights[2], weights[3]));
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            const uint32_t *a = &x[0][i].x, *b = &x[1][i].x, *c = &x[2][i].x, *d = &x[3][i].x;
#pragma unroll
            for (int j = 0; j < 4; j++)
                mma<T>(out[i][j], __byte_perm(a[j], b[j], 0x5410), __byte_perm(a[j], b[j], 0x7632),
                       __byte_perm(c[j], d[j], 0x5410), __byte_perm(c[j], d[j], 0x7632), w0, w1);
        }
    }
};

} // namespace headkv
