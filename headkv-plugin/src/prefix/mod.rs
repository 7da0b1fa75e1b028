//! Prompts that have been read, to be read on from: the whole keys and values of the most recent ones, in host memory or a
//! GPU's.
//!
//! A prompt that begins as an earlier one did attends to what that one left instead of running it again. What is kept of
//! it is ranked anew over all of it, so that the answer is that of a prompt read from its beginning (up to rounding: a
//! short pass adds up in another order than a long one). Nothing here depends on what is kept: prompts of different
//! configurations go on from each other.
//!
//! What prompts have in common is stored once (`chain.rs`), and the bytes held never exceed the limit, those of prompts
//! that are being read included.

mod chain;
mod recording;
pub(crate) mod room;
mod rows;
mod state;
pub(crate) mod tally;

pub use chain::Known;
pub use recording::Recording;
pub use rows::Place;
pub use state::State;
pub use tally::Reused;

use candle_core::{Device, Result, Tensor};
use chain::{Comparison, Prefix};
use room::{Room, Share};
use rows::Rows;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tally::Tally;

/// Shared beginnings are worth reading on from if they have so many tokens, and end at a multiple of them.
pub const BLOCK: usize = 64;

/// The prompts that are remembered, up to a number of bytes; the ones not used for longest are forgotten.
pub struct Prefixes {
    room: Arc<Room>,
    shelf: Mutex<Shelf>,
    tally: Tally,
}

#[derive(Default)]
struct Shelf {
    /// Least recently used first.
    read: Vec<Arc<Prefix>>,
    /// Never forgotten.
    pinned: Vec<Arc<Prefix>>,
    /// Where those go that come.
    place: Place,
}

impl Shelf {
    fn empty(place: Place) -> Self {
        Self {
            place,
            ..Self::default()
        }
    }
}

impl Prefixes {
    /// Remembers up to `limit` bytes in that place; none are remembered with 0.
    pub fn new(limit: usize, place: Place) -> Self {
        Self {
            room: Room::new(limit),
            shelf: Shelf::empty(place).into(),
            tally: Tally::default(),
        }
    }

    /// Whether anything is remembered at all.
    pub fn is_on(&self) -> bool {
        self.room.limit() > 0
    }

    /// The most bytes that are remembered.
    pub fn limit(&self) -> usize {
        self.room.limit()
    }

    /// Forgets everything, and remembers up to `limit` bytes in that place from now on.
    pub fn restart(&self, limit: usize, place: Place) {
        self.room.allow(limit);
        *self.shelf() = Shelf::empty(place);
    }

    /// The longest beginning of a prompt that was read before, short of its last `last` tokens (of at least one).
    pub fn find(&self, prompt: &[u32], last: usize) -> Option<Known> {
        self.tally.asked(prompt.len());
        let known = self.look(prompt, last)?;
        self.tally.found(known.tokens());
        Some(known)
    }

    fn look(&self, prompt: &[u32], last: usize) -> Option<Known> {
        let most = &prompt[..prompt.len().saturating_sub(last.max(1))];
        let mut shelf = self.shelf();
        let mut comparison = Comparison::new(most);
        let mut longest = |prefixes: &[Arc<Prefix>]| {
            let shared = |prefix: &Arc<Prefix>| comparison.shared(prefix) / BLOCK * BLOCK;
            let all = prefixes.iter().map(shared).enumerate();
            all.max_by_key(|(_, tokens)| *tokens)
                .filter(|(_, tokens)| *tokens > 0)
        };
        let pinned = longest(&shelf.pinned);
        let (prefix, tokens) = match (longest(&shelf.read), pinned) {
            (Some((at, tokens)), pinned) if pinned.is_none_or(|(_, other)| other < tokens) => {
                let prefix = shelf.read.remove(at);
                shelf.read.push(prefix.clone());
                (prefix, tokens)
            }
            (_, Some((at, tokens))) => (shelf.pinned[at].clone(), tokens),
            _ => return None,
        };
        Some(Known::new(prefix, tokens))
    }

    /// Tokens of a prompt's beginning that are known.
    pub fn known(&self, prompt: &[u32]) -> usize {
        self.look(prompt, 1).map_or(0, |known| known.tokens())
    }

    /// Remembers a prompt while it runs; none if no block of it is new.
    pub fn record(&self, prompt: &[u32]) -> Option<Recording> {
        let known = self.look(&behind(prompt), 1);
        if known.as_ref().map_or(0, Known::tokens) >= prompt.len() / BLOCK * BLOCK {
            return None;
        }
        Recording::new(prompt, known)
    }

