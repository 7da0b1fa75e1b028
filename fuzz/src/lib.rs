//! What the targets try, compiled without the runtime: only parts of its crates know no model, and a fuzzer that has to carry
//! the rest is slow to build and to run.
#![allow(dead_code)]

#[path = "../../engine/src/check/mod.rs"]
pub mod check;
#[path = "../../tests/src/damage.rs"]
pub mod damage;
#[path = "../../head-scoring/src/session/outcome.rs"]
pub mod outcome;
#[path = "../../engine/src/state/file.rs"]
pub mod state;

/// The readers that [`damage`] tries.
mod readers {
    pub use crate::{check, outcome, state};
}

#[path = "../../serve/src/damage.rs"]
pub mod body;
#[path = "../../serve/src/compression.rs"]
mod compression;
#[path = "../../serve/src/error.rs"]
mod error;
#[path = "../../serve/src/messages.rs"]
mod messages;
#[path = "../../serve/src/request.rs"]
mod request;
