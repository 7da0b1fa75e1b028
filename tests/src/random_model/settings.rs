//! What config.json says of each family.

use super::{
    EXPERT, EXPERTS, Family, HEAD_DIM, HEADS, HIDDEN, INNER, KV_HEADS, LAYERS, RANK, ROPE_DIM,
    VISION,
};
use serde_json::{Map, Value, json};

/// The settings of a family's config.json, those of `base` included; windows are that long.
pub fn of(family: Family, base: &Value, window: usize) -> Value {
    let mut text = Map::new();
    let base = base.as_object().into_iter().flatten();
    text.extend(base.map(|(key, value)| (key.clone(), value.clone())));
    let shape = json!({
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "tie_word_embeddings": false,
    });
    for settings in [shape, own(family, window)] {
        if let Value::Object(settings) = settings {
            text.extend(settings);
        }
    }
    let around = around(family);
    let mut all = match around["nested"] == true {
        true => json!({ "text_config": text }),
        false => Value::Object(text),
    };
    if let (Some(all), Value::Object(around)) = (all.as_object_mut(), around) {
        all.extend(around.into_iter().filter(|(key, _)| key != "nested"));
        all.insert("architectures".into(), json!([family.class()]));
    }
    all
}

/// What is particular of a family's text model.
fn own(family: Family, window: usize) -> Value {
    let alternating = |first: &str, second: &str| -> Vec<String> {
        let kind = |layer: usize| {
            if layer.is_multiple_of(2) {
                first
            } else {
                second
            }
        };
        (0..LAYERS).map(|layer| kind(layer).to_string()).collect()
    };
    let latent = json!({
        "q_lora_rank": RANK,
        "kv_lora_rank": RANK,
        "qk_nope_head_dim": HEAD_DIM,
        "qk_rope_head_dim": ROPE_DIM,
        "v_head_dim": HEAD_DIM,
        "n_routed_experts": EXPERTS,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": EXPERT,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    });
    let latent = |changes: Value| {
        let mut all = latent.clone();
        for (key, value) in changes.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        all
    };
    match family {
        Family::Llama => json!({"model_type": "llama"}),
        Family::Mistral => json!({"model_type": "mistral", "sliding_window": window}),
        Family::Mistral3 => json!({"model_type": "mistral", "sliding_window": null}),
        Family::Mixtral => json!({
            "model_type": "mixtral",
            "sliding_window": window,
            "num_local_experts": EXPERTS,
            "num_experts_per_tok": 2,
        }),
        Family::Starcoder2 => json!({
            "model_type": "starcoder2",
            "sliding_window": window,
            "norm_epsilon": 1e-5,
            "use_bias": true,
        }),
        Family::Phi3 => json!({
            "model_type": "phi3",
            "sliding_window": window,
            "original_max_position_embeddings": 8192,
        }),
        Family::Gemma2 => json!({
            "model_type": "gemma2",
            "sliding_window": window,
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": HEAD_DIM,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        }),
        Family::Gemma3 | Family::Gemma3Vision => json!({
            "model_type": "gemma3_text",
            "sliding_window": window,
            "sliding_window_pattern": 2,
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": HEAD_DIM,
            "rope_local_base_freq": 10_000.0,
        }),
        Family::Qwen2 => json!({
            "model_type": "qwen2",
            "sliding_window": window,
            "use_sliding_window": false,
        }),
        Family::Qwen2Sliding | Family::Qwen3 => json!({
            "model_type": if family == Family::Qwen3 { "qwen3" } else { "qwen2" },
            "sliding_window": window,
            "use_sliding_window": true,
            // Upstream's prompts mask the layers before it as well: no reference for them.
            "max_window_layers": 0,
        }),
        Family::Qwen25Vl => json!({
            "model_type": "qwen2_5_vl",
            // Upstream masks by it whatever the next line says.
            "sliding_window": 8192,
            "use_sliding_window": false,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        }),
        Family::Qwen3Vl => json!({
            "model_type": "qwen3_vl_text",
            "sliding_window": null,
            "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]},
        }),
        Family::GptOss => json!({
            "model_type": "gpt_oss",
            "sliding_window": window,
            "attention_bias": true,
            "layer_types": alternating("sliding_attention", "full_attention"),
            "num_local_experts": EXPERTS,
            "num_experts_per_tok": 2,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 4096,
            },
        }),
        Family::DeepSeek2 => latent(json!({"model_type": "deepseek_v2", "q_lora_rank": null})),
        Family::DeepSeek3 => latent(json!({
            "model_type": "deepseek_v3",
            "topk_method": "noaux_tc",
            "scoring_func": "sigmoid",
        })),
        Family::Glm4MoeLite => latent(json!({
            "model_type": "glm4_moe_lite",
            "qk_nope_head_dim": HEAD_DIM - ROPE_DIM,
        })),
        Family::Qwen3Next => json!({
            "model_type": "qwen3_next",
            "full_attention_interval": 2,
            "partial_rotary_factor": 0.5,
            "linear_conv_kernel_dim": 4,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": HEAD_DIM,
            "linear_value_head_dim": HEAD_DIM,
            "num_experts": EXPERTS,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": EXPERT,
            "shared_expert_intermediate_size": EXPERT,
        }),
        Family::GraniteHybrid => json!({
            "model_type": "granitemoehybrid",
            "layer_types": alternating("mamba", "attention"),
            "shared_intermediate_size": INNER,
            "attention_multiplier": 0.25,
            "mamba_n_heads": HEADS,
            "mamba_d_head": 2 * HEAD_DIM,
            "mamba_d_state": HEAD_DIM,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "mamba_n_groups": 1,
        }),
    }
}

/// What stands beside the text model's settings; `nested` where these are in a table of their own. Vision towers have no
/// layers: no image is shown to them.
fn around(family: Family) -> Value {
    let vision = json!({
        "hidden_size": VISION,
        "out_hidden_size": HIDDEN,
        "intermediate_size": VISION,
        "num_hidden_layers": 0,
        "depth": 0,
        "num_attention_heads": 2,
        "num_heads": 2,
        "head_dim": VISION / 2,
        "image_size": 32,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 64,
        "num_position_embeddings": 4,
        "deepstack_visual_indexes": [],
        "fullatt_block_indexes": [],
        "hidden_act": "silu",
    });
    match family {
        Family::Gemma3Vision => json!({
            "nested": true,
            "model_type": "gemma3",
            "vision_config": vision,
            "image_token_index": 5,
            "mm_tokens_per_image": 4,
        }),
        Family::Mistral3 => json!({
            "nested": true,
            "model_type": "mistral3",
            "vision_config": vision,
            "image_token_index": 5,
            "multimodal_projector_bias": false,
            "projector_hidden_act": "gelu",
            "spatial_merge_size": 2,
            "vision_feature_layer": -1,
        }),
        Family::Qwen25Vl => json!({
            "vision_config": vision,
            "image_token_id": 5,
            "video_token_id": 6,
        }),
        Family::Qwen3Vl => json!({
            "nested": true,
            "model_type": "qwen3_vl",
            "vision_config": vision,
            "image_token_id": 5,
            "video_token_id": 6,
            "vision_start_token_id": 7,
            "vision_end_token_id": 8,
            "tie_word_embeddings": false,
        }),
        _ => json!({}),
    }
}

/// What processor_config.json says, for a class that does not load without it.
pub fn processor(family: Family) -> Option<Value> {
    (family == Family::Mistral3).then(|| {
        json!({
            "image_break_token": "[IMG_BREAK]",
            "image_end_token": "[IMG_END]",
            "image_token": "[IMG]",
            "patch_size": 16,
            "spatial_merge_size": 2,
        })
    })
}
