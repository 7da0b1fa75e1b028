//! One choice of an answer: the engine's responses as pieces, ended by a stop text or by the engine.

use crate::{
    error::ApiError,
    generate::{ChoiceUsage, Piece},
    logprobs::{TokenLogprob, Watcher},
    running::Progress,
    state::App,
    stop::Stops,
};
use futures::{Stream, stream};
use mistralrs_core::{Request, Response};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};
use tokio::sync::mpsc::{Receiver, Sender};

/// A sequence in the engine, seen from its client.
pub struct Choice {
    app: Arc<App>,
    index: usize,
    responses: Receiver<Response>,
    /// Closed if the engine died.
    engine: Sender<Request>,
    stops: Stops,
    progress: Arc<Progress>,
    max_tokens: usize,
    /// The engine's number of the sequence.
    sequence: Option<usize>,
    /// Notes probabilities, if they are asked for.
    watcher: Option<Arc<Watcher>>,
    logprobs: Vec<TokenLogprob>,
    start: Instant,
    last: Option<Instant>,
    ended: bool,
}

/// What a response of the engine brings.
#[derive(Default)]
struct News {
    text: String,
    finish: Option<String>,
    piece: Piece,
}

impl Choice {
    /// The choice of that index, whose request was sent to the engine.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        app: Arc<App>,
        index: usize,
        responses: Receiver<Response>,
        engine: Sender<Request>,
        stops: &[String],
        progress: Arc<Progress>,
        watcher: Option<Arc<Watcher>>,
        max_tokens: usize,
        start: Instant,
    ) -> Self {
        Self {
            app,
            index,
            responses,
            engine,
            stops: Stops::new(stops),
            progress,
            max_tokens,
            sequence: None,
            watcher,
            logprobs: Vec::new(),
            start,
            last: None,
            ended: false,
        }
    }

    /// Its pieces; the last one has the reason of the end, or is an error.
    pub fn pieces(self) -> impl Stream<Item = Result<Piece, ApiError>> + Send {
        stream::unfold(self, |mut choice| async move {
            if choice.ended {
                return None;
            }
            let piece = choice.next().await;
            choice.ended |= piece.is_err();
            Some((piece, choice))
        })
    }

    async fn next(&mut self) -> Result<Piece, ApiError> {
        let news = match self.responses.recv().await {
            Some(response) => self.read(response)?,
            None => self.closed()?,
        };
        let News {
            text,
            finish,
            mut piece,
        } = news;
        if let Some(watcher) = &self.watcher {
            let tokenizer = self.app.served.engine().tokenizer();
            let last = finish.is_some();
            self.logprobs
                .extend(watcher.tokens_of(&text, last, tokenizer));
        }
        let (mut text, stopped) = self.stops.push(&text);
        let finish = if stopped { Some("stop".into()) } else { finish };
        if finish.is_some() && !stopped {
            text += &self.stops.rest();
        }
        // Tokens whose text is held back come with the text.
        if finish.is_some() || !text.is_empty() {
            piece.logprobs = std::mem::take(&mut self.logprobs);
        }
        if let Some(reason) = &finish {
            self.ended = true;
            // The engine sees a closed channel, and drops the sequence.
            self.responses.close();
            piece.usage = Some(self.usage(stopped));
            self.app.metrics.finished(reason, piece.usage.as_ref());
        }
        Ok(Piece {
            choice: self.index,
            text,
            finish,
            ..piece
        })
    }

    fn read(&mut self, response: Response) -> Result<News, ApiError> {
        self.app.running.step();
        let missing = || ApiError::failed("the engine answered without a choice");
        match response {
            Response::Chunk(chunk) => {
                self.token(&chunk.id);
                let choice = chunk.choices.into_iter().next().ok_or_else(missing)?;
                Ok(News {
                    text: choice.delta.content.unwrap_or_default(),
                    finish: reason(choice.finish_reason)?,
                    piece: Piece {
                        reasoning: choice.delta.reasoning_content,
                        tool_calls: choice.delta.tool_calls,
                        ..Piece::default()
                    },
                })
            }
            Response::CompletionChunk(chunk) => {
                self.token(&chunk.id);
                let choice = chunk.choices.into_iter().next().ok_or_else(missing)?;
                Ok(News {
                    text: choice.text,
                    finish: reason(choice.finish_reason)?,
                    piece: Piece::default(),
                })
            }
            Response::ValidationError(why) => Err(ApiError::request(why.to_string())),
            Response::InternalError(why) => Err(ApiError::failed(first_line(&why.to_string()))),
            Response::ModelError(why, _) | Response::CompletionModelError(why, _) => {
                Err(ApiError::failed(first_line(&why)))
            }
            _ => Err(ApiError::failed(
                "the engine sent an answer of another kind",
            )),
        }
    }

    /// The engine ended the sequence without saying why: with the middle of a character, or because it died.
    fn closed(&self) -> Result<News, ApiError> {
        if self.engine.is_closed() || self.sequence.is_none() {
            return Err(ApiError::failed(
                "the engine ended this request; send it again",
            ));
        }
        let reason = if self.generated() >= self.max_tokens {
            "length"
        } else {
            "stop"
        };
        Ok(News {
            finish: Some(reason.into()),
            ..News::default()
        })
    }

    fn token(&mut self, sequence: &str) {
        self.sequence = sequence.parse().ok();
        self.progress.generated.fetch_add(1, Relaxed);
        let now = Instant::now();
        match self.last.replace(now) {
            None => self.app.metrics.first_token(now - self.start),
            Some(last) => self.app.metrics.token(now - last),
        }
    }

    /// Tokens that the engine generated.
    fn generated(&self) -> usize {
        let usage = self
            .sequence
            .and_then(|id| self.app.served.model().usage(id));
        // The last one is never attended to.
        usage.map_or(0, |usage| {
            usage.tokens + 1 - usage.prompt_tokens.min(usage.tokens)
        })
    }

    fn usage(&self, stopped: bool) -> ChoiceUsage {
        let seen = self.progress.generated.load(Relaxed);
        // The engine may have gone on behind a stop text.
        let completion_tokens = if stopped {
            seen
        } else {
            self.generated().clamp(seen, self.max_tokens.max(seen))
        };
        let held = self
            .sequence
            .and_then(|id| self.app.served.model().usage(id));
        let tokens = self.progress.prompt + completion_tokens.saturating_sub(1);
        ChoiceUsage {
            completion_tokens,
            kept_bytes: held.map_or(0, |held| held.kept_bytes),
            kv_bytes: held.map_or(0, |held| held.kept_bytes + held.tail_bytes),
            full_bytes: tokens * self.app.served.sizes.token_bytes(),
            compression_seconds: held.map_or(0.0, |held| held.compression_seconds),
        }
    }
}

/// OpenAI's names are the engine's but for one that is no end.
fn reason(reason: Option<String>) -> Result<Option<String>, ApiError> {
    match reason.as_deref() {
        Some("canceled") => Err(ApiError::failed("the engine gave this request up")),
        _ => Ok(reason),
    }
}

/// Errors of the runtime have a backtrace behind the first line.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
