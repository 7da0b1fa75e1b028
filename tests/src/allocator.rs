//! An allocator that counts, for tests of what is held. A program of tests has one, and counts what all of its tests take.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The system's allocator, noting the bytes that live, the most that lived at once, and the largest piece:
/// `#[global_allocator] static ALLOCATOR: Counting = Counting::new();`
pub struct Counting {
    live: AtomicUsize,
    peak: AtomicUsize,
    largest: AtomicUsize,
}

impl Counting {
    /// Nothing counted yet.
    #[allow(clippy::new_without_default, reason = "a static is made of it")]
    pub const fn new() -> Self {
        Self {
            live: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            largest: AtomicUsize::new(0),
        }
    }

    /// Bytes that live now.
    pub fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Bytes that live now; peak and largest piece count from here.
    pub fn restart(&self) -> usize {
        let live = self.live();
        self.peak.store(live, Relaxed);
        self.largest.store(0, Relaxed);
        live
    }

    /// The most bytes that lived at once.
    pub fn peak(&self) -> usize {
        self.peak.load(Relaxed)
    }

    /// The largest piece.
    pub fn largest(&self) -> usize {
        self.largest.load(Relaxed)
    }
}

// SAFETY: every call is passed on to the system's allocator with the caller's own arguments; only counters are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = self.live.fetch_add(layout.size(), Relaxed) + layout.size();
        self.peak.fetch_max(live, Relaxed);
        self.largest.fetch_max(layout.size(), Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        self.live.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }
}
