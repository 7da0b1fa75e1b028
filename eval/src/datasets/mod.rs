//! Benchmarks as lists of samples; one benchmark per file.

mod arrow_stream;
pub mod babilong;
mod json_lines;
pub mod longbench;
pub mod needle;
mod place;
mod python_list;
pub mod ruler;
mod target;

pub(crate) use target::UNKNOWN_TEMPLATE;
pub use target::{ChatTemplate, Target};
