//! A prompt that is being read, to be remembered.

use super::{
    BLOCK,
    chain::{Known, Prefix},
    room::Share,
    rows::{Place, Rows},
};
use candle_core::{Result, Tensor};

/// A prompt that is being read, layer by layer: what no earlier prompt has of it, in whole blocks.
pub struct Recording {
    known: Option<Known>,
    /// Behind what is known.
    tokens: Vec<u32>,
    layers: Vec<[Rows; 2]>,
    share: Option<Share>,
    given_up: bool,
}

impl Recording {
    /// A prompt of these tokens, whose first ones are known; none if it leaves no block to remember.
    pub(super) fn new(prompt: &[u32], known: Option<Known>) -> Option<Self> {
        let known = known.filter(Known::can_grow);
        let from = known.as_ref().map_or(0, Known::tokens);
        let tokens = prompt.get(from..prompt.len() / BLOCK * BLOCK)?;
        (!tokens.is_empty()).then(|| Self {
            known,
            tokens: tokens.to_vec(),
            layers: Vec::new(),
            share: None,
            given_up: false,
        })
    }

    /// Whether the next layer to come is this one.
    pub fn wants(&self, layer: usize) -> bool {
        !self.given_up && self.layers.len() == layer
    }

    /// Takes in the next layer's keys and values of the whole prompt, `(kv_heads, tokens, head_dim)`; `room` gives the room
    /// for all layers, if there is any.
    pub(super) fn add(
        &mut self,
        k: &Tensor,
        v: &Tensor,
        layers: usize,
        place: Place,
        room: impl FnOnce(usize) -> Option<Share>,
    ) -> Result<()> {
        let from = self.known.as_ref().map_or(0, Known::tokens);
        let own = |x: &Tensor| x.narrow(1, from, self.tokens.len());
        let (k, v) = (own(k)?, own(v)?);
        if self.share.is_none() {
            let bytes = |x: &Tensor| x.elem_count() * x.dtype().size_in_bytes();
            self.share = room(layers * (bytes(&k) + bytes(&v)));
            if self.share.is_none() {
                self.given_up = true;
                return Ok(());
            }
        }
        let held = [Rows::copy(&k, place)?, Rows::copy(&v, place)?];
        self.layers.push(held);
        Ok(())
    }

    /// Layers so far.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// What there is to remember; none if there was no room for it.
    pub(super) fn finish(self) -> Option<Prefix> {
        let share = self.share?;
        Some(Prefix::new(self.known, self.tokens, self.layers, share))
    }
}
