//! What a prompt leaves in a model, as a file that another process reads instead of the prompt.
//!
//! A safetensors file: the tokens, and by layer the keys and values of all of them, whatever is kept of them later. Its
//! metadata have the format's version, the digest of the model's files, and a digest over everything else, so that a
//! file that was cut or changed, or is of another model, is refused.

use crate::{Engine, Error, Request, check::safetensors::read as check_header};
use candle_core::{DType, Device, Tensor};
use headkv_files::{Digest, read, whole};
use headkv_plugin::prefix::{BLOCK, State};
use safetensors::{
    SafeTensors, View,
    tensor::{SafeTensorError, TensorView},
};
use std::{borrow::Cow, collections::HashMap, fs, io, path::Path};

/// The format's version; a file of another one is refused.
const VERSION: &str = "1";
const FORMAT: &str = "headkv-state";
const TOKENS: &str = "tokens";

impl Engine {
    /// Saves what a prompt's beginning leaves, in whole blocks of tokens; it is read if it is not remembered. Returns the
    /// number of tokens.
    ///
    /// # Errors
    /// [`Error::State`] for a model with sliding windows, a prompt that is shorter than a block, one that is not remembered
    /// because it is larger than `prefix_bytes`, or a file that cannot be written; those of [`Engine::generate`].
    pub fn save_state(&self, prompt: &[u32], file: &Path) -> Result<usize, Error> {
        let wrong = |why: String| state_error(file, why);
        let model = self.compressed()?;
        self.has_states(file)?;
        let wanted = prompt.len() / BLOCK * BLOCK;
        if wanted == 0 {
            let count = prompt.len();
            return Err(wrong(format!(
                "nothing to save of {count} tokens; at least {BLOCK} are saved"
            )));
        }
        let prompt = &prompt[..wanted];
        let state = |e: candle_core::Error| wrong(e.to_string());
        let known = |state: &State| state.tokens.len() == wanted;
        let mut found = model.prefixes().state(prompt).map_err(state)?;
        if !found.as_ref().is_some_and(known) {
            self.generate(&[Request::new(prompt.to_vec(), 1)])?;
            found = model.prefixes().state(prompt).map_err(state)?;
        }
        let Some(found) = found.filter(known) else {
            let limit = model.prefixes().limit();
            return Err(wrong(format!(
                "{wanted} tokens do not fit the {limit} bytes for prompts that were read; raise --prefix-bytes"
            )));
        };
        write(&found, self.identity()?, file)?;
        Ok(wanted)
    }

    /// Remembers what a file has, for as long as the model is loaded. Returns the number of tokens.
    ///
    /// # Errors
    /// [`Error::State`] for a file that is cut, changed, of another version or model, or larger than what `prefix_bytes`
    /// leaves.
    pub fn load_state(&self, file: &Path) -> Result<usize, Error> {
        let wrong = |why: String| state_error(file, why);
        let model = self.compressed()?;
        self.has_states(file)?;
        let state = parse(&bytes(file)?, self.identity()?).map_err(wrong)?;
        let shape = self.shape();
        if let Some(why) = state.misfit(shape.layers, shape.kv_heads, shape.head_dim) {
            return Err(wrong(why));
        }
        let element = state.layers.first().map(|[k, _]| k.dtype().size_in_bytes());
        if element != Some(self.element_bytes()) {
            return Err(wrong(
                "was saved on another kind of device, in other elements; save it again on this one"
                    .into(),
            ));
        }
        let vocabulary = self.tokenizer().get_vocab_size(true);
        if let Some(id) = state.tokens.iter().find(|id| **id as usize >= vocabulary) {
            return Err(wrong(format!(
                "has token {id}, and the model {vocabulary} tokens"
            )));
        }
        let tokens = state.tokens.len();
        model.prefixes().pin(state).map_err(|(needed, free)| {
            wrong(format!(
                "needs {needed} bytes, of which {free} are free; raise --prefix-bytes"
            ))
        })?;
        Ok(tokens)
    }

    fn has_states(&self, file: &Path) -> Result<(), Error> {
        if self.compressed()?.slides() {
            let why = "a model with sliding windows reads every prompt from its beginning";
            return Err(state_error(file, why.into()));
        }
        Ok(())
    }
}

fn state_error(file: &Path, why: String) -> Error {
    Error::State {
        path: file.into(),
        why,
    }
}

fn bytes(file: &Path) -> Result<Vec<u8>, Error> {
    let wrong = |e: io::Error| state_error(file, format!("cannot be read ({e})"));
    read::regular(file).map_err(wrong)?;
    fs::read(file).map_err(wrong)
}

