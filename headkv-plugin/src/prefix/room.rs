//! A number of bytes that may be held, and who holds them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Bytes that may be held; they are never exceeded.
#[derive(Default)]
pub struct Room {
    limit: AtomicUsize,
    held: AtomicUsize,
}

/// A part of a room, until this is dropped.
pub struct Share {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.into(),
            held: AtomicUsize::new(0),
        })
    }

    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Allows another number of bytes; what is held beyond them stays until it is given back.
    pub fn allow(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Bytes that may still be taken.
    pub fn free(&self) -> usize {
        self.limit().saturating_sub(self.held())
    }

    /// Takes that many bytes, if they are free.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let limit = self.limit();
        let more = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= limit);
        self.held.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Share {
            room: self.clone(),
            bytes,
        })
    }
}

impl Share {
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.held.fetch_sub(self.bytes, Relaxed);
    }
}
