// The ways to compute a prompt's attention; prompt.cu chooses.
#pragma once
#include "headkv.h"

namespace headkv {

/// On Hopper (compute capability 9.0), for head_dim 64 and 128 and without a soft cap.
///
/// Anything else, and tensors that the copy engine cannot read (rows that are not 16-byte aligned), is
/// cudaErrorNotSupported; nothing is enqueued then.
cudaError_t prompt_hopper(const HeadkvPrompt &args, cudaStream_t stream);

} // namespace headkv
