// A matrix of weights times a few rows: what linear layers do for generated tokens.
//
// Its time is that of reading the weights once. They do not depend on the kernel before, so a block asks for its first ones
// before that has ended (early.cuh), and looks at the rows afterwards.
#include "early.cuh"
#include "element.cuh"
#include "product.cuh"

namespace headkv {
namespace {

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * 32;
/// Elements of one load.
constexpr int EACH = 8;

template <typename T> __device__ inline void widen(const uint4 &x, float (&to)[EACH]) {
    const uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 two = unpack<T>(words[i]);
        to[2 * i] = two.x, to[2 * i + 1] = two.y;
    }
}

/// A block has OUTPUTS outputs of one layer, whose inputs its threads share among them; a thread has DEPTH loads of each output's weights on
/// their way. BLOCKS of them fit a multiprocessor at once: so many that the usual layers are one wave.
template <typename T, int ROWS, int OUTPUTS, int DEPTH, int BLOCKS>
__global__ __launch_bounds__(THREADS, BLOCKS) void product(const __grid_constant__ HeadkvProduct a) {
    __shared__ float sums[WARPS][ROWS][OUTPUTS];
    const ProductPart mine(a, blockIdx.x, OUTPUTS);
    const int layer = mine.layer, first = mine.first, outputs = mine.outputs, parts = a.inputs / EACH;
    const T *weights = static_cast<const T *>(a.weights[layer]) + int64_t(first) * a.inputs;
    const auto load = [&](uint4(&to)[OUTPUTS], int part) {
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++)
            to[o] = part < parts && first + o < outputs ? load_once(weights + int64_t(o) * a.inputs + part * EACH)
                                                          : make_uint4(0, 0, 0, 0);
    };
    let_later_kernels_begin();
    uint4 w[DEPTH][OUTPUTS];
#pragma unroll
    for (int i = 0; i < DEPTH; i++) load(w[i], threadIdx.x + i * THREADS);
    wait_for_earlier_kernels();

    float sum[ROWS][OUTPUTS] = {};
    for (int begin = threadIdx.x; begin < parts; begin += DEPTH * THREADS) {
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            const int part = begin + i * THREADS;
            if (part >= parts) break;
            float x[ROWS][EACH];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const T *row = static_cast<const T *>(a.x) + r * a.x_row;
                widen<T>(r < a.rows ? reinterpret_cast<const uint4 *>(row)[part] : make_uint4(0, 0, 0, 0), x[r]);
            }
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++) {
                float y[EACH];
                widen<T>(w[i][o], y);
#pragma unroll
                for (int r = 0; r < ROWS; r++)
#pragma unroll
                    for (int j = 0; j < EACH; j++) sum[r][o] += x[r][j] * y[j];
            }
            load(w[i], part + DEPTH * THREADS);
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) {
            for (int s = 16; s; s /= 2) sum[r][o] += __shfl_xor_sync(~0u, sum[r][o], s);
            if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32][r][o] = sum[r][o];
        }
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * OUTPUTS; i += THREADS) {
        const int r = i / OUTPUTS, o = i % OUTPUTS;
        float all = 0;
        for (int w = 0; w < WARPS; w++) all += sums[w][r][o];
        if (r < a.rows && first + o < outputs) static_cast<T *>(a.out[layer])[int64_t(r) * outputs + first + o] = T(all);
    }
}

template <typename T, int ROWS> cudaError_t of(const HeadkvProduct &a, cudaStream_t stream) {
    // Few outputs are more blocks of one each.
    if (product_blocks(a, 1) <= 2048) return launch_early<product<T, ROWS, 1, 4, 8>>(product_blocks(a, 1), THREADS, stream, a);
    return launch_early<product<T, ROWS, 4, 2, 8>>(product_blocks(a, 4), THREADS, stream, a);
}

template <typename T> cudaError_t of(const HeadkvProduct &a, cudaStream_t stream) {
    return a.rows == 1 ? of<T, 1>(a, stream) : a.rows == 2 ? of<T, 2>(a, stream) : product_of_tiles<T>(a, stream);
}

/// A block takes one row's columns of one layer.
__global__ __launch_bounds__(THREADS) void split(const __grid_constant__ HeadkvSplit a) {
    const int row = blockIdx.x / HEADKV_PRODUCTS, layer = blockIdx.x % HEADKV_PRODUCTS;
    int all = 0, before = 0;
    for (int i = 0; i < HEADKV_PRODUCTS; i++) {
        if (i < layer) before += a.widths[i] / EACH;
        all += a.widths[i] / EACH;
    }
    const int parts = a.widths[layer] / EACH;
    const uint4 *from = static_cast<const uint4 *>(a.from) + int64_t(row) * all + before;
    uint4 *to = static_cast<uint4 *>(a.to[layer]) + int64_t(row) * parts;
    let_later_kernels_begin();
    wait_for_earlier_kernels();
#pragma unroll 4
    for (int part = threadIdx.x; part < parts; part += THREADS) to[part] = from[part];
}

} // namespace
} // namespace headkv

extern "C" int32_t headkv_product(const HeadkvProduct *args, cudaStream_t stream) {
    using namespace headkv;
    if (args->rows < 1 || args->rows > HEADKV_PRODUCT_ROWS || args->inputs % EACH || args->x_row % EACH) return cudaErrorInvalidValue;
    return args->type == HEADKV_BF16 ? of<bf16>(*args, stream) : of<f16>(*args, stream);
}

extern "C" int32_t headkv_split(const HeadkvSplit *args, cudaStream_t stream) {
    using namespace headkv;
    for (int width : args->widths)
        if (width % EACH) return cudaErrorInvalidValue;
    return launch_early<split>(args->rows * HEADKV_PRODUCTS, THREADS, stream, *args);
}
