//! Models that cannot be hooked are refused when they load, in one line that names the reason.

use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{Compression, HeadScores};
use headkv_tests::{Family, random_model};
use mistralrs_core::{AudioInput, NormalRequest, RequestMessage, Response, SamplingParams};
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
fn multimodal_classes_that_were_not_tried() {
    let dir = tempfile::tempdir().unwrap();
    for class in [
        "LlavaForConditionalGeneration",
        "Llama4ForConditionalGeneration",
        "Gemma3nForConditionalGeneration",
        "Phi4MMForCausalLM",
    ] {
        variant(dir.path(), json!({"architectures": [class]}));
        let message = load(dir.path()).err().unwrap();
        let expected = format!("the multimodal class \"{class}\" cannot be hooked");
        assert!(message.contains(&expected), "{message}");
    }
}

/// What a multimodal model's engine says to a conversation with a sound in it.
#[test]
fn requests_with_more_than_text() {
    let dir = tempfile::tempdir().unwrap();
    random_model(dir.path(), Family::Gemma3Vision, 64, 1);
    let engine = load(dir.path()).unwrap();
    let text = json!({"MultimodalChat": {
        "messages": [{"role": {"Left": "user"}, "content": {"Left": "What do you hear?"}}],
        "enable_thinking": null,
    }});
    let mut message: RequestMessage = serde_json::from_value(text).unwrap();
    if let RequestMessage::MultimodalChat { audios, .. } = &mut message {
        audios.push(AudioInput {
            samples: vec![0.0; 100],
            sample_rate: 16_000,
            channels: 1,
        });
    }
    let (response, mut answer) = tokio::sync::mpsc::channel(10);
    let sampling = SamplingParams::deterministic();
    let id = engine.mistral().next_request_id();
    let request = NormalRequest::new_simple(message, sampling, response, id, None, None);
    let sender = engine.mistral().get_sender(None).unwrap();
    let request = mistralrs_core::Request::Normal(Box::new(request));
    sender.blocking_send(request).unwrap();
    let refused = match answer.blocking_recv() {
        Some(Response::ValidationError(e) | Response::InternalError(e)) => e.to_string(),
        _ => panic!("a request with audio was not refused"),
    };
    assert!(
        refused.contains("images, audio and video are not supported"),
        "{refused}"
    );
    // Text goes on.
    let text = Request::new((300..400).collect(), 4);
    assert_eq!(engine.generate(&[text]).unwrap()[0].tokens.len(), 4);
}

#[test]
fn prompts_that_would_run_twice_or_in_parts_where_they_run_whole() {
    let dir = tempfile::tempdir().unwrap();
    random_model(dir.path(), Family::Qwen3Next, 64, 1);
    let kvzip = Compression {
        ranking: Some("kvzip".into()),
        ..Compression::new("snapkv", 32)
    };
    let attention = Attention::Compressed(kvzip);
    let refused = Engine::load(LoadOptions::new(dir.path()), attention).err();
    let message = refused.unwrap().to_string();
    assert!(
        message.contains("the ranking kvzip reads a prompt twice") && !message.contains('\n'),
        "{message}"
    );
    let engine = load(dir.path()).unwrap();
    let apart = Request {
        then: vec![300, 301],
        ..Request::new((300..400).collect(), 4)
    };
    let message = engine.generate(&[apart]).unwrap_err().to_string();
    assert!(
        message.contains("prompts of this model run whole"),
        "{message}"
    );
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
