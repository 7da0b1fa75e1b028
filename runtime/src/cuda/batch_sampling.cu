// What sampling needs of a batch's logits (rows, vocabulary), so that few bytes go to the host: the last of the largest
// logits, or the most probable tokens and the sum of all exponentials. One block per row.

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include <stdint.h>

namespace {

constexpr int THREADS = 1024;
constexpr int WARPS = THREADS / 32;
constexpr uint32_t NOT_A_NUMBER = 0xffffffffu;
// Logits over the temperature are sorted into bins by their distance to the largest, so many to a unit.
constexpr int BINS = 2048;
constexpr float PER_UNIT = 64.f;
constexpr int CAPACITY = 512;

// A row's answer: HEADER words, then CAPACITY pairs of token and logit.
constexpr int HEADER = 4;
constexpr int WORDS = HEADER + 2 * CAPACITY;

struct Rule {
  float scale;    // 1 / temperature
  float top_p;    // the sum to reach, infinite if there is no such limit
  uint32_t top_k; // the number to reach, the largest integer if there is no such limit
  float least;    // exponentials below this are not looked at
};

__device__ float value(float x) { return x; }
__device__ float value(__half x) { return __half2float(x); }
__device__ float value(__nv_bfloat16 x) { return __bfloat162float(x); }

// Integers that order as floats do; fast math flushes small floats when it compares them, this does not.
__device__ uint32_t ordered(float x) {
  uint32_t bits = __float_as_uint(x);
  if (bits == 0x80000000u) bits = 0; // -0 equals 0
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}
__device__ float unordered(uint32_t key) {
  return __uint_as_float(key >> 31 ? key ^ 0x80000000u : ~key);
}
__device__ bool is_nan(float x) { return (__float_as_uint(x) & 0x7fffffffu) > 0x7f800000u; }

// The largest logit's key above its last token; all ones where a logit is not a number.
template <typename T> __device__ uint64_t largest(const T *logits, int vocabulary) {
  __shared__ uint64_t shared[WARPS];
  uint64_t best = 0;
  for (int i = threadIdx.x; i < vocabulary; i += THREADS) {
    const float x = value(logits[i]);
    const uint64_t key = is_nan(x) ? ~0ull : (uint64_t)ordered(x) << 32 | (uint32_t)i;
    best = key > best ? key : best;
  }
  for (int lane = 16; lane; lane /= 2) {
    const uint64_t other = __shfl_xor_sync(~0u, best, lane);
    best = other > best ? other : best;
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = best;
  __syncthreads();
  for (int warp = 0; warp < WARPS; warp++) best = shared[warp] > best ? shared[warp] : best;
  return best;
}

// {token, logit} of each row.
template <typename T>
__global__ void __launch_bounds__(THREADS) largest_kernel(const T *logits, int vocabulary, uint32_t *out) {
  const uint64_t best = largest(logits + (int64_t)blockIdx.x * vocabulary, vocabulary);
  if (threadIdx.x) return;
  out[2 * blockIdx.x] = best == ~0ull ? NOT_A_NUMBER : (uint32_t)best;
  out[2 * blockIdx.x + 1] = __float_as_uint(unordered(best >> 32));
}

// {number listed, sum of exponentials, upper bound of its error in 32-bit floats, bins listed}, {token, logit} ..
template <typename T>
__global__ void __launch_bounds__(THREADS)
top_kernel(const T *logits, int vocabulary, const Rule *rules, uint32_t *out) {
  __shared__ int bins[BINS];
  __shared__ double sums[WARPS], errors[WARPS];
  __shared__ int listed, end;
  logits += (int64_t)blockIdx.x * vocabulary;
  out += (int64_t)blockIdx.x * WORDS;
  const Rule rule = rules[blockIdx.x];
  for (int i = threadIdx.x; i < BINS; i += THREADS) bins[i] = 0;
  if (threadIdx.x == 0) listed = 0;
  const uint64_t best = largest(logits, vocabulary); // synchronizes
  if (best == ~0ull) {
    if (threadIdx.x == 0) out[0] = NOT_A_NUMBER;
    return;
  }
  const float most = __fmul_rn(unordered(best >> 32), rule.scale);

  double sum = 0, error = 0;
  for (int i = threadIdx.x; i < vocabulary; i += THREADS) {
    const float below = most - __fmul_rn(value(logits[i]), rule.scale);
    const float weight = __expf(-below);
    sum += weight;
    error += fminf(weight, 5.9604645e-8f); // of one addition: half a bit of the sum, which is 1 or more
    if (weight >= rule.least && below < BINS / PER_UNIT) atomicAdd(&bins[(int)(below * PER_UNIT)], 1);
  }
  for (int lane = 16; lane; lane /= 2) {
    sum += __shfl_xor_sync(~0u, sum, lane);
    error += __shfl_xor_sync(~0u, error, lane);
  }
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum, errors[threadIdx.x / 32] = error;
  __syncthreads();
  if (threadIdx.x == 0) {
    sum = error = 0;
    for (int warp = 0; warp < WARPS; warp++) sum += sums[warp], error += errors[warp];
    // Bins until one of the limits is surely met, and one more, so that what is left out is less probable.
    const float wanted = 1.002f * rule.top_p * (float)sum;
    float reached = 0;
    uint32_t count = 0;
    int bin = 0;
    while (bin < BINS && reached < wanted && count < rule.top_k) {
      reached += bins[bin] * __expf(-(bin + 1) / PER_UNIT);
      count += bins[bin++];
    }
    end = min(bin + 1, BINS);
    out[1] = __float_as_uint((float)sum);
    out[2] = __float_as_uint((float)error);
    out[3] = end;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < vocabulary; i += THREADS) {
    const float logit = value(logits[i]);
    const float below = most - __fmul_rn(logit, rule.scale);
    if (below < BINS / PER_UNIT && (int)(below * PER_UNIT) < end) {
      const int at = atomicAdd(&listed, 1);
      if (at < CAPACITY) {
        out[HEADER + 2 * at] = i;
        out[HEADER + 2 * at + 1] = __float_as_uint(logit);
      }
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) out[0] = listed;
}

} // namespace

// `type`: 0 f32, 1 f16, 2 bf16. `out` is (rows, 2).
extern "C" void batch_sampling_largest(const void *logits, int type, int rows, int vocabulary, uint32_t *out,
                                       int64_t stream) {
  const cudaStream_t s = (cudaStream_t)stream;
  if (type == 0) largest_kernel<<<rows, THREADS, 0, s>>>((const float *)logits, vocabulary, out);
  if (type == 1) largest_kernel<<<rows, THREADS, 0, s>>>((const __half *)logits, vocabulary, out);
  if (type == 2) largest_kernel<<<rows, THREADS, 0, s>>>((const __nv_bfloat16 *)logits, vocabulary, out);
}

// `rules` are four words a row, see Rule; `out` is (rows, 4 + 2 * 512).
extern "C" void batch_sampling_top(const void *logits, int type, int rows, int vocabulary, const void *rules,
                                   uint32_t *out, int64_t stream) {
  const cudaStream_t s = (cudaStream_t)stream;
  const Rule *r = (const Rule *)rules;
  if (type == 0) top_kernel<<<rows, THREADS, 0, s>>>((const float *)logits, vocabulary, r, out);
  if (type == 1) top_kernel<<<rows, THREADS, 0, s>>>((const __half *)logits, vocabulary, r, out);
  if (type == 2) top_kernel<<<rows, THREADS, 0, s>>>((const __nv_bfloat16 *)logits, vocabulary, r, out);
}
