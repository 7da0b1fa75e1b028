//! `POST /v1/chat/completions`.

use crate::{
    access_log::Entry,
    error::ApiError,
    generate::{self, Piece, Prompt, Usage},
    logprobs::TokenLogprob,
    messages,
    request::{self, Fields},
    state::App,
    stream::{self, Form, now},
};
use axum::{Extension, body::Body, extract::State, response::Response};
use mistralrs_core::{NormalRequest, ToolCallResponse};
use mistralrs_server_core::{chat_completion, openai::ChatCompletionRequest};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc;

/// The most alternatives per token, as OpenAI has it.
const MOST_LOGPROBS: usize = 20;

/// Answers a conversation.
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
    entry.prompt(|| fields.get("messages").cloned().unwrap_or_default());
    let top = top_logprobs(&mut fields)?;
    messages::plain(&mut fields)?;
    let request = typed(&app, fields).await?;
    let ids = served.prompt(&request).await?;
    let tokens = ids.len();
    let then = match common.question_apart {
        true => tokens - served.before_the_last_message(&request, &ids).await?,
        false => 0,
    };
    let prompt = Prompt {
        request,
        tokens,
        then,
        param: "messages",
        logprobs: top,
    };
    let default = app.options.default_max_tokens;
    let form = Chat::new(&entry, &served.name, common.n, top);
    let answer = generate::start(&app, vec![prompt], &common, default, entry).await?;
    stream::respond(form, answer, common.stream, common.include_usage).await
}

/// The runtime's request; its channel, number and length are still to be set.
async fn typed(app: &App, fields: Fields) -> Result<NormalRequest, ApiError> {
    let openai: ChatCompletionRequest = request::typed(fields)?;
    let (response, _) = mpsc::channel(1);
    let mistral = app.served.engine().mistral().clone();
    let parsed = chat_completion::parse_request(openai, mistral, response).await;
    super::normal(parsed)
}

/// Takes out how many alternatives per token are asked for; `None` if no probabilities are.
fn top_logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let top = request::count(fields, "top_logprobs", 0)?;
    let wanted = match fields.get("logprobs") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => {
            return Err(ApiError::parameter(
                "logprobs",
                "logprobs must be true or false",
            ));
        }
    };
    if top.is_some_and(|top| top > MOST_LOGPROBS) {
        let why = format!("top_logprobs must be at most {MOST_LOGPROBS}");
        return Err(ApiError::parameter("top_logprobs", why));
    }
    if top.is_some() && !wanted {
        let why = "top_logprobs needs logprobs to be true";
        return Err(ApiError::parameter("top_logprobs", why));
    }
    fields.remove("logprobs");
    Ok(wanted.then_some(top.unwrap_or(0)))
}

/// Writes chat completions.
struct Chat {
    id: String,
    model: String,
    created: u64,
    top: Option<usize>,
    choices: Vec<Whole>,
}

#[derive(Clone, Default)]
struct Whole {
    text: String,
    reasoning: String,
    tool_calls: Vec<ToolCallResponse>,
    logprobs: Vec<Value>,
    finish: String,
}

impl Chat {
    fn new(entry: &Entry, model: &str, n: usize, top: Option<usize>) -> Self {
        Self {
            id: format!("chatcmpl-{}", entry.id()),
            model: model.into(),
            created: now(),
            top,
            choices: vec![Whole::default(); n.min(1024)],
        }
    }

    fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": "headkv",
            "choices": choices,
        })
    }

    fn logprobs(&self, tokens: &[TokenLogprob]) -> Vec<Value> {
        tokens.iter().map(logprob).collect()
    }
}

/// One token's probability in OpenAI's form.
fn logprob(token: &TokenLogprob) -> Value {
    let one = |text: &str, logprob: f32| json!({"token": text, "logprob": logprob, "bytes": text.as_bytes()});
    let others = token.top.iter().map(|(text, logprob)| one(text, *logprob));
    let others: Vec<Value> = others.collect();
    let mut value = one(&token.token, token.logprob);
    value["top_logprobs"] = others.into();
    value
}

impl Form for Chat {
    fn chunks(&mut self, piece: Piece, first: bool) -> Vec<Value> {
        let mut chunks = Vec::new();
        let choice = |delta: Value, finish: Option<&str>, logprobs: Option<Vec<Value>>| {
            let logprobs = logprobs.map(|content| json!({"content": content}));
            self.chunk(json!([{
                "index": piece.choice,
                "delta": delta,
                "logprobs": logprobs,
                "finish_reason": finish,
            }]))
        };
        if first {
            let role = json!({"role": "assistant", "content": ""});
            chunks.push(choice(role, None, None));
        }
        let mut delta = serde_json::Map::new();
        if !piece.text.is_empty() {
            delta.insert("content".into(), piece.text.clone().into());
        }
        if let Some(text) = piece.reasoning.as_ref().filter(|text| !text.is_empty()) {
            delta.insert("reasoning_content".into(), text.clone().into());
        }
        if let Some(calls) = &piece.tool_calls {
            delta.insert("tool_calls".into(), json!(calls));
        }
        let logprobs = self.top.map(|_| self.logprobs(&piece.logprobs));
        let logprobs = logprobs.filter(|tokens| !tokens.is_empty());
        if !delta.is_empty() || logprobs.is_some() {
            chunks.push(choice(delta.into(), None, logprobs));
        }
        if let Some(finish) = &piece.finish {
            chunks.push(choice(json!({}), Some(finish), None));
        }
        chunks
    }

    fn usage_chunk(&self, usage: &Usage) -> Value {
        let mut chunk = self.chunk(json!([]));
        chunk["usage"] = stream::usage(usage);
        chunk
    }

    fn add(&mut self, piece: Piece) {
        let logprobs = self.logprobs(&piece.logprobs);
        let Some(choice) = self.choices.get_mut(piece.choice) else {
            return;
        };
        choice.text += &piece.text;
        choice.reasoning += piece.reasoning.as_deref().unwrap_or_default();
        choice
            .tool_calls
            .extend(piece.tool_calls.unwrap_or_default());
        choice.logprobs.extend(logprobs);
        choice.finish = piece.finish.unwrap_or_default();
    }

    fn whole(self, usage: &Usage) -> Value {
        let choices = self.choices.iter().enumerate().map(|(index, choice)| {
            let silent = choice.text.is_empty() && !choice.tool_calls.is_empty();
            let mut message = json!({
                "role": "assistant",
                "content": (!silent).then_some(&choice.text),
            });
            if !choice.tool_calls.is_empty() {
                message["tool_calls"] = json!(choice.tool_calls);
            }
            if !choice.reasoning.is_empty() {
                message["reasoning_content"] = json!(choice.reasoning);
            }
            json!({
                "index": index,
                "message": message,
                "logprobs": self.top.map(|_| json!({"content": choice.logprobs})),
                "finish_reason": choice.finish,
            })
        });
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": "headkv",
            "choices": choices.collect::<Vec<_>>(),
            "usage": stream::usage(usage),
        })
    }
}
