//! What is told of a score file's making, beside it.

use crate::{Error, Kind, file};
use headkv_files::{read, whole};
use headkv_haystack::Needle;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// Everything that scores depend on.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Settings {
    /// The model folder's or file's name.
    pub model: String,
    /// SHA-256 of the weights.
    pub weights_sha256: String,
    /// SHA-256 of the tokenizer.
    pub tokenizer_sha256: String,
    /// Where the model ran: a GPU computes in 16 bits, the CPU in f32.
    pub device: String,
    /// The estimator.
    pub kind: Kind,
    /// The needles.
    pub needles: Vec<Needle>,
    /// Where the text around them came from.
    pub haystack: String,
    /// Lengths of the contexts in tokens.
    pub lengths: Vec<usize>,
    /// Depths of the needles in percent.
    pub depths: Vec<f64>,
    /// The prompt template.
    pub template: String,
    /// The most tokens of an answer.
    pub max_tokens: usize,
    /// SHA-256 over the token ids of all prompts.
    pub prompts_sha256: String,
    /// The tool and its version.
    pub tool: String,
}

/// What is told of a score file's making, in `{file}.meta.json` beside it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Meta {
    /// What the scores depend on.
    #[serde(flatten)]
    pub settings: Settings,
    /// Examples that were answered right and so count.
    pub counted: usize,
    /// Examples that were tried.
    pub total: usize,
    /// When the file was made, in UTC.
    pub date: String,
    /// The command that made it.
    pub command: String,
}

impl Meta {
    /// The file beside a score file: `x.json` has `x.meta.json`, any other `x` has `x.meta`.
    pub fn path(scores: &Path) -> PathBuf {
        if scores.extension().is_some_and(|e| e == "json") {
            scores.with_extension("meta.json")
        } else {
            file::appended(scores, ".meta")
        }
    }

    /// What lies beside a score file; `None` if nothing does, as beside the original project's files.
    ///
    /// # Errors
    /// [`Error::Meta`] for a file that says something else, [`Error::Files`].
    pub fn beside(scores: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(scores);
        let Some(bytes) = read::bytes_if_there(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            let why = e.to_string();
            Error::Meta { path, why }
        })
    }

    /// Writes it beside a score file.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn write(&self, scores: &Path) -> Result<(), Error> {
        let text = format!("{:#}\n", json!(self));
        Ok(whole::write(&Self::path(scores), text)?)
    }

    /// Removes what lies beside a score file, if anything does.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn remove(scores: &Path) -> Result<(), Error> {
        let path = Self::path(scores);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(headkv_files::Error::io("remove", path)(error).into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_score_file_has_a_meta_file_of_its_own() {
        let names = [
            "s",
            "s.json",
            "s.a",
            "s.b",
            "s.meta",
            "s.meta.json",
            "t.q4_1_x.json",
        ];
        let metas: HashSet<PathBuf> = names
            .iter()
            .map(|name| Meta::path(Path::new(name)))
            .collect();
        assert_eq!(metas.len(), names.len(), "{metas:?}");
        assert_eq!(
            Meta::path(Path::new("a/s.q4_1_x.json")),
            Path::new("a/s.q4_1_x.meta.json")
        );
    }

    #[test]
    fn a_damaged_meta_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let scores = dir.path().join("s.json");
        assert!(Meta::beside(&scores).unwrap().is_none());
        fs::write(dir.path().join("s.meta.json"), "{}").unwrap();
        let message = Meta::beside(&scores).unwrap_err().to_string();
        assert!(
            message.contains("s.meta.json does not say how the scores were made"),
            "{message}"
        );
        Meta::remove(&scores).unwrap();
        Meta::remove(&scores).unwrap();
        assert!(Meta::beside(&scores).unwrap().is_none());
    }
}
