//! How much sequences hold: each by its number, and all of a model's together.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// Ended sequences that are remembered: a server runs for months, and nobody asks for older ones.
const REMEMBERED: usize = 65_536;

/// What one sequence's KV cache holds, over all layers, and what it cost to make.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// The engine's number of the sequence, its response's `id`.
    pub sequence: usize,
    /// The request that asked for it.
    pub request: usize,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Tokens seen, prompt and answer.
    pub tokens: usize,
    /// Tokens of its prompt that an earlier one had left, and that did not run again.
    pub reused_tokens: usize,
    /// Bytes of what is kept of the prompt.
    pub kept_bytes: usize,
    /// Bytes of everything else: the generated tokens, or a prompt that is not complete.
    pub tail_bytes: usize,
    /// The host's seconds for ranking, selecting and copying what is kept; a GPU works on behind them.
    pub compression_seconds: f64,
}

/// What a sequence holds, known to the ledger until the sequence is dropped.
pub struct Account {
    /// What is kept of the prompt; forks share it.
    pub kept: Arc<Meter>,
    /// Everything else.
    pub own: Meter,
    entry: Arc<Entry>,
    ledger: Arc<Ledger>,
}

/// Bytes that count towards a total until this is dropped.
pub struct Meter {
    bytes: Arc<AtomicUsize>,
    total: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Entry {
    sequence: usize,
    request: usize,
    prompt_tokens: usize,
    tokens: AtomicUsize,
    reused: AtomicUsize,
    ended: AtomicBool,
    kept: Arc<AtomicUsize>,
    own: Arc<AtomicUsize>,
    compression_nanos: AtomicU64,
}

/// All sequences of a model.
#[derive(Default)]
pub struct Ledger {
    held: Arc<AtomicUsize>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    entries: HashMap<usize, Arc<Entry>>,
    /// Sequences that ended, oldest first.
    ended: VecDeque<usize>,
}

impl Ledger {
    /// Opens the account of a sequence that begins.
    pub fn open(
        self: &Arc<Self>,
        sequence: usize,
        request: usize,
        prompt_tokens: usize,
    ) -> Account {
        let entry = Arc::new(Entry {
            sequence,
            request,
            prompt_tokens,
            ..Entry::default()
        });
        self.book().entries.insert(sequence, entry.clone());
        let meter = |bytes: &Arc<AtomicUsize>| Meter {
            bytes: bytes.clone(),
            total: self.held.clone(),
        };
        Account {
            kept: Arc::new(meter(&entry.kept)),
            own: meter(&entry.own),
            entry,
            ledger: self.clone(),
        }
    }

    /// What a sequence holds, or held at its end.
    pub fn usage(&self, sequence: usize) -> Option<Usage> {
        let book = self.book();
        let entry = book.entries.get(&sequence)?;
        Some(Usage {
            sequence: entry.sequence,
            request: entry.request,
            prompt_tokens: entry.prompt_tokens,
            tokens: entry.tokens.load(Relaxed),
            reused_tokens: entry.reused.load(Relaxed),
            kept_bytes: entry.kept.load(Relaxed),
            tail_bytes: entry.own.load(Relaxed),
            compression_seconds: entry.compression_nanos.load(Relaxed) as f64 / 1e9,
        })
    }

    /// Bytes that all sequences hold.
    pub fn held_bytes(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Tokens that the sequences have seen which have not ended.
    pub fn held_tokens(&self) -> usize {
        let book = self.book();
        let running = book
            .entries
            .values()
            .filter(|entry| !entry.ended.load(Relaxed));
        running.map(|entry| entry.tokens.load(Relaxed)).sum()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, sequence: usize) {
        let mut book = self.book();
        if let Some(entry) = book.entries.get(&sequence) {
            entry.ended.store(true, Relaxed);
        }
        book.ended.push_back(sequence);
        if book.ended.len() > REMEMBERED
            && let Some(oldest) = book.ended.pop_front()
        {
            book.entries.remove(&oldest);
        }
    }
}

impl Account {
    /// An account of another sequence that has the same past: what is kept counts once.
    pub fn fork(&self, sequence: usize, request: usize) -> Self {
        let prompt_tokens = self.entry.prompt_tokens;
        let mut fork = self.ledger.open(sequence, request, prompt_tokens);
        let tokens = self.entry.tokens.load(Relaxed);
        fork.entry.tokens.store(tokens, Relaxed);
        fork.share(self.kept.clone());
        fork
    }

