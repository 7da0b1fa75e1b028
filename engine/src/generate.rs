//! Greedy generation for a batch of prompts.

use crate::{Engine, Error, finite::NOT_A_NUMBER, record::Recorder, wait::wait};
use headkv_plugin::{Compression, hook::Configured, watch::Watch};
use mistralrs_core::{
    Constraint, MessageContent, NormalRequest, Request as EngineRequest, RequestMessage, Response,
    SamplingParams, StopTokens, TokenizationRequest,
};
use std::{sync::Arc, time::Instant};
use tokio::sync::mpsc::{Receiver, channel};

/// A prompt and when to stop.
#[derive(Clone, Debug)]
pub struct Request {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Token ids that follow once the prompt is compressed, such as a question about it: they see what is kept of it, have
    /// no part in choosing that, and stay whole. Where nothing is compressed they are the prompt's end.
    pub then: Vec<u32>,
    /// The model's own end tokens are not taken before so many tokens.
    pub min_tokens: usize,
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// Texts that end the answer, besides the model's own end tokens; they are not part of it.
    pub stop: Vec<String>,
    /// Whether to keep the logits of every step.
    pub keep_logits: bool,
    /// What is kept of this request's prompt, if not what the model's configuration says.
    pub compression: Option<Compression>,
    /// Is told which tokens of the prompt are kept; of a model with a hook.
    pub watch: Option<Arc<Watch>>,
}

impl Request {
    /// Generates up to `max_tokens` tokens.
    pub fn new(prompt: Vec<u32>, max_tokens: usize) -> Self {
        Self {
            prompt,
            then: Vec::new(),
            min_tokens: 0,
            max_tokens,
            stop: Vec::new(),
            keep_logits: false,
            compression: None,
            watch: None,
        }
    }

    /// Sets what is kept of this request's prompt.
    pub fn compressed(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// The tokens of prompt and `then`.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.then.len()
    }

    /// Ends the answer before that text.
    pub fn stop_at(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }
}

/// An answer and what it took.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Generation {
    /// The answer's text.
    pub text: String,
    /// The tokens that greedy decoding took, an end token included.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt, with those that follow once it is compressed.
    pub prompt_tokens: usize,
    /// Those of them that an earlier prompt had left, and that did not run again.
    pub reused_tokens: usize,
    /// Seconds from the request to the first token.
    pub prompt_seconds: f64,
    /// Seconds from the first token to the last, `tokens.len() - 1` steps.
    pub decode_seconds: f64,
    /// Seconds from the request to each token.
    pub token_seconds: Vec<f64>,
    /// Bytes of keys and values held at the end, over all layers; without a hook, those that the tokens take.
    pub kv_bytes: usize,
    /// The part of `kv_bytes` that the prompt left.
    pub kept_bytes: usize,
    /// One row of the vocabulary's logits per token, if asked for.
    pub logits: Vec<Vec<f32>>,
}

impl Engine {
    /// Generates greedily for all requests, which decode together; the answers come in the requests' order.
    ///
    /// # Errors
    /// [`Error::TooLong`] before anything runs; [`Error::Generation`] if the engine fails a request, once all are
    /// answered.
    pub fn generate(&self, requests: &[Request]) -> Result<Vec<Generation>, Error> {
        wait(self.generate_async(requests))
    }

