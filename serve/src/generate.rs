//! From a checked request to the pieces of its answer: admission, submission, and what each choice says.

use crate::{
    access_log::Entry as LogEntry,
    admission::{Need, Refused},
    choice::{Choice, Sent},
    compression,
    error::ApiError,
    logprobs::{TokenLogprob, Watcher},
    request::Common,
    running::{Entry, Progress},
    seed::Seed,
    state::App,
};
use futures::{Stream, StreamExt, stream::SelectAll};
use headkv_engine::Finite;
use mistralrs_core::{CustomLogitsProcessor, NormalRequest, Request, ToolCallResponse};
use std::{collections::HashMap, pin::Pin, sync::Arc, time::Instant};
use tokio::sync::mpsc;

/// One prompt with everything that the engine has to know of it.
pub struct Prompt {
    /// The request as the engine takes it; its receiver, number and length are filled in here.
    pub request: NormalRequest,
    /// Tokens of the prompt.
    pub tokens: usize,
    /// Those at its end that come once the others are compressed.
    pub then: usize,
    /// The request's field that holds it.
    pub param: &'static str,
    /// Alternatives per token, if probabilities are asked for.
    pub logprobs: Option<usize>,
}

/// A piece of one choice of an answer.
#[derive(Debug, Default)]
pub struct Piece {
    /// The choice.
    pub choice: usize,
    /// Text that follows what came before.
    pub text: String,
    /// What a reasoning model thinks, where its template sets that apart.
    pub reasoning: Option<String>,
    /// Tools that the model calls.
    pub tool_calls: Option<Vec<ToolCallResponse>>,
    /// The tokens with their probabilities, if asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Why the choice ended, in its last piece.
    pub finish: Option<String>,
    /// What the choice took, in its last piece.
    pub usage: Option<ChoiceUsage>,
}

/// What a choice took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ChoiceUsage {
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Tokens of its prompt that an earlier one had left, and that did not run again.
    pub reused_tokens: usize,
    /// Bytes of what was kept of the prompt.
    pub kept_bytes: usize,
    /// Bytes of keys and values at the end.
    pub kv_bytes: usize,
    /// Bytes that the same would have taken with nothing dropped.
    pub full_bytes: usize,
    /// Seconds of compression.
    pub compression_seconds: f64,
}

/// What a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Tokens of its prompts.
    pub prompt_tokens: usize,
    /// Those of them that ran for none of their choices: earlier prompts had left them.
    pub cached_tokens: usize,
    /// The sums of its choices.
    pub choices: ChoiceUsage,
    /// Tokens kept of a prompt per head, on average.
    pub kept_tokens: f64,
}

type Pieces = Pin<Box<dyn Stream<Item = Result<Piece, ApiError>> + Send>>;

/// An answer that is being made; dropping it ends the making.
pub struct Answer {
    choices: SelectAll<Pieces>,
    usage: Usage,
    /// Choices of each prompt.
    n: usize,
    /// By prompt, as far as its choices have ended: tokens that ran for none of them.
    cached: HashMap<usize, usize>,
    log: LogEntry,
}

/// Measures a request until its last choice has ended or is given up.
pub struct EndToEnd {
    app: Arc<App>,
    start: Instant,
}

impl Drop for EndToEnd {
    fn drop(&mut self) {
        self.app.metrics.end_to_end(self.start.elapsed());
    }
}

