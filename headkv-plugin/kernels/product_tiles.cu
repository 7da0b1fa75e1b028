// A matrix of weights times a few rows, on tensor cores: what linear layers do for a small batch's generated tokens.
//
// As in product.cu its time is that of reading the weights once, and a block asks for its first ones before the kernel before
// has ended. Lanes read 16 consecutive bytes of weights and rows and call them the elements that the instruction wants
// (tile.cuh): a product does not care about the order of its terms.
#include "early.cuh"
#include "element.cuh"
#include "product.cuh"

namespace headkv {
namespace {

/// Of eight settings the fastest over the layers of Llama-3-8B on one H200, for 4 to 16 rows.
constexpr int WARPS = 8, DEPTH = 2;
/// Outputs of a block, and inputs of a warp's load.
constexpr int OUTPUTS = 16, CHUNK = 32;

/// A block has OUTPUTS outputs of one layer, whose inputs its WARPS share among them, for 8 ROWS rows; a lane has DEPTH loads
/// of each on their way.
template <typename T, int ROWS> __global__ __launch_bounds__(WARPS * 32) void tiles(const __grid_constant__ HeadkvProduct a) {
    __shared__ float sums[WARPS][8 * ROWS][OUTPUTS + 1];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, c = lane % 4;
    const ProductPart mine(a, blockIdx.x, OUTPUTS);
    const T *weights = static_cast<const T *>(a.weights[mine.layer]), *x = static_cast<const T *>(a.x);
    const int chunks = (a.inputs + CHUNK - 1) / CHUNK;
    const auto load_weights = [&](uint4(&to)[2], int chunk) {
        const int d = chunk * CHUNK + c * 8;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int output = mine.first + i * 8 + r;
            to[i] = output < mine.outputs && d < a.inputs ? load_once(weights + int64_t(output) * a.inputs + d)
                                                          : make_uint4(0, 0, 0, 0);
        }
    };
    const auto load_rows = [&](uint4(&to)[ROWS], int chunk) {
        const int d = chunk * CHUNK + c * 8;
#pragma unroll
        for (int n = 0; n < ROWS; n++) {
            const int row = n * 8 + r;
            to[n] = row < a.rows && d < a.inputs ? *reinterpret_cast<const uint4 *>(x + row * a.x_row + d)
                                                 : make_uint4(0, 0, 0, 0);
        }
    };
    let_later_kernels_begin();
    uint4 w[DEPTH][2], y[DEPTH][ROWS];
#pragma unroll
    for (int i = 0; i < DEPTH; i++) load_weights(w[i], warp + i * WARPS);
    wait_for_earlier_kernels();
#pragma unroll
    for (int i = 0; i < DEPTH; i++) load_rows(y[i], warp + i * WARPS);

    float sum[ROWS][4] = {};
    for (int begin = warp; begin < chunks; begin += DEPTH * WARPS) {
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            const int chunk = begin + i * WARPS;
            if (chunk >= chunks) break;
#pragma unroll
            for (int n = 0; n < ROWS; n++) {
                const uint4 &upper = w[i][0], &lower = w[i][1];
                mma<T>(sum[n], upper.x, lower.x, upper.y, lower.y, y[i][n].x, y[i][n].y);
                mma<T>(sum[n], upper.z, lower.z, upper.w, lower.w, y[i][n].z, y[i][n].w);
            }
            load_weights(w[i], chunk + DEPTH * WARPS);
            load_rows(y[i], chunk + DEPTH * WARPS);
        }
    }
    // Lane (r, c) has outputs r and r + 8 of rows 2c and 2c + 1.
#pragma unroll
    for (int n = 0; n < ROWS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[warp][n * 8 + 2 * c + i % 2][r + i / 2 * 8] = sum[n][i];
    __syncthreads();
    T *out = static_cast<T *>(a.out[mine.layer]);
    for (int i = threadIdx.x; i < a.rows * OUTPUTS; i += WARPS * 32) {
        const int row = i / OUTPUTS, o = i % OUTPUTS;
        float all = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) all += sums[w][row][o];
        if (mine.first + o < mine.outputs) out[int64_t(row) * mine.outputs + mine.first + o] = T(all);
    }
}

template <typename T, int ROWS> cudaError_t run(const HeadkvProduct &a, cudaStream_t stream) {
    return launch_early<tiles<T, ROWS>>(product_blocks(a, OUTPUTS), WARPS * 32, stream, a);
}

} // namespace

template <typename T> cudaError_t product_of_tiles(const HeadkvProduct &a, cudaStream_t stream) {
    return a.rows <= 8 ? run<T, 1>(a, stream) : run<T, 2>(a, stream);
}

template cudaError_t product_of_tiles<bf16>(const HeadkvProduct &, cudaStream_t);
template cudaError_t product_of_tiles<f16>(const HeadkvProduct &, cudaStream_t);

} // namespace headkv
