//! `GET /status`: what the live page shows.

use crate::state::App;
use axum::{Json, extract::State};
use headkv_plugin::methods::Budget;
use serde_json::{Value, json};
use std::sync::Arc;

/// A prompt's length for which the map of budgets is made.
const EXAMPLE_PROMPT: usize = 4096;

/// Requests, bytes and tokens now, and what each head keeps of a long prompt.
pub async fn show(State(app): State<Arc<App>>) -> Json<Value> {
    let served = &app.served;
    let config = &served.policy.config;
    let limits = app.admission.limits();
    Json(json!({
        "model": served.name,
        "method": config.method,
        "capacity": config.capacity,
        "running": app.running.count(),
        "waiting": app.admission.waiting(),
        "held": served.model().held_bytes(),
        "full": app.running.tokens() * served.sizes.token_bytes(),
        "reserved": app.admission.used().bytes,
        "budget": limits.all.bytes,
        "remembered": served.model().remembered_bytes().0,
        "generated": app.metrics.generated(),
        "heads": {"prompt": EXAMPLE_PROMPT, "kept": heads(&app)},
    }))
}

/// Tokens that each stored head keeps, layer by layer; a layer's mean where the prompt decides.
fn heads(app: &App) -> Vec<Vec<usize>> {
    let served = &app.served;
    let policy = &served.policy;
    let stored = served.sizes.shape.stored_heads(policy.config.granularity);
    let layer = |layer: usize| match policy.lengths(layer, EXAMPLE_PROMPT) {
        Ok(Some(lengths)) => lengths,
        _ => {
            let mean = match policy.budget(layer, EXAMPLE_PROMPT) {
                Ok(Budget::Shared { mean, .. }) => mean,
                Ok(Budget::Competing { total, .. } | Budget::Enough { total, .. }) => {
                    total / stored
                }
                _ => 0,
            };
            vec![mean + policy.config.recent(); stored]
        }
    };
    (0..served.sizes.shape.layers).map(layer).collect()
}
