//! `POST /v1/completions`.

use crate::{
    access_log::Entry,
    error::ApiError,
    generate::{self, Piece, Prompt, Usage},
    logprobs::TokenLogprob,
    request::{self, Fields},
    served::Served,
    state::App,
    stream::{self, Form, now},
};
use axum::{Extension, body::Body, extract::State, response::Response};
use mistralrs_core::{NormalRequest, RequestMessage};
use mistralrs_server_core::{completions, openai::CompletionRequest};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::sync::mpsc;

/// The answer's length where a request does not say, as OpenAI has it.
const DEFAULT_MAX_TOKENS: usize = 16;

/// The most alternatives per token, as OpenAI has it.
const MOST_LOGPROBS: usize = 5;

/// Continues texts.
///
/// # Errors
/// In OpenAI's form, with the status that fits.
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(entry): Extension<Entry>,
    body: Body,
) -> Result<Response, ApiError> {
    let served = &app.served;
    let limit = app.options.max_body;
    let (mut fields, common) = request::begin(body, limit, &served.name).await?;
    if common.question_apart {
        let why = "question_apart is for conversations, whose last message is the question; ask at /v1/chat/completions";
        return Err(ApiError::parameter("headkv", why));
    }
    let vocabulary = served.engine().tokenizer().get_vocab_size(true);
    let prompt = fields.remove("prompt").unwrap_or_default();
    entry.prompt(|| prompt.clone());
    let texts = prompts(served, &prompt, vocabulary)?;
    let echo = request::flag(&mut fields, "echo")?;
    if request::count(&mut fields, "best_of", 1)?.is_some_and(|best| best != common.n) {
        let why = "best_of is not offered beyond n; leave it out";
        return Err(ApiError::parameter("best_of", why));
    }
    let top = request::count(&mut fields, "logprobs", 0)?;
    if top.is_some_and(|top| top > MOST_LOGPROBS) {
        let why = format!("logprobs must be at most {MOST_LOGPROBS}");
        return Err(ApiError::parameter("logprobs", why));
    }
    let base = typed(&app, fields)?;
    let mut echoed = Vec::new();
    let mut jobs = Vec::new();
    for tokens in texts {
        if echo {
            let text = served.engine().tokenizer().decode(&tokens, true);
            let text = text.map_err(|e| ApiError::parameter("prompt", e.to_string()))?;
            echoed.extend(vec![text; common.n.min(1024)]);
        }
        let mut request = base.clone();
        let count = tokens.len();
        request.messages = RequestMessage::CompletionTokens(tokens);
        jobs.push(Prompt {
            request,
            tokens: count,
            then: 0,
            param: "prompt",
            logprobs: top,
        });
    }
    let form = Text {
        id: format!("cmpl-{}", entry.id()),
        model: served.name.clone(),
        created: now(),
        top,
        choices: vec![Whole::default(); jobs.len().saturating_mul(common.n).min(1024)],
        echoed,
    };
    let answer = generate::start(&app, jobs, &common, DEFAULT_MAX_TOKENS, entry).await?;
    stream::respond(form, answer, common.stream, common.include_usage).await
}

/// The runtime's request; its prompt, channel, number and length are still to be set.
fn typed(app: &App, mut fields: Fields) -> Result<NormalRequest, ApiError> {
    fields.insert("prompt".into(), "".into());
    let openai: CompletionRequest = request::typed(fields)?;
    let (response, _) = mpsc::channel(1);
    let mistral = app.served.engine().mistral().clone();
    let parsed = completions::parse_request(openai, mistral, response);
    super::normal(parsed)
}

