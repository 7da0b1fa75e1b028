//! Head-level KV cache compression for mistral.rs: each attention head keeps as many cache entries as it deserves.
//!
//! What is kept is decided once, for every device; a [`Backend`](backend::Backend) attends, ranks and stores:
//!
//! ```text
//! scores -> methods (budgets), ranking -> selection -> policy -> layer -> hook
//!                    attention, cache (CPU), cuda -> backend ^
//! ```
//!
//! [`Compression`] is the whole configuration. [`HeadKv`] brings it into a model that mistral.rs loads; nothing outside
//! `hook` knows the runtime.
//!
//! The method and its formulas are from Fu et al., "Not All Heads Matter" (ICLR 2025, arXiv 2410.19258).
#![deny(missing_docs)]

mod apportion;
pub mod attention;
pub mod backend;
pub mod cache;
pub mod config;
pub mod conversation;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
pub mod growing;
mod heads;
#[cfg(feature = "mistralrs")]
pub mod hook;
pub mod layer;
pub mod linear;
pub mod methods;
mod policy;
pub mod prefix;
pub mod ranking;
pub mod replay;
pub mod rotary;
pub mod scores;
pub mod selection;
pub mod sequence;
pub mod settle;
mod shape;
pub mod usage;
pub mod watch;

/// The pinned version that this crate's tensors are of.
pub use candle_core;
/// The patched and pinned version that [`HeadKv`] hooks.
#[cfg(feature = "mistralrs")]
pub use mistralrs_core;

pub use apportion::apportion;
pub use config::Compression;
pub use error::Error;
#[cfg(feature = "mistralrs")]
pub use hook::HeadKv;
pub use policy::Policy;
pub use scores::{HeadScores, ScoreLists, ScoreSource, model_name};
pub use shape::{AttentionShape, ModelShape};
