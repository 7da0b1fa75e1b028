//! The report on a folder of results: one HTML file, Markdown and CSV, all from the same numbers.

mod charts;
mod failures;
mod html;
mod numbers;
mod palette;
mod text;

pub use html::html;
pub use numbers::{Line, Table, tables};
pub use text::{csv, markdown};
