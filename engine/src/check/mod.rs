//! What is known of a model before the runtime reads it: on damaged files that would panic, abort, or blame another thing.
//!
//! The checks of single files know no other module of this crate. They read headers only, and no more memory is taken for
//! one than some ten times its bytes: every count in it is compared with the bytes that are there before anything is
//! allocated.

pub mod config;
pub mod gguf;
pub mod guard;
pub mod safetensors;
pub mod tokenizer;

/// The most positions of a context. The runtime computes tables of rotations for all of them when it loads a model: more
/// would take gigabytes.
pub const MOST_POSITIONS: u64 = 1 << 23;
