// What the kernels of linear layers share: which outputs of which layer a block has.
#pragma once
#include "headkv.h"

namespace headkv {

__host__ __device__ inline int blocks_of(int outputs, int each) { return (outputs + each - 1) / each; }

/// Blocks of `each` outputs of one layer.
inline int product_blocks(const HeadkvProduct &a, int each) {
    int sum = 0;
    for (int outputs : a.outputs) sum += blocks_of(outputs, each);
    return sum;
}

/// What a block of `each` outputs computes.
struct ProductPart {
    int layer = 0, first, outputs;

    __device__ inline ProductPart(const HeadkvProduct &a, int block, int each) {
        for (; layer < HEADKV_PRODUCTS - 1 && block >= blocks_of(a.outputs[layer], each); layer++)
            block -= blocks_of(a.outputs[layer], each);
        first = block * each, outputs = a.outputs[layer];
    }
};

/// For more than 2 rows (product_tiles.cu).
template <typename T> cudaError_t product_of_tiles(const HeadkvProduct &a, cudaStream_t stream);

} // namespace headkv
