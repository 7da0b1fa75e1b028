// Kernels that begin before the one before them has ended (programmatic dependent launch, from compute capability 9.0 on): the
// launch itself, and what does not depend on earlier kernels, then cost nothing.
#pragma once
#include <cuda_runtime_api.h>

namespace headkv {

/// Returns once the kernels before have ended and what they wrote can be seen; every thread calls it before it reads or
/// writes what they do.
__device__ inline void wait_for_earlier_kernels() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Lets the next kernel begin, if it is launched so.
__device__ inline void let_later_kernels_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/// Launches a kernel that waits by itself. Code for older GPUs does not wait, and does not begin early.
template <auto KERNEL, typename Args>
cudaError_t launch_early(int blocks, int threads, cudaStream_t stream, const Args &args) {
    static const bool waits = [] {
        cudaFuncAttributes attributes;
        return cudaFuncGetAttributes(&attributes, KERNEL) == cudaSuccess && attributes.ptxVersion >= 90;
    }();
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(blocks), config.blockDim = dim3(threads), config.stream = stream;
    config.attrs = &early, config.numAttrs = waits;
    return cudaLaunchKernelEx(&config, KERNEL, args);
}

} // namespace headkv
