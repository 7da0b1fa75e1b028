//! Wrong input: one line that names the thing and the fix, exit code 2, and nothing written.

mod program;

use program::run;
use std::fs;

fn refuses(args: &[&str], expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut all = args.to_vec();
    all.extend(["--out", out.to_str().unwrap()]);
    let output = run(&all);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    assert_eq!(message.trim().lines().count(), 1, "{args:?}: {message}");
    for part in expected {
        assert!(message.contains(part), "{args:?}: {message} lacks {part}");
    }
    assert!(output.stdout.is_empty());
    let written: Vec<_> = fs::read_dir(&out).into_iter().flatten().collect();
    assert!(written.is_empty(), "{args:?} wrote {written:?}");
}

#[test]
fn wrong_input_is_named_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let shape = file("shape.json", r#"{"0-0": [1], "0-1": [2]}"#);
    let zero = file("zero.json", r#"{"0-0": [0], "0-1": [0]}"#);
    let infinite = file("infinite.json", r#"{"0-0": [1e999], "0-1": [0]}"#);
    let needles = file("needles.jsonl", "{\"needle\": \"x\"}\n");
    refuses(
        &["needle", "--model", "no/such/model"],
        &["no/such/model", "check --model"],
    );
    refuses(
        &["needle", "--scores", "no/scores.json"],
        &["no/scores.json"],
    );
    refuses(
        &["needle", "--scores", &shape],
        &["1 layers x 2 heads", "8 x 8"],
    );
    refuses(
        &["needle", "--scores", &zero],
        &["zero.json", "all head scores are zero"],
    );
    refuses(&["needle", "--scores", &infinite], &["infinite.json"]);
    refuses(
        &["needle", "--capacity", "8"],
        &["capacity 8", "window of 8"],
    );
    refuses(&["needle", "--beta", "0.9"], &["beta 0.9"]);
    refuses(&["needle", "--lengths", "17000"], &["17000", "16384"]);
    refuses(&["needle", "--lengths", "16370"], &["16384"]);
    refuses(&["needle", "--lengths", "10"], &["needle"]);
    refuses(&["needle", "--depths", "120"], &["120"]);
    refuses(&["needle", "--method", "snapvk"], &["snapvk", "snapkv"]);
    refuses(&["needle", "--haystack", "no/hay"], &["no/hay"]);
    refuses(
        &["needle", "--needles", &needles],
        &["needles.jsonl", "line 1"],
    );
    refuses(&["needle", "--device", "tpu"], &["tpu", "cuda"]);
    refuses(&["needle", "--template", "no places"], &["{context}"]);
    if cfg!(not(feature = "cuda")) {
        refuses(
            &["needle", "--device", "cuda"],
            &["cuda:0", "--features cuda"],
        );
    }
}

#[test]
fn wrong_data_and_grids_are_named() {
    refuses(&["longbench"], &["longbench needs its data", "--data"]);
    refuses(&["babilong", "--data", "no/data"], &["no/data"]);
    refuses(
        &["ruler", "--tasks", "multikey"],
        &["multikey", "multi-key"],
    );
    refuses(&["needle", "--shard", "3/2"], &["3/2", "1/4"]);
    refuses(&["needle", "--endpoint", "example"], &["http://"]);
    refuses(&["merge", "no/folder"], &["no/folder", "rows.jsonl"]);
    let dir = tempfile::tempdir().unwrap();
    let grid = dir.path().join("grid.toml");
    fs::write(&grid, "models = ['x']\n[methods]\nmethods = ['full']").unwrap();
    refuses(&["run", grid.to_str().unwrap()], &["grid.toml", "methods"]);
}

#[test]
fn all_models_are_checked_before_the_first_one_runs() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny");
    refuses(
        &["needle", "--model", tiny, "--model", "no/such/model"],
        &["no/such/model", "check --model"],
    );
    // Only a loaded model tells that its score file is another one's.
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    for entry in fs::read_dir(tiny).unwrap().flatten() {
        std::os::unix::fs::symlink(entry.path(), other.join(entry.file_name())).unwrap();
    }
    let scores = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../head_scores/tiny_retrieval.json"
    );
    fs::copy(scores, dir.path().join("tiny.json")).unwrap();
    fs::write(dir.path().join("other.json"), r#"{"0-0": [1], "0-1": [2]}"#).unwrap();
    let models = format!("{tiny},{}", other.display());
    let files = dir.path().join("{model}.json");
    refuses(
        &[
            "needle",
            "--lengths=300",
            "--model",
            &models,
            "--scores",
            files.to_str().unwrap(),
        ],
        &["other, headkv@16", "1 layers x 2 heads", "8 x 8"],
    );
}

#[test]
fn an_unwritable_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("file");
    fs::write(&blocked, "").unwrap();
    let inside = blocked.join("out");
    let output = run(&["needle", "--out", inside.to_str().unwrap()]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("--out") && message.trim().lines().count() == 1,
        "{message}"
    );
}

#[test]
fn help_shows_an_example() {
    for command in [
        "needle",
        "longbench",
        "babilong",
        "ruler",
        "run",
        "report",
        "merge",
        "bench",
    ] {
        let output = run(&[command, "--help"]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("Example: headkv-eval"));
    }
}
