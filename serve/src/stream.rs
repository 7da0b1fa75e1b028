//! An answer as server-sent events, or as one JSON object.

use crate::{
    error::ApiError,
    generate::{Answer, Piece, Usage},
};
use axum::{
    Json,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::stream;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    convert::Infallible,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often a stream without tokens says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How one route writes answers.
pub trait Form: Send + 'static {
    /// Chunks that a piece becomes; `first` is the choice's first.
    fn chunks(&mut self, piece: Piece, first: bool) -> Vec<Value>;

    /// The chunk that has no choice but the usage.
    fn usage_chunk(&self, usage: &Usage) -> Value;

    /// Takes a piece into the whole answer.
    fn add(&mut self, piece: Piece);

    /// The whole answer.
    fn whole(self, usage: &Usage) -> Value;
}

/// Answers a request; a failure before the first token is a status, later ones are an event.
///
/// # Errors
/// The answer's own, before anything of it was sent.
pub async fn respond<F: Form>(
    mut form: F,
    mut answer: Answer,
    streaming: bool,
    include_usage: bool,
) -> Result<Response, ApiError> {
    let nothing = || ApiError::failed("the engine gave no answer");
    let first = answer.next().await.ok_or_else(nothing)??;
    if !streaming {
        form.add(first);
        while let Some(piece) = answer.next().await {
            form.add(piece?);
        }
        let usage = answer.usage();
        return Ok(Json(form.whole(&usage)).into_response());
    }
    let mut writer = Writer {
        form,
        answer,
        include_usage,
        begun: Vec::new(),
        events: VecDeque::new(),
        done: false,
    };
    writer.piece(first);
    let events = stream::unfold(writer, |mut writer| async move {
        Some((Ok::<_, Infallible>(writer.next().await?), writer))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

struct Writer<F> {
    form: F,
    answer: Answer,
    include_usage: bool,
    /// Choices that have begun.
    begun: Vec<usize>,
    events: VecDeque<Event>,
    done: bool,
}

impl<F: Form> Writer<F> {
    async fn next(&mut self) -> Option<Event> {
        while self.events.is_empty() && !self.done {
            match self.answer.next().await {
                Some(Ok(piece)) => self.piece(piece),
                Some(Err(error)) => {
                    self.done = true;
                    let body = error.body().to_string();
                    let event = Event::default().event("error").data(body);
                    self.events.push_back(event);
                }
                None => {
                    self.done = true;
                    if self.include_usage {
                        let usage = self.form.usage_chunk(&self.answer.usage());
                        self.push(usage);
                    }
                    self.events.push_back(Event::default().data("[DONE]"));
                }
            }
        }
        self.events.pop_front()
    }

    fn piece(&mut self, piece: Piece) {
        let first = !self.begun.contains(&piece.choice);
        if first {
            self.begun.push(piece.choice);
        }
        let something = !piece.text.is_empty()
            || piece
                .reasoning
                .as_ref()
                .is_some_and(|text| !text.is_empty())
            || piece.tool_calls.is_some()
            || !piece.logprobs.is_empty()
            || piece.finish.is_some();
        if !first && !something {
            return;
        }
        for mut chunk in self.form.chunks(piece, first) {
            if self.include_usage {
                chunk["usage"] = Value::Null;
            }
            self.push(chunk);
        }
    }

    fn push(&mut self, chunk: Value) {
        self.events
            .push_back(Event::default().data(chunk.to_string()));
    }
}

/// OpenAI's usage, with what the request's keys and values took beside it.
pub fn usage(usage: &Usage) -> Value {
    let choices = &usage.choices;
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": choices.completion_tokens,
        "total_tokens": usage.prompt_tokens + choices.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "headkv": {
            "kept_tokens": (usage.kept_tokens * 10.0).round() / 10.0,
            "kv_bytes": choices.kv_bytes,
            "full_bytes": choices.full_bytes,
        },
    })
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
