//! Small models with random weights: of every family that the hook takes, with the embedded model's tokenizer.

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::{collections::HashMap, fs, path::Path};

/// Layers of the random models.
pub const LAYERS: usize = 4;
const HEADS: usize = 6;
/// KV heads of the random models.
pub const KV_HEADS: usize = 2;
/// Elements of one head's key in the random models.
pub const HEAD_DIM: usize = 16;
const HIDDEN: usize = HEADS * HEAD_DIM;
const INNER: usize = 128;
const EXPERTS: usize = 3;

/// A family of models, by its first member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// No windows.
    Llama,
    /// A window in every layer.
    Mistral,
    /// A window in every layer, and experts.
    Mixtral,
    /// A window in every layer, layer norms and biases.
    Starcoder2,
    /// A window in every layer, fused projections.
    Phi3,
    /// A window in every other layer, soft caps.
    Gemma2,
    /// A window in the configuration that its layers do not use.
    Qwen2,
    /// A window in every layer, norms of queries and keys.
    Qwen3,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 8] = [
        Family::Llama,
        Family::Mistral,
        Family::Mixtral,
        Family::Starcoder2,
        Family::Phi3,
        Family::Gemma2,
        Family::Qwen2,
        Family::Qwen3,
    ];

    /// By layer, whether it slides.
    pub fn slides(self, layer: usize) -> bool {
        match self {
            Family::Llama | Family::Qwen2 => false,
            Family::Gemma2 => layer.is_multiple_of(2),
            _ => true,
        }
    }

    fn config(self, window: usize) -> Vec<(&'static str, Value)> {
        let (architecture, kind) = match self {
            Family::Llama => ("LlamaForCausalLM", "llama"),
            Family::Mistral => ("MistralForCausalLM", "mistral"),
            Family::Mixtral => ("MixtralForCausalLM", "mixtral"),
            Family::Starcoder2 => ("Starcoder2ForCausalLM", "starcoder2"),
            Family::Phi3 => ("Phi3ForCausalLM", "phi3"),
            Family::Gemma2 => ("Gemma2ForCausalLM", "gemma2"),
            Family::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Family::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        };
        let mut config = vec![
            ("architectures", json!([architecture])),
            ("model_type", json!(kind)),
        ];
        if self != Family::Llama {
            config.push(("sliding_window", json!(window)));
        }
        config.extend(match self {
            Family::Mixtral => vec![
                ("num_local_experts", json!(EXPERTS)),
                ("num_experts_per_tok", json!(2)),
            ],
            Family::Starcoder2 => vec![("norm_epsilon", json!(1e-5)), ("use_bias", json!(true))],
            Family::Phi3 => vec![("original_max_position_embeddings", json!(8192))],
            Family::Gemma2 => vec![
                ("hidden_activation", json!("gelu_pytorch_tanh")),
                ("query_pre_attn_scalar", json!(HEAD_DIM)),
                ("attn_logit_softcapping", json!(50.0)),
                ("final_logit_softcapping", json!(30.0)),
            ],
            Family::Qwen2 => vec![("use_sliding_window", json!(false))],
            Family::Qwen3 => vec![
                ("use_sliding_window", json!(true)),
                // Upstream's prompts mask the layers before it as well: no reference for them.
                ("max_window_layers", json!(0)),
            ],
            _ => vec![],
        });
        config
    }

    /// Names and shapes of one layer's weights; vectors are norms or biases.
    fn layer(self) -> Vec<(String, Vec<usize>)> {
        let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
        let mut parts: Vec<(String, Vec<usize>)> = Vec::new();
        let mut add = |name: &str, shape: &[usize]| parts.push((name.into(), shape.to_vec()));
        if self == Family::Phi3 {
            add("self_attn.qkv_proj.weight", &[q + 2 * kv, HIDDEN]);
        } else {
            for (part, out) in [("q", q), ("k", kv), ("v", kv)] {
                add(&format!("self_attn.{part}_proj.weight"), &[out, HIDDEN]);
                if matches!(self, Family::Qwen2 | Family::Starcoder2) {
                    add(&format!("self_attn.{part}_proj.bias"), &[out]);
                }
            }
        }
        add("self_attn.o_proj.weight", &[HIDDEN, q]);
        if self == Family::Qwen3 {
            add("self_attn.q_norm.weight", &[HEAD_DIM]);
            add("self_attn.k_norm.weight", &[HEAD_DIM]);
        }
        match self {
            Family::Mixtral => {
                add("block_sparse_moe.gate.weight", &[EXPERTS, HIDDEN]);
                for expert in 0..EXPERTS {
                    let of =
                        |part: &str| format!("block_sparse_moe.experts.{expert}.{part}.weight");
                    add(&of("w1"), &[INNER, HIDDEN]);
                    add(&of("w2"), &[HIDDEN, INNER]);
                    add(&of("w3"), &[INNER, HIDDEN]);
                }
            }
            Family::Starcoder2 => {
                add("self_attn.o_proj.bias", &[HIDDEN]);
                add("mlp.c_fc.weight", &[INNER, HIDDEN]);
                add("mlp.c_fc.bias", &[INNER]);
                add("mlp.c_proj.weight", &[HIDDEN, INNER]);
                add("mlp.c_proj.bias", &[HIDDEN]);
            }
            Family::Phi3 => {
                add("mlp.gate_up_proj.weight", &[2 * INNER, HIDDEN]);
                add("mlp.down_proj.weight", &[HIDDEN, INNER]);
            }
            _ => {
                add("mlp.gate_proj.weight", &[INNER, HIDDEN]);
                add("mlp.up_proj.weight", &[INNER, HIDDEN]);
                add("mlp.down_proj.weight", &[HIDDEN, INNER]);
            }
        }
        let mut norms = vec!["input_layernorm", "post_attention_layernorm"];
        if self == Family::Gemma2 {
            norms.extend(["pre_feedforward_layernorm", "post_feedforward_layernorm"]);
        }
        for norm in norms {
            add(&format!("{norm}.weight"), &[HIDDEN]);
            if self == Family::Starcoder2 {
                add(&format!("{norm}.bias"), &[HIDDEN]);
            }
        }
        parts
    }
}

