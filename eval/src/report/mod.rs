//! The report on a folder of results: one HTML file, Markdown and CSV, all from the same numbers.

mod charts;
mod failures;
mod figures;
mod heatmap;
mod html;
mod interval;
mod lead;
mod names;
mod numbers;
mod palette;
mod provenance;
mod setup;
mod text;

pub use failures::{Answer, Example, Failures, Piece, failures};
pub use figures::{Cell, Curves, Figures, Map, Point, Series, TableFigures, figures};
pub use html::html;
pub use interval::{Cluster, Interval, Value, interval};
pub use numbers::{Line, Table, tables};
pub use setup::Setup;
pub use text::{csv, markdown, speed};

/// How much the page shows.
#[derive(clap::Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Failures shown for each data set
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub failures: usize,
    /// Show prompts of any length whole; otherwise those of more than 40 kB are cut to their ends and the answer
    #[arg(long)]
    pub whole_prompts: bool,
}

impl Default for Options {
    fn default() -> Self {
        crate::grid::defaults()
    }
}
