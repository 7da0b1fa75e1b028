//! Careless input: what is asked for is run, refused in one line, or kept; nothing is lost or averaged in silence.

mod program;

use program::run;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny");

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn runs(args: &[&str]) -> String {
    let output = run(args);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {message}");
    text(&output.stdout) + &message
}

/// One line on stderr that has these parts, exit code 2.
fn refused(args: &[&str], parts: &[&str]) {
    let output = run(args);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    assert_eq!(message.trim().lines().count(), 1, "{args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{args:?}: {message} lacks {part}");
    }
}

fn rows(dir: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(dir.join("rows.jsonl")).unwrap();
    let rows = lines.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>().unwrap()
}

/// A needle file, and the command that asks for its needle once.
struct Edited {
    dir: tempfile::TempDir,
}

impl Edited {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ask(&self, city: &str, out: &str, more: &[&str]) -> String {
        let sentence = format!("The best thing to do in {city} is feed the birds.");
        let needle = json!({"needle": sentence, "question": format!("The best thing to do in {city} is: "),
            "real_needle": "feed the birds.", "answer": "feed the birds."});
        let file = self.path("needles.jsonl");
        fs::write(&file, needle.to_string()).unwrap();
        let out = self.path(out);
        let mut args = vec!["needle", "--lengths=300", "--depths=50", "--method=full"];
        args.extend(["--needles", file.to_str().unwrap()]);
        args.extend(["--out", out.to_str().unwrap()]);
        args.extend(more);
        runs(&args)
    }
}

#[test]
fn rows_of_an_edited_needle_file_are_not_averaged_with_the_old_ones() {
    let edited = Edited::new();
    let table = |said: &str| {
        let lines = said.lines().filter(|line| line.starts_with('|'));
        lines.map(String::from).collect::<Vec<_>>()
    };
    let shown = |said: String| {
        let out = edited.path("out");
        let later = runs(&["report", out.to_str().unwrap()]);
        assert!(!table(&said).is_empty());
        assert_eq!(table(&said), table(&later), "terminal and report agree");
        let report = fs::read_to_string(edited.path("out/report.csv")).unwrap();
        let line = report.lines().find(|line| line.contains(",average,"));
        let fields: Vec<String> = line.unwrap().split(',').map(String::from).collect();
        fields[fields.len() - 2].clone()
    };
    assert_eq!(shown(edited.ask("Lisbon", "out", &[])), "1");
    assert_eq!(
        shown(edited.ask("Vienna", "out", &[])),
        "1",
        "one prompt, not two"
    );
    assert_eq!(rows(&edited.path("out")).len(), 2, "and nothing is lost");
    let page = || fs::read_to_string(edited.path("out/report.html")).unwrap();
    let vienna = page();
    // Set back, nothing is asked again, and the first answer is the one that is shown.
    let said = edited.ask("Lisbon", "out", &[]);
    assert!(said.contains("0 prompts answered, 1 were there"), "{said}");
    assert_ne!(page(), vienna);
    let last = rows(&edited.path("out")).pop().unwrap();
    assert_eq!(last["prompt"], rows(&edited.path("out"))[0]["prompt"]);
}

#[test]
fn a_merge_keeps_what_its_folder_held_and_says_that_parts_are_missing() {
    let edited = Edited::new();
    for (city, out) in [("Lisbon", "1"), ("Vienna", "2"), ("Oslo", "3")] {
        // Needles of different names, so that all of them are current.
        let seed = format!("--seed={out}");
        edited.ask(city, out, &[&seed]);
    }
    let folder = |name: &str| edited.path(name).to_str().unwrap().to_string();
    runs(&["merge", &folder("1"), &folder("2"), "--out", &folder("3")]);
    assert_eq!(rows(&edited.path("3")).len(), 3);

    let shard = |part: &str| {
        let out = folder(&part[..1].repeat(2));
        let args = [
            "--needles=digits",
            "--draws=3",
            "--lengths=300",
            "--method=full,snapkv",
        ];
        let mut all = vec!["needle", "--capacity=16", "--shard", part, "--out", &out];
        all.extend(args);
        runs(&all);
        out
    };
    let parts = [shard("1/4"), shard("2/4")];
    let said = runs(&["merge", &parts[0], &parts[1], "--out", &folder("merged")]);
    assert!(
        said.contains("note: the methods of needle · tiny"),
        "{said}"
    );
    let table = runs(&["report", &folder("merged")]);
    assert!(
        table.contains("Not all methods answered the same prompts"),
        "{table}"
    );
}

