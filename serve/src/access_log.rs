//! One JSON line per request, written by a thread of its own: a full disk or a slow reader holds no request up.

use crate::{generate::Usage, options::Log, state::App};
use anyhow::{Context, Result};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue},
    middleware::Next,
    response::Response,
};
use serde_json::{Map, Value};
use std::{
    fs::OpenOptions,
    io::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use uuid::Uuid;

/// The header that names a request.
pub const REQUEST_ID: &str = "x-request-id";

/// Lines that may wait to be written; those after them are lost, and counted.
const WAITING: usize = 4096;

/// How long the last lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What a request gets whose client left, as nginx has it.
const CLIENT_LEFT: u16 = 499;

/// Where lines go.
#[derive(Default)]
pub struct AccessLog {
    lines: Option<SyncSender<String>>,
    writer: Option<JoinHandle<()>>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the log.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn open(to: &Log) -> Result<Self> {
        let mut out: Box<dyn Write + Send> = match to {
            Log::Off => return Ok(Self::default()),
            Log::Stdout => Box::new(io::stdout()),
            Log::File(file) => {
                let opened = OpenOptions::new().create(true).append(true).open(file);
                Box::new(opened.with_context(|| format!("cannot write {}", file.display()))?)
            }
        };
        let (lines, waiting) = sync_channel::<String>(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = lost.clone();
        let writer = thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                for line in waiting {
                    // A full disk may have room again for the next line.
                    let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
                    counter.fetch_add(u64::from(written.is_err()), Relaxed);
                }
            })
            .context("cannot start the log's thread")?;
        Ok(Self {
            lines: Some(lines),
            writer: Some(writer),
            lost,
        })
    }

    /// Lines that could not be written.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    fn write(&self, line: &Value) {
        if let Some(lines) = &self.lines {
            let sent = lines.try_send(format!("{line}\n"));
            self.lost.fetch_add(u64::from(sent.is_err()), Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.lines = None;
        let Some(writer) = self.writer.take() else {
            return;
        };
        // The last lines are written, unless whoever reads them does not.
        let start = Instant::now();
        while !writer.is_finished() && start.elapsed() < LAST_LINES {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What is known of a request; its line is written when the last part of its response is gone.
#[derive(Clone)]
pub struct Entry(Arc<Open>);

struct Open {
    app: Arc<App>,
    start: Instant,
    line: Mutex<Map<String, Value>>,
}

impl Entry {
    /// The request's name.
    pub fn id(&self) -> String {
        let line = self.line();
        line.get("id")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .into()
    }

    /// Tokens of its prompts.
    pub fn prompt_tokens(&self, tokens: usize) {
        self.set("prompt_tokens", tokens.into());
    }

    /// How long it waited for memory.
    pub fn queued(&self, waited: Duration) {
        self.set("queue_ms", milliseconds(waited));
    }

    /// What it took so far.
    pub fn usage(&self, usage: &Usage) {
        self.set("completion_tokens", usage.choices.completion_tokens.into());
        self.set("cached_tokens", usage.cached_tokens.into());
        self.set("kv_bytes", usage.choices.kv_bytes.into());
        self.set("full_bytes", usage.choices.full_bytes.into());
    }

    /// Why it failed after its status was sent.
    pub fn failed(&self, why: &str) {
        self.set("error", why.into());
    }

    /// What was asked, if that is to be logged.
    pub fn prompt(&self, text: impl FnOnce() -> Value) {
        if self.0.app.options.log_prompts {
            self.set("prompt", text());
        }
    }

    fn set(&self, key: &str, value: Value) {
        self.line().insert(key.into(), value);
    }

    fn line(&self) -> MutexGuard<'_, Map<String, Value>> {
        self.0.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut line =
            std::mem::take(&mut *self.line.lock().unwrap_or_else(PoisonError::into_inner));
        line.insert("ms".into(), milliseconds(self.start.elapsed()));
        let status = line.entry("status").or_insert(CLIENT_LEFT.into());
        let status = status.as_u64().unwrap_or(0) as u16;
        self.app.metrics.response(status);
        self.app.log.write(&Value::Object(line));
    }
}

/// Names every request, and writes a line about it.
pub async fn note(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = given(request.headers()).unwrap_or_else(|| Uuid::new_v4().to_string());
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let time = since.map_or(0.0, |since| since.as_millis() as f64 / 1e3);
    let line = [
        ("time", time.into()),
        ("id", id.clone().into()),
        ("method", request.method().as_str().into()),
        // Without the query, which may hold anything.
        ("path", request.uri().path().into()),
    ];
    let line = line.map(|(key, value): (_, Value)| (key.to_string(), value));
    let line = Map::from_iter(line);
    let entry = Entry(Arc::new(Open {
        app,
        start: Instant::now(),
        line: Mutex::new(line),
    }));
    request.extensions_mut().insert(entry.clone());
    let mut response = next.run(request).await;
    entry.set("status", response.status().as_u16().into());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// A client's own name of its request, if it can stand in a header and in a line.
fn given(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    (!id.is_empty() && id.len() <= 128).then(|| id.to_string())
}

fn milliseconds(time: Duration) -> Value {
    ((time.as_secs_f64() * 1e6).round() / 1e3).into()
}
