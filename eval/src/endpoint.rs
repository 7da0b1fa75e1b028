//! A backend that sends prompts to any OpenAI-compatible server.

mod address;
pub mod answer;
pub(crate) mod backoff;
mod client;
mod key;

use crate::{Backend, Completion, Error, Failure, Job, Variant, guard};
use backoff::{Backoff, TICK};
use client::{Attempt, Client, Question};
pub(crate) use client::{certificates, unreachable};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

pub use key::{Key, VARIABLE};

/// How a server is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The server's address, with or without `/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// The server's secret, if it asks for one.
    pub key: Option<Key>,
    /// Requests at the same time.
    pub concurrency: usize,
    /// Further tries after a failed one.
    pub retries: u32,
    /// The wait before the first retry; it doubles each time, and is longer where the server asks for it.
    pub pause: Duration,
    /// The longest wait, whatever the server asks for.
    pub longest_pause: Duration,
    /// The most time for one request.
    pub timeout: Duration,
}

impl Options {
    /// A server without a key, with 4 requests at once, 4 retries after half a second to one minute, and 10 minutes for
    /// a request.
    pub fn new(url: &str, model: &str) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            key: None,
            concurrency: 4,
            retries: 4,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
            timeout: Duration::from_secs(600),
        }
    }
}

/// The most requests at the same time.
const MOST_CONCURRENT: usize = 1024;

/// An OpenAI-compatible server. Compression is the server's own business: a variant only labels the rows.
pub struct Endpoint<'a> {
    client: Arc<Client>,
    stop: Option<&'a AtomicBool>,
}

impl<'a> Endpoint<'a> {
    /// Prepares the client; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Option`] for an address that is not HTTP, or that holds more than a place: rows and reports show it.
    pub fn new(options: Options) -> Result<Self, Error> {
        if !(1..=MOST_CONCURRENT).contains(&options.concurrency) {
            return Err(Error::Option(format!(
                "--concurrency {} is not 1 to {MOST_CONCURRENT}",
                options.concurrency
            )));
        }
        Ok(Self {
            client: Arc::new(Client::new(options)?),
            stop: None,
        })
    }

    /// Ends every wait once that flag is set.
    pub fn until(self, stop: &'a AtomicBool) -> Self {
        Self {
            stop: Some(stop),
            ..self
        }
    }

    fn stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// Asks once; a request that the end of the run leaves behind ends on its own.
    fn ask(&self, question: &Question) -> Option<Result<Completion, Attempt>> {
        let (send, answer) = channel();
        let (client, question) = (self.client.clone(), question.clone());
        let asking = thread::Builder::new().spawn(move || {
            // The client panics where it may start no thread to look a name up.
            let asked = guard::quietly(|| client.ask(&question));
            let failed = |why| Err(Attempt::again(format!("the request failed: {why}")));
            // Nobody listens any more once the run has ended.
            let _ = send.send(asked.unwrap_or_else(failed));
        });
        if let Err(why) = asking {
            return Some(Err(Attempt::again(format!("cannot start a thread: {why}"))));
        }
        loop {
            match answer.recv_timeout(TICK) {
                Ok(outcome) => return Some(outcome),
                Err(RecvTimeoutError::Timeout) if self.stopped() => return None,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Some(Err(Attempt::again("the request was lost".into())));
                }
            }
        }
    }
}

impl Backend for Endpoint<'_> {
    fn configure(&self, _: &Variant) -> Result<(), Error> {
        Ok(())
    }

    fn complete(&self, job: &Job) -> Result<Completion, Failure> {
        let options = &self.client.options;
        let mut backoff = Backoff::new(options.pause, options.longest_pause);
        let mut left = options.retries;
        let question = self.client.question(job);
        loop {
            match self.ask(&question) {
                None => return Err(Failure::Stopped),
                Some(Ok(completion)) => return Ok(completion),
                Some(Err(attempt)) if attempt.again && left > 0 => {
                    if !backoff::pause(backoff.wait(attempt.after), || self.stopped()) {
                        return Err(Failure::Stopped);
                    }
                    left -= 1;
                }
                Some(Err(attempt)) => {
                    let why = format!("endpoint {}: {}", self.client.base, attempt.why);
                    // Nobody is there: all other prompts would fail too, and their average of 0 would mean nothing.
                    return Err(if attempt.dead {
                        Failure::Fatal(format!("{why}; check --endpoint, the same command goes on"))
                    } else {
                        Failure::Row(why)
                    });
                }
            }
        }
    }

    fn concurrency(&self) -> usize {
        self.client.options.concurrency
    }
}