#[test]
fn scores_that_cannot_be_are_refused_with_their_line() {
    let edited = Edited::new();
    edited.ask("Lisbon", "out", &[]);
    let file = edited.path("out/rows.jsonl");
    let row = rows(&edited.path("out")).remove(0);
    for score in [json!(7), json!(-5), json!(1e308)] {
        let mut changed = row.clone();
        changed["score"] = score;
        fs::write(&file, format!("{row}\n{changed}\n")).unwrap();
        let out = edited.path("out");
        refused(
            &["report", out.to_str().unwrap()],
            &["rows.jsonl, line 2", "where 0 to 1 can be"],
        );
    }
}

#[test]
fn a_model_without_a_chat_template_is_named_before_it_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("bare");
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(TINY).unwrap().flatten() {
        fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    let settings = model.join("tokenizer_config.json");
    let read = fs::read_to_string(&settings).unwrap();
    let mut changed: Value = serde_json::from_str(&read).unwrap();
    changed.as_object_mut().unwrap().remove("chat_template");
    fs::write(&settings, changed.to_string()).unwrap();
    let out = dir.path().join("out");
    let (model, out) = (model.to_str().unwrap(), out.to_str().unwrap());
    refused(
        &["needle", "--template=chat", "--model", model, "--out", out],
        &["bare has no chat template", "--template plain"],
    );
    // babilong asks for it by default, before its data is looked at.
    refused(
        &["babilong", "--data=none", "--model", model, "--out", out],
        &["bare has no chat template", "--protocol paper"],
    );
    assert!(!Path::new(out).exists());
}

#[test]
fn nothing_to_run_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let out = out.to_str().unwrap();
    for args in [&["needle", "--draws=0"][..], &["ruler", "--samples=0"]] {
        refused(&[args, &["--out", out]].concat(), &["nothing to run"]);
    }
    let grid = dir.path().join("grid.toml");
    for body in [
        format!("models = ['{TINY}']\n"),
        "models = []\n[needle]\n".into(),
        format!("models = ['{TINY}']\n[methods]\nmethod = []\n[needle]\n"),
        format!("models = ['{TINY}']\n[needle]\nlengths = []\n"),
        format!("models = ['{TINY}']\n[ruler]\ntasks = []\n"),
    ] {
        fs::write(&grid, body).unwrap();
        let args = ["run", grid.to_str().unwrap(), "--out", out];
        refused(&args, &["nothing to run"]);
    }
    assert!(!Path::new(out).exists());
}

#[test]
fn counts_that_nobody_waits_for_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let out = out.to_str().unwrap();
    let most = usize::MAX.to_string();
    for (args, part) in [
        (&["needle", "--lengths", &most][..], "lower --samples"),
        (&["needle", "--lengths=10000000"], "16384"),
        (&["ruler", "--lengths", &most], "lower"),
        (
            &["needle", "--draws=1000000000000"],
            "1000000000000 prompts",
        ),
        (&["ruler", "--samples=1000000000000"], "lower --samples"),
    ] {
        refused(&[args, &["--out", out]].concat(), &[part]);
    }
    // 200 x 200 configurations.
    let list = |from: usize| {
        (from..from + 200)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
    };
    let (capacities, betas) = (list(16).join(","), list(2).join(","));
    refused(
        &[
            "needle",
            "--method=headkv",
            "--capacity",
            &capacities,
            "--beta",
            &betas,
            "--out",
            out,
        ],
        &["40000 configurations", "name fewer"],
    );
}

#[test]
fn a_grids_needle_file_lies_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let needle = json!({"needle": "The motto of Quito is copper rain.", "question": "What is the motto of Quito?",
        "real_needle": "copper rain."});
    fs::write(dir.path().join("mine.jsonl"), needle.to_string()).unwrap();
    let grid = dir.path().join("grid.toml");
    let body = format!(
        "models = ['{TINY}']\n[methods]\nmethod = ['full']\n[needle]\nneedles = 'mine.jsonl'\nlengths = [300]\ndepths = [50, 50]\n"
    );
    fs::write(&grid, body).unwrap();
    let out = dir.path().join("out");
    let said = runs(&[
        "run",
        grid.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ]);
    assert!(said.contains("1 configurations x 1 prompts"), "{said}");
    let rows = rows(&out);
    assert_eq!(rows.len(), 1, "a depth named twice is one");
    assert_eq!(rows[0]["dataset"], "mine 1");
}

#[test]
fn a_capacity_below_sinks_that_a_method_does_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let small = [
        "needle",
        "--needles=san-francisco",
        "--lengths=300",
        "--depths=50",
        "--capacity=10",
    ];
    let with = |method: &str| {
        let mut args = small.to_vec();
        let method = format!("--method={method}");
        args.push(&method);
        args.extend(["--out", out.to_str().unwrap()]);
        run(&args)
    };
    assert!(with("snapkv").status.success());
    let streaming = with("streaming");
    assert!(text(&streaming.stderr).contains("sinks 4 do not fit"));
}

