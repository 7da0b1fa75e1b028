//! A backend that sends prompts to any OpenAI-compatible server.

mod backoff;
mod key;

use crate::{Backend, Completion, Error, Failure, Job, Variant};
use backoff::Backoff;
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};
use ureq::{
    Agent,
    http::header,
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

/// An OpenAI-compatible server. Compression is the server's own business: a variant only labels the rows.
pub struct Endpoint {
    options: Options,
    base: String,
    agent: Agent,
}

impl Endpoint {
    /// Prepares the client; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Option`] for an address that is not HTTP, or that holds a password: rows and reports show it.
    pub fn new(options: Options) -> Result<Self, Error> {
        if !options.url.starts_with("http://") && !options.url.starts_with("https://") {
            return Err(Error::Option(format!(
                "endpoint `{}` is no http:// or https:// address",
                options.url
            )));
        }
        let host = options.url.split('/').nth(2).unwrap_or_default();
        if host.contains('@') {
            return Err(Error::Option(format!(
                "the endpoint's address holds a password, which reports would show; put the key into {VARIABLE}"
            )));
        }
        let base = options
            .url
            .trim_end_matches('/')
            .trim_end_matches("/v1")
            .to_string();
        let config = Agent::config_builder()
            .timeout_global(Some(options.timeout))
            .http_status_as_error(false)
            // The system's certificates: those of a cluster are often signed by its own authority.
            .tls_config(
                TlsConfig::builder()
                    .root_certs(RootCerts::PlatformVerifier)
                    .build(),
            );
        Ok(Self {
            base,
            agent: config.build().into(),
            options,
        })
    }

    fn ask(&self, job: &Job) -> Result<Completion, Attempt> {
        let chat = job.prompt.chat;
        let mut body = json!({
            "model": self.options.model,
            "max_tokens": job.max_tokens,
            "temperature": 0,
        });
        if !job.stop.is_empty() {
            body["stop"] = json!(job.stop);
        }
        let path = if chat {
            body["messages"] = json!([{ "role": "user", "content": job.prompt.text }]);
            "chat/completions"
        } else {
            body["prompt"] = json!(job.prompt.text);
            "completions"
        };
        let started = Instant::now();
        let again = |why: String| Attempt {
            why,
            again: true,
            after: None,
        };
        let mut request = self.agent.post(format!("{}/v1/{path}", self.base));
        if let Some(key) = &self.options.key {
            request = request.header(header::AUTHORIZATION, key.bearer());
        }
        let sent = request.send_json(&body);
        let mut response = sent.map_err(|e| again(e.to_string()))?;
        let status = response.status();
        if !status.is_success() {
            let after = response.headers().get(header::RETRY_AFTER);
            return Err(Attempt {
                why: refusal(status.as_u16(), self.options.key.is_some()),
                again: status.is_server_error() || matches!(status.as_u16(), 408 | 429),
                after: after
                    .and_then(|value| value.to_str().ok())
                    .and_then(|value| backoff::retry_after(value, SystemTime::now())),
            });
        }
        let value: Value = response
            .body_mut()
            .read_json()
            .map_err(|e| again(format!("answer is not JSON: {e}")))?;
        let text = if chat {
            &value["choices"][0]["message"]["content"]
        } else {
            &value["choices"][0]["text"]
        };
        let text = text
            .as_str()
            .ok_or_else(|| again("answer has no choice with a text".into()))?;
        let count = |field| value["usage"][field].as_u64().unwrap_or(0) as usize;
        Ok(Completion {
            text: text.into(),
            prompt_tokens: count("prompt_tokens"),
            tokens: count("completion_tokens"),
            prompt_seconds: None,
            decode_seconds: started.elapsed().as_secs_f64(),
            kv_bytes: None,
        })
    }
}

/// A failed try.
struct Attempt {
    why: String,
    /// Whether a further try may help.
    again: bool,
    /// How long the server wants to be left alone.
    after: Option<Duration>,
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

impl Backend for Endpoint {
    fn configure(&self, _: &Variant) -> Result<(), Error> {
        Ok(())
    }

    fn complete(&self, job: &Job) -> Result<Completion, Failure> {
        let mut backoff = Backoff::new(self.options.pause, self.options.longest_pause);
        let mut left = self.options.retries;
        loop {
            match self.ask(job) {
                Ok(completion) => return Ok(completion),
                Err(attempt) if attempt.again && left > 0 => {
                    thread::sleep(backoff.wait(attempt.after));
                    left -= 1;
                }
                Err(attempt) => {
                    return Err(Failure::Row(format!(
                        "endpoint {}: {}",
                        self.base, attempt.why
                    )));
                }
            }
        }
    }

    fn concurrency(&self) -> usize {
        self.options.concurrency
    }
}
