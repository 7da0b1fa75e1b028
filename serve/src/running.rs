//! Sequences in the engine: what was admitted is given back when the engine has dropped them, not before.

use crate::admission::Permit;
use headkv_plugin::hook::Configured;
use mistralrs_core::Response;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc::WeakSender};

/// How often the engine's sequences are looked at while there are any.
const LOOK: Duration = Duration::from_millis(2);

/// One sequence in the engine.
pub struct Entry {
    /// The engine's end of the answer, which goes with the sequence.
    pub engine: WeakSender<Response>,
    /// What its request was given; shared by the choices of a request.
    pub _permit: Arc<Permit>,
    /// The request's own compression.
    pub _configured: Option<Configured>,
    /// How far it is.
    pub progress: Arc<Progress>,
}

/// How far a sequence is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Tokens of its prompt.
    pub prompt: usize,
    /// Tokens generated.
    pub generated: AtomicUsize,
}

/// All sequences in the engine.
pub struct Running {
    entries: Mutex<Vec<Entry>>,
    added: Notify,
    /// When the engine last answered anything.
    stepped: Mutex<Instant>,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            added: Notify::new(),
            stepped: Mutex::new(Instant::now()),
        }
    }
}

impl Running {
    /// Adds a sequence that is about to be sent to the engine.
    pub fn add(&self, entry: Entry) {
        let mut entries = self.entries();
        if entries.is_empty() {
            self.step();
        }
        entries.push(entry);
        self.added.notify_one();
    }

    /// Sequences in the engine.
    pub fn count(&self) -> usize {
        self.entries().len()
    }

    /// Tokens that they have seen or generated.
    pub fn tokens(&self) -> usize {
        let entries = self.entries();
        let tokens = |e: &Entry| e.progress.prompt + e.progress.generated.load(Relaxed);
        entries.iter().map(tokens).sum()
    }

    /// Says that the engine answered.
    pub fn step(&self) {
        *self.stepped.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long the engine has not answered, though it has something to do.
    pub fn stalled(&self) -> Duration {
        if self.count() == 0 {
            return Duration::ZERO;
        }
        let stepped = self.stepped.lock().unwrap_or_else(PoisonError::into_inner);
        stepped.elapsed()
    }

    /// Gives back what ended sequences had, for ever.
    pub async fn watch(&self) {
        loop {
            let ended: Vec<Entry> = {
                let mut entries = self.entries();
                let gone = |entry: &mut Entry| entry.engine.strong_count() == 0;
                entries.extract_if(.., gone).collect()
            };
            // Permits lock the gate: not under our own lock.
            drop(ended);
            if self.count() == 0 {
                self.added.notified().await;
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
