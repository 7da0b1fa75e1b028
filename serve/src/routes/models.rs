//! `GET /v1/models` and `GET /v1/models/{name}`.

use crate::{error::ApiError, state::App};
use axum::{
    Json,
    extract::{Path, State},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// The one model that is served.
pub async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [object(&app)]}))
}

/// The model of that name.
///
/// # Errors
/// 404 for another name.
pub async fn get(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if name == app.served.name {
        Ok(Json(object(&app)))
    } else {
        Err(ApiError::model(&name, &app.served.name))
    }
}

fn object(app: &App) -> Value {
    let served = &app.served;
    let config = &served.policy.config;
    json!({
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "headkv",
        "max_model_len": served.engine().context(),
        "headkv": {"method": config.method, "capacity": config.capacity},
    })
}