    /// Takes in the next of `layers` layers of a prompt, `(kv_heads, tokens, head_dim)`; a prompt for which there is no room
    /// is not remembered.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn add(
        &self,
        recording: &mut Recording,
        [k, v]: [&Tensor; 2],
        layers: usize,
    ) -> Result<()> {
        let place = self.shelf().place;
        recording.add(k, v, layers, place, |bytes| self.make_room(bytes))
    }

    /// Remembers a prompt that has run, in the place of those that it goes on from and nobody else does.
    pub fn insert(&self, recording: Recording) {
        let Some(prefix) = recording.finish() else {
            return;
        };
        let ids = prefix.ids();
        let mut shelf = self.shelf();
        let mut comparison = Comparison::new(&ids);
        let mut all = shelf.read.iter().chain(&shelf.pinned);
        if all.any(|other| comparison.shared(other) == ids.len()) {
            return;
        }
        // Whoever goes may have been the last that went on from another.
        let mut before = usize::MAX;
        while shelf.read.len() < before {
            before = shelf.read.len();
            shelf.read.retain(|other| {
                Arc::strong_count(other) > 1 || comparison.shared(other) < other.len()
            });
        }
        shelf.read.push(Arc::new(prefix));
    }

    /// Remembers a beginning for good.
    ///
    /// # Errors
    /// The bytes that it needs and those that are free, if it does not fit.
    pub fn pin(&self, state: State) -> std::result::Result<(), (usize, usize)> {
        let bytes = state.bytes();
        let share = self.make_room(bytes);
        let share = share.ok_or_else(|| (bytes, self.room.free()))?;
        let mut shelf = self.shelf();
        let place = shelf.place;
        let layers = state.layers.into_iter();
        let layers = layers.map(|layer| layer.map(|x| Rows::new(x, place)));
        let prefix = Prefix::new(None, state.tokens, layers.collect(), share);
        shelf.pinned.push(Arc::new(prefix));
        Ok(())
    }

    /// What is known of a prompt's beginning as one piece.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn state(&self, prompt: &[u32]) -> Result<Option<State>> {
        let Some(known) = self.look(&behind(prompt), 1) else {
            return Ok(None);
        };
        let Some(dtype) = known.dtype() else {
            return Ok(None);
        };
        let layer = |at| {
            let parts = known.layer(at, &Device::Cpu, dtype)?;
            let whole = |which: usize| {
                let parts: Vec<&Tensor> = parts.iter().map(|part| &part[which]).collect();
                Tensor::cat(&parts, 1)?.contiguous()
            };
            Ok([whole(0)?, whole(1)?])
        };
        let layers = (0..known.layers()).map(layer).collect::<Result<_>>()?;
        Ok(Some(State {
            tokens: known.ids(),
            layers,
        }))
    }

    /// Bytes that are held, those of prompts that are being read included.
    pub fn bytes(&self) -> usize {
        self.room.held()
    }

    /// How often prompts were read on from earlier ones.
    pub fn reused(&self) -> Reused {
        self.tally.read()
    }

    /// Room for so many bytes, made by forgetting what was not used for longest; nothing is forgotten where that does not
    /// make enough of it.
    fn make_room(&self, bytes: usize) -> Option<Share> {
        let mut shelf = self.shelf();
        if bytes > self.room.free().saturating_add(forgettable(&shelf.read)) {
            return None;
        }
        loop {
            if let Some(share) = self.room.take(bytes) {
                return Some(share);
            }
            // What others go on from frees nothing.
            let alone = |prefix: &Arc<Prefix>| Arc::strong_count(prefix) == 1;
            let at = shelf.read.iter().position(alone)?;
            shelf.read.remove(at);
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The prompt with a token behind it: all of it may be known where nothing has to run.
fn behind(prompt: &[u32]) -> Vec<u32> {
    [prompt, &[0]].concat()
}

/// Bytes of all that nobody is reading on from, and that nothing goes on from which somebody is.
fn forgettable(read: &[Arc<Prefix>]) -> usize {
    let key = |prefix: &Arc<Prefix>| Arc::as_ptr(prefix) as usize;
    let mut holders: HashMap<usize, usize> = read
        .iter()
        .map(|prefix| (key(prefix), Arc::strong_count(prefix) - 1))
        .collect();
    let mut free: Vec<&Arc<Prefix>> = read
        .iter()
        .filter(|prefix| Arc::strong_count(prefix) == 1)
        .collect();
    let mut bytes = 0;
    while let Some(prefix) = free.pop() {
        bytes += prefix.bytes();
        let Some(parent) = prefix.parent() else {
            continue;
        };
        if let Some(count) = holders.get_mut(&key(parent)) {
            *count -= 1;
            if *count == 0 {
                free.push(parent);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
