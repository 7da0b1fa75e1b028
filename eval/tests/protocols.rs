//! Prompt protocols through the binary: the chat template, and input limits that are checked before anything runs.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn run(args: &[&str], out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headkv-eval"))
        .args(args)
        .args(["--method", "full", "--out", out.to_str().unwrap()])
        .output()
        .unwrap()
}

/// The only row of a run that has to succeed, and its prompt.
fn row(args: &[&str]) -> (serde_json::Value, String) {
    let dir = tempfile::tempdir().unwrap();
    let output = run(args, dir.path());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    let read = |name| {
        let text = fs::read_to_string(dir.path().join(name)).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let prompt = read("prompts.jsonl")["text"].as_str().unwrap().to_string();
    (read("rows.jsonl"), prompt)
}

/// A folder with one sample of LongBench's qasper, of about 4,000 tokens.
fn longbench() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, value: serde_json::Value| {
        fs::write(dir.path().join(name), value.to_string()).unwrap();
    };
    write(
        "dataset2prompt.json",
        serde_json::json!({"qasper": "{context} {input}"}),
    );
    write("dataset2maxlen.json", serde_json::json!({"qasper": 8}));
    write(
        "qasper.jsonl",
        serde_json::json!({
            "input": "Where is it?",
            "context": "one two three four ".repeat(1000),
            "answers": ["there"],
            "length": 4000,
        }),
    );
    dir
}

#[test]
fn the_chat_template_of_the_model_is_used() {
    let needle = [
        "needle",
        "--needles=san-francisco",
        "--lengths=300",
        "--depths=50",
    ];
    let plain = row(&[&needle[..], &["--template", "plain"]].concat()).0;
    let (chat, message) = row(&[&needle[..], &["--template", "chat"]].concat());
    assert_eq!(chat["protocol"], "chat");
    assert!(!message.contains("<|im_start|>"), "the engine adds it");
    assert!(chat["prompt_tokens"].as_u64() > plain["prompt_tokens"].as_u64());
    assert!(chat["error"].is_null() && chat["tokens"].as_u64() > Some(0));
}

#[test]
fn a_long_chat_is_cut_with_its_template() {
    let data = longbench();
    let data = data.path().to_str().unwrap();
    let args = ["longbench", "--data", data, "--protocol", "chat"];
    let (row, prompt) = row(&[&args[..], &["--max-input", "500"]].concat());
    assert!(prompt.starts_with("<|im_start|>user\n") && prompt.ends_with("assistant\n"));
    assert!(row["prompt_tokens"].as_u64().unwrap().abs_diff(500) < 5);
    assert_eq!(row["bucket"], "4-8k");
}

#[test]
fn an_input_limit_beyond_the_context_is_refused() {
    let (data, out) = (longbench(), tempfile::tempdir().unwrap());
    let data = data.path().to_str().unwrap();
    let output = run(
        &["longbench", "--data", data, "--max-input", "16380"],
        out.path(),
    );
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(message.trim().lines().count(), 1, "{message}");
    assert!(
        message.contains("16380") && message.contains("16384"),
        "{message}"
    );
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}
