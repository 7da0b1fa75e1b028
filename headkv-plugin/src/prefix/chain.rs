//! A prompt that was read: what it shares with an earlier one is stored there, the rest here.

use super::{room::Share, rows::Rows};
use candle_core::{DType, Device, Result, Tensor};
use std::{collections::HashMap, sync::Arc};

/// Prompts that go on from each other, at most; the next one stores all of its own tokens.
pub const DEPTH: usize = 256;

/// One prompt's tokens, keys and values, as far as no earlier prompt has them.
pub struct Prefix {
    parent: Option<Known>,
    /// Behind the parent's.
    tokens: Vec<u32>,
    /// By layer: keys and values of `tokens`.
    layers: Vec<[Rows; 2]>,
    share: Share,
}

/// The beginning of a prompt that was read before.
#[derive(Clone)]
pub struct Known {
    prefix: Arc<Prefix>,
    tokens: usize,
}

impl Prefix {
    pub fn new(
        parent: Option<Known>,
        tokens: Vec<u32>,
        layers: Vec<[Rows; 2]>,
        share: Share,
    ) -> Self {
        Self {
            parent,
            tokens,
            layers,
            share,
        }
    }

    /// Tokens that the parent has.
    fn start(&self) -> usize {
        self.parent.as_ref().map_or(0, |parent| parent.tokens)
    }

    /// Tokens in all.
    pub fn len(&self) -> usize {
        self.start() + self.tokens.len()
    }

    /// Bytes of what is stored here.
    pub fn bytes(&self) -> usize {
        self.share.bytes()
    }

    /// The prompt that this one goes on from.
    pub fn parent(&self) -> Option<&Arc<Prefix>> {
        self.parent.as_ref().map(|known| &known.prefix)
    }

    /// All token ids.
    pub fn ids(&self) -> Vec<u32> {
        let mut ids = self.parent.as_ref().map_or_else(Vec::new, Known::ids);
        ids.extend(&self.tokens);
        ids
    }

    fn depth(&self) -> usize {
        self.parent().map_or(0, |parent| parent.depth() + 1)
    }
}

/// Compares one prompt with many that were read; what several of these have in common is compared once.
pub struct Comparison<'a> {
    prompt: &'a [u32],
    known: HashMap<*const Prefix, usize>,
}

impl<'a> Comparison<'a> {
    pub fn new(prompt: &'a [u32]) -> Self {
        Self {
            prompt,
            known: HashMap::new(),
        }
    }

    /// Tokens at the beginning that both have.
    pub fn shared(&mut self, prefix: &Prefix) -> usize {
        if let Some(shared) = self.known.get(&std::ptr::from_ref(prefix)) {
            return *shared;
        }
        let before = match &prefix.parent {
            Some(parent) => self.shared(&parent.prefix).min(parent.tokens),
            None => 0,
        };
        let mut shared = before;
        if before == prefix.start() {
            let rest = self.prompt.get(before..).unwrap_or_default();
            let same = prefix.tokens.iter().zip(rest);
            shared += same.take_while(|(a, b)| a == b).count();
        }
        self.known.insert(prefix, shared);
        shared
    }
}

impl Known {
    /// The first tokens of a prompt, without those behind them: they belong to whoever stores the last of these.
    pub fn new(mut prefix: Arc<Prefix>, tokens: usize) -> Self {
        while let Some(parent) = prefix.parent.as_ref().filter(|one| tokens <= one.tokens) {
            prefix = parent.prefix.clone();
        }
        Self { prefix, tokens }
    }

    /// How many tokens are known.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether another prompt may go on from here without all of its tokens.
    pub(super) fn can_grow(&self) -> bool {
        self.prefix.depth() < DEPTH
    }

    #[cfg(test)]
    pub(crate) fn downgrade(&self) -> std::sync::Weak<Prefix> {
        Arc::downgrade(&self.prefix)
    }

    /// The token ids.
    pub fn ids(&self) -> Vec<u32> {
        let mut ids = self.prefix.ids();
        ids.truncate(self.tokens);
        ids
    }

    /// A layer's keys and values of these tokens in parts, the first ones first; each `(kv_heads, tokens, head_dim)`, on
    /// that device and in that type.
    ///
    /// # Errors
    /// A layer that the model did not have, and memory that runs out.
    pub fn layer(&self, layer: usize, device: &Device, dtype: DType) -> Result<Vec<[Tensor; 2]>> {
        let mut parts = match &self.prefix.parent {
            Some(parent) => parent.layer(layer, device, dtype)?,
            None => Vec::new(),
        };
        let Some([k, v]) = self.prefix.layers.get(layer) else {
            candle_core::bail!("headkv: a prompt that was read has no layer {layer}");
        };
        let own = self.tokens - self.prefix.start();
        parts.push([k.first(own, device, dtype)?, v.first(own, device, dtype)?]);
        Ok(parts)
    }

    pub(super) fn layers(&self) -> usize {
        self.prefix.layers.len()
    }

    pub(super) fn dtype(&self) -> Option<DType> {
        let [k, _] = self.prefix.layers.first()?;
        Some(k.dtype())
    }
}
