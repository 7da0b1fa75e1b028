//! Long contexts with needles in them: text to hide facts in, the facts, where they are put, and the prompt around.
#![deny(missing_docs)]

mod context;
mod error;
mod haystack;
mod needle;
mod pattern;
mod span;
mod template;
mod text;

pub use context::{Context, insert};
pub use error::Error;
pub use haystack::Haystack;
pub use needle::{Needle, read_needles, retrieval_needles};
pub use pattern::expand;
pub use span::{Span, locate};
pub use template::Template;
pub use text::generate;
