//! Benchmarks as lists of samples; one benchmark per file.

mod arrow_stream;
pub mod babilong;
mod json_lines;
pub mod longbench;
pub mod needle;
mod python_list;
pub mod ruler;

use crate::Error;
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

impl Target<'_> {
    /// Refuses contexts of `length` tokens whose question and answer do not fit the model.
    fn check_length(&self, length: usize, question: &str, answer: usize) -> Result<(), Error> {
        let question = self.tokenizer.encode_fast(question, false)?.len();
        if length + question + answer <= self.context {
            return Ok(());
        }
        Err(Error::Option(format!(
            "a context of {length} tokens, {question} of question and {answer} of answer do not fit the {} that {} can \
             read; lower --lengths",
            self.context, self.model
        )))
    }
}
