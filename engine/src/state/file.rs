//! The file of a state.
//!
//! A safetensors file: the tokens, and by layer the keys and values of all of them, whatever is kept of them later. Its
//! metadata have the format's version, the digest of the model's files, and a digest over everything else, so that a
//! file that was cut or changed, or is of another model, is refused.
//!
//! It knows of this crate only the check of headers, so that `fuzz/` compiles it without the runtime.

use crate::check::safetensors::read as check_header;
use candle_core::{DType, Device, Tensor};
use headkv_files::{Digest, whole};
use headkv_plugin::prefix::State;
use safetensors::{
    SafeTensors, View,
    tensor::{SafeTensorError, TensorView},
};
use std::{borrow::Cow, collections::HashMap, io, path::Path};

/// The format's version; a file of another one is refused.
const VERSION: &str = "1";
const FORMAT: &str = "headkv-state";
const TOKENS: &str = "tokens";

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
/// What the system says of a file that cannot be written.
pub fn write(state: &State, model: &str, file: &Path) -> io::Result<()> {
    let tensors = tensors(state).map_err(io::Error::other)?;
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
    whole::write_with(file, fill).map_err(io::Error::other)
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
