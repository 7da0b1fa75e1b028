//! An end in good order: new requests get 503, running ones finish or the time is up.

use crate::{error::ApiError, state::App};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use tokio::sync::watch;

/// Whether a server is ending.
pub struct Drain(watch::Sender<bool>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Drain {
    /// Begins the end.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Whether the end has begun.
    pub fn begun(&self) -> bool {
        *self.0.borrow()
    }
}

/// Refuses new requests once the end has begun.
pub async fn refuse(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.drain.begun() {
        let why = "the server is ending; ask another replica";
        return ApiError::unavailable(why).into_response();
    }
    next.run(request).await
}

/// Waits for SIGTERM or Ctrl-C.
pub async fn signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
