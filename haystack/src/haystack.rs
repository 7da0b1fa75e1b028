//! Where the text comes from: generated, or read from files.

use crate::{Error, generate};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A source of text, repeated where it is too short.
#[derive(Clone, Debug)]
pub struct Haystack {
    /// `None`: generated from the seed to any length.
    text: Option<String>,
    seed: u64,
}

impl Haystack {
    /// Text that this crate makes up.
    pub fn generated(seed: u64) -> Self {
        Self { text: None, seed }
    }

    /// A text file, or all `.txt` files below a folder in the order of their names.
    ///
    /// # Errors
    /// [`Error::Read`] if there is no such path, [`Error::Format`] if it holds no text.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read { path: path.into(), source };
        let mut files = vec![path.to_path_buf()];
        if fs::metadata(path).map_err(read)?.is_dir() {
            files = texts(path).map_err(read)?;
        }
        let mut text = String::new();
        for file in files {
            let bytes = fs::read(&file).map_err(|source| Error::Read { path: file, source })?;
            text.push_str(String::from_utf8_lossy(&bytes).trim_end());
            text.push('\n');
        }
        if text.trim().is_empty() {
            return Err(Error::Format { path: path.into(), why: "holds no text; name a text file or a folder of .txt files".into() });
        }
        Ok(Self { text: Some(text), seed: 0 })
    }

    /// At least `bytes` bytes of text.
    pub fn text(&self, bytes: usize) -> String {
        match &self.text {
            None => generate(self.seed, bytes),
            Some(text) => text.repeat(bytes.div_ceil(text.len()).max(1)),
        }
    }
}

fn texts(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            found.extend(texts(&entry)?);
        } else if entry.extension().is_some_and(|e| e == "txt") {
            found.push(entry);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_folders_in_order_and_repeats() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.txt"), "two.").unwrap();
        fs::write(dir.path().join("a.txt"), "one.\n").unwrap();
        fs::write(dir.path().join("c.md"), "not this").unwrap();
        let haystack = Haystack::read(dir.path()).unwrap();
        assert_eq!(haystack.text(1), "one.\ntwo.\n");
        assert_eq!(haystack.text(11), "one.\ntwo.\none.\ntwo.\n");
    }

    #[test]
    fn empty_and_missing_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Haystack::read(dir.path()).unwrap_err().to_string().contains("holds no text"));
        assert!(Haystack::read(Path::new("no/such")).unwrap_err().to_string().contains("no/such"));
    }
}
