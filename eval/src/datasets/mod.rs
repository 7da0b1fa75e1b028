//! Benchmarks as lists of samples; one benchmark per file.

mod arrow_stream;
pub mod babilong;
mod json_lines;
pub mod longbench;
pub mod needle;
mod python_list;
pub mod ruler;

use tokenizers::Tokenizer;

/// The model as far as prompts depend on it.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The model's name.
    pub model: &'a str,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Tokens of its context, prompt and answer together.
    pub context: usize,
}
