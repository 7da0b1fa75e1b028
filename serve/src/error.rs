//! Errors as OpenAI's clients expect them: a status, and `{"error": {"message", "type", "param", "code"}}`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Why a request gets no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The response's status.
    pub status: StatusCode,
    /// One line that names the thing and the fix.
    pub message: String,
    /// The request's field that is at fault.
    pub param: Option<String>,
    /// OpenAI's name of the case, where it has one.
    pub code: &'static str,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            message: headkv_files::terminal::one_line(&message.into()),
            param: None,
            code,
            retry_after: None,
        }
    }

    /// 400: a field of the request is wrong.
    pub fn parameter(param: &str, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_value", message);
        error.param = Some(param.into());
        error
    }

    /// 400: the request is wrong as a whole.
    pub fn request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// 400: prompt and answer do not fit the model.
    pub fn too_long(param: &str, prompt: usize, answer: usize, context: usize) -> Self {
        let mut error = Self::new(
            StatusCode::BAD_REQUEST,
            "context_length_exceeded",
            format!(
                "this model's context is {context} tokens, but {prompt} are in the prompt and {answer} asked for; \
                 shorten the prompt or lower max_tokens"
            ),
        );
        error.param = Some(param.into());
        error
    }

    /// 400: the request needs more memory than one may have.
    pub fn never_fits(need: usize, limit: usize) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "kv_budget_exceeded",
            format!(
                "the request needs {need} bytes of KV cache, of which one may have {limit}; lower max_tokens, n or \
                 headkv.capacity, or shorten the prompt"
            ),
        )
    }

    /// 401: no key, or a wrong one.
    pub fn key() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_api_key",
            "no such API key; send it as `Authorization: Bearer KEY`",
        )
    }

    /// 404: a model that is not served.
    pub fn model(asked: &str, served: &str) -> Self {
        let message = format!("the model `{asked}` does not exist; this server has `{served}`");
        let mut error = Self::new(StatusCode::NOT_FOUND, "model_not_found", message);
        error.param = Some("model".into());
        error
    }

    /// 404: no such route.
    pub fn route(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_url",
            format!("no such path: {path}"),
        )
    }

    /// 405: the route has another method.
    pub fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path has another method; see docs/serving.md",
        )
    }

    /// 408: a body that does not end.
    pub fn slow(seconds: u64) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            format!("the body did not end within {seconds} s; send it again"),
        )
    }

    /// 413: a body over the limit.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_too_large",
            format!("the body is larger than {limit} bytes; the server's --max-body says so"),
        )
    }

    /// 429: the queue is full.
    pub fn busy(waiting: usize, retry_after: u64) -> Self {
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_exceeded",
            format!("{waiting} requests are waiting already; try again in {retry_after} s"),
        );
        error.retry_after = Some(retry_after);
        error
    }

    /// 500: the engine failed this request.
    pub fn failed(why: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", why)
    }

    /// 503: the server is ending, or its engine is gone.
    pub fn unavailable(why: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why);
        error.retry_after = Some(5);
        error
    }

    /// The body.
    pub fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            let value = HeaderValue::from(seconds);
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_openais_form() {
        let error = ApiError::model("x", "tiny");
        assert_eq!(
            error.body(),
            json!({"error": {
                "message": "the model `x` does not exist; this server has `tiny`",
                "type": "invalid_request_error", "param": "model", "code": "model_not_found"
            }})
        );
        let response = ApiError::busy(3, 2).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }

    #[test]
    fn messages_are_one_line() {
        assert_eq!(ApiError::failed("a\n  b").message, "a b");
    }
}
