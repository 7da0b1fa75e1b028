//! What can go wrong with a file.

use std::{io, path::PathBuf};

/// Errors of this crate; every message is one line that names the thing and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something cannot be read, written, locked or removed.
    #[error("cannot {verb} {}: {why}", path.display())]
    Io {
        /// What was tried, such as "read".
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason. It is part of the message and therefore no source, which would be said a second time.
        why: io::Error,
    },
    /// A line that is not what it should be.
    #[error("{}, line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it, and the fix.
        why: String,
    },
    /// Another run writes there.
    #[error("{} is being written by another run; wait for it, or choose another --out", .0.display())]
    Locked(PathBuf),
    /// Ctrl-C cannot be caught.
    #[error("cannot catch Ctrl-C: {0}")]
    Interrupt(String),
}

impl Error {
    /// Wraps the system's reason: `verb` is what was tried, such as "read".
    pub fn io(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |why| Self::Io { verb, path, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn a_reason_is_said_once() {
        let error = Error::io("read", "a.json")(io::Error::other("no such file"));
        assert_eq!(error.to_string(), "cannot read a.json: no such file");
        // Whoever prints an error's sources behind it prints nothing more.
        assert!(error.source().is_none());
    }
}
