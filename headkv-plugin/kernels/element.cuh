// bf16 and f16 on tensor cores, and the few instructions that CUDA C++ has no name for.
#pragma once
#include "headkv.h"
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

namespace headkv {

using bf16 = __nv_bfloat16;
using f16 = __half;

constexpr float LOG2E = 1.4426950408889634f;

/// Two floats as a register of two elements, `low` in the lower half.
template <typename T> __device__ inline uint32_t pack(float low, float high);
template <> __device__ inline uint32_t pack<bf16>(float low, float high) {
    uint32_t x;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    return x;
}
template <> __device__ inline uint32_t pack<f16>(float low, float high) {
    uint32_t x;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    return x;
}

/// The two elements of a register, the lower half first.
template <typename T> __device__ inline float2 unpack(uint32_t x);
template <> __device__ inline float2 unpack<bf16>(uint32_t x) {
    return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000));
}
template <> __device__ inline float2 unpack<f16>(uint32_t x) { return __half22float2(reinterpret_cast<const half2 &>(x)); }

/// c += a b, on 16 x 16 and 16 x 8 elements.
template <typename T>
__device__ inline void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1);
template <>
__device__ inline void mma<bf16>(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                 uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <>
__device__ inline void mma<f16>(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// Transposes an 8 x 8 matrix that is spread over a warp as an mma fragment.
__device__ inline uint32_t transpose8x8(uint32_t x) {
    uint32_t y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// 16 bytes that are read once: they should not displace what is read again.
__device__ inline uint4 load_once(const void *p) {
    uint4 x;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "l"(p));
    return x;
}

/// A logit times log2(e), ready for exp2; `cap` 0 means none.
struct Logit {
    float scale, cap;

    __device__ inline float operator()(float dot) const {
        return cap > 0 ? cap * LOG2E * tanhf(dot * scale / cap) : dot * (scale * LOG2E);
    }
};

/// Calls `launch.template run<T, D>()` for the element type and head_dim, or fails.
template <typename Launch> cudaError_t dispatch(int type, int head_dim, const Launch &launch) {
#define HEADKV_DIM(D)                                                                                                 \
    case D:                                                                                                           \
        return type == HEADKV_BF16 ? launch.template run<bf16, D>() : launch.template run<f16, D>();
    if (type != HEADKV_BF16 && type != HEADKV_F16) return cudaErrorInvalidValue;
    switch (head_dim) {
        HEADKV_DIM(32)
        HEADKV_DIM(64)
        HEADKV_DIM(80)
        HEADKV_DIM(96)
        HEADKV_DIM(128)
        HEADKV_DIM(256)
    }
#undef HEADKV_DIM
    return cudaErrorInvalidValue;
}

} // namespace headkv
