//! Writes a GGUF file's weights once as an f32 model folder, because candle's CPU path multiplies some quantized types
//! by a scalar loop.
//!
//! The folder's values are those that the GGUF file stands for: dequantized in f32, where scale times integer is exact,
//! and not rounded again, since the runtime computes in f32 on the CPU anyway.
//!
//! Sources: the GGUF specification (ggml, `docs/gguf.md`) for metadata keys; llama.cpp's `gguf-py` for tensor names and
//! its `convert_hf_to_gguf.py` for the row order of query and key projections.

use crate::{Error, ModelFiles, files::first_line};
use candle_core::{
    Device, Tensor,
    quantized::{
        GgmlDType,
        gguf_file::{Content, Value},
    },
};
use serde_json::json;
use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};
use tokenizers::Tokenizer;

/// The largest folder worth writing, in bytes: the weights lie on disk and, while they are written, in memory.
const MAX_BYTES: usize = 4_000_000_000;

/// Whether the model is a GGUF file that [`dequantized`] can convert, that candle's CPU path would multiply by its
/// scalar loop, and that takes at most 4 GB in f32.
pub(crate) fn worth_dequantizing(files: &ModelFiles) -> bool {
    let worth = |gguf: Gguf| {
        let mut tensors = gguf.content.tensor_infos.values();
        gguf.bytes() <= MAX_BYTES && tensors.any(|info| scalar_on_cpu(info.ggml_dtype))
    };
    files.is_gguf() && Gguf::open(files.path()).is_ok_and(worth)
}

/// The model folder with the GGUF file's weights in f32: `cache/<digest>/<model name>/`, written on the first call.
///
/// The folder appears whole or not at all. It takes four bytes per weight, on disk and, while it is written, in memory.
///
/// # Errors
/// [`Error::Model`] if the architecture is not `llama` or `qwen2`, if it has tensors or rotary scaling that the folder
/// could not express, or if `cache` cannot be written.
pub(crate) fn dequantized(
    files: &ModelFiles,
    tokenizer: &Tokenizer,
    cache: &Path,
) -> Result<ModelFiles, Error> {
    let home = cache.join(&files.digest()?[..16]);
    let folder = home.join(files.name());
    if let Ok(complete) = ModelFiles::open(&folder) {
        return Ok(complete);
    }
    let mut gguf = Gguf::open(files.path())?;
    tracing::info!(
        "writing {} in f32 to {}",
        files.path().display(),
        folder.display()
    );
    let unwritable = |e: io::Error| Error::Model {
        path: folder.clone(),
        why: format!("cannot be written ({e}); make room or choose another cache folder"),
    };
    fs::create_dir_all(&home).map_err(unwritable)?;
    let draft = tempfile::tempdir_in(&home).map_err(unwritable)?;
    let written = draft.path().join("model");
    fs::create_dir(&written).map_err(unwritable)?;
    for (name, text) in [
        ("config.json", gguf.config()?),
        ("generation_config.json", gguf.generation_config()),
        ("tokenizer_config.json", gguf.tokenizer_config(tokenizer)),
    ] {
        fs::write(written.join(name), format!("{text:#}\n")).map_err(unwritable)?;
    }
    tokenizer
        .save(written.join("tokenizer.json"), true)
        .map_err(|e| unwritable(io::Error::other(e)))?;
    let metadata = HashMap::from([("format".into(), "pt".into())]);
    let weights = written.join("model.safetensors");
    safetensors::serialize_to_file(gguf.tensors()?, Some(metadata), &weights)
        .map_err(|e| unwritable(io::Error::other(e)))?;

    if folder.exists() {
        // Damaged, or it had been returned above.
        fs::remove_dir_all(&folder).map_err(unwritable)?;
    }
    let renamed = fs::rename(&written, &folder);
    // A rename fails where another process was faster; its folder is as good.
    ModelFiles::open(&folder).map_err(|damaged| renamed.err().map_or(damaged, unwritable))
}

/// Whether candle 0.10.2 has no SIMD code for products with that type on this build's CPU target (`vec_dot` in its
/// `quantized/k_quants.rs`); which instructions it uses is fixed when it is compiled.
fn scalar_on_cpu(dtype: GgmlDType) -> bool {
    match dtype {
        // These it dequantizes itself as it loads them.
        GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => false,
        GgmlDType::Q4_1 | GgmlDType::Q5_0 | GgmlDType::Q5_1 | GgmlDType::Q8_1 => true,
        _ => !cfg!(any(target_feature = "avx2", target_feature = "neon")),
    }
}

/// An architecture whose tensors and configuration the runtime reads from a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    Llama,
    Qwen2,
}

