//! Attention on the CPU, on plain slices: prompts, generated tokens over a ragged cache, and the window's scores.
//!
//! All three read f32, bf16 or f16 and accumulate in f32; query heads that share a KV head share one read of it. SIMD
//! instructions are chosen at run time.

mod decode;
mod element;
mod exponential;
mod matrix;
mod panels;
mod prompt;
#[cfg(test)]
mod reference;
mod softmax;
mod window;

pub use decode::{DecodeUnit, decode_attention};
pub use element::Element;
pub use prompt::{PromptShape, prompt_attention};
pub use window::{WindowShape, window_scores};
