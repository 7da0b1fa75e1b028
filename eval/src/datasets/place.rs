//! Where a record stands.

use crate::Error;
use std::path::{Path, PathBuf};

/// A record's file, and its number there.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    path: PathBuf,
    /// Counted from 1.
    pub line: usize,
}

impl Place {
    /// The record of that number.
    pub fn new(path: &Path, line: usize) -> Self {
        Self {
            path: path.into(),
            line,
        }
    }

    /// An error about this record.
    pub fn error(&self, why: impl Into<String>) -> Error {
        Error::Line {
            path: self.path.clone(),
            line: self.line,
            why: why.into(),
        }
    }
}
