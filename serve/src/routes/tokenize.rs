//! `POST /tokenize` and `POST /detokenize`, as vLLM has them.

use crate::{error::ApiError, request, state::App};
use axum::{Json, body::Body, extract::State};
use serde_json::{Value, json};
use std::sync::Arc;

/// Token ids of a text: `{"prompt": "...", "add_special_tokens": true}`.
///
/// # Errors
/// 400 for other fields' values, 413.
pub async fn encode(State(app): State<Arc<App>>, body: Body) -> Result<Json<Value>, ApiError> {
    let body = request::read(body, app.options.max_body).await?;
    let fields = request::fields(&body)?;
    let Some(Value::String(text)) = fields.get("prompt").or(fields.get("text")) else {
        return Err(ApiError::parameter("prompt", "prompt must be a string"));
    };
    let special = match fields.get("add_special_tokens") {
        None => true,
        Some(Value::Bool(special)) => *special,
        Some(_) => {
            return Err(ApiError::parameter(
                "add_special_tokens",
                "add_special_tokens must be true or false",
            ));
        }
    };
    let tokens = app.served.encode(text, special)?;
    Ok(Json(json!({
        "count": tokens.len(),
        "max_model_len": app.served.engine().context(),
        "tokens": tokens,
    })))
}

/// The text of token ids: `{"tokens": [1, 2]}`.
///
/// # Errors
/// 400 for other fields' values, 413.
pub async fn decode(State(app): State<Arc<App>>, body: Body) -> Result<Json<Value>, ApiError> {
    let body = request::read(body, app.options.max_body).await?;
    let mut fields = request::fields(&body)?;
    let wrong = |why: String| ApiError::parameter("tokens", why);
    let tokens: Vec<u32> = serde_json::from_value(fields.remove("tokens").unwrap_or_default())
        .map_err(|_| wrong("tokens must be a list of ids".into()))?;
    let text = app.served.engine().tokenizer().decode(&tokens, false);
    let text = text.map_err(|e| wrong(e.to_string()))?;
    Ok(Json(json!({"prompt": text})))
}
