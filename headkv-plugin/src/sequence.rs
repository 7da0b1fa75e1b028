//! One sequence under compression: all of its layers, what is kept of it, and how much that is.

use crate::{Policy, backend::Backend, layer::Layer, usage::Account};
use candle_core::Result;
use std::{any::Any, sync::Arc};

/// A sequence from its first token on.
pub struct Sequence {
    policy: Arc<Policy>,
    account: Account,
    /// `Layer`s of the backend that the model runs on, as far as the first pass has come.
    layers: Vec<Box<dyn Held>>,
}

/// A layer of whatever backend.
trait Held: Any + Send {
    fn fork(&self) -> Result<Box<dyn Held>>;
    fn own_bytes(&self) -> usize;
}

impl<B: Backend> Held for Layer<B>
where
    Layer<B>: Send,
{
    fn fork(&self) -> Result<Box<dyn Held>> {
        Layer::fork(self).map(|layer| Box::new(layer) as _)
    }

    fn own_bytes(&self) -> usize {
        Layer::own_bytes(self)
    }
}

/// A layer of a sequence, and what goes with it.
pub struct Open<'a, B: Backend> {
    /// What the layer holds.
    pub layer: &'a mut Layer<B>,
    /// What is kept of the sequence.
    pub policy: &'a Policy,
    /// What the sequence holds.
    pub account: &'a Account,
}

impl Sequence {
    /// A sequence whose prompt is to come.
    pub fn new(policy: Arc<Policy>, account: Account) -> Self {
        Self {
            policy,
            account,
            layers: Vec::new(),
        }
    }

    /// Another sequence with the same past, which goes on by itself; what is kept is stored once.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn fork(&self, sequence: usize, request: usize) -> Result<Self> {
        let account = self.account.fork(sequence, request);
        let layers = self.layers.iter().map(|layer| layer.fork());
        let layers = layers.collect::<Result<Vec<_>>>()?;
        account
            .own
            .change(0, layers.iter().map(|layer| layer.own_bytes()).sum());
        Ok(Self {
            policy: self.policy.clone(),
            account,
            layers,
        })
    }

    /// A layer's own state, made at its first call.
    ///
    /// # Errors
    /// Layers that come out of order, or another backend than the one before.
    pub fn layer<B: Backend>(&mut self, layer: usize) -> Result<Open<'_, B>> {
        if self.layers.len() == layer {
            self.layers.push(Box::new(Layer::<B>::default()));
        }
        let held = self
            .layers
            .get_mut(layer)
            .map(|held| &mut **held as &mut dyn Any);
        match held.and_then(|held| held.downcast_mut()) {
            Some(layer) => Ok(Open {
                layer,
                policy: &self.policy,
                account: &self.account,
            }),
            None => candle_core::bail!(
                "headkv: layer {layer} came out of order, or in another element type or on another device than before"
            ),
        }
    }
}
