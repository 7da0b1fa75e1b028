//! Configurations in Rust code: a method and its capacity first, what differs from its defaults after it.

use super::{Compression, Granularity};
use crate::{ScoreSource, scores::Kind};

impl Compression {
    /// Nothing is dropped.
    pub fn full() -> Self {
        Self {
            method: "full".into(),
            ..Self::default()
        }
    }

    /// Attention sinks and the most recent tokens, `capacity` tokens a head.
    pub fn streaming(capacity: usize) -> Self {
        Self::new("streaming", capacity)
    }

    /// The window's attention, `capacity` tokens for every head.
    pub fn snapkv(capacity: usize) -> Self {
        Self::new("snapkv", capacity)
    }

    /// As [`Self::snapkv`], with a capacity that falls by layer.
    pub fn pyramidkv(capacity: usize) -> Self {
        Self::new("pyramidkv", capacity)
    }

    /// As [`Self::snapkv`], with the capacity shared inside a layer.
    pub fn adakv(capacity: usize) -> Self {
        Self::new("adakv", capacity)
    }

    /// The paper's method: `capacity` tokens a head on average, given by head scores ([`Self::with_scores`]).
    pub fn headkv(capacity: usize) -> Self {
        Self::new("headkv", capacity)
    }

    /// The project's own: [`Self::headkv`]'s budget by layer, shared inside it by what the prompt shows.
    pub fn headkv_plus(capacity: usize) -> Self {
        Self::new("headkv-plus", capacity)
    }

    /// Sets the head scores: the path of a file, or [`crate::HeadScores`] themselves.
    pub fn with_scores(mut self, scores: impl Into<ScoreSource>) -> Self {
        self.scores = Some(scores.into());
        self
    }

    /// Sets the kind of the default score file.
    pub fn head_choice(mut self, kind: Kind) -> Self {
        self.head_choice = Some(kind);
        self
    }

    /// Sets HeadKV's `beta`, 1 or more: 1 / `beta` of the budget goes by importance.
    pub fn beta(mut self, beta: f64) -> Self {
        self.beta = Some(beta);
        self
    }

    /// Sets the tokens at the prompt's end that are always kept.
    pub fn window(mut self, tokens: usize) -> Self {
        self.window = tokens;
        self
    }

    /// Sets how positions are ranked, by a name of [`crate::ranking`].
    pub fn ranking(mut self, name: impl Into<String>) -> Self {
        self.ranking = Some(name.into());
        self
    }

    /// Sets for which heads a set of positions is kept.
    pub fn granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }
}
