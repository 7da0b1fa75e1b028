//! The program on its own: a copy of it, in a folder of nothing, unpacks what it needs and finds what it is given.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs the copy in `dir`, which must succeed, and gives its table.
fn needle(dir: &Path, more: &[&str]) -> String {
    let output = Command::new(dir.join("program"))
        .args(["needle", "--needles=san-francisco", "--lengths=300"])
        .args(["--depths=50", "--method=headkv", "--capacity=16"])
        .args(more)
        .env("HEADKV_HOME", dir.join("home"))
        .current_dir(dir.join("empty"))
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{more:?}: {message}");
    String::from_utf8(output.stdout).unwrap()
}

fn model(dir: &Path) -> PathBuf {
    let entries = fs::read_dir(dir.join("home")).unwrap();
    let folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].join("models/tiny")
}

#[test]
fn a_copied_program_works_from_an_empty_folder() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(
        env!("CARGO_BIN_EXE_headkv-eval"),
        dir.path().join("program"),
    )
    .unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    let table = needle(dir.path(), &["--out=first"]);
    assert!(table.contains("| headkv@16"), "{table}");
    let settings = fs::read_to_string(dir.path().join("empty/first/runs.jsonl")).unwrap();
    let home = dir.path().join("home");
    assert!(settings.contains(home.to_str().unwrap()), "{settings}");

    // What was damaged is repaired, and nothing else is left behind.
    let weights = model(dir.path()).join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..1000]).unwrap();
    let before = fs::read_dir(model(dir.path())).unwrap().count();
    assert_eq!(
        needle(dir.path(), &["--out=second"]).lines().next(),
        table.lines().next()
    );
    assert_eq!(fs::read(&weights).unwrap(), whole);
    assert_eq!(fs::read_dir(model(dir.path())).unwrap().count(), before);

    // Scores of one's own come before the embedded ones: these are of another shape, which the message names.
    let own = dir.path().join("empty/head_scores");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("tiny_retrieval.json"), r#"{"0-0": [1.0]}"#).unwrap();
    let output = Command::new(dir.path().join("program"))
        .args(["needle", "--method=headkv"])
        .env("HEADKV_HOME", &home)
        .current_dir(dir.path().join("empty"))
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("1 layers x 1 heads"), "{message}");
}

#[test]
fn a_home_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_headkv-eval"))
        .args(["needle", "--method=full"])
        .env("HEADKV_HOME", &file)
        .current_dir(&dir)
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("set HEADKV_HOME to a folder that can be written"),
        "{message}"
    );
}
