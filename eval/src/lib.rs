//! Benchmarks of KV compression: what is asked, what an answer is worth, who answers, and the report.
//!
//! ```text
//! datasets -> samples -> runner (a backend answers, metrics score) -> rows.jsonl -> report
//! ```
//!
//! A [`Backend`] answers prompts: a model in this process (feature `engine`), or any OpenAI-compatible server
//! ([`endpoint`]). The metrics know nothing of models, and the report reads rows only.
#![deny(missing_docs)]

#[cfg(feature = "engine")]
pub mod bench;
#[cfg(feature = "engine")]
pub mod cli;
#[cfg(feature = "engine")]
mod commit;
pub mod datasets;
pub mod endpoint;
#[cfg(feature = "engine")]
pub mod engine;
mod error;
pub mod fetch;
#[cfg(feature = "engine")]
mod gpu_memory;
pub mod grid;
mod guard;
pub mod job;
pub mod kept;
#[cfg(feature = "engine")]
mod machine;
pub mod metrics;
mod progress;
pub mod protocol;
pub mod report;
pub mod row;
pub mod runner;
pub mod sample;
#[cfg(feature = "engine")]
pub mod session;
pub mod shard;
pub mod speed;
pub mod store;
pub mod suggest;
pub mod table;
pub mod variant;

pub use error::Error;
pub use job::{Backend, Completion, Failure, Job};
pub use row::Row;
pub use sample::Sample;
pub use variant::{Reuse, Variant};
