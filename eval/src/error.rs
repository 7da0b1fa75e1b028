//! What can be wrong with the input of a benchmark.

use std::path::{Path, PathBuf};

/// Errors of this crate; every message is one line that names the thing and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {why}; check the path", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why. It is part of the message and therefore no source, which would be said a second time.
        why: std::io::Error,
    },
    /// A line or record that is not what it should be.
    #[error("{}, line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The field and what is wrong with it.
        why: String,
    },
    /// A file that is not what it should be.
    #[error("{}: {why}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and the fix.
        why: String,
    },
    /// A file of results cannot be read, written or locked.
    #[error(transparent)]
    Files(#[from] headkv_files::Error),
    /// An option or a key of a grid file with a wrong value.
    #[error("{0}")]
    Option(String),
    /// A backend that cannot do what was asked, for any prompt.
    #[error("{0}")]
    Backend(String),
    /// A haystack or needle that does not fit.
    #[error(transparent)]
    Haystack(#[from] headkv_haystack::Error),
    /// Text could not be turned into tokens or back.
    #[error("tokenizer: {0}")]
    Tokenizer(#[from] tokenizers::Error),
}

impl Error {
    pub(crate) fn file(path: &Path, why: impl Into<String>) -> Self {
        Self::File {
            path: path.into(),
            why: why.into(),
        }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |why| Self::Read {
            path: path.into(),
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn a_reason_is_said_once() {
        let error = Error::read(Path::new("a.json"))(std::io::Error::other("no such file"));
        assert_eq!(
            error.to_string(),
            "cannot read a.json: no such file; check the path"
        );
        assert!(error.source().is_none());
    }
}
