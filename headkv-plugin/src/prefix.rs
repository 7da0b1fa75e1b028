//! Prompts that have been read, to be read on from: the whole keys and values of the most recent ones, in host memory.
//!
//! A prompt that begins as an earlier one did attends to what that one left instead of running it again. What is kept of
//! it is ranked anew over all of it, so that the answer is that of a prompt read from its beginning (up to rounding: a
//! short pass adds up in another order than a long one).

use candle_core::{Device, Result, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared beginnings are worth reading on from if they have so many tokens, and end at a multiple of them.
pub const BLOCK: usize = 64;

/// The prompts that are remembered, up to a number of bytes; the ones not used for longest are forgotten.
pub struct Prefixes {
    limit: usize,
    /// Least recently used first.
    read: Mutex<Vec<Arc<Prefix>>>,
}

/// One prompt's tokens, keys and values.
pub struct Prefix {
    tokens: Vec<u32>,
    /// By layer: keys and values, `(kv_heads, tokens, head_dim)`, in host memory.
    layers: Vec<[Tensor; 2]>,
}

/// The beginning of a prompt that was read before.
#[derive(Clone)]
pub struct Known {
    prefix: Arc<Prefix>,
    tokens: usize,
}

/// A prompt that is being read, layer by layer.
pub struct Recording {
    tokens: Vec<u32>,
    layers: Vec<[Tensor; 2]>,
}

impl Prefixes {
    /// Remembers up to `limit` bytes; none are remembered with 0.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            read: Mutex::default(),
        }
    }

    /// Whether anything is remembered at all.
    pub fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// The longest beginning of a prompt that was read before, short of its last `rest` tokens: they run, so that their
    /// queries can rank.
    pub fn find(&self, prompt: &[u32], rest: usize) -> Option<Known> {
        let mut read = self.read();
        let shared = |prefix: &Arc<Prefix>| {
            let most = &prompt[..prompt.len().saturating_sub(rest)];
            let same = prefix.tokens.iter().zip(most).take_while(|(a, b)| a == b);
            same.count() / BLOCK * BLOCK
        };
        let (at, tokens) = read
            .iter()
            .map(shared)
            .enumerate()
            .max_by_key(|(_, tokens)| *tokens)?;
        if tokens == 0 {
            return None;
        }
        let prefix = read.remove(at);
        read.push(prefix.clone());
        Some(Known { prefix, tokens })
    }

    /// Remembers a prompt, in the place of those that it goes on from; one that is too large is not.
    pub fn insert(&self, recording: Recording) {
        let Recording { tokens, layers } = recording;
        let prefix = Arc::new(Prefix { tokens, layers });
        if prefix.bytes() > self.limit {
            return;
        }
        let mut read = self.read();
        read.retain(|other| !prefix.tokens.starts_with(&other.tokens));
        read.push(prefix);
        let mut bytes: usize = read.iter().map(|prefix| prefix.bytes()).sum();
        let forgotten = read.iter().take_while(|prefix| {
            let over = bytes > self.limit;
            bytes -= if over { prefix.bytes() } else { 0 };
            over
        });
        let forgotten = forgotten.count();
        read.drain(..forgotten);
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.read().iter().map(|prefix| prefix.bytes()).sum()
    }

    fn read(&self) -> MutexGuard<'_, Vec<Arc<Prefix>>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prefix {
    fn bytes(&self) -> usize {
        let layers = self.layers.iter().flatten();
        layers
            .map(|x| x.elem_count() * x.dtype().size_in_bytes())
            .sum()
    }
}

impl Known {
    /// How many tokens are known.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    #[cfg(test)]
    pub(crate) fn downgrade(&self) -> std::sync::Weak<Prefix> {
        Arc::downgrade(&self.prefix)
    }

    /// A layer's keys and values of these tokens, `(kv_heads, tokens, head_dim)`, on that device.
    ///
    /// # Errors
    /// A layer that the model did not have, and memory that runs out.
    pub fn layer(&self, layer: usize, device: &Device) -> Result<[Tensor; 2]> {
        let Some([k, v]) = self.prefix.layers.get(layer) else {
            candle_core::bail!("headkv: a prompt that was read has no layer {layer}");
        };
        let part = |x: &Tensor| x.narrow(1, 0, self.tokens)?.to_device(device);
        Ok([part(k)?, part(v)?])
    }
}

impl Recording {
    /// A prompt of these tokens.
    pub fn new(tokens: &[u32]) -> Self {
        Self {
            tokens: tokens.to_vec(),
            layers: Vec::new(),
        }
    }

    /// Takes in the next layer's keys and values, `(kv_heads, tokens, head_dim)`.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn add(&mut self, k: &Tensor, v: &Tensor) -> Result<()> {
        // A copy: what came is part of a batch, or has room for more.
        let held = |x: &Tensor| x.to_device(&Device::Cpu)?.force_contiguous();
        self.layers.push([held(k)?, held(v)?]);
        Ok(())
    }

    /// Layers so far.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    /// A prompt whose keys and values take 8 bytes a token.
    fn recording(tokens: &[u32]) -> Recording {
        let mut recording = Recording::new(tokens);
        let x = Tensor::zeros((1, tokens.len(), 1), DType::F32, &Device::Cpu).unwrap();
        recording.add(&x, &x).unwrap();
        recording
    }

    fn known(prefixes: &Prefixes, prompt: &[u32]) -> usize {
        prefixes.find(prompt, 1).map_or(0, |known| known.tokens())
    }

    #[test]
    fn the_longest_beginning_is_found_in_whole_blocks() {
        let prefixes = Prefixes::new(1 << 20);
        let first: Vec<u32> = (0..200).collect();
        prefixes.insert(recording(&first));
        prefixes.insert(recording(&first[..100]));
        assert_eq!(known(&prefixes, &first), 192);
        assert_eq!(known(&prefixes, &first[..129]), 128);
        // The last tokens of a prompt must run.
        assert_eq!(known(&prefixes, &first[..128]), 64);
        let rest = |tokens: usize| prefixes.find(&first[..130], tokens).unwrap().tokens();
        assert_eq!((rest(2), rest(3)), (128, 64));
        let mut other = first.clone();
        other[70] = 7;
        assert_eq!(known(&prefixes, &other), 64);
        other[3] = 7;
        assert_eq!(known(&prefixes, &other), 0);
    }

    #[test]
    fn the_bytes_are_bounded_and_the_least_recently_used_goes_first() {
        let prefixes = Prefixes::new(2500);
        let prompts = [0, 1000, 2000].map(|from| (from..from + 100).collect::<Vec<u32>>());
        for prompt in &prompts {
            prefixes.insert(recording(prompt));
        }
        assert_eq!(prefixes.bytes(), 2400);
        assert_eq!(known(&prefixes, &prompts[0]), 64);
        prefixes.insert(recording(&(3000..3100).collect::<Vec<u32>>()));
        assert_eq!(prefixes.bytes(), 2400);
        assert_eq!(known(&prefixes, &prompts[0]), 64, "used last");
        assert_eq!(known(&prefixes, &prompts[1]), 0);
        prefixes.insert(recording(&(0..1000).collect::<Vec<u32>>()));
        assert_eq!(prefixes.bytes(), 2400, "larger than the limit");
    }

    #[test]
    fn a_conversation_takes_the_place_of_its_earlier_turns() {
        let prefixes = Prefixes::new(1 << 20);
        let turns: Vec<u32> = (0..300).collect();
        for end in [100, 200, 300] {
            prefixes.insert(recording(&turns[..end]));
        }
        assert_eq!(prefixes.bytes(), 300 * 8);
    }
}
