//! A backend that runs the model in this process, and the only file here that knows the plugin and the engine.

use crate::{
    Backend, Completion, Error, Failure, Job, Variant, grid::Methods, store::Heads, suggest,
};
use headkv_engine::{Attention, Device, Engine, LoadOptions, ModelFiles, Request};
use headkv_plugin::{Compression, HeadScores, Policy, methods, scores::Kind};
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

    /// Token ids of a user's message in the model's own chat template.
    ///
    /// # Errors
    /// A model without a chat template.
    pub fn chat(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.0.encode_chat(text).map_err(backend)
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
        if methods::find(&config.method).is_ok_and(|entry| entry.keeps_all) {
            return Ok(None);
        }
        let policy = Policy::new(&config, shape, scores.as_ref()).map_err(backend)?;
        let mut capacities = Vec::with_capacity(shape.layers);
        for layer in 0..shape.layers {
            match policy.lengths(layer, self.0.context()).map_err(backend)? {
                Some(lengths) => capacities.push(lengths),
                None => return Ok(None),
            }
        }
        Ok(Some(Heads {
            model: self.0.files().name(),
            variant: variant.clone(),
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
        // The model, its files and the compression were checked before: what fails now is this prompt's own fault.
        let row = |e: headkv_engine::Error| match e {
            headkv_engine::Error::Stopped => Failure::Fatal(e.to_string()),
            headkv_engine::Error::Generation(why) => Failure::Row(why),
            other => Failure::Row(other.to_string()),
        };
        let prompt = if job.prompt.chat {
            self.0.encode_chat(&job.prompt.text).map_err(row)?
        } else {
            let encoding = self
                .0
                .tokenizer()
                .encode_fast(job.prompt.text.as_str(), job.prompt.special);
            encoding
                .map_err(|e| Failure::Row(format!("tokenizer: {e}")))?
                .get_ids()
                .to_vec()
        };
        let request = Request {
            stop: job.stop.to_vec(),
            min_tokens: job.min_tokens,
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

/// Checks that a model's files are there and whole, without loading them, and gives the model's name.
///
/// # Errors
/// What is missing or damaged.
pub fn check_files(model: &Path) -> Result<String, Error> {
    Ok(ModelFiles::open(model).map_err(backend)?.name())
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
        if entry.keeps_all {
            variants.push(Variant::new(&entry.name));
            continue;
        }
        for &capacity in &grid.capacity {
            let plain = Variant {
                settings: grid.parameters.settings(),
                ..Variant::new(&entry.name).capacity(capacity)
            };
            let config = compression(&plain)?;
            if !entry.needs_scores {
                variants.push(plain);
                continue;
            }
            let mut files = grid.scores.clone();
            if files.is_empty() {
                let asked = grid.head_choice.iter().map(|choice| head_choice(choice));
                let mut kinds = asked.collect::<Result<Vec<_>, _>>()?;
                if kinds.is_empty() {
                    kinds.push(entry.score_kind(name));
                }
                for kind in kinds {
                    let default = Compression {
                        head_choice: Some(kind),
                        ..config.clone()
                    };
                    files.push(default.default_scores(score_folder, model));
                }
            }
            for file in files {
                let bytes = read_scores(&file)?;
                let own = [entry.defaults.beta];
                let betas = if grid.beta.is_empty() {
                    &own[..]
                } else {
                    &grid.beta
                };
                for &beta in betas {
                    let variant = Variant {
                        beta: Some(beta),
                        scores: Some(file.clone()),
                        scores_digest: Some(headkv_files::sha256(&[&bytes])),
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

/// What the rows of a server are labelled with: only its owner knows how it compresses, and says it with the same flags.
///
/// A flag that is left at its default says nothing, except the beta of a method that has one. The method may be any name.
///
/// # Errors
/// Several values of a flag, or a score file that cannot be read.
pub fn label(grid: &Methods) -> Result<Variant, Error> {
    let default = Methods::default();
    let Some(name) = one("method", &grid.method, &default.method)? else {
        return Ok(Variant::new("endpoint"));
    };
    let entry = methods::find(&name).ok();
    let method = entry
        .as_ref()
        .map_or(name.as_str(), |entry| entry.name.as_str());
    if entry.as_ref().is_some_and(|entry| entry.keeps_all) {
        return Ok(Variant::new(method));
    }
    let by_head = entry.as_ref().is_some_and(|entry| entry.needs_scores);
    let own = entry.as_ref().map(|entry| entry.defaults.beta);
    let beta = one("beta", &grid.beta, &[])?.or(own).filter(|_| by_head);
    let scores = one("scores", &grid.scores, &[])?;
    let bytes = scores.as_deref().map(read_scores).transpose()?;
    Ok(Variant {
        capacity: one("capacity", &grid.capacity, &default.capacity)?,
        beta,
        scores_digest: bytes.map(|bytes| headkv_files::sha256(&[&bytes])),
        scores,
        settings: grid.parameters.settings(),
        ..Variant::new(method)
    })
}

/// The only value of a flag; none if it is left at its default.
fn one<T: Clone + PartialEq>(flag: &str, values: &[T], default: &[T]) -> Result<Option<T>, Error> {
    match values {
        [] => Ok(None),
        values if values == default => Ok(None),
        [value] => Ok(Some(value.clone())),
        several => Err(Error::Option(format!(
            "a server has one configuration, but --{flag} has {} values; name its own",
            several.len()
        ))),
    }
}

fn read_scores(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|source| {
        Error::file(
            file,
            format!(
                "cannot read head scores ({source}); name a file with --scores or make one with head-scoring"
            ),
        )
    })
}

fn head_choice(name: &str) -> Result<Kind, Error> {
    let known = Kind::ALL.map(Kind::name);
    name.parse()
        .map_err(|_| Error::Option(suggest::unknown("head choice", name, known)))
}

/// The plugin's configuration for a variant.
fn compression(variant: &Variant) -> Result<Compression, Error> {
    let mut table = toml::Table::new();
    for setting in &variant.settings {
        let (key, text) = setting.split_once('=').unwrap_or((setting, ""));
        table.insert(key.trim().into(), value(text.trim()));
    }
    let base: Compression = table
        .try_into()
        .map_err(|e: toml::de::Error| Error::Option(e.message().into()))?;
    // Checked once it is complete: a window of 128 does not fit the default capacity, but may fit the variant's.
    let config = Compression {
        method: variant.method.clone(),
        capacity: variant.capacity.unwrap_or(base.capacity),
        beta: variant.beta.or(base.beta),
        scores: variant.scores.clone(),
        ..base
    };
    config.check().map_err(backend)?;
    Ok(config)
}

/// What the text of a setting means: a number, true or false, or a word.
fn value(text: &str) -> toml::Value {
    let boolean = text.parse().map(toml::Value::Boolean).ok();
    boolean
        .or_else(|| text.parse().map(toml::Value::Integer).ok())
        .or_else(|| text.parse().map(toml::Value::Float).ok())
        .unwrap_or_else(|| toml::Value::String(text.into()))
}

fn backend(e: impl std::fmt::Display) -> Error {
    Error::Backend(e.to_string())
}
