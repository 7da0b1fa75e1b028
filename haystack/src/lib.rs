//! Long contexts with needles in them: text, facts, where they are put, where they are found again, and what answers are
//! worth.
//!
//! ```
//! use headkv_haystack::{Haystack, Inserter, Template, needle};
//! use tokenizers::Tokenizer;
//!
//! # fn main() -> Result<(), headkv_haystack::Error> {
//! # let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny/tokenizer.json");
//! let tokenizer = Tokenizer::from_file(file)?;
//! let inserter = Inserter::new(&tokenizer, &Haystack::generated(0), 1000)?;
//! let needle = needle::san_francisco();
//! let context = inserter.insert(&needle.needle, 1000, 40.0)?;
//! let prompt = Template::plain().fill(&context.text, &needle.question);
//! assert!(prompt.contains(&needle.needle));
//! # Ok(()) }
//! ```
#![deny(missing_docs)]

pub mod answer;
mod error;
pub mod haystack;
pub mod held_out;
pub mod insert;
pub mod needle;
pub mod pattern;
pub mod span;
pub mod template;
pub mod text;
pub mod tokenizer;

pub use error::Error;
pub use haystack::{Haystack, Tokenized};
pub use insert::{Context, Inserter};
pub use needle::Needle;
pub use pattern::Patterns;
pub use span::Span;
pub use template::Template;
