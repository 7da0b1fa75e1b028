//! How much the KV caches of the most recent sequences hold.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// Sequences remembered: a server runs for months, and nobody asks for older ones.
const REMEMBERED: usize = 1024;

/// What one sequence's KV cache holds, over all layers, and what it cost to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// The engine's number of the sequence.
    pub seq_id: usize,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Bytes of the compressed part.
    pub kept_bytes: usize,
    /// Bytes of the generated tokens' blocks.
    pub tail_bytes: usize,
    /// Seconds spent on the prompt's attention.
    pub attention_seconds: f64,
    /// Seconds spent on ranking, selecting and copying what is kept.
    pub selection_seconds: f64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    seq_id: usize,
    prompt_tokens: usize,
    pub kept_bytes: AtomicUsize,
    pub tail_bytes: AtomicUsize,
    pub attention_nanos: AtomicU64,
    pub selection_nanos: AtomicU64,
}

/// Counters of the last sequences, in the order in which they began.
#[derive(Default)]
pub(super) struct Recent(VecDeque<Arc<Counters>>);

impl Recent {
    /// The sequence's counters; `fresh` ones for its first layer, shared by the others.
    pub fn counters(&mut self, seq_id: usize, prompt_tokens: usize, fresh: bool) -> Arc<Counters> {
        if let Some(known) = self.0.iter().rev().find(|c| c.seq_id == seq_id)
            && !fresh
        {
            return known.clone();
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        let counters = Arc::new(Counters {
            seq_id,
            prompt_tokens,
            ..Counters::default()
        });
        self.0.push_back(counters.clone());
        counters
    }

    pub fn list(&self) -> Vec<Usage> {
        let seconds = |nanos: &AtomicU64| nanos.load(Relaxed) as f64 / 1e9;
        let usage = |c: &Arc<Counters>| Usage {
            seq_id: c.seq_id,
            prompt_tokens: c.prompt_tokens,
            kept_bytes: c.kept_bytes.load(Relaxed),
            tail_bytes: c.tail_bytes.load(Relaxed),
            attention_seconds: seconds(&c.attention_nanos),
            selection_seconds: seconds(&c.selection_nanos),
        };
        self.0.iter().map(usage).collect()
    }
}
