//! A model's files on disk, checked before the runtime sees them.

use crate::{
    Error,
    check::{config, gguf, safetensors, tokenizer},
    hub::{Hub, Name},
};
use headkv_files::{Digest, read};
use headkv_plugin::model_name;
use mistralrs_core::{MultimodalLoaderType, NormalLoaderType};
use serde::de::IgnoredAny;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// Names the files of a folder of weights in several.
const INDEX: &str = "model.safetensors.index.json";

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";

/// Files beside the weights that decide what a model reads and says: its shape, its tokens, its chat template.
const SETTINGS: [&str; 9] = [
    CONFIG,
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// A folder with config.json, tokenizer.json and *.safetensors, or one .gguf file.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    path: PathBuf,
    weights: Vec<PathBuf>,
    /// Whether the tokenizer would cut prompts or fill them up.
    limited: bool,
    /// Whether there is a chat template.
    chat: bool,
    /// What config.json names; empty for a GGUF file.
    architecture: String,
}

impl ModelFiles {
    /// Looks at `path` and checks what the runtime would choke on: files that are missing or damaged, and a configuration
    /// that cannot be or that the weights do not hold.
    ///
    /// A path whose folder does not exist and that could be a model's name on the hub is that ([`crate::hub`]): it is
    /// fetched.
    ///
    /// # Errors
    /// [`Error::Model`] names what is missing or damaged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // A typo in a path is not for a network: where the folder is there, the name is one in it.
        let local = path.exists() || path.parent().is_some_and(Path::exists);
        match path.to_str().and_then(Name::parse) {
            Some(name) if !local => Self::open_local(&Hub::from_env().fetch(&name)?),
            _ => Self::open_local(path),
        }
    }

    fn open_local(path: &Path) -> Result<Self, Error> {
        let fail = |why: String| Error::Model {
            path: path.into(),
            why,
        };
        // It would be asked the hub for a repository of another name.
        if path.to_str().is_none() {
            return Err(fail(
                "the path is not UTF-8, and the runtime opens no other; rename it".into(),
            ));
        }
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => folder(path).map_err(fail),
            Ok(found) if !is_gguf(path) || !found.is_file() => Err(fail(
                "not a .gguf file; name a model folder or a GGUF file".into(),
            )),
            Ok(_) => {
                let header = weights(path, gguf::read).map_err(fail)?;
                gguf::fit(&header).map_err(|why| fail(format!("{why}; choose another file")))?;
                Ok(Self {
                    path: path.into(),
                    weights: vec![path.to_path_buf()],
                    limited: false,
                    chat: header.chat,
                    architecture: String::new(),
                })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(fail(
                "no such folder, file or model on the hub; check --model".into(),
            )),
            Err(e) => Err(fail(e.to_string())),
        }
    }

    /// A copy of the tokenizer without its limits, if it would cut prompts or fill them up; it is gone when it is dropped.
    ///
    /// # Errors
    /// [`Error::Model`] if it cannot be read or written.
    pub(crate) fn unlimited_tokenizer(&self) -> Result<Option<NamedTempFile>, Error> {
        if !self.limited {
            return Ok(None);
        }
        let file = self.path.join(TOKENIZER);
        let copy = || {
            let text = fs::read(&file)?;
            let mut copy = tempfile::Builder::new().suffix(".json").tempfile()?;
            copy.write_all(&tokenizer::unlimited(&text).map_err(io::Error::other)?)?;
            Ok(copy)
        };
        copy().map(Some).map_err(unreadable(&file))
    }

    /// The folder or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is one GGUF file.
    pub fn is_gguf(&self) -> bool {
        is_gguf(&self.path)
    }

    /// Whether the model has a chat template; the runtime panics where it is asked for one that is not there.
    pub fn has_chat_template(&self) -> bool {
        self.chat
    }

    /// Whether it takes more than text: the runtime then has another loader for it.
    pub(crate) fn is_multimodal(&self) -> bool {
        MultimodalLoaderType::from_causal_lm_name(&self.architecture).is_ok()
    }

    /// Whether its softmax has sinks, for which there is no kernel on GPUs.
    pub(crate) fn has_sinks(&self) -> bool {
        self.architecture == "GptOssForCausalLM"
    }

    /// The files of its weights.
    pub(crate) fn weights(&self) -> &[PathBuf] {
        &self.weights
    }

    /// The model's name, as its score files have it; see [`model_name`].
    pub fn name(&self) -> String {
        model_name(&self.path)
    }

    /// SHA-256 over the weight files, in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Model`] if a file cannot be read.
    pub fn digest(&self) -> Result<String, Error> {
        Ok(self.hash_weights()?.hexadecimal())
    }

    /// SHA-256 over everything that answers depend on, in hexadecimal: the weights, and of a folder the configuration,
    /// the tokenizer and the chat template.
    ///
    /// # Errors
    /// [`Error::Model`] if a file cannot be read.
    pub fn identity(&self) -> Result<String, Error> {
        let mut hash = self.hash_weights()?;
        for name in SETTINGS {
            let file = self.path.join(name);
            if file.is_file() {
                let bytes = fs::read(&file).map_err(unreadable(&file))?;
                // Names and lengths keep files apart: text that moves from one to the next is a change.
                hash.update(format!("{name} {}\n", bytes.len()));
                hash.update(bytes);
            }
        }
        Ok(hash.hexadecimal())
    }

    fn hash_weights(&self) -> Result<Digest, Error> {
        let mut hash = Digest::default();
        for file in &self.weights {
            let read = File::open(file).and_then(|f| hash.read(f));
            read.map_err(unreadable(file))?;
        }
        Ok(hash)
    }
}

