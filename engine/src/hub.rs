//! Models by the names that they have on the Hugging Face hub: `org/name`, or `org/name:file.gguf`.
//!
//! What was fetched lies in the hub's usual cache (`HF_HOME`), shared with other programs; a fetch that was cut goes on
//! where it ended. `HF_ENDPOINT` names another hub, `HF_TOKEN` or the file that a login leaves opens private
//! repositories, and with `HF_HUB_OFFLINE=1` nothing is asked for over the network.

use crate::{Error, files::first_line};
use hf_hub::{
    Cache,
    api::tokio::{ApiBuilder, ApiRepo},
};
use std::{
    path::{Path, PathBuf},
    thread,
};

/// A hub, and where what comes from it is kept.
#[derive(Clone, Debug)]
pub struct Hub {
    cache: Cache,
    /// `None` is the public one.
    endpoint: Option<String>,
    token: Option<String>,
    offline: bool,
}

/// The name of a model on a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `org/name`.
    pub repository: String,
    /// One file of it; a folder of safetensors otherwise.
    pub file: Option<String>,
}

impl Name {
    /// The name that an argument is, if it can be one: two parts of letters, digits, `.`, `_` and `-`.
    pub fn parse(text: &str) -> Option<Self> {
        let (repository, file) = match text.split_once(':') {
            Some((repository, file)) => (repository, Some(file)),
            None => (text, None),
        };
        let (org, name) = repository.split_once('/')?;
        let part = |text: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !text.is_empty() && text.chars().all(plain) && !text.starts_with('.')
        };
        let file_fits = file.is_none_or(|file| file.split('/').all(part));
        (part(org) && part(name) && file_fits).then(|| Self {
            repository: repository.into(),
            file: file.map(String::from),
        })
    }
}

impl Hub {
    /// The hub that the environment names.
    pub fn from_env() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let cache = Cache::from_env();
        Self {
            endpoint: set("HF_ENDPOINT"),
            token: set("HF_TOKEN")
                .or_else(|| set("HUGGING_FACE_HUB_TOKEN"))
                .or_else(|| cache.token()),
            offline: set("HF_HUB_OFFLINE").is_some_and(|value| value != "0"),
            cache,
        }
    }

    /// A hub at that address, without a token, whose files go to `cache`.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self {
            cache: Cache::new(cache.into()),
            endpoint: Some(endpoint.into()),
            token: None,
            offline: false,
        }
    }

    /// The same hub, of which nothing is asked.
    pub fn offline(self) -> Self {
        Self {
            offline: true,
            ..self
        }
    }

    /// Where a model lies: its folder or file in the cache, fetched if it is not there.
    ///
    /// # Errors
    /// [`Error::Model`] with the reason: no such repository or file, no permission, no network.
    pub fn fetch(&self, name: &Name) -> Result<PathBuf, Error> {
        if let Some(found) = self.cached(name) {
            return Ok(found);
        }
        let fail = |why: String| Error::Model {
            path: PathBuf::from(&name.repository),
            why,
        };
        if self.offline {
            return Err(fail(format!(
                "not in the hub's cache, and HF_HUB_OFFLINE is set; unset it, or fetch it with: hf download {}",
                name.repository
            )));
        }
        // Not on the caller's thread, which may belong to a runtime of its own.
        let fetched = thread::scope(|scope| {
            let fetching = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime
                    .map_err(|e| e.to_string())?
                    .block_on(self.download(name))
            });
            fetching
                .join()
                .unwrap_or_else(|_| Err("fetching it panicked".into()))
        });
        fetched.map_err(fail)
    }

    /// The model as it was fetched before; a folder is there once the last of its files is.
    fn cached(&self, name: &Name) -> Option<PathBuf> {
        let repository = self.cache.model(name.repository.clone());
        match &name.file {
            Some(file) => repository.get(file),
            None => {
                let folder = repository.get(COMPLETE)?.parent()?.to_path_buf();
                Some(folder)
            }
        }
    }

    async fn download(&self, name: &Name) -> Result<PathBuf, String> {
        let mut builder = ApiBuilder::from_cache(self.cache.clone())
            .with_progress(true)
            .with_token(self.token.clone());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').into());
        }
        let api = builder.build().map_err(|e| explain(&e.to_string()))?;
        let repository = api.model(name.repository.clone());
        if let Some(file) = &name.file {
            return get(&repository, file).await;
        }
        let info = repository
            .info()
            .await
            .map_err(|e| explain(&e.to_string()))?;
        let all: Vec<&str> = info
            .siblings
            .iter()
            .map(|file| file.rfilename.as_str())
            .collect();
        let mut wanted: Vec<&str> = all.iter().copied().filter(|file| is_needed(file)).collect();
        if !wanted.contains(&COMPLETE) || !wanted.iter().any(|file| file.ends_with(SAFETENSORS)) {
            let files: Vec<&str> = all
                .into_iter()
                .filter(|file| file.ends_with(".gguf"))
                .collect();
            return Err(match files.first() {
                Some(file) => format!(
                    "holds {} GGUF files; name one, as {}:{file}",
                    files.len(),
                    name.repository
                ),
                None => "holds no config.json with *.safetensors; choose another model".into(),
            });
        }
        // The one that says that the folder is complete comes last.
        wanted.sort_by_key(|file| *file == COMPLETE);
        let mut last = None;
        for file in wanted {
            last = Some(get(&repository, file).await?);
        }
        let folder = last.as_deref().and_then(Path::parent);
        folder
            .map(Path::to_path_buf)
            .ok_or_else(|| "holds no files".into())
    }
}

