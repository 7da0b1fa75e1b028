//! How often earlier prompts were of use.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How often prompts were read on from earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reused {
    /// Prompts that were looked up.
    pub prompts: u64,
    /// Their tokens.
    pub prompt_tokens: u64,
    /// Those of them whose beginning was known.
    pub hits: u64,
    /// Tokens that did not run again.
    pub tokens: u64,
}

/// Counts it.
#[derive(Default)]
pub(crate) struct Tally {
    prompts: AtomicU64,
    prompt_tokens: AtomicU64,
    hits: AtomicU64,
    tokens: AtomicU64,
}

impl Tally {
    /// A prompt of that many tokens is looked up.
    pub fn asked(&self, prompt_tokens: usize) {
        self.prompts.fetch_add(1, Relaxed);
        self.prompt_tokens.fetch_add(prompt_tokens as u64, Relaxed);
    }

    /// So many of its tokens need not run.
    pub fn found(&self, tokens: usize) {
        self.hits.fetch_add(1, Relaxed);
        self.tokens.fetch_add(tokens as u64, Relaxed);
    }

    /// The counts so far.
    pub fn read(&self) -> Reused {
        Reused {
            prompts: self.prompts.load(Relaxed),
            prompt_tokens: self.prompt_tokens.load(Relaxed),
            hits: self.hits.load(Relaxed),
            tokens: self.tokens.load(Relaxed),
        }
    }
}
