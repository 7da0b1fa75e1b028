//! What can be wrong with a haystack, a needle or a template.

use std::path::PathBuf;

/// Errors of this crate; every message is one line that names the thing and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {path}: {source}; check the path")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {why}")]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
    /// The needle does not fit its context.
    #[error("a needle of {needle} tokens does not fit a context of {context}; ask for a longer context")]
    NeedleTooLong {
        /// Tokens of the needle.
        needle: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// A template lacks a part.
    #[error("template lacks {0}; write {{context}} and {{question}} where they belong")]
    Template(&'static str),
    /// A pattern names a variable that is not there, or wants more values than it has.
    #[error("pattern: {0}")]
    Pattern(String),
    /// Text could not be turned into tokens.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
}
