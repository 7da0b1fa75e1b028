//! The commands from end to end on the embedded model.

#[path = "../../tests/src/page.rs"]
mod page;

use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

const METHODS: [&str; 4] = ["--method", "full,snapkv", "--capacity", "16"];

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headkv-eval"));
    command.args(args);
    command.env("HEADKV_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/home"));
    command
}

/// Runs a command that must succeed.
fn run(args: &[&str]) -> Output {
    let output = command(args).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {message}");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder's rows by key, without the times, which differ from run to run.
fn rows(dir: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(dir.join("rows.jsonl")).unwrap_or_default();
    let mut rows: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for row in &mut rows {
        (row["prompt_seconds"], row["decode_seconds"]) = (Value::Null, Value::Null);
    }
    rows.sort_by_key(|row| row["key"].to_string());
    rows
}

/// Data of LongBench and babilong with three samples each, and a grid of everything.
fn data() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let lines = |row: fn(usize) -> Value| (0..3).map(|n| row(n).to_string() + "\n").collect();
    write(
        "longbench/qasper.jsonl",
        lines(
            |n| json!({"input": format!("Question {n}?"), "context": "The sky is blue. ".repeat(40), "answers": ["blue"], "_id": n.to_string()}),
        ),
    );
    write(
        "longbench/dataset2prompt.json",
        json!({"qasper": "{context}\n{input}\nAnswer:"}).to_string(),
    );
    write(
        "longbench/dataset2maxlen.json",
        json!({"qasper": 6}).to_string(),
    );
    write(
        "babilong/0k/qa1.jsonl",
        lines(
            |n| json!({"input": format!("Mary went to the kitchen {n} times."), "question": "Where is Mary?", "target": "kitchen"}),
        ),
    );
    write(
        "babilong/prompts.json",
        json!({"qa1": {"instruction": "Find the fact.", "examples": "", "post_prompt": "Answer with one word."}})
            .to_string(),
    );
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny");
    write(
        "grid.toml",
        format!(
            "models = ['{tiny}']\n\
             [methods]\nmethod = ['full', 'snapkv']\ncapacity = [16]\n\
             [needle]\nneedles = 'san-francisco'\nlengths = [300]\ndepths = [0, 100]\n\
             [longbench]\ndata = 'longbench'\nlimit = 2\n\
             [babilong]\ndata = 'babilong'\ntasks = ['qa1']\nlengths = ['0k']\nlimit = 2\n\
             [ruler]\ntasks = ['multi-key']\nlengths = [300]\nsamples = 2\n"
        ),
    );
    dir
}

#[test]
fn a_small_run_brings_a_table_a_report_and_rows() {
    let dir = tempfile::tempdir().unwrap();
    let output = command(&["needle", "--needles", "san-francisco"])
        .args(["--lengths", "300", "--depths", "0,50,100"])
        .args(METHODS)
        .current_dir(&dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(
        table.contains("| full") && table.contains("| snapkv@16"),
        "{table}"
    );
    let out = dir.path().join("headkv-out/needle");
    let rows = rows(&out);
    assert_eq!(rows.len(), 6);
    for row in &rows {
        for field in [
            "benchmark",
            "model",
            "model_digest",
            "backend",
            "version",
            "method",
            "capacity",
            "beta",
            "length",
            "depth",
            "prompt_tokens",
            "answer",
            "f1",
            "rouge1",
            "kv_bytes",
        ] {
            assert!(row.get(field).is_some(), "{row} lacks {field}");
        }
        let f1 = row["f1"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&f1));
        assert!(row["method"] != "full" || f1 == 1.0, "{row}");
    }
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    // The scores against the kept cache, a heatmap of each variant; all heads of snapkv keep as much, in a line.
    assert_eq!(page.matches("<svg").count(), 1 + 2);
    assert!(page.contains("snapkv@16: 16 tokens of every head"));
    page::assert_self_contained(&page);
}

#[test]
fn a_batch_brings_the_rows_of_single_prompts() {
    let dir = tempfile::tempdir().unwrap();
    let of = |batch: &str| {
        let out = dir.path().join(batch);
        let mut args = vec!["needle", "--lengths=300,400", "--draws=2", "--batch", batch];
        args.extend(["--method=full,adakv,headkv", "--capacity=16"]);
        args.extend(["--out", out.to_str().unwrap()]);
        run(&args);
        rows(&out)
    };
    let (one, many) = (of("1"), of("7"));
    assert_eq!(one.len(), 3 * 2 * 5 * 2);
    assert_eq!(one, many);
}