/// A text, several, token ids, or several lists of them.
fn prompts(served: &Served, prompt: &Value, vocabulary: usize) -> Result<Vec<Vec<u32>>, ApiError> {
    let wrong = |why: String| ApiError::parameter("prompt", why);
    let ids = |value: &Value| -> Option<Vec<u32>> {
        let ids = value.as_array()?.iter();
        ids.map(|id| Some(id.as_u64()? as u32)).collect()
    };
    let tokens = match prompt {
        Value::String(text) => vec![served.encode(text, true)?],
        Value::Array(list) if list.first().is_some_and(Value::is_number) => {
            vec![ids(prompt).ok_or_else(|| wrong("prompt has an id that is none".into()))?]
        }
        Value::Array(list) if !list.is_empty() => list
            .iter()
            .map(|one| match one {
                Value::String(text) => served.encode(text, true),
                _ => ids(one).ok_or_else(|| {
                    wrong("prompt must be a text, token ids, or a list of either".into())
                }),
            })
            .collect::<Result<_, _>>()?,
        _ => {
            return Err(wrong(
                "prompt must be a text, token ids, or a list of either".into(),
            ));
        }
    };
    let unknown = tokens
        .iter()
        .flatten()
        .find(|id| **id as usize >= vocabulary);
    match unknown {
        Some(id) => Err(wrong(format!(
            "prompt has token {id}; ids are below {vocabulary}"
        ))),
        None => Ok(tokens),
    }
}

/// Writes text completions.
struct Text {
    id: String,
    model: String,
    created: u64,
    top: Option<usize>,
    choices: Vec<Whole>,
    /// The prompts' texts by choice, if they are to be said again.
    echoed: Vec<String>,
}

#[derive(Clone, Default)]
struct Whole {
    text: String,
    logprobs: Vec<TokenLogprob>,
    finish: String,
}

impl Text {
    fn object(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": "headkv",
            "choices": choices,
        })
    }

    /// Tokens with their probabilities, as the older API has them.
    fn logprobs(&self, tokens: &[TokenLogprob], mut offset: usize) -> Option<Value> {
        self.top?;
        let mut offsets = Vec::new();
        for token in tokens {
            offsets.push(offset);
            offset += token.token.chars().count();
        }
        let alternatives = tokens.iter().map(|token| {
            let others = token.top.iter();
            let others = others.map(|(text, logprob)| (text.clone(), Value::from(*logprob)));
            others.collect::<Map<_, _>>()
        });
        Some(json!({
            "tokens": tokens.iter().map(|token| &token.token).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
            "top_logprobs": alternatives.collect::<Vec<_>>(),
            "text_offset": offsets,
        }))
    }

    fn choice(
        &self,
        index: usize,
        text: &str,
        logprobs: Option<Value>,
        finish: Option<&str>,
    ) -> Value {
        json!([{
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish,
        }])
    }
}

impl Form for Text {
    fn chunks(&mut self, piece: Piece, first: bool) -> Vec<Value> {
        let echoed = self.echoed.get(piece.choice).filter(|_| first);
        let text = echoed.cloned().unwrap_or_default() + &piece.text;
        let at = self
            .choices
            .get(piece.choice)
            .map_or(0, |c| c.text.chars().count());
        let logprobs = self.logprobs(&piece.logprobs, at);
        if self.top.is_some()
            && let Some(choice) = self.choices.get_mut(piece.choice)
        {
            choice.text += &text;
        }
        let choices = self.choice(piece.choice, &text, logprobs, piece.finish.as_deref());
        vec![self.object(choices)]
    }

    fn usage_chunk(&self, usage: &Usage) -> Value {
        let mut chunk = self.object(json!([]));
        chunk["usage"] = stream::usage(usage);
        chunk
    }

    fn add(&mut self, piece: Piece) {
        if let Some(choice) = self.choices.get_mut(piece.choice) {
            choice.text += &piece.text;
            choice.logprobs.extend(piece.logprobs);
            choice.finish = piece.finish.unwrap_or_default();
        }
    }

    fn whole(self, usage: &Usage) -> Value {
        let choices = self.choices.iter().enumerate().map(|(index, choice)| {
            let echoed = self.echoed.get(index).map_or("", String::as_str);
            json!({
                "index": index,
                "text": format!("{echoed}{}", choice.text),
                "logprobs": self.logprobs(&choice.logprobs, echoed.chars().count()),
                "finish_reason": choice.finish,
            })
        });
        let mut whole = self.object(choices.collect());
        whole["usage"] = stream::usage(usage);
        whole
    }
}
