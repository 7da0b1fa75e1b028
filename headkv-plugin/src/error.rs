//! What can be wrong with a configuration, a score file or a model, each with its fix.

use std::path::PathBuf;

/// Errors of the plugin; every message is one line that names the thing and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {path}: {source}; check the path")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {why}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        why: String,
    },
    /// A configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// No method has this name.
    #[error("unknown method `{name}`; known are {known}")]
    UnknownMethod {
        /// The name asked for.
        name: String,
        /// All names, comma-separated.
        known: String,
    },
    /// No ranking has this name.
    #[error("unknown ranking `{name}`; known are {known}")]
    UnknownRanking {
        /// The name asked for.
        name: String,
        /// All names, comma-separated.
        known: String,
    },
    /// A method that ranks heads got no scores.
    #[error(
        "method `{0}` needs head scores; set `scores` to the model's file (on the command line --scores), such as \
         head_scores/tiny_retrieval.json, or make one with head-scoring"
    )]
    NoScores(String),
    /// A method gave an answer that cannot be followed.
    #[error("method `{name}` {why}; correct its `budget`")]
    Method {
        /// The method.
        name: String,
        /// What it gave, and where.
        why: String,
    },
    /// The scores belong to another model.
    #[error(
        "head scores are for {scored_layers} layers x {scored_heads} heads, but the model has {layers} x {heads}; \
         name the score file of this model"
    )]
    ScoreShape {
        /// Layers in the score file.
        scored_layers: usize,
        /// Heads per layer in the score file.
        scored_heads: usize,
        /// Layers of the model.
        layers: usize,
        /// Query heads per layer of the model.
        heads: usize,
    },
}
