//! GGUF files of the embedded model.

use anyhow::{Context, Result};
use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
    safetensors,
};
use serde_json::Value;
use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

fn json(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// The embedded model in a format, as a GGUF file and as a folder of the same values; what is no whole blocks is Q5_0, as
/// llama.cpp has it.
///
/// # Errors
/// A file that cannot be read or written.
pub fn quantized_tiny(dir: &Path, format: GgmlDType) -> Result<(PathBuf, PathBuf)> {
    let tiny = crate::tiny();
    let config = json(&tiny.join("config.json"))?;
    let number = |key: &str| config[key].as_u64().with_context(|| key.to_string());
    let mut stored = HashMap::new();
    let mut values = HashMap::new();
    for (name, tensor) in safetensors::load(tiny.join("model.safetensors"), &Device::Cpu)? {
        let tensor = tensor.to_dtype(candle_core::DType::F32)?;
        let dtype = match tensor.dims() {
            [_, inputs] if inputs.is_multiple_of(format.block_size()) => format,
            [_, _] => GgmlDType::Q5_0,
            _ => GgmlDType::F32,
        };
        let ordered = match name.rsplit('.').nth(1) {
            Some("q_proj") => adjacent_pairs(&tensor, number("num_attention_heads")? as usize)?,
            Some("k_proj") => adjacent_pairs(&tensor, number("num_key_value_heads")? as usize)?,
            _ => tensor.clone(),
        };
        stored.insert(gguf_name(&name), QTensor::quantize(&ordered, dtype)?);
        values.insert(
            name,
            QTensor::quantize(&tensor, dtype)?.dequantize(&Device::Cpu)?,
        );
    }

    let folder = dir.join(format!("{format:?}"));
    fs::create_dir(&folder)?;
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        fs::copy(tiny.join(name), folder.join(name))?;
    }
    safetensors::save(&values, folder.join("model.safetensors"))?;

    let file = dir.join(format!("tiny-{format:?}.gguf"));
    let text = |text: &str| gguf_file::Value::String(text.into());
    let mut metadata = tokenizer_metadata(&tiny)?;
    metadata.push(("general.architecture".into(), text("llama")));
    for (key, field) in [
        ("llama.block_count", "num_hidden_layers"),
        ("llama.context_length", "max_position_embeddings"),
        ("llama.embedding_length", "hidden_size"),
        ("llama.feed_forward_length", "intermediate_size"),
        ("llama.attention.head_count", "num_attention_heads"),
        ("llama.attention.head_count_kv", "num_key_value_heads"),
        ("llama.rope.dimension_count", "head_dim"),
        ("tokenizer.ggml.bos_token_id", "bos_token_id"),
        ("tokenizer.ggml.eos_token_id", "eos_token_id"),
    ] {
        metadata.push((
            key.into(),
            gguf_file::Value::U32(number(field)?.try_into()?),
        ));
    }
    for (key, field) in [
        ("llama.rope.freq_base", "rope_theta"),
        ("llama.attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ] {
        let value = config[field].as_f64().context(field)?;
        metadata.push((key.into(), gguf_file::Value::F32(value as f32)));
    }
    let metadata: Vec<_> = metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    let tensors: Vec<_> = stored
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    gguf_file::write(&mut File::create(&file)?, &metadata, &tensors)?;
    Ok((file, folder))
}

/// Rows `i` and `i + head_dim / 2` of every head side by side, as llama.cpp stores what rotates together.
fn adjacent_pairs(weight: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, hidden) = weight.dims2()?;
    let halves = weight.reshape((heads, 2, rows / heads / 2, hidden))?;
    Ok(halves
        .transpose(1, 2)?
        .contiguous()?
        .reshape((rows, hidden))?)
}

fn gguf_name(folder: &str) -> String {
    [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ]
    .iter()
    .fold(folder.to_string(), |name, (from, to)| {
        name.replace(from, to)
    })
}

fn tokenizer_metadata(folder: &Path) -> Result<Vec<(String, gguf_file::Value)>> {
    use gguf_file::Value::{Array, I32, String as Text};
    let tokenizer = json(&folder.join("tokenizer.json"))?;
    let mut tokens: Vec<(u64, i32, String)> = Vec::new();
    for (token, id) in tokenizer["model"]["vocab"].as_object().context("vocab")? {
        tokens.push((id.as_u64().context("id")?, 1, token.clone()));
    }
    for token in tokenizer["added_tokens"]
        .as_array()
        .context("added_tokens")?
    {
        let id = token["id"].as_u64().context("id")?;
        tokens.retain(|(other, ..)| *other != id);
        tokens.push((id, 3, token["content"].as_str().context("content")?.into()));
    }
    tokens.sort();
    let merge = |merge: &Value| match merge {
        Value::Array(pair) => {
            let pair: Vec<&str> = pair.iter().filter_map(Value::as_str).collect();
            Some(Text(pair.join(" ")))
        }
        merge => merge.as_str().map(|merge| Text(merge.into())),
    };
    let merges = tokenizer["model"]["merges"].as_array().context("merges")?;
    Ok(vec![
        ("tokenizer.ggml.model".into(), Text("gpt2".into())),
        (
            "tokenizer.ggml.merges".into(),
            Array(merges.iter().filter_map(merge).collect()),
        ),
        (
            "tokenizer.ggml.token_type".into(),
            Array(tokens.iter().map(|t| I32(t.1)).collect()),
        ),
        (
            "tokenizer.ggml.tokens".into(),
            Array(tokens.into_iter().map(|t| Text(t.2)).collect()),
        ),
    ])
}
