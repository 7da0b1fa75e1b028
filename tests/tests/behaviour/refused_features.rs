//! Features and model classes that would run without the hook, or under another attention, are refused by name.

use candle_core::{DType, Device, Tensor};
use headkv_engine::{Attention, Engine, LoadOptions};
use headkv_plugin::{Compression, HeadKv};
use mistralrs_core::{
    AdapterPaths, DeviceMapSetting, Loader, LocalModelPaths, ModelDType, ModelPaths,
    NormalLoaderBuilder, NormalSpecificConfig, Ordering, SpeculativeConfig, SpeculativeLoader,
    TokenSource,
};
use serde_json::{Value, json};
use std::{collections::HashMap, fs, path::Path};

fn builder() -> NormalLoaderBuilder {
    let model = headkv_tests::tiny().to_string_lossy().into_owned();
    NormalLoaderBuilder::new(
        NormalSpecificConfig::default(),
        None,
        None,
        Some(model),
        false,
        None,
    )
}

/// Loads the embedded model with a loader of the runtime in a hook's scope.
fn refusal(loader: &dyn Loader) -> String {
    let hook = HeadKv::new(Compression::new("snapkv", 32)).unwrap();
    let file = |name: &str| headkv_tests::tiny().join(name);
    let paths: Box<dyn ModelPaths> = Box::new(LocalModelPaths {
        tokenizer_filename: file("tokenizer.json"),
        config_filename: file("config.json"),
        template_filename: Some(file("tokenizer_config.json")),
        filenames: vec![file("model.safetensors")],
        adapter_paths: AdapterPaths::None,
        gen_conf: None,
        preprocessor_config: None,
        processor_config: None,
        chat_template_json_filename: None,
    });
    let loaded = hook.scope(|| {
        loader.load_model_from_path(
            &paths,
            &ModelDType::F32,
            &Device::Cpu,
            true,
            DeviceMapSetting::dummy(),
            None,
            None,
        )
    });
    loaded.err().expect("it should be refused").to_string()
}

#[test]
fn x_lora() {
    let order: Ordering = serde_json::from_value(
        json!({"order": [], "layers": {}, "base_model_id": "tiny", "preload_adapters": null}),
    )
    .unwrap();
    let loader = builder()
        .with_xlora("adapters".into(), order, false, None)
        .build(None)
        .unwrap();
    let message = refusal(&*loader);
    assert!(
        message.contains("an X-LoRA model cannot be hooked"),
        "{message}"
    );
}

#[test]
fn speculative_decoding() {
    let plain = || builder().build(None).unwrap();
    let loader = SpeculativeLoader {
        target: plain(),
        draft: plain(),
        config: SpeculativeConfig { gamma: 2 },
    };
    let message = refusal(&loader);
    assert!(
        message.contains("speculative decoding cannot be hooked"),
        "{message}"
    );
    let hook = HeadKv::new(Compression::new("snapkv", 32)).unwrap();
    let from_hub = hook.scope(|| {
        loader.load_model_from_hf(
            None,
            TokenSource::None,
            &ModelDType::F32,
            &Device::Cpu,
            true,
            DeviceMapSetting::dummy(),
            None,
            None,
        )
    });
    assert!(
        from_hub
            .err()
            .unwrap()
            .to_string()
            .contains("speculative decoding")
    );
}

/// A model of zeros with that configuration and those weights, loaded with a hook.
fn load(config: Value, weights: &[(&str, &[usize])]) -> String {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        fs::copy(headkv_tests::tiny().join(name), dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    save(&dir.path().join("model.safetensors"), weights);
    let attention = Attention::Compressed(Compression::new("snapkv", 32));
    let refused = Engine::load(LoadOptions::new(dir.path()), attention).err();
    refused.expect("it should be refused").to_string()
}

fn save(path: &Path, weights: &[(&str, &[usize])]) {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let tensors: HashMap<String, Tensor> = weights
        .iter()
        .map(|(name, shape)| (format!("model.{name}"), zeros(shape)))
        .collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

#[test]
fn values_larger_than_keys() {
    let config = json!({
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "vocab_size": 4096,
        "hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "n_shared_experts": null, "n_routed_experts": null, "num_experts_per_tok": null,
        "first_k_dense_replace": 1, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true, "rope_theta": 10000.0, "attention_bias": false,
        "q_lora_rank": null, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "kv_lora_rank": 24,
        "v_head_dim": 64, "n_group": 1, "topk_group": 1, "topk_method": "greedy"
    });
    let message = load(
        config,
        &[
            ("embed_tokens.weight", &[4096, 64]),
            ("norm.weight", &[64]),
            ("layers.0.input_layernorm.weight", &[64]),
            ("layers.0.post_attention_layernorm.weight", &[64]),
            ("layers.0.self_attn.q_proj.weight", &[96, 64]),
            ("layers.0.self_attn.kv_a_proj_with_mqa.weight", &[40, 64]),
            ("layers.0.self_attn.kv_a_layernorm.weight", &[24]),
            ("layers.0.self_attn.kv_b_proj.weight", &[192, 24]),
            ("layers.0.self_attn.o_proj.weight", &[64, 128]),
            ("layers.0.mlp.gate_proj.weight", &[128, 64]),
            ("layers.0.mlp.up_proj.weight", &[128, 64]),
            ("layers.0.mlp.down_proj.weight", &[64, 128]),
        ],
    );
    assert!(
        message.contains("a model whose values are larger than its keys")
            && !message.contains('\n'),
        "{message}"
    );
}
