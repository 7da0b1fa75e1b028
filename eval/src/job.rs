//! What a backend is asked and what it answers.

use crate::{Error, Variant, kept::Runs, sample::Prompt};

/// One prompt to be answered under one variant.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The prompt.
    pub prompt: &'a Prompt,
    /// The prompt of the turn before, whose tokens this one begins with.
    pub before: Option<&'a Prompt>,
    /// The model may not end its answer before so many tokens.
    pub min_tokens: usize,
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// Texts that end the answer, besides the model's own end tokens; they are not part of it.
    pub stop: &'a [String],
}

/// An answer and what it took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// The answer's text.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub tokens: usize,
    /// Tokens of the prompt that did not run, because an earlier prompt had left them; where that is known.
    pub reused_tokens: Option<usize>,
    /// Bytes of earlier prompts that were remembered when it was answered, where they are.
    pub held_bytes: Option<usize>,
    /// Seconds from the request to the first token, where they are known apart.
    pub prompt_seconds: Option<f64>,
    /// Seconds from the first token to the last, or for the whole request where the prompt's are unknown.
    pub decode_seconds: f64,
    /// Bytes of keys and values held at the end, where they are known.
    pub kv_bytes: Option<usize>,
    /// The part of them that the prompt left.
    pub kept_bytes: Option<usize>,
    /// What was kept of the prompt's text, where that is known.
    pub kept: Option<Runs>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// This prompt failed; others may not.
    #[error("{0}")]
    Row(String),
    /// No prompt can be answered.
    #[error("{0}")]
    Fatal(String),
    /// The run was told to end before the answer was there.
    #[error("stopped")]
    Stopped,
}

/// Answers prompts, greedily: the same job gets the same answer.
pub trait Backend: Sync {
    /// Prepares for the jobs of that variant, which all come after this call and before the next one.
    ///
    /// # Errors
    /// A variant that the model cannot run.
    fn configure(&self, variant: &Variant) -> Result<(), Error>;

    /// Answers one job.
    ///
    /// # Errors
    /// A [`Failure`]; the backend has already retried what was worth it.
    fn complete(&self, job: &Job) -> Result<Completion, Failure>;

    /// Answers up to [`Backend::batch`] jobs, one outcome for each in their order; one that fails stops no other.
    fn complete_all(&self, jobs: &[Job]) -> Vec<Result<Completion, Failure>> {
        jobs.iter().map(|job| self.complete(job)).collect()
    }

    /// How many jobs it takes in one call.
    fn batch(&self) -> usize {
        1
    }

    /// How many calls it takes at the same time.
    fn concurrency(&self) -> usize {
        1
    }
}