fn unreadable(file: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |e| Error::Model {
        path: file.into(),
        why: e.to_string(),
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

/// Checks a model folder.
fn folder(path: &Path) -> Result<ModelFiles, String> {
    let again = |name: &str| {
        let name = name.to_string();
        move |why: String| format!("{name} {why}; download it again")
    };
    let settings: Value = serde_json::from_slice(&bytes(path, CONFIG)?)
        .map_err(|e| format!("{CONFIG} is not valid JSON ({e}); download it again"))?;
    let limited = tokenizer::read(&bytes(path, TOKENIZER)?).map_err(again(TOKENIZER))?;
    for name in SETTINGS.iter().filter(|name| name.ends_with(".json")) {
        if path.join(name).exists() {
            serde_json::from_slice::<IgnoredAny>(&bytes(path, name)?)
                .map_err(|e| format!("{name} is not valid JSON ({e}); download it again"))?;
        }
    }
    let entries = fs::read_dir(path).map_err(|e| e.to_string())?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    found.sort();
    if found.is_empty() {
        return Err("holds no *.safetensors; convert the weights or name a GGUF file".into());
    }
    for name in promised(path)? {
        if !path.join(&name).is_file() {
            return Err(format!(
                "{name:?} is missing ({INDEX} names it); download it"
            ));
        }
    }
    let mut tensors = Vec::new();
    for file in &found {
        tensors.extend(weights(file, safetensors::read)?);
    }
    let runs = |name: &str| {
        NormalLoaderType::from_causal_lm_name(name).is_ok()
            || MultimodalLoaderType::from_causal_lm_name(name).is_ok()
    };
    config::check(&settings, runs, &tensors).map_err(|why| format!("{CONFIG} {why}"))?;
    let architecture = settings["architectures"][0].as_str().unwrap_or_default();
    Ok(ModelFiles {
        path: path.into(),
        weights: found,
        limited,
        chat: has_template(path),
        architecture: architecture.into(),
    })
}

/// Whether a model folder has a chat template, in a file of its own or in the tokenizer's settings.
fn has_template(folder: &Path) -> bool {
    let own = ["chat_template.jinja", "chat_template.json"];
    let settings = bytes(folder, "tokenizer_config.json").unwrap_or_default();
    let settings: Value = serde_json::from_slice(&settings).unwrap_or_default();
    !settings["chat_template"].is_null() || own.iter().any(|name| folder.join(name).is_file())
}

/// The files that an index of weights names.
fn promised(folder: &Path) -> Result<BTreeSet<String>, String> {
    if !folder.join(INDEX).exists() {
        return Ok(BTreeSet::new());
    }
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::HashMap<String, String>,
    }
    let index: Index = serde_json::from_slice(&bytes(folder, INDEX)?)
        .map_err(|e| format!("{INDEX} is no index ({e}); download it again"))?;
    Ok(index.weight_map.into_values().collect())
}

/// A file of a model folder.
fn bytes(folder: &Path, name: &str) -> Result<Vec<u8>, String> {
    let file = folder.join(name);
    let read = read::regular(&file).and_then(|_| fs::read(&file));
    read.map_err(|e| format!("{name} cannot be read: {e}"))
}

/// Checks the header of a file of weights.
fn weights<T>(
    file: &Path,
    check: impl FnOnce(BufReader<File>, u64) -> Result<T, String>,
) -> Result<T, String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let opened = read::regular(file).and_then(|found| Ok((File::open(file)?, found.len())));
    let (opened, length) = opened.map_err(|e| format!("{name} cannot be read: {e}"))?;
    check(BufReader::new(opened), length).map_err(|why| format!("{name} {why}; download it again"))
}

pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
