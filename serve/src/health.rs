//! Whether the process is alive, and whether it should get requests.

use crate::state::App;
use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// A step that takes longer than this is none: the longest prompts take less.
const STALLED: Duration = Duration::from_secs(120);

/// 200 as long as the process answers.
pub async fn alive() -> impl IntoResponse {
    Json(json!({"status": "ok"}))
}

/// 200 if requests are welcome; 503 while the server is ending, or the engine does not step.
pub async fn ready(State(app): State<Arc<App>>) -> impl IntoResponse {
    let stalled = app.running.stalled();
    let (status, why) = if app.drain.begun() {
        (StatusCode::SERVICE_UNAVAILABLE, "ending")
    } else if stalled > STALLED {
        (StatusCode::SERVICE_UNAVAILABLE, "the engine does not step")
    } else {
        (StatusCode::OK, "ready")
    };
    let body = json!({
        "status": why,
        "model": app.served.name,
        "running": app.running.count(),
        "waiting": app.admission.waiting(),
    });
    (status, Json(body))
}
