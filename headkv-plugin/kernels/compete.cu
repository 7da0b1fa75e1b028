// How many positions each head keeps where the positions of all heads compete, by radix selection over all of them.
//
// The `floor` best of a head are sure. Only numbers of positions are wanted, so that nothing needs to be told apart that has
// the same weighted score: a head has `max(0, n - floor)` in the competition of the n that are above a threshold.
#include "element.cuh"
#include "order.cuh"

namespace headkv {
namespace {

constexpr int THREADS = 1024;
constexpr int WARPS = THREADS / 32;
/// Scores that a block counts.
constexpr int CHUNK = 8192;

/// One pass, and what the passes leave each other, zeroed before the first.
struct Pass {
    HeadkvCompete a;
    int shift, width;

    static size_t bytes(int heads) { return sizeof(uint32_t) * (1 + size_t(heads) * (1 + BINS)); }

    __device__ uint32_t *prefix() const { return static_cast<uint32_t *>(a.workspace); }
    /// By head: how many have a larger prefix.
    __device__ uint32_t *above() const { return prefix() + 1; }
    /// How many of a head have this prefix, by their next digit.
    __device__ uint32_t *bins(int head) const { return above() + a.heads + head * BINS; }
};

/// Block (x, y): chunk x of head y.
__global__ __launch_bounds__(THREADS) void count(const __grid_constant__ Pass pass) {
    __shared__ uint32_t bins[BINS];
    const int head = blockIdx.y, begin = blockIdx.x * CHUNK, end = min(begin + CHUNK, pass.a.candidates);
    for (int i = threadIdx.x; i < BINS; i += THREADS) bins[i] = 0;
    __syncthreads();
    const uint32_t mask = (1u << pass.width) - 1, known = pass.shift + pass.width == 32 ? 0 : ~0u << (pass.shift + pass.width);
    const uint32_t prefix = *pass.prefix();
    const float weight = pass.a.weights[head];
    for (int i = begin + threadIdx.x; i < end; i += THREADS) {
        const uint32_t key = order(__fmul_rn(pass.a.scores[head * pass.a.stride + i], weight));
        if ((key & known) == prefix) atomicAdd(&bins[key >> pass.shift & mask], 1);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += THREADS)
        if (bins[i]) atomicAdd(&pass.bins(head)[i], bins[i]);
}

__device__ inline uint32_t beyond(uint32_t n, uint32_t floor) { return n > floor ? n - floor : 0; }

/// One block: decides the next digit, with the last one how many each head keeps.
__global__ __launch_bounds__(THREADS) void decide(const __grid_constant__ Pass pass) {
    /// By digit: positions in the competition whose digit is that or larger.
    __shared__ uint32_t from[BINS + 1], digit;
    const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32, heads = pass.a.heads;
    const uint32_t floor = pass.a.floor;
    for (int i = tid; i <= BINS; i += THREADS) from[i] = 0;
    __syncthreads();
    for (int head = warp; head < heads; head += WARPS) {
        const uint32_t *bins = pass.bins(head);
        uint32_t n = pass.above()[head];
        if (lane == 0) atomicAdd(&from[BINS], beyond(n, floor));
        for (int last = BINS - 1; last > 0; last -= 32) {
            uint32_t sum = bins[last - lane];
            for (int s = 1; s < 32; s *= 2) {
                const uint32_t other = __shfl_up_sync(~0u, sum, s);
                if (lane >= s) sum += other;
            }
            atomicAdd(&from[last - lane], beyond(n + sum, floor));
            n += __shfl_sync(~0u, sum, 31);
        }
    }
    __syncthreads();
    for (int i = tid; i < BINS; i += THREADS)
        if (from[i] >= pass.a.open && from[i + 1] < pass.a.open) digit = i;
    __syncthreads();
    const bool last = pass.shift == 0;
    // `from` is read before it is written again.
    const uint32_t left = pass.a.open - from[digit + 1];
    __syncthreads();
    for (int head = warp; head < heads; head += WARPS) {
        uint32_t *bins = pass.bins(head), sum = 0;
        for (int i = lane; i < BINS; i += 32) sum += i > digit ? bins[i] : 0;
        for (int s = 16; s; s /= 2) sum += __shfl_xor_sync(~0u, sum, s);
        const uint32_t n = pass.above()[head] + sum, same = bins[digit];
        __syncwarp();
        for (int i = lane; i < BINS; i += 32) bins[i] = 0;
        if (lane == 0) {
            pass.above()[head] = n;
            // Of the last digit: how many more are in the competition.
            if (last) bins[0] = beyond(n + same, floor) - beyond(n, floor);
        }
    }
    __syncthreads();
    if (tid == 0) {
        *pass.prefix() |= digit << pass.shift;
        // Of equal ones, those of the first heads.
        uint32_t more = left;
        for (int head = 0; last && head < heads; head++) {
            const uint32_t given = min(more, pass.bins(head)[0]);
            pass.a.counts[head] = floor + beyond(pass.above()[head], floor) + given;
            more -= given;
        }
    }
}

} // namespace
} // namespace headkv

extern "C" size_t headkv_compete_workspace(int32_t heads) { return headkv::Pass::bytes(heads); }

extern "C" int32_t headkv_compete(const HeadkvCompete *args, cudaStream_t stream) {
    using namespace headkv;
    const int64_t most = int64_t(args->heads) * (args->candidates - args->floor);
    if (args->floor > args->candidates || args->open < 1 || args->open > most) return cudaErrorInvalidValue;
    const cudaError_t error = cudaMemsetAsync(args->workspace, 0, Pass::bytes(args->heads), stream);
    if (error != cudaSuccess) return error;
    const dim3 grid((args->candidates + CHUNK - 1) / CHUNK, args->heads);
    for (int shift = 21, width = 11; width;) {
        const Pass pass = {*args, shift, width};
        count<<<grid, THREADS, 0, stream>>>(pass);
        decide<<<1, THREADS, 0, stream>>>(pass);
        width = shift < 11 ? shift : 11;
        shift -= width;
    }
    return cudaGetLastError();
}
