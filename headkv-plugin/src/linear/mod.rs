//! Linear layers on the CPU: weights of 16 or 32 bits ([`Linear`]) and quantized ones, which stay so ([`Quantized`]).

mod blocks;
mod widened;

pub use blocks::Quantized;
pub use widened::{FEW, Linear};
