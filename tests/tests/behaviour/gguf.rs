//! A quantized GGUF file runs as the values that it stands for, at the speed of f32, and its heads can be scored.

use anyhow::{Context, Result};
use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
    safetensors,
};
use head_scoring::{
    Kind, Scorer,
    example::{Example, Grid},
};
use headkv_engine::{Attention, Engine, Generation, LoadOptions, Request};
use headkv_haystack::{Haystack, Patterns, Template, pattern::Builtin};
use headkv_plugin::Compression;
use serde_json::Value;
use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

fn json(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// The embedded model in Q4_1, as a GGUF file and as a folder of the same values.
fn quantized_tiny(dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let tiny = headkv_tests::tiny();
    let config = json(&tiny.join("config.json"))?;
    let number = |key: &str| config[key].as_u64().with_context(|| key.to_string());
    let mut stored = HashMap::new();
    let mut values = HashMap::new();
    for (name, tensor) in safetensors::load(tiny.join("model.safetensors"), &Device::Cpu)? {
        let tensor = tensor.to_dtype(candle_core::DType::F32)?;
        let dtype = if tensor.rank() == 1 {
            GgmlDType::F32
        } else {
            GgmlDType::Q4_1
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

    let folder = dir.join("values");
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

    let file = dir.join("tiny-q4_1.gguf");
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

fn answer(engine: &Engine, prompt: &str, tokens: usize) -> Result<Generation> {
    let mut request = Request::new(engine.encode(prompt)?, tokens);
    request.keep_logits = true;
    engine.generate(&[request])?.pop().context("no answer")
}

#[test]
fn a_quantized_file_gives_the_logits_of_the_values_it_stands_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (file, folder) = quantized_tiny(dir.path())?;
    let prompt = "The key to the garden is under the third stone from the door. Where is the key?";
    let [file, folder] = [file, folder].map(|path| -> Result<Generation> {
        answer(
            &Engine::load(LoadOptions::new(path), Attention::Upstream)?,
            prompt,
            16,
        )
    });
    let (file, folder) = (file?, folder?);
    assert_eq!(file.tokens, folder.tokens);
    let pairs = file
        .logits
        .iter()
        .flatten()
        .zip(folder.logits.iter().flatten());
    let differences = pairs.map(|(a, b)| (a - b).abs());
    // Unlike f32::max, the order of all floats does not lose a NaN.
    let worst = differences.max_by(f32::total_cmp).unwrap_or(0.0);
    assert!(worst < 1e-3, "logits differ by {worst}");
    Ok(())
}

#[test]
fn scores_of_a_quantized_file_do_not_depend_on_the_batch() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (file, _) = quantized_tiny(dir.path())?;
    let scorer = Scorer::load(LoadOptions::new(file))?;
    let grid = Grid {
        needles: Patterns::builtin(Builtin::Retrieval).draw(1, 3)?,
        haystack: Haystack::generated(1),
        lengths: vec![200, 300],
        depths: vec![0.0, 20.0, 40.0, 60.0, 80.0, 100.0],
        template: Template::plain(),
    };
    let examples = grid.examples(scorer.engine())?;
    let all: Vec<&Example> = examples.iter().collect();
    let measure = |batch: usize| -> Result<Vec<_>> {
        let outcomes = all.chunks(batch);
        let outcomes = outcomes.map(|batch| scorer.measure(Kind::Enhanced, batch, 30));
        Ok(outcomes.collect::<Result<Vec<_>, _>>()?.concat())
    };
    let (alone, together) = (measure(1)?, measure(12)?);
    assert_eq!(alone.len(), 36);
    for (at, (alone, together)) in alone.iter().zip(&together).enumerate() {
        assert_eq!(alone, together, "example {at}");
    }
    Ok(())
}

#[test]
fn smollm2_answers() -> Result<()> {
    let default = headkv_tests::root().join("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let file = std::env::var_os("HEADKV_SMOLLM2").map_or(default, PathBuf::from);
    if !file.exists() {
        eprintln!(
            "SKIPPED: {} is not there (run scripts/fetch-smollm2.sh)",
            file.display()
        );
        return Ok(());
    }
    let compression = Compression::new("snapkv", 64);
    let engine = Engine::load(LoadOptions::new(file), Attention::Compressed(compression))?;
    let prompt =
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
    let answer = answer(&engine, prompt, 12)?;
    assert!(answer.text.contains("Paris"), "{}", answer.text);
    Ok(())
}
