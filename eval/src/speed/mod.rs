//! What `bench` measured: rows of speed, latency and memory, and their tables.

mod rows;
mod tables;

pub use rows::{FILE, Key, Measured, Row, read};
pub use tables::{Plain, comparison, tables};
