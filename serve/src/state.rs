//! What all routes share.

use crate::{
    access_log::AccessLog, admission::Admission, auth::Keys, metrics::Metrics, options::Options,
    running::Running, served::Served, shutdown::Drain,
};
use std::sync::Arc;

/// A server's state.
pub struct App {
    /// The settings.
    pub options: Options,
    /// The model.
    pub served: Served,
    /// Who may run.
    pub admission: Arc<Admission>,
    /// Who runs.
    pub running: Running,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether it is ending.
    pub drain: Drain,
    /// Who may ask.
    pub keys: Keys,
    /// Where a line per request goes.
    pub log: AccessLog,
}
