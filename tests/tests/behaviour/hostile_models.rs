//! Models whose files would mislead: no prompt is cut, no network is asked, no output that is no number is scored, and
//! what cannot run is refused in one line that names the cause, before the runtime panics on it.

use candle_core::{Device, Tensor};
use headkv_engine::{Attention, Engine, LoadOptions};
use headkv_plugin::Compression;
use headkv_tests::http;
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};
use tempfile::TempDir;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";

/// A copy of the embedded model.
fn copy() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(headkv_tests::tiny()).unwrap().flatten() {
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

/// Changes a file of settings.
fn change(dir: &Path, name: &str, changes: Value) {
    let file = dir.join(name);
    let mut settings: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        settings[key] = value.clone();
    }
    fs::write(file, settings.to_string()).unwrap();
}

fn load(dir: &Path) -> Result<Engine, String> {
    let attention = Attention::Compressed(Compression::new("snapkv", 32));
    Engine::load(LoadOptions::new(dir), attention).map_err(|e| e.to_string())
}

fn refusal(dir: &Path) -> String {
    let message = load(dir).err().expect("it is refused");
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn a_tokenizers_limits_cut_no_prompt() {
    let dir = copy();
    let limits = json!({
        "truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 900}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "x"},
    });
    change(dir.path(), TOKENIZER, limits);
    let (limited, plain) = (
        load(dir.path()).unwrap(),
        load(&headkv_tests::tiny()).unwrap(),
    );
    let text = "The key to the garden is under the third stone from the door.";
    assert_eq!(limited.encode(text).unwrap(), plain.encode(text).unwrap());
    let chat = plain.encode_chat(text).unwrap();
    assert!(chat.len() > 5);
    assert_eq!(limited.encode_chat(text).unwrap(), chat);
    assert_eq!(
        limited.tokenizer().encode(text, false).unwrap().len(),
        plain.encode(text).unwrap().len()
    );
}

#[test]
fn settings_that_cannot_be_are_named() {
    let dir = copy();
    let original = fs::read(dir.path().join(CONFIG)).unwrap();
    for (changes, why) in [
        (json!({"num_attention_heads": 0}), "num_attention_heads = 0"),
        (json!({"num_key_value_heads": 0}), "num_key_value_heads = 0"),
        (json!({"num_hidden_layers": 0}), "num_hidden_layers = 0"),
        (
            json!({"num_hidden_layers": 1_000_000_000}),
            "num_hidden_layers = 1000000000",
        ),
        (
            json!({"num_hidden_layers": 9}),
            "hold no model.layers.8.self_attn.q_proj.weight",
        ),
        (
            json!({"max_position_embeddings": 10_000_000}),
            "max_position_embeddings = 10000000",
        ),
        (
            json!({"max_position_embeddings": 1_000_000_000}),
            "max_position_embeddings = 1000000000",
        ),
        (
            json!({"architectures": ["BertModel"]}),
            "the architecture \"BertModel\"",
        ),
        (
            json!({"tie_word_embeddings": false}),
            "hold no lm_head.weight",
        ),
    ] {
        change(dir.path(), CONFIG, changes);
        let message = refusal(dir.path());
        assert!(message.contains(why), "{message}");
        fs::write(dir.path().join(CONFIG), &original).unwrap();
    }
    for (text, why) in [
        ("", "tokenizer.json is no tokenizer"),
        ("{}", "tokenizer.json is no tokenizer"),
    ] {
        fs::write(dir.path().join(TOKENIZER), text).unwrap();
        let message = refusal(dir.path());
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn a_missing_shard_is_named() {
    let dir = copy();
    let index = json!({"metadata": {}, "weight_map": {"a": WEIGHTS, "b": "model-00002-of-00002.safetensors"}});
    fs::write(
        dir.path().join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    let message = refusal(dir.path());
    assert!(
        message.contains("\"model-00002-of-00002.safetensors\" is missing"),
        "{message}"
    );
}

#[cfg(unix)]
#[test]
fn pipes_and_folders_are_no_files() {
    for name in [CONFIG, TOKENIZER, WEIGHTS, "generation_config.json"] {
        let dir = copy();
        let file = dir.path().join(name);
        fs::remove_file(&file).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&file).status();
        assert!(made.unwrap().success());
        let message = refusal(dir.path());
        assert!(
            message.contains(&format!("{name} cannot be read: it is a pipe or a device")),
            "{message}"
        );
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let message = refusal(dir.path());
        assert!(message.contains("it is a folder, not a file"), "{message}");
    }
}

/// The runtime would take the path's readable part for a repository's name.
#[cfg(unix)]
#[test]
fn a_path_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let dir = copy();
    let moved = dir
        .path()
        .with_file_name(OsString::from_vec(b"model-\xff".to_vec()));
    fs::create_dir(&moved).unwrap();
    let message = refusal(&moved);
    fs::remove_dir(&moved).unwrap();
    assert!(message.contains("the path is not UTF-8"), "{message}");
    let message = refusal(Path::new("/nowhere/at/all"));
    assert!(message.contains("no such folder, file"), "{message}");
}

/// A copy of the embedded model in which one tensor is not a number.
fn spoiled(name: &str) -> TempDir {
    let dir = copy();
    let file = dir.path().join(WEIGHTS);
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let tensor = &tensors[name];
    let spoiled = Tensor::full(f32::NAN, tensor.shape(), &Device::Cpu).unwrap();
    tensors.insert(name.into(), spoiled.to_dtype(tensor.dtype()).unwrap());
    candle_core::safetensors::save(&tensors, &file).unwrap();
    dir
}

#[test]
fn output_that_is_no_number_is_not_scored() {
    let out = tempfile::tempdir().unwrap();
    for (tensor, why) in [
        ("model.norm.weight", "the model's output is not a number"),
        (
            "model.layers.3.self_attn.q_proj.weight",
            "the attention of layer 3 is not a number",
        ),
    ] {
        let dir = spoiled(tensor);
        let scores = out.path().join(format!("{tensor}.json"));
        let args = [
            "head-scoring",
            "score",
            "--lengths",
            "200",
            "--depths",
            "0",
            "--draws",
            "1",
            "--model",
        ];
        let args = args.map(OsString::from).into_iter();
        let args = args.chain([dir.path().into(), "--out".into(), scores.clone().into()]);
        let failure = head_scoring::cli::run(args, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(failure.code, 2);
        assert!(failure.message.contains(why), "{}", failure.message);
        assert!(!scores.exists());
    }
}

/// Both programs find a model's score file under one name, however the model is named.
#[test]
fn a_folder_has_one_name() {
    let tiny = headkv_tests::tiny();
    let roundabout: PathBuf = tiny.join("../tiny/.");
    for path in [&tiny, &roundabout] {
        let files = headkv_engine::ModelFiles::open(path).unwrap();
        assert_eq!(files.name(), "tiny");
        let scores = Compression::default().default_scores(Path::new("head_scores"), path);
        assert_eq!(scores, Path::new("head_scores/tiny_retrieval.json"));
    }
}

/// The runtime panics where a model without a chat template is asked for a chat, which ends what others asked too.
#[test]
fn a_model_without_a_chat_template_has_no_chats() {
    let dir = copy();
    change(
        dir.path(),
        "tokenizer_config.json",
        json!({"chat_template": null}),
    );
    let engine = load(dir.path()).unwrap();
    let message = engine.encode_chat("Hello").unwrap_err().to_string();
    assert!(message.contains("has no chat template"), "{message}");
    fs::write(
        dir.path().join("chat_template.jinja"),
        "{{ messages[0].content }}",
    )
    .unwrap();
    assert!(load(dir.path()).unwrap().encode_chat("Hello").is_ok());

    fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
    let server = headkv_serve::Server::start(headkv_serve::Options {
        address: "127.0.0.1:0".parse().unwrap(),
        ..headkv_serve::Options::new(dir.path().to_path_buf())
    });
    let server = server.unwrap();
    let ask = |path: &str, body: Value| http::post(server.address(), path, &body).unwrap();
    let chat = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1});
    let reply = ask("/v1/chat/completions", chat);
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["error"]["param"], "messages");
    let plain = json!({"prompt": "Hello", "max_tokens": 1});
    assert_eq!(ask("/v1/completions", plain).status, 200);
}