fn name(layer: usize, which: usize) -> String {
    format!("layers.{layer}.{}", ["keys", "values"][which])
}

/// The tensors of a state by name.
fn tensors(state: &State) -> candle_core::Result<Vec<(String, Tensor)>> {
    let ids = Tensor::from_slice(&state.tokens, state.tokens.len(), &Device::Cpu)?;
    let mut tensors = vec![(TOKENS.to_string(), ids)];
    for (layer, parts) in state.layers.iter().enumerate() {
        for (which, part) in parts.iter().enumerate() {
            tensors.push((name(layer, which), part.clone()));
        }
    }
    Ok(tensors)
}

/// A digest over names, shapes, types and elements.
fn digest<'a>(
    model: &str,
    tensors: impl Iterator<Item = (String, String, Vec<usize>, Cow<'a, [u8]>)>,
) -> String {
    let mut digest = Digest::default();
    digest.update(format!("{FORMAT} {VERSION} {model}\n"));
    for (name, dtype, shape, data) in tensors {
        digest.update(format!("{name} {dtype} {shape:?} {}\n", data.len()));
        digest.update(data);
    }
    digest.hexadecimal()
}

/// Writes a state of that model, whole or not at all.
///
/// # Errors
/// [`Error::State`] for a file that cannot be written.
pub fn write(state: &State, model: &str, file: &Path) -> Result<(), Error> {
    let tensors = tensors(state).map_err(|e| state_error(file, e.to_string()))?;
    let parts = tensors.iter().map(|(name, x)| {
        let dtype = format!("{:?}", View::dtype(x));
        (name.clone(), dtype, x.dims().to_vec(), View::data(x))
    });
    let digest = digest(model, parts);
    let metadata = [
        ("format", FORMAT),
        ("version", VERSION),
        ("model", model),
        ("digest", &digest),
    ];
    let metadata: HashMap<String, String> = metadata
        .map(|(key, value)| (key.into(), value.into()))
        .into();
    let fill = |to: &Path| {
        let views = tensors.iter().map(|(name, x)| (name, x));
        safetensors::serialize_to_file(views, Some(metadata.clone()), to).map_err(|e| match e {
            SafeTensorError::IoError(e) => e,
            e => io::Error::other(e),
        })
    };
    whole::write_with(file, fill).map_err(|e| state_error(file, e.to_string()))
}

/// A state of that model from a file's bytes.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the file's name.
pub fn parse(bytes: &[u8], model: &str) -> Result<State, String> {
    check_header(bytes, bytes.len() as u64).map_err(|why| format!("{why}; save it again"))?;
    let changed = || "was changed or damaged; save it again".to_string();
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|_| changed())?;
    let file = SafeTensors::deserialize(bytes).map_err(|_| changed())?;
    let none = HashMap::new();
    let metadata = header.metadata().as_ref().unwrap_or(&none);
    let has = |key: &str| metadata.get(key).map_or("", String::as_str);
    if has("format") != FORMAT {
        return Err("is no state of a prompt; save one with --save-state".into());
    }
    if has("version") != VERSION {
        let version = has("version").escape_debug();
        return Err(format!(
            "is of version {version}, and this program reads {VERSION}; save it again"
        ));
    }
    if has("model") != model {
        return Err("is of another model; save it again with this one".into());
    }
    // In the order in which they were written: tokens, then layer by layer.
    let layers = file.len().saturating_sub(1) / 2;
    let names = (0..layers).flat_map(|layer| [name(layer, 0), name(layer, 1)]);
    let names: Vec<String> = [TOKENS.to_string()].into_iter().chain(names).collect();
    let views: Vec<_> = names
        .iter()
        .map(|name| file.tensor(name))
        .collect::<Result<_, _>>()
        .map_err(|_| changed())?;
    let parts = names.iter().zip(&views).map(|(name, view)| {
        let dtype = format!("{:?}", view.dtype());
        (
            name.clone(),
            dtype,
            view.shape().to_vec(),
            Cow::Borrowed(view.data()),
        )
    });
    if file.len() != names.len() || digest(model, parts) != has("digest") {
        return Err(changed());
    }
    let tensor = |view: &TensorView| {
        let dtype = DType::try_from(view.dtype()).map_err(|_| changed())?;
        Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)
            .map_err(|_| changed())
    };
    let tokens = tensor(&views[0])?;
    let tokens = tokens.to_vec1::<u32>().map_err(|_| changed())?;
    let layers = views[1..].chunks_exact(2);
    let layers = layers.map(|pair| Ok([tensor(&pair[0])?, tensor(&pair[1])?]));
    Ok(State {
        tokens,
        layers: layers.collect::<Result<_, String>>()?,
    })
}
