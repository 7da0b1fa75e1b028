//! A backend that sends prompts to any OpenAI-compatible server.

pub mod answer;
mod backoff;
mod key;

use crate::{Backend, Completion, Error, Failure, Job, Variant, guard};
use backoff::Backoff;
use headkv_files::terminal::one_line;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};
use ureq::{
    Agent,
    http::{Uri, header},
    tls::{RootCerts, TlsConfig},
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

/// How often a wait looks whether the run is to end.
const TICK: Duration = Duration::from_millis(50);

/// The most requests at the same time.
const MOST_CONCURRENT: usize = 1024;

/// An OpenAI-compatible server. Compression is the server's own business: a variant only labels the rows.
pub struct Endpoint<'a> {
    client: Arc<Client>,
    stop: Option<&'a AtomicBool>,
}

/// What a request needs.
struct Client {
    options: Options,
    base: String,
    agent: Agent,
}

impl<'a> Endpoint<'a> {
    /// Prepares the client; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Option`] for an address that is not HTTP, or that holds more than a place: rows and reports show it.
    pub fn new(options: Options) -> Result<Self, Error> {
        let base = base(&options.url)?;
        if !(1..=MOST_CONCURRENT).contains(&options.concurrency) {
            return Err(Error::Option(format!(
                "--concurrency {} is not 1 to {MOST_CONCURRENT}",
                options.concurrency
            )));
        }
        let config = Agent::config_builder()
            .timeout_global(Some(options.timeout))
            .http_status_as_error(false)
            // A redirect would turn the question into a request for a page.
            .max_redirects(0)
            // The system's certificates: those of a cluster are often signed by its own authority.
            .tls_config(
                TlsConfig::builder()
                    .root_certs(RootCerts::PlatformVerifier)
                    .build(),
            );
        let client = Client {
            base,
            agent: config.build().into(),
            options,
        };
        Ok(Self {
            client: Arc::new(client),
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

    /// Waits; false if the run is to end.
    fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.stopped() || left.is_zero() {
                return !self.stopped();
            }
            thread::sleep(left.min(TICK));
        }
    }
}

/// The address without `/v1`.
fn base(url: &str) -> Result<String, Error> {
    let wrong = |why: String| Err(Error::Option(why));
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return wrong(format!(
            "endpoint `{}` is no http:// or https:// address",
            one_line(url)
        ));
    }
    let host = url.split(['/', '?', '#']).nth(2).unwrap_or_default();
    if host.contains('@') {
        return wrong(format!(
            "the endpoint's address holds a password, which reports would show; put the key into {VARIABLE}"
        ));
    }
    if url.contains('?') {
        return wrong(format!(
            "the endpoint's address holds parameters (`?`), which reports would show; put a key into {VARIABLE}"
        ));
    }
    if url.contains('#') {
        return wrong(
            "the endpoint's address holds a fragment (`#`), which no server sees; leave it out"
                .into(),
        );
    }
    let parsed = url.parse::<Uri>();
    let bracketed = !host.starts_with('[') || host.contains(']');
    match parsed.as_ref().map(Uri::authority) {
        Ok(Some(place)) if !place.host().is_empty() && bracketed && port_is_one(place.as_str()) => {
        }
        _ => {
            return wrong(format!(
                "endpoint `{}` is no address; check it",
                one_line(url)
            ));
        }
    }
    Ok(url
        .trim_end_matches('/')
        .trim_end_matches("/v1")
        .to_string())
}

/// Whether what stands behind a host's last colon, if there is one, is a port.
fn port_is_one(place: &str) -> bool {
    match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        }
        _ => true,
    }
}

/// A job as it is sent.
#[derive(Clone)]
struct Question {
    chat: bool,
    body: Value,
}

impl Client {
    fn question(&self, job: &Job) -> Question {
        let chat = job.prompt.chat;
        let mut body = json!({
            "model": self.options.model,
            "max_tokens": job.max_tokens,
            "temperature": 0,
        });
        if !job.stop.is_empty() {
            body["stop"] = json!(job.stop);
        }
        if chat {
            body["messages"] = json!([{ "role": "user", "content": job.prompt.text }]);
        } else {
            body["prompt"] = json!(job.prompt.text);
        }
        Question { chat, body }
    }

