//! Shapes: of a model, and of one layer's attention.

use crate::heads::Granularity;
use std::sync::Arc;

/// The attention shape of a model, the same in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// Number of layers.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// KV heads per layer.
    pub kv_heads: usize,
    /// Elements of one head's key, and of its value.
    pub head_dim: usize,
}

impl ModelShape {
    /// Heads per layer for which a set of positions is kept.
    pub fn stored_heads(&self, granularity: Granularity) -> usize {
        granularity.stored_heads(self.heads, self.kv_heads)
    }

    /// The group size: query heads that share one KV head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// What one layer's attention computes with; the numbers of tokens follow from the operands' lengths.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// KV heads; query head `h` reads KV head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Elements of one head's key, and of its value.
    pub head_dim: usize,
    /// Factor on the logits.
    pub scale: f32,
    /// Soft cap `c` on the scaled logits, `x -> c tanh(x / c)`.
    pub softcap: Option<f32>,
    /// Tokens that a sliding window shows to each query, its own included; `None` shows all.
    pub window: Option<usize>,
    /// Attention sinks: by query head, a logit that takes weight in the softmax and brings no value.
    pub sinks: Option<Arc<[f32]>>,
}

impl AttentionShape {
    /// The group size: query heads that share one KV head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Heads for which a set of positions is kept.
    pub fn stored_heads(&self, granularity: Granularity) -> usize {
        granularity.stored_heads(self.heads, self.kv_heads)
    }

    /// The sinks of `count` query heads from `first` on; none where the model has none.
    pub fn sinks_of(&self, first: usize, count: usize) -> &[f32] {
        self.sinks
            .as_deref()
            .map_or(&[], |sinks| &sinks[first..first + count])
    }

    /// Tokens of `keys`, `(kv_heads, tokens, head_dim)` or the values of the same shape.
    pub fn tokens<T>(&self, keys: &[T]) -> usize {
        keys.len() / (self.kv_heads * self.head_dim)
    }
}
