// Scores as integers of the same order, for radix selection.
#pragma once
#include <stdint.h>

namespace headkv {

/// Bits of the score that one pass of a selection decides, highest first: 11, 11, 10.
constexpr int BINS = 2048;

/// Orders as the float does.
__device__ inline uint32_t order(float score) {
    const uint32_t bits = __float_as_uint(score);
    return bits >> 31 ? ~bits : bits | 1u << 31;
}

} // namespace headkv