impl Architecture {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "llama" => Some(Self::Llama),
            "qwen2" => Some(Self::Qwen2),
            _ => None,
        }
    }

    /// The prefix of its metadata, also its `model_type` in a folder.
    fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
        }
    }

    /// The name of a GGUF tensor in a model folder, if it has a place there.
    fn folder_name(self, gguf: &str) -> Option<String> {
        match gguf {
            "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
            "output_norm.weight" => return Some("model.norm.weight".into()),
            "output.weight" => return Some("lm_head.weight".into()),
            _ => {}
        }
        let (layer, rest) = gguf.strip_prefix("blk.")?.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        let (part, kind) = rest.split_once('.')?;
        let module = match part {
            "attn_norm" => "input_layernorm",
            "attn_q" => "self_attn.q_proj",
            "attn_k" => "self_attn.k_proj",
            "attn_v" => "self_attn.v_proj",
            "attn_output" => "self_attn.o_proj",
            "ffn_norm" => "post_attention_layernorm",
            "ffn_gate" => "mlp.gate_proj",
            "ffn_up" => "mlp.up_proj",
            "ffn_down" => "mlp.down_proj",
            _ => return None,
        };
        let has_bias = self == Self::Qwen2 && matches!(part, "attn_q" | "attn_k" | "attn_v");
        (kind == "weight" || kind == "bias" && has_bias)
            .then(|| format!("model.layers.{layer}.{module}.{kind}"))
    }
}

/// A GGUF file that a model folder can express.
struct Gguf {
    path: PathBuf,
    file: File,
    content: Content,
    architecture: Architecture,
    /// Folder name by GGUF name of every tensor.
    names: HashMap<String, String>,
}

/// The attention's shape.
struct Heads {
    query: usize,
    kv: usize,
    dim: usize,
}

impl Gguf {
    fn open(path: &Path) -> Result<Self, Error> {
        let mut file = File::open(path).map_err(|e| refused(path, e.to_string()))?;
        let content = Content::read(&mut file).map_err(|e| refused(path, e.to_string()))?;
        let name = content.metadata.get("general.architecture").and_then(text);
        let name = name.unwrap_or("unknown");
        let architecture = Architecture::parse(name)
            .ok_or_else(|| refused(path, format!("architecture {name}")))?;
        let place = |name: &String| match architecture.folder_name(name) {
            Some(place) => Ok((name.clone(), place)),
            None => Err(refused(path, format!("tensor {name}"))),
        };
        let names = content
            .tensor_infos
            .keys()
            .map(place)
            .collect::<Result<_, _>>()?;
        let gguf = Self {
            path: path.into(),
            file,
            content,
            architecture,
            names,
        };
        gguf.check_rotary()?;
        Ok(gguf)
    }

    /// The runtime derives a folder's head size from the hidden size, and rotates all of it by unscaled frequencies.
    fn check_rotary(&self) -> Result<(), Error> {
        let dim = self.heads()?.dim;
        for key in [
            "attention.key_length",
            "attention.value_length",
            "rope.dimension_count",
        ] {
            if self.field(key).is_some() && self.number(key)? != dim {
                return Err(refused(&self.path, format!("{key} is not {dim}")));
            }
        }
        match self.field("rope.scaling.type").and_then(text) {
            None | Some("none") => Ok(()),
            Some(scaling) => Err(refused(&self.path, format!("rotary scaling {scaling}"))),
        }
    }

    fn heads(&self) -> Result<Heads, Error> {
        let query = self.number("attention.head_count")?;
        // The specification's default: no grouping.
        let kv = match self.field("attention.head_count_kv") {
            Some(_) => self.number("attention.head_count_kv")?,
            None => query,
        };
        let dim = self.number("embedding_length")?.checked_div(query);
        let dim = dim.ok_or_else(|| refused(&self.path, "no attention heads".into()))?;
        Ok(Heads { query, kv, dim })
    }

    /// Bytes of all weights in f32.
    fn bytes(&self) -> usize {
        let infos = self.content.tensor_infos.values();
        infos
            .map(|info| info.shape.elem_count() * size_of::<f32>())
            .sum()
    }

    /// A value of the model's own metadata.
    fn field(&self, key: &str) -> Option<&Value> {
        self.content
            .metadata
            .get(&format!("{}.{key}", self.architecture.name()))
    }

    fn number(&self, key: &str) -> Result<usize, Error> {
        let value = self.field(key).and_then(|value| value.to_u64().ok());
        let value = value.and_then(|value| usize::try_from(value).ok());
        value.ok_or_else(|| refused(&self.path, format!("its metadata has no single {key}")))
    }

