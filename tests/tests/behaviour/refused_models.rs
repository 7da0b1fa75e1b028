//! Models that cannot be hooked are refused when they load, in one line that names the reason.

use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{Compression, HeadScores};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// The embedded model under another configuration.
fn variant(dir: &Path, changes: Value) {
    for name in [
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        fs::copy(headkv_tests::tiny().join(name), dir.join(name)).unwrap();
    }
    let mut config: Value = serde_json::from_str(
        &fs::read_to_string(headkv_tests::tiny().join("config.json")).unwrap(),
    )
    .unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

fn load(dir: &Path) -> Result<Engine, String> {
    let attention = Attention::Compressed(Compression::new("snapkv", 32));
    let loaded = Engine::load(LoadOptions::new(dir), attention).map_err(|e| e.to_string());
    if let Err(message) = &loaded {
        assert!(!message.contains('\n'), "{message}");
    }
    loaded
}

#[test]
fn a_window_that_covers_the_context_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mistral = |window: Value| json!({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": window});
    for covers in [json!(null), json!(8192)] {
        variant(dir.path(), mistral(covers));
        let engine = load(dir.path()).unwrap();
        assert_eq!(
            engine
                .generate(&[Request::new((300..400).collect(), 4)])
                .unwrap()[0]
                .tokens
                .len(),
            4
        );
    }
}

#[test]
fn scores_of_another_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scores.json");
    fs::write(
        &path,
        r#"{"0-0": [1], "0-1": [0.5], "1-0": [0], "1-1": [0]}"#,
    )
    .unwrap();
    assert!(HeadScores::read(&path).is_ok());
    let compression = Compression {
        scores: Some(path.into()),
        ..Compression::new("headkv", 32)
    };
    let message = Engine::load(
        LoadOptions::new(headkv_tests::tiny()),
        Attention::Compressed(compression),
    )
    .err()
    .unwrap()
    .to_string();
    assert!(
        message.contains("2 layers x 2 heads") && message.contains("8 x 8"),
        "{message}"
    );
}

#[test]
fn damaged_files() {
    let dir = tempfile::tempdir().unwrap();
    variant(dir.path(), json!({}));
    let weights = dir.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    for (keep, why) in [
        (bytes.len() / 2, "is truncated"),
        (4, "is empty"),
        (20, "is truncated"),
    ] {
        fs::write(&weights, &bytes[..keep]).unwrap();
        let message = load(dir.path()).err().unwrap();
        assert!(
            message.contains("model.safetensors") && message.contains(why),
            "{message}"
        );
    }
    fs::write(&weights, &bytes).unwrap();
    fs::write(dir.path().join("config.json"), "{").unwrap();
    assert!(
        load(dir.path())
            .err()
            .unwrap()
            .contains("config.json is not valid JSON")
    );
    fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(load(dir.path()).err().unwrap().contains("config.json"));
    fs::write(dir.path().join("x.gguf"), &bytes[..1000]).unwrap();
    assert!(
        load(&dir.path().join("x.gguf"))
            .err()
            .unwrap()
            .contains("GGUF")
    );
    assert!(
        load(&dir.path().join("nowhere"))
            .err()
            .unwrap()
            .contains("no such folder")
    );
}

#[test]
fn prompts_longer_than_the_context() {
    let engine = load(&headkv_tests::tiny()).unwrap();
    let message = engine
        .generate(&[Request::new(vec![300; 16380], 8)])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("16380") && message.contains("16384"),
        "{message}"
    );
}