/// Writes the folder of a random Llama; see [`random_model`].
pub fn random_llama(folder: &Path, seed: u64) {
    random_model(folder, Family::Llama, 0, seed);
}

/// Writes a model folder: 4 layers, 6 query heads on 2 KV heads of 16 elements, the embedded model's tokenizer, and a
/// window of that many tokens where the family has one. The weights depend on the seed alone.
pub fn random_model(folder: &Path, family: Family, window: usize, seed: u64) {
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
    let shape = [
        ("num_hidden_layers", json!(LAYERS)),
        ("num_attention_heads", json!(HEADS)),
        ("num_key_value_heads", json!(KV_HEADS)),
        ("head_dim", json!(HEAD_DIM)),
        ("hidden_size", json!(HIDDEN)),
        ("intermediate_size", json!(INNER)),
        ("tie_word_embeddings", json!(false)),
    ];
    for (key, value) in shape.into_iter().chain(family.config(window)) {
        config[key] = value;
    }
    fs::write(folder.join("config.json"), config.to_string()).unwrap();

    let mut tensors = HashMap::new();
    let mut state = seed;
    let mut add = |name: String, shape: &[usize]| {
        // Matrices keep their inputs' size, norms do nothing, biases are small.
        let (around, scale) = match shape {
            [_, inputs] if !name.contains("embed") => (0.0, 2.0 / (*inputs as f32).sqrt()),
            [_, _] => (0.0, 1.0),
            _ if name.ends_with("bias") => (0.0, 0.1),
            // Gemma's norms add 1 to their weights.
            _ if family == Family::Gemma2 => (0.0, 0.1),
            _ => (1.0, 0.1),
        };
        let values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|_| {
                // Knuth's linear congruential generator (MMIX).
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale + around
            })
            .collect();
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        tensors.insert(name, tensor.to_dtype(DType::BF16).unwrap());
    };
    add("model.embed_tokens.weight".into(), &[vocabulary, HIDDEN]);
    for layer in 0..LAYERS {
        for (part, shape) in family.layer() {
            add(format!("model.layers.{layer}.{part}"), &shape);
        }
    }
    add("model.norm.weight".into(), &[HIDDEN]);
    if family == Family::Starcoder2 {
        add("model.norm.bias".into(), &[HIDDEN]);
    }
    add("lm_head.weight".into(), &[vocabulary, HIDDEN]);
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}
