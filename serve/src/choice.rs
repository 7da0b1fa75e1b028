//! One choice of an answer: the engine's responses as pieces, ended by a stop text or by the engine.

use crate::{
    error::ApiError,
    generate::{ChoiceUsage, EndToEnd, Piece},
    logprobs::{TokenLogprob, Watcher},
    running::Progress,
    state::App,
};
use futures::{Stream, stream};
use headkv_engine::Stops;
use mistralrs_core::{Request, Response};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// A request of one choice that was sent to the engine.
pub struct Sent {
    /// The choice.
    pub index: usize,
    /// What the engine answers.
    pub responses: Receiver<Response>,
    /// Closed if the engine died.
    pub engine: Sender<Request>,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Notes probabilities, if they are asked for.
    pub watcher: Option<Arc<Watcher>>,
    /// The most tokens of the answer.
    pub max_tokens: usize,
    /// When the request came.
    pub start: Instant,
    /// Dropped with the choice.
    pub _end: Arc<EndToEnd>,
}

/// A sequence in the engine, seen from its client.
pub struct Choice {
    app: Arc<App>,
    sent: Sent,
    stops: Stops,
    /// The engine's number of the sequence.
    sequence: Option<usize>,
    logprobs: Vec<TokenLogprob>,
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
    /// What was sent to the engine, seen from its client.
    pub fn new(app: Arc<App>, sent: Sent, stops: &[String]) -> Self {
        Self {
            app,
            sent,
            stops: Stops::new(stops),
            sequence: None,
            logprobs: Vec::new(),
            last: None,
            ended: false,
        }
    }

    /// Its pieces; the last one has the reason of the end, or is an error.
    ///
    /// They are read as the engine makes them, whether the client keeps up or not: a stop text ends the sequence at once, and
    /// what the metrics say is the engine's time. Dropping the stream drops the sequence.
    pub fn pieces(mut self) -> impl Stream<Item = Result<Piece, ApiError>> + Send {
        let (sender, pieces) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while !self.ended {
                let piece = tokio::select! {
                    piece = self.next() => piece,
                    () = sender.closed() => return,
                };
                self.ended |= piece.is_err();
                if sender.send(piece).is_err() {
                    return;
                }
            }
        });
        stream::unfold(pieces, |mut pieces| async {
            Some((pieces.recv().await?, pieces))
        })
    }

    async fn next(&mut self) -> Result<Piece, ApiError> {
        let news = match self.sent.responses.recv().await {
            Some(response) => self.read(response)?,
            None => self.closed()?,
        };
        let News {
            text,
            finish,
            mut piece,
        } = news;
        if let Some(watcher) = &self.sent.watcher {
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
            self.sent.responses.close();
            piece.usage = Some(self.usage(stopped));
            self.app.metrics.finished(reason, piece.usage.as_ref());
        }
        Ok(Piece {
            choice: self.sent.index,
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
            Response::InternalError(why) => Err(failure(&why.to_string())),
            Response::ModelError(why, _) | Response::CompletionModelError(why, _) => {
                Err(failure(&why))
            }
            _ => Err(ApiError::failed(
                "the engine sent an answer of another kind",
            )),
        }
    }

    /// The engine ended the sequence without saying why: with the middle of a character, or because it died.
    fn closed(&self) -> Result<News, ApiError> {
        if self.sent.engine.is_closed() || self.sequence.is_none() {
            return Err(ApiError::failed(
                "the engine ended this request; send it again",
            ));
        }
        let reason = if self.generated() >= self.sent.max_tokens {
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
        self.sent.progress.generated.fetch_add(1, Relaxed);
        let now = Instant::now();
        match self.last.replace(now) {
            None => self.app.metrics.first_token(now - self.sent.start),
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
        let seen = self.sent.progress.generated.load(Relaxed);
        // The engine may have gone on behind a stop text.
        let completion_tokens = if stopped {
            seen
        } else {
            self.generated().clamp(seen, self.sent.max_tokens.max(seen))
        };
        let held = self
            .sequence
            .and_then(|id| self.app.served.model().usage(id));
        let tokens = self.sent.progress.prompt + completion_tokens.saturating_sub(1);
        ChoiceUsage {
            completion_tokens,
            reused_tokens: held.map_or(0, |held| held.reused_tokens),
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

/// What the engine says of a sequence that it failed.
fn failure(why: &str) -> ApiError {
    // Errors of the runtime have a backtrace behind the first line.
    let why = why.lines().next().unwrap_or_default();
    // llguidance's word for a grammar without a text, such as a schema that needs itself: known only when a token is due.
    if why == "NoExtensionBias" {
        return ApiError::request(
            "response_format or grammar allows no text from here on; change the schema or the grammar",
        );
    }
    ApiError::failed(why)
}
