//! A model's files on disk, checked before the runtime sees them: it would panic on some damaged ones.

use crate::Error;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// The largest header that the safetensors format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Files beside the weights that decide what a model reads and says: its shape, its tokens, its chat template.
const SETTINGS: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// A folder with config.json, tokenizer.json and *.safetensors, or one .gguf file.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    path: PathBuf,
    weights: Vec<PathBuf>,
}

impl ModelFiles {
    /// Looks at `path` and checks that every weight file is complete.
    ///
    /// # Errors
    /// [`Error::Model`] names what is missing or damaged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let fail = |why: String| Error::Model {
            path: path.into(),
            why,
        };
        let weights = if path.is_file() {
            if !is_gguf(path) {
                return Err(fail(
                    "not a .gguf file; name a model folder or a GGUF file".into(),
                ));
            }
            vec![path.to_path_buf()]
        } else if path.is_dir() {
            for name in ["config.json", "tokenizer.json"] {
                let text = std::fs::read_to_string(path.join(name))
                    .map_err(|e| fail(format!("{name}: {e}")))?;
                serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(|e| {
                    fail(format!("{name} is not valid JSON ({e}); download it again"))
                })?;
            }
            let mut found: Vec<PathBuf> = std::fs::read_dir(path)
                .map_err(|e| fail(e.to_string()))?
                .flatten()
                .map(|entry| entry.path())
                .filter(|file| file.extension().is_some_and(|e| e == "safetensors"))
                .collect();
            found.sort();
            found
        } else {
            return Err(fail("no such folder or file; check --model".into()));
        };
        if weights.is_empty() {
            return Err(fail(
                "holds no *.safetensors; convert the weights or name a GGUF file".into(),
            ));
        }
        for file in &weights {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let checked = if is_gguf(file) {
                check_gguf(file)
            } else {
                check_safetensors(file)
            };
            checked.map_err(|why| fail(format!("{name} {why}; download it again")))?;
        }
        Ok(Self {
            path: path.into(),
            weights,
        })
    }

    /// The folder or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is one GGUF file.
    pub fn is_gguf(&self) -> bool {
        is_gguf(&self.path)
    }

    /// The folder's or file's name in lower case, without `.gguf`: the `{model}` in `head_scores/{model}_{kind}.json`.
    pub fn name(&self) -> String {
        let full = self
            .path
            .canonicalize()
            .unwrap_or_else(|_| self.path.clone());
        let name = full
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        name.strip_suffix(".gguf").unwrap_or(&name).to_string()
    }

    /// SHA-256 over the weight files, in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Model`] if a file cannot be read.
    pub fn digest(&self) -> Result<String, Error> {
        Ok(hexadecimal(self.hash_weights()?))
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
                let bytes = std::fs::read(&file).map_err(unreadable(&file))?;
                // Names and lengths keep files apart: text that moves from one to the next is a change.
                hash.update(format!("{name} {}\n", bytes.len()));
                hash.update(bytes);
            }
        }
        Ok(hexadecimal(hash))
    }

    fn hash_weights(&self) -> Result<Sha256, Error> {
        let mut hash = Sha256::new();
        for file in &self.weights {
            let copied = File::open(file).and_then(|mut f| std::io::copy(&mut f, &mut hash));
            copied.map_err(unreadable(file))?;
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

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

/// Compares the header's tensor ranges with the file's length; the tensors themselves are not read.
fn check_safetensors(path: &Path) -> Result<(), String> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix)
        .map_err(|_| "is empty".to_string())?;
    let header = u64::from_le_bytes(prefix);
    if header > MAX_HEADER || header + 8 > length {
        return Err("is truncated or not in the safetensors format".into());
    }
    let mut bytes = Vec::new();
    file.take(header)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    let metadata: Metadata =
        serde_json::from_slice(&bytes).map_err(|e| format!("has a damaged header ({e})"))?;
    let expected = 8 + header + metadata.data_len() as u64;
    if expected != length {
        return Err(format!(
            "is truncated: {length} bytes, its header promises {expected}"
        ));
    }
    Ok(())
}

fn check_gguf(path: &Path) -> Result<(), String> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    let content = candle_core::quantized::gguf_file::Content::read(&mut file).map_err(|e| {
        format!(
            "is truncated or not in the GGUF format ({})",
            first_line(&e.to_string())
        )
    })?;
    for (name, info) in &content.tensor_infos {
        let blocks = info.shape.elem_count() / info.ggml_dtype.block_size();
        let end = content.tensor_data_offset
            + info.offset
            + (blocks * info.ggml_dtype.type_size()) as u64;
        if end > length {
            return Err(format!(
                "is truncated: tensor {name} ends at byte {end} of {length}"
            ));
        }
    }
    Ok(())
}

pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