/// Waits until the request may run, and hands it to the engine.
///
/// # Errors
/// 400 if it does not fit the model, the memory or the compression; 429 if too many wait; 503 if the engine is gone.
pub async fn start(
    app: &Arc<App>,
    prompts: Vec<Prompt>,
    common: &Common,
    default_max: usize,
    log: LogEntry,
) -> Result<Answer, ApiError> {
    let start = Instant::now();
    let served = &app.served;
    let own = match &common.headkv {
        None => None,
        Some(own) => Some(served.policy(compression::of(own, &served.compression)?)?),
    };
    let policy = own.as_ref().unwrap_or(&served.policy);
    let context = served.engine().context();
    let mut need = Need::default();
    let mut answers = Vec::new();
    for prompt in &prompts {
        if prompt.tokens == 0 {
            return Err(ApiError::parameter(prompt.param, "the prompt is empty"));
        }
        let room = context.saturating_sub(prompt.tokens);
        let answer = common.max_tokens.unwrap_or(default_max.min(room));
        if answer == 0 || answer > room {
            return Err(ApiError::too_long(
                prompt.param,
                prompt.tokens,
                answer.max(1),
                context,
            ));
        }
        let compressed = prompt.tokens - prompt.then;
        let footprint = served.footprint(policy, compressed, prompt.then + answer)?;
        need.bytes = need
            .bytes
            .saturating_add(footprint.bytes.saturating_mul(common.n));
        need.sequences = need.sequences.saturating_add(common.n);
        answers.push((answer, footprint));
    }
    let prompt_tokens: usize = prompts.iter().map(|prompt| prompt.tokens).sum();
    log.prompt_tokens(prompt_tokens);
    let permit = app.admission.admit(need).await.map_err(|why| match why {
        Refused::Bytes { limit } => ApiError::never_fits(need.bytes, limit),
        Refused::Sequences { limit } => ApiError::parameter(
            "n",
            format!(
                "{} answers at once, of which this server runs {limit}; lower n",
                need.sequences
            ),
        ),
        Refused::Full {
            waiting,
            retry_after,
        } => ApiError::busy(waiting, retry_after),
    })?;
    let admitted = Instant::now();
    app.metrics.queued(admitted - start);
    log.queued(admitted - start);
    let permit = Arc::new(permit);
    let end = Arc::new(EndToEnd {
        app: app.clone(),
        start,
    });
    let mut choices = SelectAll::<Pieces>::new();
    let mut kept = 0.0;
    let count = need.sequences as f64;
    for (at, (prompt, (max_tokens, footprint))) in prompts.into_iter().zip(answers).enumerate() {
        app.metrics.prompt(prompt.tokens, common.n, &footprint.kept);
        let heads = served.sizes.shape.stored_heads(policy.config.granularity);
        let mean = footprint.kept.iter().sum::<usize>() as f64
            / (heads * served.sizes.shape.layers) as f64;
        kept += mean.min(prompt.tokens as f64) * common.n as f64 / count;
        for n in 0..common.n {
            // Room for the whole answer: a client that reads slowly never holds the engine up.
            let (response, responses) = mpsc::channel(max_tokens.saturating_add(16));
            let mut request = prompt.request.clone();
            request.id = served.engine().mistral().next_request_id();
            request.is_streaming = true;
            request.sampling_params.max_len = Some(max_tokens);
            request.sampling_params.n_choices = 1;
            request.sampling_params.stop_toks = None;
            request.return_logprobs = false;
            let watcher = prompt.logprobs.map(|top| Arc::new(Watcher::new(top)));
            let mut watching: Vec<Arc<dyn CustomLogitsProcessor>> = vec![Arc::<Finite>::default()];
            watching.extend(watcher.clone().map(|watcher| watcher as _));
            watching.extend(common.seed.map(|seed| Arc::new(Seed::new(seed, n)) as _));
            request.logits_processors = Some(watching);
            let configured = (own.is_some() || prompt.then > 0).then(|| {
                served
                    .model()
                    .configure_then(request.id, own.clone(), prompt.then)
                    .map_err(|e| ApiError::parameter("headkv", e.to_string()))
            });
            let configured = configured.transpose()?;
            let progress = Arc::new(Progress {
                prompt: prompt.tokens,
                ..Progress::default()
            });
            app.running.add(Entry {
                engine: response.downgrade(),
                _permit: permit.clone(),
                _configured: configured,
                progress: progress.clone(),
            });
            request.response = response;
            let engine = served.send(Request::Normal(Box::new(request))).await?;
            let sent = Sent {
                index: at * common.n + n,
                responses,
                engine,
                progress,
                watcher,
                max_tokens,
                start,
                _end: end.clone(),
            };
            let choice = Choice::new(app.clone(), sent, &common.stops);
            choices.push(choice.pieces().boxed());
        }
    }
    Ok(Answer {
        choices,
        usage: Usage {
            prompt_tokens,
            kept_tokens: kept,
            ..Usage::default()
        },
        n: common.n,
        cached: HashMap::new(),
        log,
    })
}

impl Answer {
    /// The next piece of any choice; none when all have ended.
    pub async fn next(&mut self) -> Option<Result<Piece, ApiError>> {
        let piece = self.choices.next().await?;
        match &piece {
            Ok(piece) => {
                if let Some(own) = &piece.usage {
                    let sum = &mut self.usage.choices;
                    sum.completion_tokens += own.completion_tokens;
                    sum.kept_bytes += own.kept_bytes;
                    sum.kv_bytes += own.kv_bytes;
                    sum.full_bytes += own.full_bytes;
                    sum.compression_seconds += own.compression_seconds;
                    sum.reused_tokens += own.reused_tokens;
                    let cached = self.cached.entry(piece.choice / self.n.max(1));
                    let cached = cached.or_insert(own.reused_tokens);
                    *cached = own.reused_tokens.min(*cached);
                    self.usage.cached_tokens = self.cached.values().sum();
                    self.log.usage(&self.usage);
                }
            }
            Err(error) => {
                self.log.failed(&error.message);
                self.choices.clear();
            }
        }
        Some(piece)
    }

    /// What the choices that have ended took.
    pub fn usage(&self) -> Usage {
        self.usage
    }
}
