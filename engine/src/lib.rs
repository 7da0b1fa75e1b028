//! Loads a model into mistral.rs with an attention hook, and generates with it, a batch of requests at a time.
//!
//! ```
//! # fn main() -> Result<(), headkv_engine::Error> {
//! use headkv_engine::{Attention, Engine, LoadOptions, Request};
//! use headkv_plugin::Compression;
//!
//! let options = LoadOptions::new("../models/tiny");
//! let engine = Engine::load(options, Attention::Compressed(Compression::snapkv(64)))?;
//! let prompt = engine.encode("Once upon a time")?;
//! let answers = engine.generate(&[Request::new(prompt.clone(), 8)])?;
//! println!("{} ({} bytes of KV cache)", answers[0].text, answers[0].kv_bytes);
//! assert_eq!(answers[0].prompt_tokens, prompt.len());
//! # Ok(()) }
//! ```
//!
//! Every call has an asynchronous form, which the blocking one waits for; both may be called from any thread, inside a
//! runtime or outside, and requests of several callers decode together. [`Engine::stream`] gives an answer as it comes.
//! [`Engine::mistral`] is the runtime's own engine, for everything else.
#![deny(missing_docs)]

pub mod check;
mod device;
mod error;
mod facts;
mod files;
mod finite;
mod generate;
pub mod hub;
mod isq;
mod load;
mod record;
mod rotary;
pub mod state;
mod stop;
mod stream;
mod wait;

/// The pinned version that models run on.
pub use candle_core;
/// The compression's own crate.
pub use headkv_plugin;
/// The patched and pinned runtime.
pub use mistralrs_core;

pub use device::Device;
pub use error::Error;
pub use files::ModelFiles;
pub use finite::Finite;
pub use generate::{Generation, Request};
pub use isq::Isq;
pub use load::{Attention, Engine, LoadOptions};
pub use stop::Stops;
pub use stream::{Answer, Piece};
