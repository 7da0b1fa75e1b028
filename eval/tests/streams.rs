//! What the program is called with, and where it speaks: arguments that are no text, readers that go away, full disks, and
//! models that would make the runtime panic.

mod program;

use program::run;
use serde_json::{Value, json};
use std::{
    ffi::OsStr,
    fs::{self, File},
    path::Path,
    process::{Command, Output},
};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny");

fn program(args: &[&OsStr]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headkv-eval"));
    command.args(args);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Exit code 2, and one line of bounded length that has these parts.
fn refused(output: &Output, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(message.trim().lines().count(), 1, "{message}");
    assert!(message.len() < 3000, "{} bytes", message.len());
    for part in parts {
        assert!(message.contains(part), "{message} lacks {part}");
    }
}

/// Whoever reads the results may go away; a full disk is an error, and neither is a panic.
#[cfg(target_os = "linux")]
#[test]
fn stdout_may_be_closed_but_not_full() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for args in [&["methods"][..], &["--help"], &["needle", "--help"]] {
        let args: Vec<_> = args.iter().map(OsStr::new).collect();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = program(&args).stdout(writer).output().unwrap();
        assert_eq!(closed.status.code(), Some(0), "{}", stderr(&closed));
        assert_eq!(stderr(&closed), "");
        let stopped = program(&args).stdout(full()).output().unwrap();
        refused(&stopped, &["error: cannot write stdout: "]);
        let silent = program(&args).stderr(full()).output().unwrap();
        assert_eq!(silent.status.code(), Some(0));
    }
    // An error that nobody hears is still an error.
    let args = ["report", "no/such/folder"].map(OsStr::new);
    let unheard = program(&args).stderr(full()).output().unwrap();
    assert_eq!(unheard.status.code(), Some(2));
}

/// A run whose table nobody reads keeps its rows.
#[cfg(target_os = "linux")]
#[test]
fn a_run_whose_reader_is_gone_keeps_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let args = ["needle", "--lengths=300", "--draws=1", "--method=full"];
    let mut args: Vec<_> = args.map(OsStr::new).into();
    args.extend(["--out".as_ref(), out.as_os_str()]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = program(&args).stdout(writer).output().unwrap();
    assert_eq!(closed.status.code(), Some(0), "{}", stderr(&closed));
    assert!(!stderr(&closed).contains("panicked"));
    assert!(out.join("report.html").exists());
    let rows = fs::read_to_string(out.join("rows.jsonl")).unwrap();
    assert!(rows.lines().count() > 0);
}

/// Colours are for terminals.
#[test]
fn a_log_in_a_file_has_no_colours() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["needle", "--lengths=300", "--draws=1", "--method=full"];
    let mut args: Vec<_> = args.map(OsStr::new).into();
    args.extend(["--out".as_ref(), dir.path().as_os_str()]);
    let output = program(&args).env("RUST_LOG", "info").output().unwrap();
    let log = stderr(&output);
    assert!(log.contains("INFO") && !log.contains('\u{1b}'), "{log}");
}

#[cfg(unix)]
#[test]
fn arguments_that_are_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let strange = OsStr::from_bytes(b"\xff");
    let needle = OsStr::new("needle");
    for args in [&[strange][..], &[needle, "--template".as_ref(), strange]] {
        let output = program(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(
            stderr(&output).starts_with("error: "),
            "{}",
            stderr(&output)
        );
    }
    // Paths may be anything; a model's name is text, and what is no path is looked up nowhere.
    let model = program(&[needle, "--model".as_ref(), strange]).output();
    refused(&model.unwrap(), &["not UTF-8"]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join(strange);
    let small = ["--lengths=300", "--draws=1", "--method=full", "--out"];
    let small = small.map(OsStr::new).into_iter();
    let mut args = vec![needle];
    args.extend(small);
    args.push(out.as_os_str());
    let output = program(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(out.join("rows.jsonl").exists() && out.join("report.html").exists());
}

/// A copy of the embedded model with another file of settings.
fn changed(dir: &Path, name: &str, change: impl FnOnce(&mut Value)) {
    for entry in fs::read_dir(TINY).unwrap().flatten() {
        fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    let file = dir.join(name);
    let mut settings: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut settings);
    fs::write(file, settings.to_string()).unwrap();
}

/// The runtime's panics are not heard, and the line blames what is wrong.
#[test]
fn models_that_cannot_run_are_one_line() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 7] = [
        (
            "config.json",
            |c| c["num_attention_heads"] = json!(0),
            "num_attention_heads = 0",
        ),
        (
            "config.json",
            |c| c["num_hidden_layers"] = json!(0),
            "num_hidden_layers = 0",
        ),
        (
            "config.json",
            |c| c["architectures"] = json!(["None"]),
            "the architecture \"None\"",
        ),
        // What no check knows: the runtime's own words, whatever they are, on one line that names the model.
        ("config.json", |c| c["hidden_size"] = json!(24), "model"),
        ("tokenizer.json", |t| *t = json!({}), "tokenizer.json"),
        (
            "tokenizer.json",
            |t| t["model"]["type"] = json!("None"),
            "model",
        ),
        (
            "tokenizer_config.json",
            |t| t["chat_template"] = json!("{{"),
            "model",
        ),
    ];
    for (file, change, part) in cases {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        fs::create_dir(&model).unwrap();
        changed(&model, file, change);
        let out = dir.path().join("out");
        let output = run(&[
            "needle",
            "--lengths=300",
            "--draws=1",
            "--template=chat",
            "--model",
            model.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ]);
        refused(&output, &[part]);
    }
}

/// What comes from outside is quoted, but not at any length.
#[test]
fn error_lines_are_short() {
    let dir = tempfile::tempdir().unwrap();
    let grid = dir.path().join("grid.toml");
    let long = "x".repeat(1_000_000);
    for text in [
        format!("models = ['{long}']\n[needle]\n"),
        format!("models = ['m']\n[{long}]\n"),
        "models = ['a\\\\u001b[2J\nb']\n[needle]\n".into(),
        "models = [\"\\u001b[2J\\n\"]\n[needle]\n".into(),
    ] {
        fs::write(&grid, text).unwrap();
        let output = run(&["run", grid.to_str().unwrap()]);
        refused(&output, &["error: "]);
        assert!(!output.stderr.contains(&0x1b));
    }
}
