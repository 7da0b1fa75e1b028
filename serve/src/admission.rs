//! Who may run: requests are admitted by the bytes that they will hold, in the order in which they came.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::oneshot;

/// What a request needs while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes of keys and values at its end.
    pub bytes: usize,
    /// Sequences, one per choice.
    pub sequences: usize,
}

/// The limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What all that run together may have.
    pub all: Need,
    /// Bytes that one request may have.
    pub request_bytes: usize,
    /// Requests that may wait.
    pub queue: usize,
}

/// Why a request may not even wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It needs more bytes than one request may ever have.
    Bytes {
        /// The most that one may have.
        limit: usize,
    },
    /// It needs more sequences than may run.
    Sequences {
        /// The most that may run.
        limit: usize,
    },
    /// The queue is full.
    Full {
        /// Requests that wait.
        waiting: usize,
        /// Seconds after which another try makes sense.
        retry_after: u64,
    },
}

/// The gate.
pub struct Admission {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: Need,
    ticket: u64,
    waiting: VecDeque<Waiter>,
    /// Seconds that requests hold what they were given, a moving mean.
    held_seconds: f64,
}

struct Waiter {
    ticket: u64,
    need: Need,
    go: oneshot::Sender<()>,
}

/// What a request was given, until this is dropped.
pub struct Permit {
    admission: Arc<Admission>,
    need: Need,
    since: Instant,
}

/// A place in the queue, or a permit that was not taken yet; both end when it is dropped.
struct Place {
    admission: Arc<Admission>,
    ticket: u64,
    need: Need,
    taken: bool,
}

impl Admission {
    /// A gate with those limits.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
        })
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits until there is room; first come, first served. Dropping the future gives the place up.
    ///
    /// # Errors
    /// [`Refused`] at once, if it can never fit or too many wait already.
    pub async fn admit(self: &Arc<Self>, need: Need) -> Result<Permit, Refused> {
        if need.sequences > self.limits.all.sequences {
            let limit = self.limits.all.sequences;
            return Err(Refused::Sequences { limit });
        }
        let limit = self.limits.request_bytes.min(self.limits.all.bytes);
        if need.bytes > limit {
            return Err(Refused::Bytes { limit });
        }
        let permit = || Permit {
            admission: self.clone(),
            need,
            since: Instant::now(),
        };
        let (go, granted) = oneshot::channel();
        let mut place = {
            let mut state = self.state();
            if state.waiting.is_empty() && state.take(need, &self.limits) {
                return Ok(permit());
            }
            let waiting = state.waiting.len();
            if waiting >= self.limits.queue {
                let retry_after = state.held_seconds.ceil().clamp(1.0, 60.0) as u64;
                return Err(Refused::Full {
                    waiting,
                    retry_after,
                });
            }
            state.ticket += 1;
            let ticket = state.ticket;
            state.waiting.push_back(Waiter { ticket, need, go });
            Place {
                admission: self.clone(),
                ticket,
                need,
                taken: false,
            }
        };
        // The sender stays in the queue until it is used.
        let _ = granted.await;
        place.taken = true;
        Ok(permit())
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// What those that run were given.
    pub fn used(&self) -> Need {
        self.state().used
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, need: Need) {
        let mut state = self.state();
        state.used.bytes -= need.bytes;
        state.used.sequences -= need.sequences;
        state.grant(&self.limits);
    }
}

impl State {
    fn take(&mut self, need: Need, limits: &Limits) -> bool {
        let bytes = self.used.bytes + need.bytes;
        let sequences = self.used.sequences + need.sequences;
        let fits = bytes <= limits.all.bytes && sequences <= limits.all.sequences;
        if fits {
            self.used = Need { bytes, sequences };
        }
        fits
    }

    fn grant(&mut self, limits: &Limits) {
        while let Some(need) = self.waiting.front().map(|waiter| waiter.need) {
            if !self.take(need, limits) {
                return;
            }
            // Whoever is gone by now gives it back when its place is dropped.
            if let Some(waiter) = self.waiting.pop_front() {
                let _ = waiter.go.send(());
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let seconds = self.since.elapsed().as_secs_f64();
        let mut state = self.admission.state();
        state.held_seconds += (seconds - state.held_seconds) / 16.0;
        drop(state);
        self.admission.release(self.need);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut state = self.admission.state();
        let at = state.waiting.iter().position(|w| w.ticket == self.ticket);
        match at {
            Some(at) => {
                state.waiting.remove(at);
                // It may have been the one that all others waited behind.
                state.grant(&self.admission.limits);
            }
            None => {
                drop(state);
                self.admission.release(self.need);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn gate(bytes: usize, queue: usize) -> Arc<Admission> {
        Admission::new(Limits {
            all: Need {
                bytes,
                sequences: 4,
            },
            request_bytes: usize::MAX,
            queue,
        })
    }

    fn need(bytes: usize) -> Need {
        Need {
            bytes,
            sequences: 1,
        }
    }

    #[tokio::test]
    async fn first_come_first_served() {
        let gate = gate(100, 8);
        let first = gate.admit(need(60)).await.unwrap();
        let mut second = Box::pin(gate.admit(need(60)));
        assert!(second.as_mut().now_or_never().is_none());
        // It would fit, but would overtake.
        let mut third = Box::pin(gate.admit(need(10)));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        let (second, third) = (second.await.unwrap(), third.await.unwrap());
        assert_eq!(
            gate.used(),
            Need {
                bytes: 70,
                sequences: 2
            }
        );
        drop((second, third));
        assert_eq!(gate.used(), Need::default());
    }

    #[tokio::test]
    async fn what_cannot_fit_is_refused_at_once() {
        let gate = gate(100, 0);
        assert_eq!(
            gate.admit(need(101)).await.err(),
            Some(Refused::Bytes { limit: 100 })
        );
        let many = Need {
            bytes: 1,
            sequences: 5,
        };
        assert_eq!(
            gate.admit(many).await.err(),
            Some(Refused::Sequences { limit: 4 })
        );
        let _all = gate.admit(need(100)).await.unwrap();
        let full = Refused::Full {
            waiting: 0,
            retry_after: 1,
        };
        assert_eq!(gate.admit(need(1)).await.err(), Some(full));
    }

    #[tokio::test]
    async fn who_leaves_the_queue_stops_nobody() {
        let gate = gate(100, 8);
        let first = gate.admit(need(60)).await.unwrap();
        let mut large = Box::pin(gate.admit(need(100)));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(gate.admit(need(40)));
        assert!(small.as_mut().now_or_never().is_none());
        drop(large);
        let small = small.await.unwrap();
        // One that was granted and never looked gives it back.
        let mut unseen = Box::pin(gate.admit(need(100)));
        assert!(unseen.as_mut().now_or_never().is_none());
        drop((first, small));
        assert_eq!(gate.used().bytes, 100);
        drop(unseen);
        assert_eq!((gate.used(), gate.waiting()), (Need::default(), 0));
    }
}