#[test]
fn every_benchmark_has_a_command() {
    let data = data();
    let folder = |name: &str| data.path().join(name).to_str().unwrap().to_string();
    let commands: [(&str, Vec<String>); 3] = [
        (
            "longbench",
            vec!["--data".into(), folder("longbench"), "--limit=2".into()],
        ),
        (
            "babilong",
            [
                "--data",
                &folder("babilong"),
                "--tasks=qa1",
                "--lengths=0k",
                "--limit=2",
            ]
            .map(String::from)
            .into(),
        ),
        (
            "ruler",
            ["--tasks=variables", "--lengths=300", "--samples=2"]
                .map(String::from)
                .into(),
        ),
    ];
    for (name, options) in commands {
        let out = data.path().join("out").join(name);
        let mut args = vec![name, "--out", out.to_str().unwrap()];
        args.extend(options.iter().map(String::as_str));
        args.extend(METHODS);
        let output = run(&args);
        assert!(text(&output.stdout).contains(&format!("### {name} · tiny")));
        assert!(text(&output.stderr).contains("4 prompts answered"));
        let rows = rows(&out);
        assert_eq!(rows.len(), 4, "{name}");
        assert!(rows.iter().all(|row| row["benchmark"] == name));
    }
}

#[test]
fn a_grid_is_run_in_shards_merged_rerun_and_reported() {
    let data = data();
    let path = |name: &str| data.path().join(name).to_str().unwrap().to_string();
    let grid = path("grid.toml");
    let (whole, merged) = (path("whole"), path("merged"));
    run(&["run", &grid, "--out", &whole]);
    let all = rows(Path::new(&whole));
    assert_eq!(all.len(), 2 * (2 + 2 + 2 + 2));

    for shard in ["1/2", "2/2"] {
        run(&["run", &grid, "--shard", shard, "--out", &path(&shard[..1])]);
        assert_eq!(rows(&data.path().join(&shard[..1])).len(), all.len() / 2);
    }
    run(&["merge", &path("1"), &path("2"), "--out", &merged]);
    assert_eq!(rows(Path::new(&merged)), all);

    let before = fs::read(data.path().join("whole/rows.jsonl")).unwrap();
    let again = run(&["run", &grid, "--out", &whole]);
    assert!(
        text(&again.stderr).contains("0 prompts answered, 16 were there"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(
        fs::read(data.path().join("whole/rows.jsonl")).unwrap(),
        before
    );

    let to = path("report");
    let typo = command(&["report", &merged, "--to", &to, "--withhold", "longbenhc"])
        .output()
        .unwrap();
    assert_eq!(typo.status.code(), Some(2));
    assert!(text(&typo.stderr).contains("unknown benchmark `longbenhc`; did you mean longbench"));
    assert!(!Path::new(&to).exists(), "nothing is published");
    run(&["report", &merged, "--to", &to, "--withhold", "longbench"]);
    let page = fs::read_to_string(data.path().join("report/report.html")).unwrap();
    // What was kept is tinted, token by token.
    let said = ["k1", "k2", "k3"].iter().fold(page.clone(), |page, class| {
        page.replace(&format!("<span class=\"{class}\">"), "")
    });
    assert!(said != page, "something is tinted");
    let said = said.replace("</span>", "");
    assert!(!said.contains("The sky is") && said.contains("Mary went to the"));
    // Two runs, and the grid file that both had.
    assert_eq!(
        page.matches("[longbench]\ndata = &#x27;longbench&#x27;")
            .count(),
        2
    );
    page::assert_self_contained(&page);
    for name in ["report.md", "report.csv"] {
        let file = fs::read_to_string(data.path().join("report").join(name)).unwrap();
        assert!(file.contains("qasper") && file.contains("snapkv"), "{name}");
    }
}

#[test]
fn ctrl_c_ends_with_a_summary_and_the_same_command_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = vec!["needle", "--needles=san-francisco"];
    args.extend(["--lengths=600", "--depths=0,20,40,60,80,100"]);
    args.extend(METHODS);
    args.extend(["--out", dir.path().to_str().unwrap()]);
    let child = command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while rows(dir.path()).is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("prompts answered") && message.contains("interrupted"),
        "{message}"
    );
    assert!(text(&output.stdout).contains("| full"), "the table so far");
    assert!(dir.path().join("report.html").exists());
    let first = rows(dir.path());
    assert!((1..12).contains(&first.len()), "{} rows", first.len());

    run(&args);
    let all = rows(dir.path());
    assert_eq!(all.len(), 12);
    assert!(first.iter().all(|row| all.contains(row)));
}