#[test]
fn a_benchmark_of_speed_has_figures() {
    for (args, part) in [
        (&["bench", "--decode=1"][..], "--decode 1"),
        (&["bench", "--decode=100000"], "lower --lengths or --decode"),
        (&["bench", "--lengths=17000"], "17000"),
    ] {
        refused(args, &[part]);
    }
    let none = run(&["bench", "--rounds=0"]);
    assert_eq!(none.status.code(), Some(2));
}

/// Weights that are no numbers end the run with one line, and no row is a score of them.
#[test]
fn output_that_is_no_number_is_not_scored() {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(TINY).unwrap() {
        let file = entry.unwrap().path();
        fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
    }
    let file = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let names: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let at = &names["model.norm.weight"]["data_offsets"];
    let [from, to] = [0, 1].map(|end| header + at[end].as_u64().unwrap() as usize);
    for value in bytes[from..to].chunks_exact_mut(2) {
        value.copy_from_slice(&0x7fc0u16.to_le_bytes());
    }
    fs::write(&file, bytes).unwrap();
    let out = dir.path().join("out");
    let output = run(&[
        "needle",
        "--model",
        dir.path().to_str().unwrap(),
        "--lengths=300",
        "--draws=1",
        "--method=full",
        "--out",
        out.to_str().unwrap(),
    ]);
    assert_ne!(output.status.code(), Some(0));
    let message = text(&output.stderr);
    assert!(message.contains("output is not a number"), "{message}");
    assert!(rows(&out).iter().all(|row| row["score"].is_null()));
}

/// Batches, mixed lengths and latencies, written and compared with themselves.
#[test]
fn a_benchmark_of_speed_is_kept_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bench.jsonl");
    let file = file.to_str().unwrap();
    let small = [
        "bench",
        "--lengths=60,120",
        "--mixed",
        "--batch=1,3",
        "--paths=full,snapkv@16",
        "--decode=4",
        "--rounds=1",
    ];
    let first = run(&[&small[..], &["--out", file]].concat());
    assert!(first.status.success(), "{}", text(&first.stderr));
    let table = text(&first.stdout);
    for part in ["60/120 full", "3 x 60/120 snapkv@16", "first token", "p99"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let rows: Vec<serde_json::Value> = fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 4);
    let measured = &rows[3]["rounds"][0];
    assert_eq!(measured["first_token"].as_array().unwrap().len(), 3);
    assert_eq!(measured["between_tokens"].as_array().unwrap().len(), 9);
    let folder = dir.path().to_str().unwrap();
    let shown = text(&run(&["report", folder]).stdout);
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    let page = page.replace("&#x2f;", "/");
    for report in [&shown, &page] {
        assert!(report.contains("3 x 60/120 snapkv@16"), "{report}");
    }
    let again = run(&[&small[..], &["--compare", file]].concat());
    let compared = text(&again.stdout);
    let line = compared
        .lines()
        .rfind(|line| line.contains("3 x 60/120 snapkv@16"));
    let line = line.unwrap();
    assert!(line.contains("1.00"), "the bytes are the same: {compared}");
    fs::write(file, "{}\n").unwrap();
    refused(&["bench", "--compare", file], &["line 1", "bench --out"]);
}

#[cfg(unix)]
#[test]
fn a_pipe_is_no_grid_and_no_data() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.toml");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let pipe = pipe.to_str().unwrap();
    for args in [
        &["run", pipe][..],
        &["needle", "--needles", pipe],
        &["needle", "--haystack", pipe],
        &["needle", "--scores", pipe],
    ] {
        refused(args, &["it is a pipe or a device"]);
    }
}

#[test]
fn nothing_in_a_file_commands_the_terminal() {
    let edited = Edited::new();
    edited.ask("Lisbon", "out", &[]);
    let mut row = rows(&edited.path("out")).remove(0);
    row["dataset"] = json!("\u{1b}[2Jx|y\nz");
    row["method"] = json!("=cmd()");
    fs::write(edited.path("out/rows.jsonl"), format!("{row}\n")).unwrap();
    let out = edited.path("out");
    let shown = runs(&["report", out.to_str().unwrap()]);
    assert!(
        !shown.contains('\u{1b}') && shown.contains("x\\|y z"),
        "{shown}"
    );
    let csv = fs::read_to_string(edited.path("out/report.csv")).unwrap();
    assert!(csv.contains(",'=cmd(),"), "{csv}");
}
