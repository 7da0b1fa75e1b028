//! Which head scores belong to a model: by its name, else by its weights' digest.

use anyhow::{Result, bail};
use headkv_engine::ModelFiles;
use headkv_files::shell;
use headkv_plugin::{Compression, HeadScores, methods, scores::Kind};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Score files of one model.
#[derive(Clone, Debug)]
pub struct Scores {
    folder: PathBuf,
    model: PathBuf,
    name: String,
    digest: Option<String>,
}

impl Scores {
    /// Those in `folder` of a model. Its weights are read only if no file there has its name.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn of(files: &ModelFiles, folder: PathBuf) -> Result<Self> {
        let name = files.name();
        let named = Kind::ALL
            .iter()
            .any(|kind| HeadScores::path(&folder, &name, *kind).is_file());
        let digest = if named { None } else { Some(files.digest()?) };
        Ok(Self {
            folder,
            model: files.path().into(),
            name,
            digest,
        })
    }

    /// The configuration with its score file, where the method needs one and none is named.
    ///
    /// # Errors
    /// An unknown method, or no scores that fit; the message then is the command that makes them.
    pub fn complete(&self, mut config: Compression) -> Result<Compression> {
        config.check()?;
        let entry = methods::find(&config.method)?;
        if !entry.needs_scores || config.scores.is_some() {
            return Ok(config);
        }
        let kind = config
            .head_choice
            .unwrap_or_else(|| entry.score_kind(&config.method));
        let Some(file) = self.find(kind) else {
            let arguments = [
                "run".into(),
                "--release".into(),
                "--locked".into(),
                "--bin".into(),
                "head-scoring".into(),
                "--".into(),
                "score".into(),
                "--model".into(),
                self.model.clone().into_os_string(),
                "--kind".into(),
                kind.name().into(),
                "--out".into(),
                HeadScores::path(&self.folder, &self.name, kind).into_os_string(),
            ];
            bail!(
                "no {kind} scores of {} in {}; make them with: {}",
                self.name,
                self.folder.display(),
                shell::command_line("cargo", arguments)
            );
        };
        config.scores = Some(file);
        Ok(config)
    }

    fn find(&self, kind: Kind) -> Option<PathBuf> {
        let named = HeadScores::path(&self.folder, &self.name, kind);
        if named.is_file() {
            return Some(named);
        }
        let ending = format!("_{kind}.meta.json");
        let entries = fs::read_dir(&self.folder).ok()?;
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|meta| meta.to_string_lossy().ends_with(&ending))
            .filter(|meta| weights(meta) == self.digest && self.digest.is_some())
            .map(|meta| PathBuf::from(meta.to_string_lossy().replace(".meta.json", ".json")))
            .filter(|file| file.is_file())
            .collect();
        found.sort();
        found.into_iter().next()
    }
}

/// The digest of the weights that a score file was made with.
fn weights(meta: &Path) -> Option<String> {
    let meta: serde_json::Value = serde_json::from_slice(&fs::read(meta).ok()?).ok()?;
    Some(meta.get("weights_sha256")?.as_str()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use headkv_files::home::home;

    fn of(model: &Path) -> Scores {
        Scores::of(
            &ModelFiles::open(model).unwrap(),
            home().join("head_scores"),
        )
        .unwrap()
    }

    #[test]
    fn scores_are_found_by_name_and_by_digest() {
        let tiny = home().join("models/tiny");
        let config = of(&tiny).complete(Compression::default()).unwrap();
        assert!(config.scores.unwrap().ends_with("tiny_retrieval.json"));
        let reasoning = of(&tiny).complete(Compression::new("ReasonKV", 64));
        let file = reasoning.unwrap().scores.unwrap();
        assert!(file.ends_with("tiny_reasoning.json"));

        let renamed = std::env::temp_dir().join(format!("headkv-serve-{}", std::process::id()));
        fs::create_dir_all(&renamed).unwrap();
        for file in fs::read_dir(&tiny).unwrap().flatten() {
            fs::copy(file.path(), renamed.join(file.file_name())).unwrap();
        }
        let config = of(&renamed).complete(Compression::default()).unwrap();
        fs::remove_dir_all(&renamed).unwrap();
        assert!(config.scores.unwrap().ends_with("tiny_retrieval.json"));
    }

    #[test]
    fn without_scores_the_command_is_named() {
        let mut scores = of(&home().join("models/tiny"));
        scores.folder = "/nowhere".into();
        let message = scores
            .complete(Compression::default())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("--bin head-scoring -- score --model"),
            "{message}"
        );
        assert!(scores.complete(Compression::new("snapkv", 64)).is_ok());
    }
}