    /// As [`Engine::generate`]; dropping the future ends the requests.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub async fn generate_async(&self, requests: &[Request]) -> Result<Vec<Generation>, Error> {
        for request in requests {
            self.check(request)?;
        }
        let answers = self.generate_each_async(requests).await;
        answers.into_iter().collect()
    }

    /// As [`Engine::generate`], with an answer or an error for each request: one that fails stops no other.
    pub fn generate_each(&self, requests: &[Request]) -> Vec<Result<Generation, Error>> {
        wait(self.generate_each_async(requests))
    }

    /// As [`Engine::generate_each`]; dropping the future ends the requests.
    pub async fn generate_each_async(
        &self,
        requests: &[Request],
    ) -> Vec<Result<Generation, Error>> {
        let mut pending = Vec::with_capacity(requests.len());
        for request in requests {
            pending.push(self.submit(request, false).await);
        }
        let mut answers = Vec::with_capacity(requests.len());
        for submitted in pending {
            answers.push(match submitted {
                Ok(submitted) => self.collect(submitted).await,
                Err(error) => Err(error),
            });
        }
        answers
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        if request.prompt.is_empty() {
            return Err(Error::Generation(
                "the prompt is empty; give at least one token".into(),
            ));
        }
        if request.tokens().saturating_add(request.max_tokens) > self.context() {
            return Err(Error::TooLong {
                prompt: request.tokens(),
                answer: request.max_tokens,
                context: self.context(),
            });
        }
        Ok(())
    }

    /// Token ids of a conversation with one message of the user, in the model's own chat template.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the model has no chat template.
    pub fn encode_chat(&self, user: &str) -> Result<Vec<u32>, Error> {
        wait(self.encode_chat_async(user))
    }

    /// As [`Engine::encode_chat`].
    ///
    /// # Errors
    /// As [`Engine::encode_chat`].
    pub async fn encode_chat_async(&self, user: &str) -> Result<Vec<u32>, Error> {
        if !self.files().has_chat_template() {
            return Err(Error::Tokenizer(
                "the model has no chat template; ask it with plain text".into(),
            ));
        }
        let message = [("role", "user"), ("content", user)]
            .map(|(key, text)| (key.to_string(), MessageContent::Left(text.to_string())));
        let (response, mut answer) = channel(1);
        let request = EngineRequest::Tokenize(TokenizationRequest {
            text: either::Either::Left(vec![message.into_iter().collect()]),
            tools: None,
            add_generation_prompt: true,
            add_special_tokens: false,
            enable_thinking: None,
            reasoning_effort: None,
            response,
        });
        self.send(request).await?;
        let tokens = answer.recv().await.ok_or(Error::Stopped)?;
        tokens.map_err(|e| Error::Tokenizer(e.to_string()))
    }

    /// Whether the engine's thread is gone.
    pub(crate) fn is_stopped(&self) -> bool {
        let sender = self.mistral.get_sender(None);
        sender.map_or(true, |sender| sender.is_closed())
    }

    async fn send(&self, request: EngineRequest) -> Result<(), Error> {
        let sender = self
            .mistral
            .get_sender(None)
            .map_err(|e| Error::Generation(e.to_string()))?;
        sender.send(request).await.map_err(|_| Error::Stopped)
    }

    /// Hands a request to the engine; one that `streams` leaves its stop texts to the reader.
    pub(crate) async fn submit(
        &self,
        request: &Request,
        streams: bool,
    ) -> Result<Submitted, Error> {
        self.check(request)?;
        // A stream has room for all of its pieces: a slow reader never holds the engine up.
        let room = if streams {
            request.max_tokens.saturating_add(16)
        } else {
            1
        };
        let (response, answer) = channel(room);
        let recorder = Arc::new(Recorder::new(
            request.keep_logits,
            &self.end_tokens,
            request.min_tokens,
        ));
        let sampling = SamplingParams {
            // Without it the engine samples at temperature 1 from the one best token: it sorts the vocabulary.
            temperature: Some(0.0),
            max_len: Some(request.max_tokens),
            stop_toks: (!streams && !request.stop.is_empty())
                .then(|| StopTokens::Seqs(request.stop.clone())),
            ..SamplingParams::deterministic()
        };
        let tokens = [request.prompt.as_slice(), &request.then].concat();
        let message = RequestMessage::CompletionTokens(tokens);
        let id = self.mistral.next_request_id();
        let policy = match &request.compression {
            Some(compression) => Some(self.compressed()?.policy(compression)?),
            None => None,
        };
        let policy = match (&request.watch, &self.model) {
            (Some(watch), Some(model)) => Some(model.watched(policy, watch)),
            _ => policy,
        };
        let then = request.then.len();
        let configured = match &self.model {
            Some(model) if policy.is_some() || then > 0 => {
                Some(model.configure_then(id, policy, then)?)
            }
            _ => None,
        };
        let normal = NormalRequest {
            constraint: Constraint::None,
            logits_processors: Some(vec![recorder.clone()]),
            is_streaming: streams,
            ..NormalRequest::new_simple(message, sampling, response, id, None, None)
        };
        let start = Instant::now();
        self.send(EngineRequest::Normal(Box::new(normal))).await?;
        Ok(Submitted {
            start,
            prompt_tokens: request.tokens(),
            recorder,
            answer,
            _configured: configured,
        })
    }

    async fn collect(&self, mut submitted: Submitted) -> Result<Generation, Error> {
        let (sequence, text) = match submitted.answer.recv().await.ok_or(Error::Stopped)? {
            Response::CompletionDone(done) => {
                let text = done.choices.into_iter().next().map(|choice| choice.text);
                (done.id, text.unwrap_or_default())
            }
            other => return Err(failure(other)),
        };
        self.generation(&submitted, sequence.parse().ok(), text)
    }

    /// What a request that has ended took; `sequence` is its number in the engine.
    pub(crate) fn generation(
        &self,
        submitted: &Submitted,
        sequence: Option<usize>,
        text: String,
    ) -> Result<Generation, Error> {
        let recording = submitted.recorder.take();
        let (Some(first), Some(last)) = (recording.times.first(), recording.times.last()) else {
            return Err(Error::Generation(
                "the engine answered without generating".into(),
            ));
        };
        // A response's id is its sequence's number.
        let usage = match (&self.model, sequence) {
            (Some(model), Some(sequence)) => model.usage(sequence),
            _ => None,
        };
        let per_token = self.token_bytes();
        let full = per_token * (submitted.prompt_tokens + recording.tokens.len() - 1);
        let since = |time: &Instant| time.duration_since(submitted.start).as_secs_f64();
        Ok(Generation {
            text,
            prompt_tokens: submitted.prompt_tokens,
            reused_tokens: usage.map_or(0, |usage| usage.reused_tokens),
            prompt_seconds: since(first),
            decode_seconds: last.duration_since(*first).as_secs_f64(),
            token_seconds: recording.times.iter().map(since).collect(),
            kv_bytes: usage.map_or(full, |usage| usage.kept_bytes + usage.tail_bytes),
            kept_bytes: usage.map_or(per_token * submitted.prompt_tokens, |usage| {
                usage.kept_bytes
            }),
            tokens: recording.tokens,
            logits: recording.logits,
        })
    }
}

/// A request that the engine has.
pub(crate) struct Submitted {
    start: Instant,
    prompt_tokens: usize,
    recorder: Arc<Recorder>,
    pub(crate) answer: Receiver<Response>,
    _configured: Option<Configured>,
}

/// What a response says that is no answer.
pub(crate) fn failure(response: Response) -> Error {
    let why = match response {
        Response::CompletionModelError(why, _) | Response::ModelError(why, _) => why,
        Response::InternalError(why) | Response::ValidationError(why) => why.to_string(),
        _ => "the engine sent an answer of another kind".into(),
    };
    if why.contains(NOT_A_NUMBER) {
        return Error::NotANumber;
    }
    Error::Generation(crate::files::first_line(&why).into())
}
