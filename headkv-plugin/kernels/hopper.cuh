// Hopper's own instructions (compute capability 9.0a): barriers in shared memory, bulk tensor copies, and the matrix
// products of a warpgroup (PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions").
#pragma once
#include "element.cuh"
#include <cuda.h>

namespace headkv {

constexpr int WARPGROUP = 128;
/// Bytes of a row of a tile in shared memory: what the 128-byte swizzle works on. Wider rows are several panels.
constexpr int PANEL_BYTES = 128;

/// A barrier in shared memory, by its address: a phase ends when all arrivals and all announced bytes have come.
struct Barrier {
    uint32_t at;

    __device__ inline void init(int arrivals) const {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals));
    }
    __device__ inline void arrive() const {
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
    }
    /// Arrives, and announces bytes that copies will bring.
    __device__ inline void expect(int bytes) const {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
    }
    /// Waits for the end of the phase of this parity; before the first phase the one of parity 1 counts as ended.
    __device__ inline void wait(uint32_t parity) const {
        asm volatile("{\n"
                     ".reg .pred done;\n"
                     "again:\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                     "@!done bra again;\n"
                     "}" ::"r"(at),
                     "r"(parity)
                     : "memory");
    }
};

/// Makes the barriers' initial state visible to the copy engine.
__device__ inline void fence_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// Copies the box at (element, token, head, sequence) to shared memory; elements past the tensor's end become zeros.
__device__ inline void copy_box(uint32_t to, const CUtensorMap &map, Barrier done, int element, int token, int head,
                                int sequence) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(to),
                 "l"(&map), "r"(element), "r"(token), "r"(head), "r"(sequence), "r"(done.at)
                 : "memory");
}

/// Sets the warpgroup's registers per thread.
template <int REGISTERS> __device__ inline void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS> __device__ inline void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

/// One of the block's 16 barriers between warps: the waiting and the arriving ones together are `threads`.
__device__ inline void wait_for_turn(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ inline void give_turn(int barrier, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

/// Describes an operand in panels of 128-byte rows with the 128-byte swizzle; groups of 8 rows are 1,024 bytes apart.
///
/// Along the rows (keys and queries, whose products run along a row) only the address matters; across them (values)
/// `panel` is the distance of two panels in bytes.
__device__ inline uint64_t operand(uint32_t at, uint32_t panel = 16) {
    constexpr uint64_t SWIZZLE_128B = uint64_t(1) << 62, EIGHT_ROWS = uint64_t(8 * PANEL_BYTES / 16) << 32;
    return SWIZZLE_128B | EIGHT_ROWS | uint64_t(panel / 16) << 16 | (at & 0x3ffff) / 16;
}

/// Orders this thread's register accesses before the products that follow.
__device__ inline void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most PENDING groups of products are under way; `result` is what may be read then.
template <int PENDING, int N> __device__ inline void wait_products(float (&result)[N]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
    // Ties the registers to this place: nothing that reads them moves above the wait.
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(result[i])::"memory");
}

/// Keeps the computation of `x`, which is never negative, above what follows: ptxas else sinks it below the next wait,
/// where the products under way no longer cover it. `scratch` is in shared memory; nothing is written.
__device__ inline void finish_before(float x, uint32_t scratch) {
    asm volatile("{\n.reg .pred never;\nsetp.lt.f32 never, %1, 0f00000000;\n@never st.shared.f32 [%0], %1;\n}" ::"r"(
                     scratch),
                 "f"(x)
                 : "memory");
}

// c += a b for 64 rows, 16 terms and N columns, by a warpgroup; `keep` false starts from zero. Lane 4 r + c of warp w
// holds, at c[4 n ..], columns 8 n + 2 c and + 1 of rows 16 w + r (two) and 16 w + r + 8 (two).
#define HEADKV_C8(c, i)                                                                                               \
    "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]),       \
        "+f"(c[i + 7])
#define HEADKV_C32(c) HEADKV_C8(c, 0), HEADKV_C8(c, 8), HEADKV_C8(c, 16), HEADKV_C8(c, 24)
#define HEADKV_C64(c) HEADKV_C32(c), HEADKV_C8(c, 32), HEADKV_C8(c, 40), HEADKV_C8(c, 48), HEADKV_C8(c, 56)
#define HEADKV_P32                                                                                                    \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"  \
    "%30,%31"
#define HEADKV_P64                                                                                                    \
    HEADKV_P32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,"    \
               "%56,%57,%58,%59,%60,%61,%62,%63"

/// Both operands in shared memory, the terms along their rows.
template <typename T> __device__ inline void multiply(float (&c)[64], uint64_t a, uint64_t b, bool keep);
/// The left operand in registers, as `mma` takes it; the right one in shared memory, the terms across its rows.
template <typename T> __device__ inline void multiply(float (&c)[64], const uint32_t (&a)[4], uint64_t b);
template <typename T> __device__ inline void multiply(float (&c)[32], const uint32_t (&a)[4], uint64_t b);

#define HEADKV_MULTIPLY(T, TYPE)                                                                                      \
    template <> __device__ inline void multiply<T>(float (&c)[64], uint64_t a, uint64_t b, bool keep) {               \
        asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %66, 0;\n"                                               \
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " {" HEADKV_P64                     \
                     "}, %64, %65, keep, 1, 1, 0, 0;\n}"                                                              \
                     : HEADKV_C64(c)                                                                                  \
                     : "l"(a), "l"(b), "r"(int(keep)));                                                               \
    }                                                                                                                 \
    template <> __device__ inline void multiply<T>(float (&c)[64], const uint32_t (&a)[4], uint64_t b) {              \
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " {" HEADKV_P64                     \
                     "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"                                                         \
                     : HEADKV_C64(c)                                                                                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                           \
    }                                                                                                                 \
    template <> __device__ inline void multiply<T>(float (&c)[32], const uint32_t (&a)[4], uint64_t b) {              \
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {" HEADKV_P32                      \
                     "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"                                                         \
                     : HEADKV_C32(c)                                                                                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                           \
    }
HEADKV_MULTIPLY(bf16, "bf16")
HEADKV_MULTIPLY(f16, "f16")
#undef HEADKV_MULTIPLY

} // namespace headkv
