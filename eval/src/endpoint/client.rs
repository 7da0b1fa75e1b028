//! One request to a server, and what became of it.

use super::{Options, VARIABLE, address, answer, backoff};
use crate::{Completion, Error, Job};
use headkv_files::terminal::one_line;
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime};
use ureq::{
    Agent,
    http::header,
    tls::{RootCerts, TlsConfig},
};

/// What a request needs.
pub(super) struct Client {
    pub(super) options: Options,
    /// The server's address without `/v1`.
    pub(super) base: String,
    agent: Agent,
}

/// A job as it is sent.
#[derive(Clone)]
pub(super) struct Question {
    chat: bool,
    body: Value,
}

impl Client {
    /// Prepares the client; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Option`] for an address that is none.
    pub(super) fn new(options: Options) -> Result<Self, Error> {
        let config = Agent::config_builder()
            .timeout_global(Some(options.timeout))
            .http_status_as_error(false)
            // A redirect would turn the question into a request for a page.
            .max_redirects(0)
            .tls_config(certificates());
        Ok(Self {
            base: address::base(&options.url)?,
            agent: config.build().into(),
            options,
        })
    }

    pub(super) fn question(&self, job: &Job) -> Question {
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

    pub(super) fn ask(&self, question: &Question) -> Result<Completion, Attempt> {
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

/// The system's certificates: those of a cluster are often signed by its own authority.
pub(crate) fn certificates() -> TlsConfig {
    TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .build()
}

/// Whether a request did not even reach a server.
pub(crate) fn unreachable(error: &ureq::Error) -> bool {
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
            // A name that is not known has no kind of its own.
            kinds.contains(&why.kind()) || why.to_string().starts_with("failed to lookup address")
        }
        _ => false,
    }
}

/// A failed try.
pub(super) struct Attempt {
    pub(super) why: String,
    /// Whether a further try may help.
    pub(super) again: bool,
    /// How long the server wants to be left alone.
    pub(super) after: Option<Duration>,
    /// Whether there is no server that could answer anything.
    pub(super) dead: bool,
}

impl Attempt {
    pub(super) fn again(why: String) -> Self {
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
