//! Attention on NVIDIA GPUs, on candle's tensors: prompts, ranking and compression, and generated tokens.
//!
//! The kernels are CUDA C++ in `kernels/`, compiled by `build.rs`; this module gives them candle's memory and stream.
//! bf16 and f16, `head_dim` 32, 64, 80, 96, 128 or 256, any number of query heads per KV head.

mod backend;
mod cache;
mod decode;
mod device;
mod ffi;
mod linear;
mod locked;
mod memory;
mod plan;
mod prompt;
mod rank;
mod sinks;
#[cfg(test)]
mod tests;

pub use backend::Cuda;
pub use cache::RaggedCache;
pub use linear::{Linear, Siblings};
pub use locked::Locked;
pub use memory::allocated_bytes;
pub use rank::DeviceScores;
