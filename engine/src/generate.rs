//! Greedy generation for a batch of prompts.

use crate::{Engine, Error, record::Recorder};
use headkv_plugin::{Compression, hook::Configured};
use mistralrs_core::{
    Constraint, MessageContent, NormalRequest, Request as EngineRequest, RequestMessage, Response,
    SamplingParams, StopTokens, TokenizationRequest,
};
use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};
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
        }
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
pub struct Generation {
    /// The answer's text.
    pub text: String,
    /// The tokens that greedy decoding took, an end token included.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt, with those that follow once it is compressed.
    pub prompt_tokens: usize,
    /// Seconds from the request to the first token.
    pub prompt_seconds: f64,
    /// Seconds from the first token to the last, `tokens.len() - 1` steps.
    pub decode_seconds: f64,
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
        for request in requests {
            self.check(request)?;
        }
        self.generate_each(requests).into_iter().collect()
    }

    /// As [`Engine::generate`], with an answer or an error for each request: one that fails stops no other.
    pub fn generate_each(&self, requests: &[Request]) -> Vec<Result<Generation, Error>> {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        runtime.block_on(async {
            let mut pending = Vec::with_capacity(requests.len());
            for request in requests {
                pending.push(self.submit(request).await);
            }
            let mut answers = Vec::with_capacity(requests.len());
            for (request, submitted) in requests.iter().zip(pending) {
                answers.push(match submitted {
                    Ok(submitted) => self.collect(request, submitted).await,
                    Err(error) => Err(error),
                });
            }
            answers
        })
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        if request.prompt.is_empty() {
            return Err(Error::Generation(
                "the prompt is empty; give at least one token".into(),
            ));
        }
        if request.tokens() + request.max_tokens > self.context() {
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
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        runtime.block_on(async {
            self.send(request).await?;
            let tokens = answer.recv().await.ok_or(Error::Stopped)?;
            tokens.map_err(|e| Error::Tokenizer(e.to_string()))
        })
    }

    async fn send(&self, request: EngineRequest) -> Result<(), Error> {
        let sender = self
            .mistral
            .get_sender(None)
            .map_err(|e| Error::Generation(e.to_string()))?;
        sender.send(request).await.map_err(|_| Error::Stopped)
    }

    async fn submit(&self, request: &Request) -> Result<Submitted, Error> {
        self.check(request)?;
        let (response, answer) = channel(1);
        let recorder = Arc::new(Recorder::new(
            request.keep_logits,
            &self.end_tokens,
            request.min_tokens,
        ));
        let sampling = SamplingParams {
            // Without it the engine samples at temperature 1 from the one best token: it sorts the vocabulary.
            temperature: Some(0.0),
            max_len: Some(request.max_tokens),
            stop_toks: (!request.stop.is_empty()).then(|| StopTokens::Seqs(request.stop.clone())),
            ..SamplingParams::deterministic()
        };
        let tokens = [request.prompt.as_slice(), &request.then].concat();
        let message = RequestMessage::CompletionTokens(tokens);
        let id = self.mistral.next_request_id();
        let policy = match &request.compression {
            Some(compression) => Some(self.compressed()?.policy(compression)?),
            None => None,
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
            ..NormalRequest::new_simple(message, sampling, response, id, None, None)
        };
        let start = Instant::now();
        self.send(EngineRequest::Normal(Box::new(normal))).await?;
        Ok(Submitted {
            start,
            recorder,
            answer,
            _configured: configured,
        })
    }

    async fn collect(
        &self,
        request: &Request,
        mut submitted: Submitted,
    ) -> Result<Generation, Error> {
        let (sequence, text) = match submitted.answer.recv().await.ok_or(Error::Stopped)? {
            Response::CompletionDone(done) => {
                let text = done.choices.into_iter().next().map(|choice| choice.text);
                (done.id, text.unwrap_or_default())
            }
            Response::CompletionModelError(why, _) | Response::ModelError(why, _) => {
                return Err(Error::Generation(crate::files::first_line(&why).into()));
            }
            Response::InternalError(why) | Response::ValidationError(why) => {
                return Err(Error::Generation(
                    crate::files::first_line(&why.to_string()).into(),
                ));
            }
            _ => {
                return Err(Error::Generation(
                    "the engine sent an answer of another kind".into(),
                ));
            }
        };
        let recording = submitted.recorder.take();
        let (Some(first), Some(last)) = (recording.times.first(), recording.times.last()) else {
            return Err(Error::Generation(
                "the engine answered without generating".into(),
            ));
        };
        // A response's id is its sequence's number.
        let usage = match (&self.model, sequence.parse()) {
            (Some(model), Ok(sequence)) => model.usage(sequence),
            _ => None,
        };
        let per_token = self.token_bytes();
        let full = per_token * (request.tokens() + recording.tokens.len() - 1);
        Ok(Generation {
            text,
            prompt_tokens: request.tokens(),
            prompt_seconds: first.duration_since(submitted.start).as_secs_f64(),
            decode_seconds: last.duration_since(*first).as_secs_f64(),
            kv_bytes: usage.map_or(full, |usage| usage.kept_bytes + usage.tail_bytes),
            kept_bytes: usage.map_or(per_token * request.prompt.len(), |usage| usage.kept_bytes),
            tokens: recording.tokens,
            logits: recording.logits,
        })
    }
}

struct Submitted {
    start: Instant,
    recorder: Arc<Recorder>,
    answer: Receiver<Response>,
    _configured: Option<Configured>,
}
