//! The API's routes.

pub mod chat;
pub mod completions;
pub mod models;
pub mod status;
pub mod tokenize;

use crate::error::ApiError;
use mistralrs_core::{NormalRequest, Request};

/// What the runtime's own parser made of a request.
///
/// # Errors
/// 400 with what it did not take.
fn normal(parsed: anyhow::Result<(Request, bool)>) -> Result<NormalRequest, ApiError> {
    match parsed.map_err(|e| ApiError::request(e.root_cause().to_string()))? {
        (Request::Normal(request), _) => Ok(*request),
        _ => Err(ApiError::failed("the request became another kind")),
    }
}
