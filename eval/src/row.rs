//! One benchmark answer, as a line of `rows.jsonl`.

use serde::{Deserialize, Serialize};

/// What was asked, what came, and what it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The benchmark.
    pub benchmark: String,
    /// The model's name.
    pub model: String,
    /// The method.
    pub method: String,
    /// Tokens kept per head; none for `full`.
    pub capacity: Option<usize>,
    /// HeadKV's beta; none for the other methods.
    pub beta: Option<f64>,
    /// Tokens of context.
    pub length: usize,
    /// Where the needle stands, in percent.
    pub depth: f64,
    /// Which needle, from 0.
    pub needle: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// The question.
    pub question: String,
    /// The model's answer.
    pub answer: String,
    /// The right answer.
    pub reference: String,
    /// QA-F1, 0 to 1.
    pub f1: f64,
    /// ROUGE-1 F against the whole needle, as in the original needle test, 0 to 1.
    pub rouge1: f64,
    /// Bytes of keys and values held at the end.
    pub kv_bytes: usize,
    /// Seconds to the first token.
    pub prompt_seconds: f64,
    /// Seconds from the first token to the last.
    pub decode_seconds: f64,
    /// Tokens generated.
    pub answer_tokens: usize,
}

impl Row {
    /// The configuration's name in tables: method, capacity and, where it matters, beta.
    pub fn label(&self) -> String {
        let capacity = self.capacity.map(|c| format!("@{c}")).unwrap_or_default();
        let beta = self
            .beta
            .filter(|b| *b != 1.2)
            .map(|b| format!(" beta {b}"))
            .unwrap_or_default();
        format!("{}{capacity}{beta}", self.method)
    }
}
