//! A run of thousands of prompts holds no more at its end than at its beginning.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny");
const PROMPTS: usize = 5000;
/// What may be added: the keys of the rows, and whatever allocators keep for themselves.
const MORE: usize = 24 << 20;

/// Bytes in memory and open descriptors of a process.
fn held(child: &Child) -> Option<(usize, usize)> {
    let folder = Path::new("/proc").join(child.id().to_string());
    let pages = fs::read_to_string(folder.join("statm")).ok()?;
    let pages: usize = pages.split(' ').nth(1)?.parse().ok()?;
    let descriptors = fs::read_dir(folder.join("fd")).ok()?.count();
    Some((pages * 4096, descriptors))
}

#[test]
fn memory_and_descriptors_are_flat() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
    write(
        "dataset2prompt.json",
        r#"{"qasper": "{context} {input}"}"#.into(),
    );
    write("dataset2maxlen.json", r#"{"qasper": 1}"#.into());
    let line = |at: usize| {
        let text = format!("The number of the house is {at}.");
        let line =
            serde_json::json!({"input": "Which?", "context": text, "answers": ["x"], "length": 9});
        line.to_string() + "\n"
    };
    write("qasper.jsonl", (0..PROMPTS).map(line).collect());
    let out = dir.path().join("out");
    let mut child = Command::new(env!("CARGO_BIN_EXE_headkv-eval"))
        .args(["longbench", "--method=snapkv", "--capacity=16"])
        .args(["--model", TINY, "--data"])
        .arg(dir.path())
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let rows = out.join("rows.jsonl");
    // What is held once that many rows are there.
    let mut at = |count: usize| loop {
        let written = fs::read(&rows).unwrap_or_default();
        let lines = written.iter().filter(|byte| **byte == b'\n').count();
        if lines >= count {
            break held(&child).expect("it still runs");
        }
        let ended = child.try_wait().unwrap();
        assert_eq!(ended, None, "after {lines} rows");
        thread::sleep(Duration::from_millis(20));
    };
    let (early, late) = (at(PROMPTS / 10), at(PROMPTS * 95 / 100));
    assert!(child.wait().unwrap().success());
    assert!(late.0 < early.0 + MORE, "{early:?}, then {late:?}");
    assert_eq!(late.1, early.1, "descriptors");
}
