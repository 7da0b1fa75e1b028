//! One sequence under compression: all of its layers, what is kept of it, and how much that is.

use crate::{
    Compression, Policy,
    backend::Backend,
    layer::Layer,
    prefix::{Known, Recording},
    replay,
    settle::settle,
    usage::{Account, Meter},
};
use candle_core::{Result, Tensor};
use std::{
    any::Any,
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// A sequence from its first token on.
pub struct Sequence {
    policy: Arc<Policy>,
    account: Account,
    /// The prompt's last tokens that come once the others are compressed, and stay whole.
    then: usize,
    /// Whether somebody asked for that: what is kept of the others is a document's.
    document: bool,
    /// `Layer`s of the backend that the model runs on, as far as the first pass has come.
    layers: Vec<Box<dyn Held>>,
    /// The prompt's beginning, if it was read before.
    known: Option<Known>,
    /// What is remembered of the prompt, if anything is.
    recording: Option<Recording>,
    /// Tokens of the prompt that was ranked, once another one goes on from it.
    ranked: Option<usize>,
    /// Whether what is kept of the prompt is to be remembered.
    remembered: bool,
    /// The passes that say the prompt again and are still to run, once they are known.
    replays: Option<VecDeque<Vec<u32>>>,
}

/// A layer of whatever backend.
trait Held: Any + Send {
    fn fork(&self) -> Result<Box<dyn Held>>;
    fn own_bytes(&self) -> usize;
    fn kept_bytes(&self) -> usize;
    fn is_growing(&self) -> bool;
}

/// What the layers of a sequence hold at one moment; what is kept of the prompt is shared with the sequence.
pub struct Past {
    policy: Arc<Policy>,
    /// Several sequences may go on from it, and what a device holds may be for one thread at a time.
    layers: Mutex<Vec<Box<dyn Held>>>,
    bytes: usize,
    /// Tokens that the others were ranked from.
    ranked: usize,
    /// What the sequences count that go on from it: what they share, once.
    running: Mutex<Weak<Meter>>,
}

impl Past {
    /// The configuration under which it was kept.
    pub fn config(&self) -> &Compression {
        &self.policy.config
    }

    /// Tokens of the prompt that was ranked; what came behind them is held whole.
    pub fn ranked(&self) -> usize {
        self.ranked
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
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

    fn kept_bytes(&self) -> usize {
        Layer::kept_bytes(self)
    }

    fn is_growing(&self) -> bool {
        matches!(self, Self::Growing(_))
    }
}

fn fork(layers: &[Box<dyn Held>]) -> Result<Vec<Box<dyn Held>>> {
    layers.iter().map(|layer| layer.fork()).collect()
}

/// A layer of a sequence, and what goes with it.
pub struct Open<'a, B: Backend> {
    /// What the layer holds.
    pub layer: &'a mut Layer<B>,
    /// What is kept of the sequence.
    pub policy: &'a Policy,
    /// Tokens of its prompt that are compressed.
    pub prompt: usize,
    /// What the sequence holds.
    pub account: &'a Account,
    /// What is remembered of the prompt, while this layer is to be added.
    pub recording: Option<&'a mut Recording>,
}

impl Sequence {
    /// A sequence whose prompt is to come.
    pub fn new(policy: Arc<Policy>, account: Account) -> Self {
        Self {
            policy,
            account,
            then: 0,
            document: false,
            layers: Vec::new(),
            known: None,
            recording: None,
            ranked: None,
            remembered: false,
            replays: None,
        }
    }

    /// Goes on from what another prompt left, of `tokens` tokens.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn go_on(&mut self, past: &Past, tokens: usize) -> Result<()> {
        let layers = past.layers.lock().unwrap_or_else(PoisonError::into_inner);
        self.layers = fork(&layers)?;
        self.ranked = Some(past.ranked);
        self.account.reuse(tokens);
        let sum = |bytes: fn(&dyn Held) -> usize| self.layers.iter().map(|one| bytes(&**one)).sum();
        self.account.own.change(0, sum(|layer| layer.own_bytes()));
        let mut running = past.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.upgrade() {
            Some(meter) => self.account.share(meter),
            None => {
                self.account.kept.change(0, sum(|layer| layer.kept_bytes()));
                *running = Arc::downgrade(&self.account.kept);
            }
        }
        Ok(())
    }

    /// Whether it goes on from what another prompt left.
    pub fn goes_on(&self) -> bool {
        self.ranked.is_some()
    }

    /// Whether its end comes once the others are compressed because somebody asked for that.
    pub fn is_document(&self) -> bool {
        self.document
    }

    /// Whether what is kept of it is to be remembered, up to where its end comes that is not compressed.
    pub fn leaves_a_document(&self) -> bool {
        self.remembered && self.document
    }

    /// Has what is kept of the prompt remembered.
    pub fn remember(&mut self) {
        self.remembered = true;
    }

    /// What is to be remembered, given once, when all of the prompt's `tokens` tokens that are compressed have run in all
    /// layers.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn past(&mut self, tokens: usize) -> Result<Option<Past>> {
        let waits = self.layers.iter().any(|layer| layer.is_growing());
        if waits || !std::mem::take(&mut self.remembered) {
            return Ok(None);
        }
        let layers = fork(&self.layers)?;
        let held = layers
            .iter()
            .map(|layer| layer.kept_bytes() + layer.own_bytes());
        Ok(Some(Past {
            policy: self.policy.clone(),
            bytes: held.sum(),
            layers: layers.into(),
            ranked: self.ranked.unwrap_or(tokens),
            running: Mutex::default(),
        }))
    }

    /// Of its prompt, the last `then` tokens come once the others are compressed, which are a document or not.
    pub fn then(mut self, then: usize, document: bool) -> Self {
        (self.then, self.document) = (then, document);
        self
    }

    /// The part of its prompt that is compressed.
    pub fn compressed<'p>(&self, prompt: &'p [u32]) -> &'p [u32] {
        &prompt[..prompt.len().saturating_sub(self.then)]
    }

    /// The tokens of the pass that comes once `prompt`, of which nothing is left to compress, has run and is said again;
    /// `None` if it is not, or not any more. `room` is what the model's context leaves behind it.
    ///
    /// # Errors
    /// As [`replay::passes`].
    pub fn replay(&mut self, prompt: &[u32], room: usize) -> Result<Option<Vec<u32>>> {
        if !self.policy.needs().replay {
            return Ok(None);
        }
        if self.replays.is_none() {
            // A prompt that is kept whole is not ranked.
            let whole = prompt.len() <= self.policy.config.capacity;
            self.replays = Some(match whole {
                true => VecDeque::new(),
                false => replay::passes(prompt, room, &self.policy.facts)?,
            });
        }
        Ok(self
            .replays
            .as_ref()
            .and_then(|passes| passes.front().cloned()))
    }

    /// Ends a pass over all layers, which was one of the prompt's replays if `aside`; layers that waited for the last one are
    /// compressed, `tokens` tokens each.
    ///
    /// # Errors
    /// As [`settle()`].
    pub fn end_pass<B: Backend>(&mut self, backend: &B, tokens: usize, aside: bool) -> Result<()>
    where
        Layer<B>: Send,
    {
        if let (true, Some(passes)) = (aside, &mut self.replays) {
            passes.pop_front();
        }
        let ready = match &self.replays {
            Some(passes) => passes.is_empty(),
            None => !self.policy.needs().replay,
        };
        if !self.policy.waits() || !ready {
            return Ok(());
        }
        let sum = |layers: &[Box<dyn Held>], bytes: fn(&dyn Held) -> usize| -> usize {
            layers.iter().map(|layer| bytes(&**layer)).sum()
        };
        let own = sum(&self.layers, |layer| layer.own_bytes());
        let kept = sum(&self.layers, |layer| layer.kept_bytes());
        let layers = self.layers.iter_mut();
        let layers = layers.map(|held| (&mut **held as &mut dyn Any).downcast_mut::<Layer<B>>());
        let Some(mut layers) = layers.collect::<Option<Vec<_>>>() else {
            candle_core::bail!("headkv: a sequence's layers are on several devices");
        };
        settle(backend, &self.policy, &mut layers, tokens)?;
        let own_now = sum(&self.layers, |layer| layer.own_bytes());
        let kept_now = sum(&self.layers, |layer| layer.kept_bytes());
        self.account.own.change(own, own_now);
        self.account.kept.change(kept, kept_now);
        Ok(())
    }

    /// What is kept of it.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Takes in the beginning of the prompt as it was read before.
    pub fn resume(&mut self, known: Known) {
        self.account.reuse(known.tokens());
        self.known = Some(known);
    }

    /// Remembers the prompt's keys and values while it runs.
    pub fn record(&mut self, recording: Option<Recording>) {
        self.recording = recording;
    }

    /// What was remembered, once all layers have run; to be asked after the last layer of each pass.
    pub fn recorded(&mut self, layers: usize) -> Option<Recording> {
        // Every layer has taken its part in: an earlier prompt that is forgotten is not held by those that began with it.
        self.known = None;
        self.recording
            .take_if(|recording| recording.layers() == layers)
    }

    /// Another sequence with the same past, which goes on by itself; what is kept is stored once.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn fork(&self, sequence: usize, request: usize) -> Result<Self> {
        let account = self.account.fork(sequence, request);
        let layers = fork(&self.layers)?;
        account
            .own
            .change(0, layers.iter().map(|layer| layer.own_bytes()).sum());
        Ok(Self {
            policy: self.policy.clone(),
            account,
            then: self.then,
            document: self.document,
            layers,
            known: self.known.clone(),
            recording: None,
            ranked: self.ranked,
            remembered: false,
            replays: self.replays.clone(),
        })
    }

    /// A layer's own state, made at its first call for a prompt of `prompt` tokens; `like` tells the device and the type of
    /// its keys.
    ///
    /// # Errors
    /// Layers that come out of order, or another backend than the one before.
    pub fn layer<B: Backend>(
        &mut self,
        layer: usize,
        prompt: usize,
        like: &Tensor,
    ) -> Result<Open<'_, B>> {
        let prompt = prompt.saturating_sub(self.then);
        if self.layers.len() == layer {
            let begun = match &self.known {
                Some(known) => {
                    let parts = known.layer(layer, like.device(), like.dtype())?;
                    Layer::<B>::resume(&parts, prompt)?
                }
                None => Layer::default(),
            };
            self.account.own.change(0, begun.own_bytes());
            self.layers.push(Box::new(begun));
        }
        let held = self
            .layers
            .get_mut(layer)
            .map(|held| &mut **held as &mut dyn Any);
        let recording = self.recording.as_mut().filter(|r| r.wants(layer));
        match held.and_then(|held| held.downcast_mut()) {
            Some(layer) => Ok(Open {
                layer,
                policy: &self.policy,
                prompt,
                account: &self.account,
                recording,
            }),
            None => candle_core::bail!(
                "headkv: layer {layer} came out of order, or in another element type or on another device than before"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ModelShape,
        cpu::Cpu,
        prefix::{Place, Prefixes},
        usage::Ledger,
    };
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn a_prompt_that_was_read_before_is_let_go_once_its_layers_are_taken_in() {
        let model = ModelShape {
            layers: 1,
            heads: 1,
            kv_heads: 1,
            head_dim: 1,
        };
        let policy = Policy::new(&Compression::new("full", 16), model, None).unwrap();
        let tokens: Vec<u32> = (0..100).collect();
        let rows = Tensor::zeros((1, 100, 1), DType::F32, &Device::Cpu).unwrap();
        let prefixes = Prefixes::new(1 << 20, Place::Host);
        let mut recording = prefixes.record(&tokens).unwrap();
        prefixes.add(&mut recording, [&rows, &rows], 1).unwrap();
        prefixes.insert(recording);

        let account = Arc::new(Ledger::default()).open(0, 0, tokens.len());
        let mut sequence = Sequence::new(policy.into(), account);
        let known = prefixes.find(&tokens, 1).unwrap();
        let held = known.downgrade();
        sequence.resume(known);
        sequence.layer::<Cpu<f32>>(0, 100, &rows).unwrap();
        drop(prefixes);
        assert!(held.upgrade().is_some());
        sequence.recorded(1);
        assert!(held.upgrade().is_none());
    }
}
