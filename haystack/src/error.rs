//! What can be wrong with a haystack, a needle or a template.

use std::path::PathBuf;

/// Errors of this crate; every message is one line that names the thing and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read.
    #[error(transparent)]
    Files(#[from] headkv_files::Error),
    /// A folder or file without any text for a haystack.
    #[error("{} holds no text; give a text file, or a folder with .txt files", .0.display())]
    NoText(PathBuf),
    /// A line of a JSON Lines file that is not what it should be.
    #[error("{}, line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A file with no needle in it.
    #[error("{} holds no needles; write one JSON object a line with needle, question and real_needle", .0.display())]
    NoNeedles(PathBuf),
    /// A pattern that cannot be filled.
    #[error("{}: {why}", path.display())]
    Pattern {
        /// The pattern file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A needle that does not fit its context.
    #[error(
        "a needle of {needle} tokens does not fit a context of {length}; ask for a longer context"
    )]
    NeedleTooLong {
        /// Tokens of the needle.
        needle: usize,
        /// Tokens of the context.
        length: usize,
    },
    /// A context longer than the inserter was made for.
    #[error("a context of {length} tokens was asked for, but the haystack was prepared for {max}")]
    ContextTooLong {
        /// Tokens of the context.
        length: usize,
        /// The most that there can be.
        max: usize,
    },
    /// A tokenizer that makes next to nothing of text.
    #[error(
        "the tokenizer makes {found} tokens of {bytes} bytes of text, where {wanted} are needed; its vocabulary is damaged"
    )]
    FewTokens {
        /// Tokens of the text.
        found: usize,
        /// Bytes of the text.
        bytes: usize,
        /// Tokens that were asked for.
        wanted: usize,
    },
    /// A context longer than any model's.
    #[error(
        "a context of {length} tokens is more than the {max} that there can be; ask for a shorter one"
    )]
    Endless {
        /// Tokens of the context.
        length: usize,
        /// The most that there can be.
        max: usize,
    },
    /// A depth outside 0 to 100.
    #[error("depth {0} is outside 0 to 100 percent")]
    Depth(f64),
    /// A template without a place for the context or the question.
    #[error(
        "unknown template `{0}`; use plain, book, chat, or a text with {{context}} and then {{question}} in it"
    )]
    Template(String),
    /// A file that is no tokenizer.
    #[error("{} is no tokenizer ({why})", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Text could not be turned into tokens.
    #[error("tokenizer: {0}")]
    Tokenizer(#[from] tokenizers::Error),
}