/// The file that is fetched last.
const COMPLETE: &str = "config.json";
const SAFETENSORS: &str = ".safetensors";

/// Files at the top of a repository that the engine reads; weights in other forms are not among them.
fn is_needed(file: &str) -> bool {
    let settings = [".json", ".jinja", ".model", SAFETENSORS];
    !file.contains('/')
        && settings.iter().any(|ending| file.ends_with(ending))
        // Mistral's repositories hold their weights twice.
        && !file.starts_with("consolidated")
}

async fn get(repository: &ApiRepo, file: &str) -> Result<PathBuf, String> {
    let path = repository.get(file).await;
    path.map_err(|e| explain(&format!("{file}: {e}")))
}

/// What a hub's refusal mostly means.
fn explain(error: &str) -> String {
    let why = first_line(error);
    let hint = if why.contains("401") || why.contains("403") {
        "; it is private or gated: accept its terms and set HF_TOKEN"
    } else if why.contains("404") {
        "; check its name on the hub"
    } else {
        "; check the network, or name a folder"
    };
    format!("fetching it from the hub failed: {why}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let name = |text: &str| Name::parse(text).map(|name| (name.repository, name.file));
        let plain = Some(("Qwen/Qwen2.5-0.5B".into(), None));
        assert_eq!(name("Qwen/Qwen2.5-0.5B"), plain);
        let file = Some(("a/b-GGUF".into(), Some("b.Q4_K_M.gguf".into())));
        assert_eq!(name("a/b-GGUF:b.Q4_K_M.gguf"), file);
        for path in [
            "tiny", "./tiny", "../tiny", "/tiny", "a/b/c", "models/", "a b/c", "a/b:../c", "a/..",
        ] {
            assert_eq!(name(path), None, "{path}");
        }
    }

    #[test]
    fn only_what_is_read_is_fetched() {
        for file in [
            "config.json",
            "model-00001-of-00002.safetensors",
            "chat_template.jinja",
        ] {
            assert!(is_needed(file), "{file}");
        }
        for file in [
            "pytorch_model.bin",
            "original/params.json",
            "README.md",
            "consolidated.safetensors",
        ] {
            assert!(!is_needed(file), "{file}");
        }
    }
}