    /// Has what is kept counted where another sequence counts the same.
    pub fn share(&mut self, kept: Arc<Meter>) {
        // In this order: the sequence's own meter, which goes, has counted nothing.
        self.kept = kept;
        let bytes = self.kept.bytes.load(Relaxed);
        self.entry.kept.store(bytes, Relaxed);
    }

    /// Counts tokens that were taken in from an earlier prompt.
    pub fn reuse(&self, tokens: usize) {
        self.entry.tokens.fetch_add(tokens, Relaxed);
        self.entry.reused.fetch_add(tokens, Relaxed);
    }

    /// Counts time spent on compression, and tokens seen.
    pub fn add(&self, compressing: Duration, tokens: usize) {
        if compressing.is_zero() && tokens == 0 {
            return;
        }
        let nanos = compressing.as_nanos() as u64;
        self.entry.compression_nanos.fetch_add(nanos, Relaxed);
        self.entry.tokens.fetch_add(tokens, Relaxed);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.ledger.end(self.entry.sequence);
    }
}

impl Meter {
    /// One of the things that count has grown or shrunk.
    pub fn change(&self, from: usize, to: usize) {
        // Most layers of most steps: nothing that other threads look at is touched.
        if from == to {
            return;
        }
        for counter in [&self.bytes, &self.total] {
            if to >= from {
                counter.fetch_add(to - from, Relaxed);
            } else {
                counter.fetch_sub(from - to, Relaxed);
            }
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // What the sequence held at its end stays known; only the total forgets it.
        self.total.fetch_sub(self.bytes.load(Relaxed), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_sequences_stay_known_and_hold_nothing() {
        let ledger = Arc::new(Ledger::default());
        let (first, second) = (ledger.open(3, 7, 10), ledger.open(4, 8, 20));
        first.kept.change(0, 100);
        first.own.change(0, 64);
        first.own.change(64, 32);
        second.kept.change(0, 1000);
        assert_eq!(ledger.held_bytes(), 1132);
        first.add(Duration::ZERO, 10);
        second.add(Duration::ZERO, 25);
        assert_eq!(ledger.held_tokens(), 35);
        drop(first);
        assert_eq!(ledger.held_tokens(), 25);
        assert_eq!(ledger.held_bytes(), 1000);
        let usage = ledger.usage(3).unwrap();
        assert_eq!(
            (usage.request, usage.kept_bytes, usage.tail_bytes),
            (7, 100, 32)
        );
        drop(second);
        assert_eq!(ledger.held_bytes(), 0);
        assert_eq!(ledger.usage(5), None);
    }

    #[test]
    fn what_several_sequences_share_counts_once() {
        let ledger = Arc::new(Ledger::default());
        let first = ledger.open(1, 1, 10);
        first.kept.change(0, 1000);
        let fork = first.fork(2, 1);
        let mut other = ledger.open(3, 2, 12);
        other.share(first.kept.clone());
        fork.own.change(0, 64);
        assert_eq!(ledger.held_bytes(), 1064);
        drop(first);
        assert_eq!(ledger.held_bytes(), 1064);
        let kept = |sequence| ledger.usage(sequence).unwrap().kept_bytes;
        assert_eq!((kept(1), kept(2), kept(3)), (1000, 1000, 1000));
        drop(fork);
        assert_eq!(ledger.held_bytes(), 1000);
        drop(other);
        assert_eq!(ledger.held_bytes(), 0);
    }

    #[test]
    fn only_so_many_ended_sequences_are_remembered() {
        let ledger = Arc::new(Ledger::default());
        let running = ledger.open(0, 0, 1);
        for sequence in 1..=REMEMBERED + 5 {
            drop(ledger.open(sequence, 0, 1));
        }
        assert_eq!(ledger.usage(5), None);
        assert!(ledger.usage(6).is_some());
        assert!(
            ledger.usage(0).is_some(),
            "a running one is never forgotten"
        );
        drop(running);
    }
}
