//! Two programs in one empty folder: the scores that one makes are those that the other takes, before the embedded ones.

use headkv_tests::program;
use std::{fs, path::Path, process::Command};

fn run(program: &Path, dir: &Path, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir.join("empty"))
        .env("HEADKV_HOME", dir.join("home"))
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {message}");
}

#[test]
fn scores_of_this_folder_come_first() {
    let (Some(scoring), Some(eval)) = (program("head-scoring"), program("headkv-eval")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let needle = |out: &str| {
        let args = [
            "needle",
            "--needles=san-francisco",
            "--lengths=300",
            "--depths=50",
        ];
        let args = [
            &args[..],
            &["--method=headkv", "--capacity=16", "--out", out],
        ]
        .concat();
        run(&eval, dir.path(), &args);
        let rows = fs::read_to_string(empty.join(out).join("rows.jsonl")).unwrap();
        let row: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
        row["scores"].as_str().unwrap().to_string()
    };
    let embedded = needle("first");
    let home = dir.path().join("home");
    assert!(Path::new(&embedded).starts_with(&home), "{embedded}");
    // The embedded model is the default of both.
    run(
        &scoring,
        dir.path(),
        &["score", "--lengths=500", "--depths=50", "--draws=2"],
    );
    assert!(empty.join("head_scores/tiny_retrieval.json").is_file());
    assert_eq!(needle("second"), "head_scores/tiny_retrieval.json");
    // Those of the home are for all folders, and come before the embedded ones too.
    fs::rename(empty.join("head_scores"), home.join("head_scores")).unwrap();
    let kept = needle("third");
    assert_eq!(
        Path::new(&kept),
        home.join("head_scores/tiny_retrieval.json")
    );
}
