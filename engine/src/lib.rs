//! Loads a model into mistral.rs with an attention hook, and generates with it: one blocking call per batch.
//!
//! ```no_run
//! # fn main() -> Result<(), headkv_engine::Error> {
//! use headkv_engine::{Attention, Engine, LoadOptions, Request};
//! use headkv_plugin::Compression;
//!
//! let options = LoadOptions::new("models/tiny");
//! let engine = Engine::load(options, Attention::Compressed(Compression::new("snapkv", 64)))?;
//! let answers = engine.generate(&[Request::new(engine.encode("Once upon a time")?, 20)])?;
//! println!("{} ({} bytes of KV cache)", answers[0].text, answers[0].kv_bytes);
//! # Ok(()) }
//! ```
#![deny(missing_docs)]

pub mod check;
mod error;
mod files;
mod generate;
pub mod hub;
mod load;
mod record;
mod rotary;

pub use error::Error;
pub use files::ModelFiles;
pub use generate::{Generation, Request};
pub use load::{Attention, Device, Engine, LoadOptions};
