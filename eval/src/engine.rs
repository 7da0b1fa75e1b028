//! A backend that runs the model in this process, and the only file here that knows the plugin and the engine.

use crate::{
    Backend, Completion, Error, Failure, Job, Variant, grid::Methods, row, store::Heads, suggest,
};
use headkv_engine::{Attention, Device, Engine, LoadOptions, ModelFiles, Request};
use headkv_plugin::{
    Compression, HeadScores,
    methods::{self, Budget, Compressor},
};
use std::{fs, path::Path};

/// A model in this process.
pub struct InProcess(Engine);

impl InProcess {
    /// Loads a model folder or a GGUF file.
    ///
    /// # Errors
    /// A model that is missing, damaged or cannot be hooked; a device that is not there.
    pub fn load(model: &Path, device: &str) -> Result<Self, Error> {
        let options = LoadOptions {
            device: device.parse::<Device>().map_err(backend)?,
            ..LoadOptions::new(model)
        };
        let attention = Attention::Compressed(Compression {
            method: "full".into(),
            ..Compression::default()
        });
        Ok(Self(Engine::load(options, attention).map_err(backend)?))
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.0
    }

    /// What each head keeps of a long prompt, window included; none for methods that decide it prompt by prompt.
    ///
    /// # Errors
    /// A variant that does not fit the model.
    pub fn heads(&self, variant: &Variant) -> Result<Option<Heads>, Error> {
        let (config, shape) = (compression(variant)?, self.0.shape());
        let scores = variant
            .scores
            .as_deref()
            .map(HeadScores::read)
            .transpose()
            .map_err(backend)?;
        let compressor = Compressor::new(&config, shape, scores.as_ref()).map_err(backend)?;
        let mut capacities = Vec::with_capacity(shape.layers);
        for layer in 0..shape.layers {
            match compressor.budget(layer, self.0.context()) {
                Budget::PerHead(kept) => capacities.push(
                    kept.into_iter()
                        .map(|tokens| tokens + config.window)
                        .collect(),
                ),
                _ => return Ok(None),
            }
        }
        Ok(Some(Heads {
            model: self.0.files().name(),
            variant: variant.to_string(),
            capacities,
        }))
    }
}

impl Backend for InProcess {
    fn configure(&self, variant: &Variant) -> Result<(), Error> {
        self.0
            .set_compression(&compression(variant)?)
            .map_err(backend)
    }

    fn complete(&self, job: &Job) -> Result<Completion, Failure> {
        let row = |e: headkv_engine::Error| match e {
            headkv_engine::Error::Generation(why) => Failure::Row(why),
            other => Failure::Fatal(other.to_string()),
        };
        let prompt = if job.prompt.chat {
            self.0.encode_chat(&job.prompt.text).map_err(row)?
        } else {
            let encoding = self
                .0
                .tokenizer()
                .encode_fast(job.prompt.text.as_str(), job.prompt.special);
            encoding
                .map_err(|e| Failure::Fatal(format!("tokenizer: {e}")))?
                .get_ids()
                .to_vec()
        };
        let request = Request {
            stop: job.stop.to_vec(),
            ..Request::new(prompt, job.max_tokens)
        };
        let mut answers = self.0.generate(&[request]).map_err(row)?;
        let answer = answers
            .pop()
            .ok_or_else(|| Failure::Row("the engine gave no answer".into()))?;
        Ok(Completion {
            text: answer.text,
            prompt_tokens: answer.prompt_tokens,
            tokens: answer.tokens.len(),
            prompt_seconds: Some(answer.prompt_seconds),
            decode_seconds: answer.decode_seconds,
            kv_bytes: Some(answer.kv_bytes),
        })
    }
}

/// Checks that a model's files are there and whole, without loading them.
///
/// # Errors
/// What is missing or damaged.
pub fn check_files(model: &Path) -> Result<(), Error> {
    ModelFiles::open(model).map(|_| ()).map_err(backend)
}

/// Every combination of methods and the parameters that matter to them.
///
/// # Errors
/// An unknown method (the nearest names are offered), values out of range, or a score file that cannot be read.
pub fn variants(grid: &Methods, model: &Path, score_folder: &Path) -> Result<Vec<Variant>, Error> {
    let mut variants = Vec::new();
    for name in &grid.method {
        let entries = methods::all();
        let known = entries.iter().map(|entry| entry.name.as_str());
        let entry = methods::find(name)
            .map_err(|_| Error::Option(suggest::unknown("method", name, known)))?;
        if entry.name == "full" {
            variants.push(Variant::new(&entry.name));
            continue;
        }
        for &capacity in &grid.capacity {
            let plain = Variant {
                settings: grid.set.clone(),
                ..Variant::new(&entry.name).capacity(capacity)
            };
            let config = compression(&plain)?;
            if !entry.needs_scores {
                variants.push(plain);
                continue;
            }
            let default = Compression {
                head_choice: head_choice(&grid.head_choice)?,
                ..config
            };
            let mut files = grid.scores.clone();
            if files.is_empty() {
                files.push(default.default_scores(score_folder, model));
            }
            for file in files {
                let bytes = fs::read(&file).map_err(|source| {
                    Error::file(&file, format!("cannot read head scores ({source}); name a file with --scores or make one with head-scoring"))
                })?;
                for &beta in &grid.beta {
                    let variant = Variant {
                        beta: Some(beta),
                        scores: Some(file.clone()),
                        scores_digest: Some(row::digest(&[&bytes])),
                        ..plain.clone()
                    };
                    compression(&variant)?;
                    variants.push(variant);
                }
            }
        }
    }
    let mut unique: Vec<Variant> = Vec::new();
    variants.retain(|variant| {
        !unique.contains(variant) && {
            unique.push(variant.clone());
            true
        }
    });
    Ok(variants)
}

fn head_choice(name: &str) -> Result<headkv_plugin::config::HeadChoice, Error> {
    let quoted = serde_json::Value::String(name.into());
    let known = ["copy", "enhanced", "reason"];
    serde_json::from_value(quoted)
        .map_err(|_| Error::Option(suggest::unknown("head choice", name, known)))
}

/// The plugin's configuration for a variant.
fn compression(variant: &Variant) -> Result<Compression, Error> {
    let settings: Vec<String> = variant.settings.iter().map(|s| setting(s)).collect();
    let base = Compression::from_toml(&settings.join("\n")).map_err(backend)?;
    let config = Compression {
        method: variant.method.clone(),
        capacity: variant.capacity.unwrap_or(base.capacity),
        beta: variant.beta.unwrap_or(base.beta),
        scores: variant.scores.clone(),
        ..base
    };
    config.check().map_err(backend)?;
    Ok(config)
}

/// A line of TOML; a word needs no quotes, as in `pooling=avg`.
fn setting(text: &str) -> String {
    match text.split_once('=') {
        Some((key, word)) if word.trim().starts_with(|c: char| c.is_ascii_lowercase()) => {
            match word.trim() {
                value @ ("true" | "false") => format!("{key} = {value}"),
                word => format!("{key} = \"{word}\""),
            }
        }
        _ => text.into(),
    }
}

fn backend(e: impl std::fmt::Display) -> Error {
    Error::Backend(e.to_string())
}