    fn ask(&self, question: &Question) -> Result<Completion, Attempt> {
        let path = if question.chat {
            "chat/completions"
        } else {
            "completions"
        };
        let started = Instant::now();
        let mut request = self.agent.post(format!("{}/v1/{path}", self.base));
        if let Some(key) = &self.options.key {
            request = request.header(header::AUTHORIZATION, key.bearer());
        }
        let sent = request.send_json(&question.body);
        let mut response = sent.map_err(|e| Attempt {
            dead: unreachable(&e),
            ..Attempt::again(self.shown(&e.to_string()))
        })?;
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get(header::LOCATION);
            let to = to.and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
            return Err(Attempt {
                again: false,
                ..Attempt::again(self.shown(&format!(
                    "status {}, a redirect to {to}; name the address that answers",
                    status.as_u16()
                )))
            });
        }
        if !status.is_success() {
            let after = response.headers().get(header::RETRY_AFTER);
            return Err(Attempt {
                again: status.is_server_error() || matches!(status.as_u16(), 408 | 429),
                after: after
                    .and_then(|value| value.to_str().ok())
                    .and_then(|value| backoff::retry_after(value, SystemTime::now())),
                ..Attempt::again(refusal(status.as_u16(), self.options.key.is_some()))
            });
        }
        let body = response.body_mut().read_to_vec();
        let body = body.map_err(|e| {
            let why = format!("the answer cannot be read: {e}");
            Attempt::again(self.shown(&why))
        })?;
        let answer =
            answer::read(&body, question.chat).map_err(|why| Attempt::again(self.shown(&why)))?;
        Ok(Completion {
            text: self.hidden(&answer.text),
            decode_seconds: started.elapsed().as_secs_f64(),
            ..answer
        })
    }

    /// A text of the server's, which may repeat what it was sent, without the key.
    fn hidden(&self, text: &str) -> String {
        match &self.options.key {
            Some(key) => key.hide(text),
            None => text.into(),
        }
    }

    /// The same as one line of a message.
    fn shown(&self, text: &str) -> String {
        one_line(&self.hidden(text))
    }
}

/// Whether a request did not even reach a server.
fn unreachable(error: &ureq::Error) -> bool {
    // A certificate that is not trusted comes as data that is invalid.
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, InvalidData, NetworkUnreachable};
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::BadUri(_) | ureq::Error::Tls(_) | ureq::Error::Rustls(_) => true,
        ureq::Error::Io(why) => {
            let kinds = [
                ConnectionRefused,
                HostUnreachable,
                NetworkUnreachable,
                InvalidData,
            ];
            kinds.contains(&why.kind())
        }
        _ => false,
    }
}

/// A failed try.
struct Attempt {
    why: String,
    /// Whether a further try may help.
    again: bool,
    /// How long the server wants to be left alone.
    after: Option<Duration>,
    /// Whether there is no server that could answer anything.
    dead: bool,
}

impl Attempt {
    fn again(why: String) -> Self {
        Self {
            why,
            again: true,
            after: None,
            dead: false,
        }
    }
}

/// What a status says, and what helps.
fn refusal(status: u16, has_key: bool) -> String {
    let help = match (status, has_key) {
        (401 | 403, false) => format!("; put its key into {VARIABLE}"),
        (401 | 403, true) => format!("; check the key in {VARIABLE}"),
        (404, _) => "; check the address and --endpoint-model".into(),
        (429, _) => "; lower --concurrency or raise --retries".into(),
        _ => String::new(),
    };
    format!("status {status}{help}")
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
                    if !self.wait(backoff.wait(attempt.after)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_anything_is_sent() {
        let named = |url: &str| base(url).map_err(|e| e.to_string());
        for good in [
            "http://localhost:8000/v1/",
            "https://example.org",
            "http://[::1]:80/a/v1",
            "http://[::1]",
        ] {
            named(good).unwrap();
        }
        assert_eq!(named("http://h:1/v1/").unwrap(), "http://h:1");
        for (wrong, why) in [
            ("ftp://x", "no http://"),
            ("http://", "is no address"),
            ("http:///v1", "is no address"),
            ("http://a b", "is no address"),
            ("http://host:port", "is no address"),
            ("http://host:99999", "is no address"),
            ("http://host:0", "is no address"),
            ("http://:80", "is no address"),
            ("http://[::1", "is no address"),
            ("http://host#x", "fragment"),
            ("http://host/v1?api_key=sk-1", "parameters"),
            ("https://me:sk-1@host", "password"),
        ] {
            let message = named(wrong).unwrap_err();
            assert!(message.contains(why), "{wrong}: {message}");
            assert!(!message.contains("sk-1"), "{message}");
        }
    }
}
