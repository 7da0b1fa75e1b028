//! What is kept of prompts that have run, for prompts that go on from them: nothing is read or ranked again.
//!
//! A prompt of which the end comes once the others are compressed leaves what is kept of those: a document, which was ranked
//! without knowing any question and from which as many prompts go on as ask about it.
//!
//! The next turn's tokens go behind what was kept, all of them. What was ranked for an earlier question is not what a
//! later one would have kept, so this is not exact; a conversation whose tail is too long is read and ranked anew.

use crate::{
    Compression,
    prefix::{
        Reused,
        room::{Room, Share},
        tally::Tally,
    },
    sequence::Past,
};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Tokens behind what was ranked, at most, unless another number is set.
pub const TAIL: usize = 1024;

/// The prompts of which what is kept is remembered, up to a number of bytes; those not used for longest are forgotten.
pub struct Conversations {
    room: Arc<Room>,
    tail: AtomicUsize,
    /// Least recently used first.
    shelf: Mutex<Vec<Arc<Kept>>>,
    tally: Tally,
}

/// What is kept of one prompt.
pub struct Kept {
    tokens: Vec<u32>,
    past: Past,
    /// A prompt that goes on from it does not take its place.
    stays: bool,
    _share: Share,
}

impl Kept {
    /// Tokens of the prompt.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// What its layers hold.
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// Whether that prompt goes on from here; one of which only the first `until` tokens are compressed, from exactly these.
    fn begins(&self, prompt: &[u32], until: usize, config: &Compression) -> bool {
        let (own, all) = (self.tokens.len(), prompt.len());
        let long_enough = if until < all { own == until } else { own < all };
        long_enough && prompt.starts_with(&self.tokens) && self.past.config() == config
    }
}

impl Conversations {
    /// Remembers up to `limit` bytes; none with 0.
    pub fn new(limit: usize) -> Self {
        Self {
            room: Room::new(limit),
            tail: TAIL.into(),
            shelf: Mutex::default(),
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

    /// Forgets everything, and remembers up to `limit` bytes from now on.
    pub fn restart(&self, limit: usize) {
        self.room.allow(limit);
        self.shelf().clear();
    }

    /// Reads conversations anew that would have more than so many tokens behind what was ranked.
    pub fn set_tail(&self, tokens: usize) {
        self.tail.store(tokens, Relaxed);
    }

    /// The longest prompt that this one goes on from, under the same configuration; none if too much came behind it. Of this
    /// one, the first `until` tokens are to be compressed, and the others come behind them.
    pub fn find(&self, prompt: &[u32], until: usize, config: &Compression) -> Option<Arc<Kept>> {
        self.tally.asked(prompt.len());
        let kept = self.look(prompt, until, config)?;
        if prompt.len() - kept.past.ranked() > self.tail.load(Relaxed) {
            return None;
        }
        self.tally.found(kept.tokens());
        Some(kept)
    }

    /// Tokens of a prompt's beginning of which what is kept is remembered.
    pub fn known(&self, prompt: &[u32], config: &Compression) -> usize {
        self.look(prompt, prompt.len(), config)
            .map_or(0, |kept| kept.tokens())
    }

    fn look(&self, prompt: &[u32], until: usize, config: &Compression) -> Option<Arc<Kept>> {
        let mut shelf = self.shelf();
        let begins = shelf
            .iter()
            .enumerate()
            .filter(|(_, kept)| kept.begins(prompt, until, config));
        let (at, _) = begins.max_by_key(|(_, kept)| kept.tokens())?;
        let kept = shelf.remove(at);
        shelf.push(kept.clone());
        Some(kept)
    }

    /// Remembers what a prompt has left, in the place of those that it goes on from and that do not stay; what is too large
    /// is not.
    pub fn insert(&self, tokens: &[u32], past: Past, stays: bool) {
        let bytes = past.bytes();
        let mut shelf = self.shelf();
        let same = |kept: &Arc<Kept>| {
            let replaced = !kept.stays || kept.tokens == tokens;
            replaced && tokens.starts_with(&kept.tokens) && kept.past.config() == past.config()
        };
        // Whoever goes on from it at this moment has it still.
        shelf.retain(|kept| Arc::strong_count(kept) > 1 || !same(kept));
        let alone = |kept: &Arc<Kept>| Arc::strong_count(kept) == 1;
        let share = loop {
            match self.room.take(bytes) {
                Some(share) => break share,
                None if bytes > self.room.limit() => return,
                None => match shelf.iter().position(alone) {
                    Some(at) => drop(shelf.remove(at)),
                    None => return,
                },
            }
        };
        shelf.push(Arc::new(Kept {
            tokens: tokens.to_vec(),
            past,
            stays,
            _share: share,
        }));
    }

    /// Bytes that are remembered; what several have in common is counted for each.
    pub fn bytes(&self) -> usize {
        self.room.held()
    }

    /// How often prompts went on from earlier ones.
    pub fn reused(&self) -> Reused {
        self.tally.read()
    }

    fn shelf(&self) -> MutexGuard<'_, Vec<Arc<Kept>>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
