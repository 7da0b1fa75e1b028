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
    folders: Vec<PathBuf>,
    model: PathBuf,
    name: String,
    digest: Option<String>,
}

impl Scores {
    /// Those of a model in the first of `folders` that has them. Its weights are read only if no file there has its name.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn of(files: &ModelFiles, folders: Vec<PathBuf>) -> Result<Self> {
        let name = files.name();
        let named = folders.iter().any(|folder| {
            let mut paths = Kind::ALL
                .map(|kind| HeadScores::path(folder, &name, kind))
                .into_iter();
            paths.any(|path| path.is_file())
        });
        let digest = if named { None } else { Some(files.digest()?) };
        Ok(Self {
            folders,
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
            let folder = self.folders.first().map_or(Path::new(""), PathBuf::as_path);
            let arguments = [
                "score".into(),
                "--model".into(),
                self.model.clone().into_os_string(),
                "--kind".into(),
                kind.name().into(),
                "--out".into(),
                HeadScores::path(folder, &self.name, kind).into_os_string(),
            ];
            bail!(
                "no {kind} scores of {} in {}; make them with: {}",
                self.name,
                folder.display(),
                shell::command_line("head-scoring", arguments)
            );
        };
        config.scores = Some(file.into());
        Ok(config)
    }

    fn find(&self, kind: Kind) -> Option<PathBuf> {
        let named = |folder: &PathBuf| HeadScores::path(folder, &self.name, kind);
        let mut named = self.folders.iter().map(named);
        if let Some(file) = named.find(|file| file.is_file()) {
            return Some(file);
        }
        let ending = format!("_{kind}.meta.json");
        let mut entries = self.folders.iter().map(fs::read_dir);
        entries.find_map(|folder| self.of_digest(folder.ok()?, &ending))
    }

    /// The score file whose meta file names the model's weights.
    fn of_digest(&self, folder: fs::ReadDir, ending: &str) -> Option<PathBuf> {
        let mut found: Vec<PathBuf> = folder
            .flatten()
            .map(|entry| entry.path())
            .filter(|meta| meta.to_string_lossy().ends_with(ending))
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

    fn of(model: &Path) -> Scores {
        Scores::of(
            &ModelFiles::open(model).unwrap(),
            headkv_embedded::score_folders(),
        )
        .unwrap()
    }

    fn file(config: &Compression) -> &Path {
        config.scores.as_ref().unwrap().file().unwrap()
    }

    #[test]
    fn scores_are_found_by_name_and_by_digest() {
        let tiny = headkv_embedded::model().unwrap();
        let config = of(&tiny).complete(Compression::default()).unwrap();
        assert!(file(&config).ends_with("tiny_retrieval.json"));
        let reasoning = of(&tiny).complete(Compression::new("ReasonKV", 64));
        assert!(file(&reasoning.unwrap()).ends_with("tiny_reasoning.json"));

        let renamed = std::env::temp_dir().join(format!("headkv-serve-{}", std::process::id()));
        fs::create_dir_all(&renamed).unwrap();
        for file in fs::read_dir(&tiny).unwrap().flatten() {
            fs::copy(file.path(), renamed.join(file.file_name())).unwrap();
        }
        let config = of(&renamed).complete(Compression::default()).unwrap();
        fs::remove_dir_all(&renamed).unwrap();
        assert!(file(&config).ends_with("tiny_retrieval.json"));
    }

    #[test]
    fn without_scores_the_command_is_named() {
        let mut scores = of(&headkv_embedded::model().unwrap());
        scores.folders = vec!["/nowhere".into()];
        let message = scores
            .complete(Compression::default())
            .unwrap_err()
            .to_string();
        assert!(message.contains("head-scoring score --model"), "{message}");
        assert!(scores.complete(Compression::new("snapkv", 64)).is_ok());
    }
}
