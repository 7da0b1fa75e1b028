//! A backend that sends prompts to any OpenAI-compatible server.

use crate::{Backend, Completion, Error, Failure, Job, Variant};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};
use ureq::Agent;

/// How a server is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The server's address, with or without `/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Requests at the same time.
    pub concurrency: usize,
    /// Further tries after a failed one.
    pub retries: u32,
    /// The wait before the first retry; it doubles each time.
    pub pause: Duration,
    /// The most time for one request.
    pub timeout: Duration,
}

impl Options {
    /// A server with 4 requests at once, 4 retries from half a second on, and 10 minutes for a request.
    pub fn new(url: &str, model: &str) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            concurrency: 4,
            retries: 4,
            pause: Duration::from_millis(500),
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
    /// [`Error::Option`] for an address that is not HTTP.
    pub fn new(options: Options) -> Result<Self, Error> {
        if !options.url.starts_with("http://") && !options.url.starts_with("https://") {
            return Err(Error::Option(format!(
                "endpoint `{}` is no http:// or https:// address",
                options.url
            )));
        }
        let base = options
            .url
            .trim_end_matches('/')
            .trim_end_matches("/v1")
            .to_string();
        let config = Agent::config_builder()
            .timeout_global(Some(options.timeout))
            .http_status_as_error(false);
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
        let again = |why: String| Attempt { why, again: true };
        let sent = self
            .agent
            .post(format!("{}/v1/{path}", self.base))
            .send_json(&body);
        let mut response = sent.map_err(|e| again(e.to_string()))?;
        let status = response.status();
        if !status.is_success() {
            let temporary = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
            return Err(Attempt {
                why: format!("status {status}"),
                again: temporary,
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
    again: bool,
}

impl Backend for Endpoint {
    fn configure(&self, _: &Variant) -> Result<(), Error> {
        Ok(())
    }

    fn complete(&self, job: &Job) -> Result<Completion, Failure> {
        let mut pause = self.options.pause;
        let mut left = self.options.retries;
        loop {
            match self.ask(job) {
                Ok(completion) => return Ok(completion),
                Err(attempt) if attempt.again && left > 0 => {
                    thread::sleep(pause);
                    pause *= 2;
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
