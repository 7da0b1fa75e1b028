//! Attention on the CPU, on plain slices: prompts, new tokens over a ragged cache, and the observation window's scores.
//!
//! All three read f32, bf16 or f16 and accumulate in f32; query heads that share a KV head share one read of it. SIMD
//! instructions are chosen at run time.

mod decode;
mod element;
mod exponential;
mod matrix;
mod panels;
mod prefill;
#[cfg(test)]
mod reference;
mod segment;
mod softmax;
mod window;

pub use decode::{DecodeUnit, decode_attention};
pub use element::Element;
pub use prefill::prefill_attention;
pub use segment::Segment;
pub use window::{window_peaks, window_scores};
