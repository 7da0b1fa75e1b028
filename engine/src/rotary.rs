//! The rotary embedding that a model's config.json describes.

use crate::ModelFiles;
use headkv_plugin::rotary::{Llama3, Rotary};
use serde_json::Value;

/// A model's rotary embedding, if it is known for sure.
pub fn of(files: &ModelFiles) -> Option<Rotary> {
    if files.is_gguf() {
        return None;
    }
    let text = headkv_files::read::text(&files.path().join("config.json")).ok()?;
    rotary(&serde_json::from_str(&text).ok()?)
}

/// The embedding; `None` where the families whose layout is known have another one, or the model is of another family.
fn rotary(config: &Value) -> Option<Rotary> {
    let family = config["model_type"].as_str()?;
    if !["llama", "mistral", "qwen2", "qwen3"].contains(&family) {
        return None;
    }
    let number = |key: &str| config[key].as_f64();
    if number("partial_rotary_factor").is_some_and(|part| part != 1.0) {
        return None;
    }
    let divided =
        || Some(config["hidden_size"].as_u64()? / config["num_attention_heads"].as_u64()?.max(1));
    let head_dim = config["head_dim"].as_u64().or_else(divided)?;
    let base = number("rope_theta").unwrap_or(10_000.0);
    let plain = Rotary::new(base as f32, usize::try_from(head_dim).ok()?);
    let scaling = &config["rope_scaling"];
    if scaling.is_null() {
        return Some(plain);
    }
    let kind = scaling["rope_type"].as_str().or(scaling["type"].as_str());
    match kind? {
        "default" => Some(plain),
        "llama3" if family == "llama" => {
            let number = |key: &str| scaling[key].as_f64().map(|number| number as f32);
            Some(plain.llama3(Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                context: number("original_max_position_embeddings")?,
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_known_for_sure_is_taken() {
        let llama = json!({"model_type": "llama", "head_dim": 32, "rope_theta": 500000.0, "rope_scaling": null});
        assert_eq!(rotary(&llama), Some(Rotary::new(500_000.0, 32)));
        let old = json!({"model_type": "mistral", "hidden_size": 64, "num_attention_heads": 4});
        assert_eq!(rotary(&old), Some(Rotary::new(10_000.0, 16)));
        let with = |key: &str, value: Value| {
            let mut changed = llama.clone();
            changed[key] = value;
            rotary(&changed)
        };
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192});
        assert!(with("rope_scaling", scaling).is_some_and(|scaled| Some(scaled) != rotary(&llama)));
        assert_eq!(
            with("rope_scaling", json!({"type": "yarn", "factor": 4.0})),
            None
        );
        assert_eq!(with("partial_rotary_factor", json!(0.5)), None);
        assert_eq!(with("model_type", json!("phi3")), None);
    }
}
