//! Files that are whole or not there, JSON lines that survive a crash, and what a program says.
//!
//! Everything here knows nothing of models: it is what the project's programs share where they touch disks and terminals.
#![deny(missing_docs)]

pub mod digest;
mod error;
pub mod interrupt;
pub mod lines;
pub mod lock;
pub mod read;
pub mod shell;
pub mod size;
pub mod terminal;
pub mod whole;

pub use digest::{Digest, sha256};
pub use error::Error;
pub use lines::Lines;
pub use lock::Lock;
