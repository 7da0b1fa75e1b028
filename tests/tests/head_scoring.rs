//! The head-scoring program: what it writes, how it resumes, and how it refuses.

use head_scoring::{
    Error, Kind, Meta, ScoreFile, Scorer, cli,
    example::{Example, Grid},
    run::unfinished,
    show::Shown,
};
use headkv_engine::LoadOptions;
use headkv_haystack::{Haystack, Template, needle};
use std::{
    ffi::OsString,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

fn run(args: &[&str]) -> Result<(), cli::Failure> {
    let args = std::iter::once("head-scoring").chain(args.iter().copied());
    cli::run(args.map(OsString::from), &AtomicBool::new(false))
}

/// The one line of a refusal that leaves no file behind.
fn refusal(args: &[&str], folder: &Path) -> String {
    let out = folder.join("refused.json");
    let out = out.to_string_lossy();
    let failure = run(&[args, &["--out", &out][..]].concat()).unwrap_err();
    assert_eq!(failure.code, 2, "{}", failure.message);
    assert!(!failure.message.contains('\n'), "{}", failure.message);
    assert_eq!(
        fs::read_dir(folder).unwrap().count(),
        0,
        "{}",
        failure.message
    );
    failure.message
}

fn grid() -> Grid {
    Grid {
        needles: vec![needle::san_francisco(), needle::two_hops()],
        haystack: Haystack::generated(1),
        lengths: vec![300, 500],
        depths: vec![0.0, 50.0],
        template: Template::plain(),
    }
}

fn scorer() -> Scorer {
    Scorer::load(LoadOptions::new(headkv_tests::tiny())).unwrap()
}

#[test]
fn a_score_file_and_its_meta_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = headkv_tests::tiny();
    let out = dir.path().join("new/scores.json");
    let (model, file) = (tiny.to_string_lossy(), out.to_string_lossy());
    let short = ["--lengths", "300", "--depths", "0,100", "--draws", "2"];
    run(&[
        &[
            "score", "--model", &model, "--kind", "enhanced", "--out", &file,
        ],
        &short[..],
    ]
    .concat())
    .unwrap();

    let shown = Shown::read(&out).unwrap();
    assert_eq!((shown.scores.layers(), shown.scores.heads()), (8, 8));
    let meta = Meta::beside(&out).unwrap();
    assert_eq!(
        (meta.settings.model.as_str(), meta.settings.kind),
        ("tiny", Kind::Enhanced)
    );
    assert_eq!((meta.settings.needles.len(), meta.total), (2, 4));
    assert_eq!(shown.examples, (meta.counted, meta.counted));
    assert_eq!(meta.settings.weights_sha256.len(), 64);
    assert!(!unfinished(&out).exists());

    let svg = dir.path().join("map.svg");
    run(&["show", &file, &file, "--svg", &svg.to_string_lossy()]).unwrap();
    assert!(fs::read_to_string(svg).unwrap().contains("</svg>"));
    let merged = dir.path().join("merged.json");
    run(&["convert", &file, &file, "--out", &merged.to_string_lossy()]).unwrap();
    assert_eq!(
        ScoreFile::read(&merged).unwrap().examples().0,
        2 * meta.counted
    );
}

#[test]
fn a_stopped_run_goes_on_and_batches_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let (scorer, grid) = (scorer(), grid());
    let examples = grid.examples(scorer.engine()).unwrap();
    assert_eq!(examples.len(), 8);
    let settings = scorer
        .settings(Kind::Enhanced, &grid, "generated", 30, &examples)
        .unwrap();

    let whole = dir.path().join("whole.json");
    let never = AtomicBool::new(false);
    let meta = scorer
        .run(&settings, &examples, &whole, 1, &never, |_| {})
        .unwrap();
    assert_eq!((meta.counted, meta.total), (8, 8));

    let parts = dir.path().join("parts.json");
    let mut runs = 0;
    loop {
        runs += 1;
        let stop = AtomicBool::new(false);
        let mut asked = 0;
        // Stopped as soon as something was done, as by Ctrl-C; the batches are of other sizes each time.
        let result = scorer.run(&settings, &examples, &parts, runs, &stop, |_| {
            asked += 1;
            stop.store(asked == 2, Ordering::Relaxed);
        });
        match result {
            Ok(_) => break,
            Err(Error::Stopped { done, total }) => assert!(done < total && !parts.exists()),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(runs >= 3, "{runs} runs");
    let (whole, parts) = (
        ScoreFile::read(&whole).unwrap(),
        ScoreFile::read(&parts).unwrap(),
    );
    assert_eq!(whole.examples(), parts.examples());
    let (whole, parts) = (whole.means().unwrap(), parts.means().unwrap());
    for (a, b) in whole.values().iter().zip(parts.values()) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
}

#[test]
fn the_needle_is_found_in_the_prompt() {
    let (scorer, grid) = (scorer(), grid());
    for (at, Example { prompt, needle, .. }) in
        grid.examples(scorer.engine()).unwrap().iter().enumerate()
    {
        let text = scorer
            .engine()
            .tokenizer()
            .decode(&prompt[needle.clone()], false)
            .unwrap();
        assert_eq!(text.trim(), grid.needles[at / 4].real_needle);
    }
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    let tiny = headkv_tests::tiny();
    let model = tiny.to_string_lossy();
    let score =
        |more: &[&str]| refusal(&[&["score", "--model", &model], more].concat(), dir.path());

    let message = score(&["--kind", "copying"]);
    assert!(
        message.contains("unknown kind `copying`; use retrieval, enhanced or reasoning"),
        "{message}"
    );
    let message = score(&["--lengths", "10"]);
    assert!(
        message.contains("does not fit a context of 10; ask for a longer context"),
        "{message}"
    );
    let message = score(&["--lengths", "9000", "--draws", "1", "--depths", "0"]);
    assert!(message.contains("8192"), "{message}");
    let message = score(&["--depths", "0,101"]);
    assert!(
        message.contains("depth 101 is outside 0 to 100"),
        "{message}"
    );
    let message = score(&["--template", "novel"]);
    assert!(message.contains("unknown template `novel`"), "{message}");
    let message = score(&["--draws", "0"]);
    assert!(message.contains("--draws"), "{message}");
    let message = score(&["--needles", "no/such.jsonl"]);
    assert!(message.contains("no/such.jsonl"), "{message}");
    let message = refusal(&["score", "--model", "no/such/model"], dir.path());
    assert!(message.contains("no/such/model"), "{message}");

    // A question about nothing that the context holds.
    let needles = files.path().join("needles.jsonl");
    let lost = r#"{"needle": "Snow fell.", "question": "Where does the best friend of Zoe live?", "real_needle": "Snow fell."}"#;
    fs::write(&needles, lost).unwrap();
    let message = score(&[
        "--needles",
        &needles.to_string_lossy(),
        "--lengths",
        "200",
        "--depths",
        "0,50,100",
    ]);
    assert!(
        message.starts_with("none of 3 examples was answered right"),
        "{message}"
    );
    assert_eq!(
        message.matches("instead of \"Snow fell.\"").count(),
        2,
        "{message}"
    );
}
