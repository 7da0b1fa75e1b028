//! A small Llama with random weights, of a shape that the embedded model does not have.

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::{collections::HashMap, fs, path::Path};

/// Writes a model folder with the embedded model's tokenizer: 3 layers, 6 query heads on 2 KV heads of 16 elements.
pub fn random_llama(folder: &Path, seed: u64) {
    let tiny = super::tiny();
    fs::create_dir_all(folder).unwrap();
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        fs::copy(tiny.join(name), folder.join(name)).unwrap();
    }
    let config = fs::read_to_string(tiny.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    let vocabulary = config["vocab_size"].as_u64().unwrap() as usize;
    let (layers, heads, kv_heads, head_dim, hidden, inner) = (3, 6, 2, 16, 96, 128);
    for (key, value) in [
        ("num_hidden_layers", json!(layers)),
        ("num_attention_heads", json!(heads)),
        ("num_key_value_heads", json!(kv_heads)),
        ("head_dim", json!(head_dim)),
        ("hidden_size", json!(hidden)),
        ("intermediate_size", json!(inner)),
        ("tie_word_embeddings", json!(true)),
    ] {
        config[key] = value;
    }
    fs::write(folder.join("config.json"), config.to_string()).unwrap();

    let mut tensors = HashMap::new();
    let mut state = seed;
    let mut add = |name: String, shape: &[usize], scale: f32| {
        let values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|_| {
                // Knuth's linear congruential generator (MMIX).
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
            })
            .collect();
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        tensors.insert(name, tensor.to_dtype(DType::BF16).unwrap());
    };
    add(
        "model.embed_tokens.weight".into(),
        &[vocabulary, hidden],
        1.0,
    );
    for layer in 0..layers {
        let of = |part: &str| format!("model.layers.{layer}.{part}.weight");
        for (part, out, inputs) in [
            ("self_attn.q_proj", heads * head_dim, hidden),
            ("self_attn.k_proj", kv_heads * head_dim, hidden),
            ("self_attn.v_proj", kv_heads * head_dim, hidden),
            ("self_attn.o_proj", hidden, heads * head_dim),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ] {
            add(of(part), &[out, inputs], 2.0 / (inputs as f32).sqrt());
        }
    }
    for layer in 0..layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            let ones = Tensor::ones(hidden, DType::BF16, &Device::Cpu).unwrap();
            tensors.insert(format!("model.layers.{layer}.{norm}.weight"), ones);
        }
    }
    let ones = Tensor::ones(hidden, DType::BF16, &Device::Cpu).unwrap();
    tensors.insert("model.norm.weight".into(), ones);
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}
