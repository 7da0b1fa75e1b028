//! The text that hides the needle: generated, one file, or all text files of a folder.

use crate::{Error, text};
use std::{fs, path::Path};

/// A source of text of any length; a file or folder that is too short is repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct Haystack(Source);

#[derive(Clone, Debug, PartialEq)]
enum Source {
    Generated { seed: u64 },
    Text(String),
}

impl Haystack {
    /// Text that the project generates itself (see [`text`]); the same seed gives the same text.
    pub fn generated(seed: u64) -> Self {
        Self(Source::Generated { seed })
    }

    /// A text file, or all `.txt` files of a folder in the order of their names. Bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// [`Error::Read`] for what cannot be read, [`Error::NoText`] if nothing but white space was found.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read {
            path: path.into(),
            source,
        };
        let mut files = Vec::new();
        if path.is_dir() {
            for entry in fs::read_dir(path).map_err(failed)? {
                let file = entry.map_err(failed)?.path();
                if file.extension().is_some_and(|e| e == "txt") {
                    files.push(file);
                }
            }
            files.sort();
        } else {
            files.push(path.into());
        }
        let mut text = String::new();
        for file in files {
            let bytes = fs::read(&file).map_err(|source| Error::Read { path: file, source })?;
            text.push_str(String::from_utf8_lossy(&bytes).trim());
            text.push('\n');
        }
        if text.trim().is_empty() {
            return Err(Error::NoText(path.into()));
        }
        Ok(Self(Source::Text(text)))
    }

    /// At least that many bytes of text; a longer text begins with the shorter one.
    pub fn text(&self, bytes: usize) -> String {
        match &self.0 {
            Source::Generated { seed } => text::generate(*seed, bytes),
            Source::Text(text) => text.repeat(bytes.div_ceil(text.len()).max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_in_order_and_repeated() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.txt"), "Second.").unwrap();
        fs::write(dir.path().join("a.txt"), b"First\xff.\n").unwrap();
        fs::write(dir.path().join("c.md"), "Never.").unwrap();
        let text = Haystack::read(dir.path()).unwrap().text(20);
        assert_eq!(text, "First\u{fffd}.\nSecond.\nFirst\u{fffd}.\nSecond.\n");
    }

    #[test]
    fn bad_sources_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| Haystack::read(path).unwrap_err().to_string();
        assert!(message(dir.path()).contains("holds no text"));
        assert!(message(&dir.path().join("none")).starts_with("cannot read"));
        let empty = dir.path().join("empty.txt");
        fs::write(&empty, " \n").unwrap();
        assert!(message(&empty).contains("empty.txt holds no text"));
    }
}
