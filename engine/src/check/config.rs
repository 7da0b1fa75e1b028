//! config.json, against what the runtime can run and what the weights hold.

use super::MOST_POSITIONS;
use serde_json::Value;

/// The linear layers of an architecture's block. The runtime loads a model that lacks some, and fails when it runs.
fn linear_layers(architecture: &str) -> &'static [&'static str] {
    match architecture {
        "LlamaForCausalLM" | "MistralForCausalLM" | "Qwen2ForCausalLM" | "Qwen3ForCausalLM" => &[
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ],
        "Phi3ForCausalLM" => &[
            "self_attn.qkv_proj",
            "self_attn.o_proj",
            "mlp.gate_up_proj",
            "mlp.down_proj",
        ],
        _ => &[],
    }
}

/// Checks a configuration: `runs` says which architectures the runtime has, `tensors` are the names in the weights.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the file's name.
pub fn check(
    config: &Value,
    runs: impl Fn(&str) -> bool,
    tensors: &[String],
) -> Result<(), String> {
    if !config.is_object() {
        return Err("is no table of settings; download it again".into());
    }
    let architecture = match config["architectures"].as_array().map(Vec::as_slice) {
        Some([name]) => name.as_str().unwrap_or_default(),
        _ => {
            return Err(
                "does not name one architecture in `architectures`; download it again".into(),
            );
        }
    };
    if !runs(architecture) {
        return Err(format!(
            "names the architecture {architecture:?}, which the runtime does not run; choose another model"
        ));
    }
    // Multimodal models have their text's settings in a table of its own.
    let setting = |key: &str| match &config[key] {
        Value::Null => &config["text_config"][key],
        value => value,
    };
    let between = |key: &str, most: u64| match setting(key) {
        Value::Null => Ok(None),
        value => match value.as_u64().filter(|n| (1..=most).contains(n)) {
            Some(number) => Ok(Some(number)),
            None => Err(format!(
                "says {key} = {value}, where 1 to {most} can be; download it again"
            )),
        },
    };
    let wide = u64::from(u32::MAX);
    // Every layer has a tensor of its own.
    let layers = between("num_hidden_layers", tensors.len() as u64)?;
    between("max_position_embeddings", MOST_POSITIONS)?;
    for key in ["hidden_size", "head_dim", "vocab_size", "intermediate_size"] {
        between(key, wide)?;
    }
    let heads = between("num_attention_heads", wide)?;
    let kv_heads = between("num_key_value_heads", wide)?;
    if let (Some(heads), Some(kv_heads)) = (heads, kv_heads)
        && heads % kv_heads != 0
    {
        return Err(format!(
            "says num_attention_heads = {heads}, no multiple of num_key_value_heads = {kv_heads}; download it again"
        ));
    }
    complete(config, architecture, layers.unwrap_or(0), tensors)
}

/// Checks that the weights hold what the configuration promises.
fn complete(
    config: &Value,
    architecture: &str,
    layers: u64,
    tensors: &[String],
) -> Result<(), String> {
    let parts = linear_layers(architecture);
    if parts.is_empty() {
        return Ok(());
    }
    // Without the last part of the name: quantized layers have several tensors of other names.
    let held: std::collections::HashSet<&str> = tensors
        .iter()
        .filter_map(|name| Some(name.rsplit_once('.')?.0))
        .collect();
    let tied = config["tie_word_embeddings"].as_bool().unwrap_or(false);
    if !tied && !held.contains("lm_head") {
        return Err(
            "does not tie its embeddings (tie_word_embeddings), but the weights hold no lm_head.weight; \
             download them again"
                .into(),
        );
    }
    for layer in 0..layers {
        for part in parts {
            let name = format!("model.layers.{layer}.{part}");
            if !held.contains(name.as_str()) {
                return Err(format!(
                    "says num_hidden_layers = {layers}, but the weights hold no {name}.weight; download them again"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tensors(layers: usize) -> Vec<String> {
        let parts = linear_layers("LlamaForCausalLM");
        let names = (0..layers).flat_map(|layer| {
            parts
                .iter()
                .map(move |part| format!("model.layers.{layer}.{part}.weight"))
        });
        names.chain(["lm_head.weight".into()]).collect()
    }

    fn checked(changes: Value, tensors: &[String]) -> Result<(), String> {
        let mut config = json!({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2,
            "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 8192});
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        check(&config, |name| name == "LlamaForCausalLM", tensors)
    }

    #[test]
    fn what_can_be_passes() {
        let all = tensors(2);
        checked(json!({}), &all).unwrap();
        let tied = &all[..all.len() - 1];
        checked(json!({"tie_word_embeddings": true}), tied).unwrap();
        let quantized: Vec<_> = all.iter().map(|n| n.replace("weight", "qweight")).collect();
        checked(json!({}), &quantized).unwrap();
    }

    #[test]
    fn what_cannot_be_is_named() {
        let all = tensors(2);
        for (changes, why) in [
            (
                json!({"num_attention_heads": 0}),
                "num_attention_heads = 0, where 1 to",
            ),
            (
                json!({"num_attention_heads": 6}),
                "no multiple of num_key_value_heads = 4",
            ),
            (json!({"num_key_value_heads": 0}), "num_key_value_heads = 0"),
            (json!({"num_hidden_layers": 0}), "num_hidden_layers = 0"),
            (
                json!({"num_hidden_layers": 1_000_000_000}),
                "= 1000000000, where 1 to 15",
            ),
            (
                json!({"num_hidden_layers": 3}),
                "hold no model.layers.2.self_attn.q_proj.weight",
            ),
            (
                json!({"num_hidden_layers": "2"}),
                "num_hidden_layers = \"2\"",
            ),
            (
                json!({"max_position_embeddings": 1_000_000_000}),
                "max_position_embeddings = 1000000000",
            ),
            (
                json!({"max_position_embeddings": 10_000_000}),
                "max_position_embeddings = 10000000",
            ),
            (json!({"head_dim": -1}), "head_dim = -1"),
            (
                json!({"num_attention_heads": null, "text_config": {"num_attention_heads": 6}}),
                "num_attention_heads = 6, no multiple of",
            ),
            (
                json!({"architectures": ["BertModel"]}),
                "names the architecture \"BertModel\"",
            ),
            (
                json!({"architectures": []}),
                "does not name one architecture",
            ),
        ] {
            let message = checked(changes, &all).unwrap_err();
            assert!(message.contains(why), "{message}");
        }
        let message = checked(json!({}), &all[..14]).unwrap_err();
        assert!(message.contains("hold no lm_head.weight"), "{message}");
        assert!(
            check(&json!([]), |_| true, &all)
                .unwrap_err()
                .contains("no table")
        );
    }
}
