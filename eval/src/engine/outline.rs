//! What can be known of a model and its variants without loading weights.

use super::{backend, compression};
use crate::{Error, Variant};
use headkv_engine::{ModelFiles, check::gguf};
use headkv_plugin::{HeadScores, ModelShape, Policy};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// The score files of some variants, each read once.
#[derive(Default)]
pub struct Scores(HashMap<PathBuf, HeadScores>);

impl Scores {
    /// Reads the files of these variants.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(variants: &[Variant]) -> Result<Self, Error> {
        let mut scores = Self::default();
        for file in variants
            .iter()
            .filter_map(|variant| variant.scores.as_ref())
        {
            if !scores.0.contains_key(file) {
                let read = HeadScores::read(file).map_err(backend)?;
                scores.0.insert(file.clone(), read);
            }
        }
        Ok(scores)
    }

    pub(super) fn of(&self, variant: &Variant) -> Option<&HeadScores> {
        self.0.get(variant.scores.as_ref()?)
    }
}

/// A model as far as its files tell without its weights.
pub struct Outline {
    /// Its name.
    pub name: String,
    shape: Option<ModelShape>,
    /// Tokens of its context.
    pub context: Option<usize>,
    /// Where its tokenizer lies, if that is a file of its own.
    pub tokenizer: Option<PathBuf>,
    /// Whether there is a chat template.
    pub chat: bool,
}

impl Outline {
    /// Reads it from config.json, or a GGUF file's header.
    ///
    /// # Errors
    /// What is missing or damaged.
    pub fn read(model: &Path) -> Result<Self, Error> {
        let files = ModelFiles::open(model).map_err(backend)?;
        // A name on the hub has become a folder.
        let (name, model) = (files.name(), files.path());
        if files.is_gguf() {
            let file = fs::File::open(model).map_err(Error::read(model))?;
            let length = file.metadata().map_err(Error::read(model))?.len();
            let header = gguf::read(std::io::BufReader::new(file), length)
                .map_err(|why| Error::file(model, why))?;
            let family = header.architecture.clone().unwrap_or_default();
            let number = |key: &str| {
                let number = header.numbers.get(&format!("{family}.{key}"));
                number.and_then(|number| usize::try_from(*number).ok())
            };
            let heads = number("attention.head_count");
            return Ok(Self {
                name,
                shape: shape(
                    number("block_count"),
                    heads,
                    number("attention.head_count_kv").or(heads),
                    number("attention.key_length"),
                    number("embedding_length"),
                ),
                context: number("context_length"),
                tokenizer: None,
                chat: header.chat,
            });
        }
        let file = model.join("config.json");
        let text = headkv_files::read::bytes(&file)?;
        let config: serde_json::Value =
            serde_json::from_slice(&text).map_err(|e| Error::file(&file, e.to_string()))?;
        let number = |key: &str| config[key].as_u64().and_then(|n| usize::try_from(n).ok());
        let heads = number("num_attention_heads");
        Ok(Self {
            name,
            shape: shape(
                number("num_hidden_layers"),
                heads,
                number("num_key_value_heads").or(heads),
                number("head_dim"),
                number("hidden_size"),
            ),
            context: number("max_position_embeddings"),
            tokenizer: Some(model.join("tokenizer.json")),
            chat: files.has_chat_template(),
        })
    }

    /// Refuses variants whose parameters or score files do not fit the model.
    ///
    /// # Errors
    /// The variant, and what does not fit.
    pub fn check(&self, variants: &[Variant], scores: &Scores) -> Result<(), Error> {
        let Some(shape) = self.shape else {
            return Ok(());
        };
        for variant in variants {
            let fits = Policy::new(&compression(variant)?, shape, scores.of(variant));
            // Of many models and score files, the message has to name the two that do not fit.
            fits.map_err(|e| Error::Backend(format!("{}, {variant}: {e}", self.name)))?;
        }
        Ok(())
    }
}

/// None if a number is missing, or no model has it.
fn shape(
    layers: Option<usize>,
    heads: Option<usize>,
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden: Option<usize>,
) -> Option<ModelShape> {
    let (heads, kv_heads) = (heads?, kv_heads?);
    let head_dim = head_dim.or_else(|| hidden?.checked_div(heads))?;
    (kv_heads > 0 && heads.is_multiple_of(kv_heads)).then_some(ModelShape {
        layers: layers?,
        heads,
        kv_heads,
        head_dim,
    })
}