    fn real(&self, key: &str) -> Option<f32> {
        self.field(key).and_then(|value| value.to_f32().ok())
    }

    /// The id of a special token: `bos` or `eos`.
    fn token_id(&self, which: &str) -> Option<u32> {
        let key = format!("tokenizer.ggml.{which}_token_id");
        self.content
            .metadata
            .get(&key)
            .and_then(|value| value.to_u32().ok())
    }

    fn config(&self) -> Result<serde_json::Value, Error> {
        let epsilon = "attention.layer_norm_rms_epsilon";
        let vocab = self.content.tensor_infos.get("token_embd.weight");
        let vocab = vocab.and_then(|info| info.shape.dims().first());
        let class = match self.architecture {
            Architecture::Llama => "LlamaForCausalLM",
            Architecture::Qwen2 => "Qwen2ForCausalLM",
        };
        let heads = self.heads()?;
        Ok(json!({
            "architectures": [class],
            "model_type": self.architecture.name(),
            "vocab_size": vocab.ok_or_else(|| refused(&self.path, "no token_embd.weight".into()))?,
            "hidden_size": self.number("embedding_length")?,
            "intermediate_size": self.number("feed_forward_length")?,
            "num_hidden_layers": self.number("block_count")?,
            "num_attention_heads": heads.query,
            "num_key_value_heads": heads.kv,
            "head_dim": heads.dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.real(epsilon).ok_or_else(|| refused(&self.path, format!("no {epsilon}")))?,
            // The default of the GGUF specification's architectures.
            "rope_theta": self.real("rope.freq_base").unwrap_or(10_000.0),
            "rope_scaling": null,
            "max_position_embeddings": self.number("context_length")?,
            "tie_word_embeddings": !self.names.contains_key("output.weight"),
            "bos_token_id": self.token_id("bos"),
            "eos_token_id": self.token_id("eos"),
            "torch_dtype": "float32",
        }))
    }

    fn generation_config(&self) -> serde_json::Value {
        json!({"bos_token_id": self.token_id("bos"), "eos_token_id": self.token_id("eos")})
    }

    fn tokenizer_config(&self, tokenizer: &Tokenizer) -> serde_json::Value {
        let token = |which| {
            self.token_id(which)
                .and_then(|id| tokenizer.id_to_token(id))
        };
        let metadata = &self.content.metadata;
        let template = metadata.get("tokenizer.chat_template").and_then(text);
        let add_bos = metadata
            .get("tokenizer.ggml.add_bos_token")
            .and_then(|b| b.to_bool().ok());
        let fields = [
            ("tokenizer_class", Some(json!("PreTrainedTokenizerFast"))),
            ("bos_token", token("bos").map(Into::into)),
            ("eos_token", token("eos").map(Into::into)),
            ("add_bos_token", add_bos.map(Into::into)),
            ("chat_template", template.map(Into::into)),
        ];
        fields
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }

    /// All weights by their names in the folder.
    fn tensors(&mut self) -> Result<HashMap<String, Tensor>, Error> {
        let heads = self.heads()?;
        let mut tensors = HashMap::new();
        for (name, place) in &self.names {
            let tensor = self.content.tensor(&mut self.file, name, &Device::Cpu);
            let tensor = tensor
                .and_then(|t| t.dequantize(&Device::Cpu))
                .and_then(|t| match (self.architecture, place.rsplit('.').nth(1)) {
                    (Architecture::Llama, Some("q_proj")) => half_split(&t, heads.query),
                    (Architecture::Llama, Some("k_proj")) => half_split(&t, heads.kv),
                    _ => Ok(t),
                });
            let tensor = tensor.map_err(|e| refused(&self.path, format!("tensor {name}: {e}")))?;
            tensors.insert(place.clone(), tensor);
        }
        Ok(tensors)
    }
}

/// Reorders the rows of a query or key projection `(heads * head_dim, hidden)` from llama.cpp's rotary layout, which
/// rotates rows `2 i` and `2 i + 1` of a head together, to the folders', which rotates `i` and `i + head_dim / 2`.
fn half_split(weight: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let shape = weight.shape().clone();
    let (rows, hidden) = shape.dims2()?;
    let pairs = rows.checked_div(2 * heads).unwrap_or_default();
    weight
        .reshape((heads, pairs, 2, hidden))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape(shape)
}

fn text(value: &Value) -> Option<&str> {
    value.to_string().ok().map(String::as_str)
}

fn refused(path: &Path, why: String) -> Error {
    let why = format!("cannot be dequantized to a folder: {}", first_line(&why));
    Error::Model {
        path: path.into(),
        why,
    }
}

#[cfg(test)]
mod tests;
