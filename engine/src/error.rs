//! What can go wrong between a path and an answer.

use std::path::PathBuf;

/// Errors of loading and generating; every message is one line that names the thing and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model's files are missing or damaged.
    #[error("model {path}: {why}")]
    Model {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The device cannot be used.
    #[error("device {name}: {why}")]
    Device {
        /// The name asked for.
        name: String,
        /// The reason.
        why: String,
    },
    /// Weights cannot be quantized like that.
    #[error("quantization {0:?}: use q4_0, q4_1, q5_0, q5_1, q8_0, q2k, q3k, q4k, q5k or q6k")]
    Isq(String),
    /// A prompt and its answer do not fit the model.
    #[error(
        "a prompt of {prompt} tokens with up to {answer} tokens of answer does not fit the model's context of \
         {context}; shorten the prompt"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Most tokens of the answer.
        answer: usize,
        /// The model's context in tokens.
        context: usize,
    },
    /// A file of what a prompt leaves cannot be used.
    #[error("state {path}: {why}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Text could not be turned into tokens.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The compression's configuration does not fit.
    #[error(transparent)]
    Compression(#[from] headkv_plugin::Error),
    /// The model has no compression to ask about or to change.
    #[error("this model was loaded without compression; load it with Attention::Compressed")]
    NotCompressed,
    /// The engine failed a request.
    #[error("generation failed: {0}")]
    Generation(String),
    /// The model computes no numbers.
    #[error("{}; check the model's files", crate::finite::NOT_A_NUMBER)]
    NotANumber,
    /// The engine is gone, for all requests.
    #[error("the engine has stopped; load the model again")]
    Stopped,
}
