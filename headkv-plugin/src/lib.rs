//! Head-level KV cache compression for mistral.rs: each attention head keeps as many cache entries as it deserves.
//!
//! The data flows one way:
//!
//! ```text
//! scores -> budget (methods) -> selection -> ragged cache -> attention
//! ```
//!
//! [`Compression`] is the whole configuration. [`HeadKv`] brings it into a model that mistral.rs loads; everything else
//! works on plain slices and knows nothing of the runtime.
//!
//! The method and its formulas are from Fu et al., "Not All Heads Matter" (ICLR 2025, arXiv 2410.19258).
#![deny(missing_docs)]

pub mod attention;
pub mod cache;
pub mod config;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
#[cfg(feature = "mistralrs")]
pub mod hook;
pub mod linear;
pub mod methods;
pub mod scores;
pub mod selection;

pub use config::Compression;
pub use error::Error;
#[cfg(feature = "mistralrs")]
pub use hook::HeadKv;
pub use scores::{HeadScores, ScoreLists, model_name};
