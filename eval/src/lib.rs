//! Benchmarks of KV compression, and the reports that show them.
#![deny(missing_docs)]

#[cfg(feature = "engine")]
pub mod bench;
pub mod home;
pub mod metrics;
#[cfg(feature = "engine")]
pub mod needle;
pub mod report;
pub mod row;
pub mod table;
