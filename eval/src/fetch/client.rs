//! One request for a file, or for what is missing of it; redirects are followed here, because what they say is used.

use super::{
    location,
    sources::{Origin, Sources},
    sums,
    wanted::Wanted,
};
use crate::endpoint::{backoff, certificates, unreachable};
use headkv_files::terminal::one_line;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, SystemTime},
};
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, header},
};

/// The most redirects of one request.
const REDIRECTS: usize = 10;

/// How long a server may take for a connection, and for the next bytes.
const CONNECT: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(60);

/// What requests need.
pub(super) struct Client<'a> {
    pub sources: &'a Sources,
    agent: Agent,
    stop: &'a AtomicBool,
}

/// What an answer is, and the digest that the hub says the whole file has.
pub(super) struct Answer {
    pub response: Response<Body>,
    pub digest: Option<String>,
}

/// A failed try.
pub(super) struct Attempt {
    pub why: String,
    /// Whether a further try may help.
    pub again: bool,
    /// How long the server wants to be left alone.
    pub after: Option<Duration>,
    /// Whether there is no server, so that other files fail the same way.
    pub dead: bool,
}

impl Attempt {
    /// One that a further try may mend.
    pub fn again(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            again: true,
            after: None,
            dead: false,
        }
    }

    /// One that stays as it is.
    pub fn last(why: impl Into<String>) -> Self {
        Self {
            again: false,
            ..Self::again(why)
        }
    }
}

impl<'a> Client<'a> {
    /// Prepares the client; nothing is sent yet.
    pub fn new(sources: &'a Sources, stop: &'a AtomicBool) -> Self {
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_resolve(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .http_status_as_error(false)
            .max_redirects(0)
            .tls_config(certificates());
        Self {
            sources,
            agent: config.build().into(),
            stop,
        }
    }

    pub fn url(&self, file: &Wanted) -> String {
        self.sources.url(file.origin, &file.path)
    }

    /// Whether the call is to end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Asks for a file from that byte on, if it is still the one that the validator names.
    pub fn ask(&self, file: &Wanted, from: Option<(u64, &str)>) -> Result<Answer, Attempt> {
        let first = self.url(file);
        let mut url = first.clone();
        let mut digest = None;
        for _ in 0..=REDIRECTS {
            // Packed on the way, a file would have other lengths and places.
            let mut request = self
                .agent
                .get(&url)
                .header(header::ACCEPT_ENCODING, "identity");
            if let Some((bytes, validator)) = from {
                request = request
                    .header(header::RANGE, format!("bytes={bytes}-"))
                    .header(header::IF_RANGE, validator);
            }
            let same = location::origin(&url) == location::origin(&first);
            // The hub's storage has addresses that are signed, and no business with the token.
            if let Some(token) = self.sources.token(file.origin).filter(|_| same) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| Attempt {
                dead: unreachable(&error),
                ..Attempt::again(format!("{url}: {}", one_line(&error.to_string())))
            })?;
            digest = digest.or_else(|| linked(response.headers()));
            if !response.status().is_redirection() {
                return Ok(Answer { response, digest });
            }
            let to = text(response.headers(), header::LOCATION.as_str()).unwrap_or_default();
            url = location::redirect(&url, to).ok_or_else(|| {
                let to = one_line(to);
                Attempt::last(format!(
                    "{url}: a redirect to `{to}`, which is not followed"
                ))
            })?;
        }
        Err(Attempt::last(format!("{first}: redirects without an end")))
    }

    /// What a status says, and what helps.
    pub fn refusal(&self, file: &Wanted, response: &Response<Body>) -> Attempt {
        let status = response.status();
        let has_token = self.sources.token(file.origin).is_some();
        let help = match (status.as_u16(), file.origin) {
            (401 | 403, Origin::Hub) if !has_token => {
                "; it is private or gated: accept its terms and set HF_TOKEN".into()
            }
            (401 | 403, Origin::Hub) => "; check HF_TOKEN".into(),
            (404 | 410, origin) => {
                let variable = Sources::variable(origin);
                format!("; no such file there, check {variable} and what is asked for")
            }
            _ => String::new(),
        };
        let after = text(response.headers(), header::RETRY_AFTER.as_str());
        Attempt {
            again: status.is_server_error() || matches!(status.as_u16(), 408 | 429),
            after: after.and_then(|after| backoff::retry_after(after, SystemTime::now())),
            ..Attempt::last(format!(
                "{}: status {}{help}",
                self.url(file),
                status.as_u16()
            ))
        }
    }
}

/// A header's text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The SHA-256 that the hub names for a large file before it sends one to its storage.
fn linked(headers: &HeaderMap) -> Option<String> {
    let tag = text(headers, "x-linked-etag")?.trim_matches('"');
    sums::is_digest(tag).then(|| tag.into())
}
