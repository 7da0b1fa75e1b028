//! The head-scoring program: what it writes, how it resumes, and how it refuses.

use head_scoring::{
    Error, Kind, Meta, ScoreFile, Scorer, cli,
    example::{Example, Grid, LEAST_OVERLAP},
    run::unfinished,
    show::Shown,
};
use headkv_engine::LoadOptions;
use headkv_haystack::{Haystack, Template, needle, span};
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
    let meta = Meta::beside(&out).unwrap().unwrap();
    assert_eq!(
        (meta.settings.model.as_str(), meta.settings.kind),
        ("tiny", Kind::Enhanced)
    );
    assert_eq!(meta.settings.device, "cpu");
    assert_eq!((meta.settings.needles.len(), meta.total), (2, 4));
    assert_eq!(shown.examples, (meta.counted, meta.counted));
    assert_eq!(meta.settings.weights_sha256.len(), 64);
    assert!(!unfinished(&out).exists());

    let svg = dir.path().join("map.svg");
    run(&["show", &file, &file, "--svg", &svg.to_string_lossy()]).unwrap();
    assert!(fs::read_to_string(svg).unwrap().contains("</svg>"));

    // The meta file goes along as long as it is true.
    let converted = dir.path().join("converted.json");
    let convert = |more: &[&str]| {
        let out = converted.to_string_lossy();
        run(&[&["convert", &file], more, &["--out", &out]].concat()).unwrap();
        Meta::beside(&converted).unwrap()
    };
    assert_eq!(convert(&[]), Some(meta.clone()));
    assert_eq!(fs::read(&converted).unwrap(), fs::read(&out).unwrap());
    assert_eq!(convert(&["--shuffle", "1"]), None);
    assert_eq!(convert(&[]), Some(meta.clone()));
    assert_eq!(convert(&[&file]), None);
    assert_eq!(
        ScoreFile::read(&converted).unwrap().examples().0,
        2 * meta.counted
    );
}

#[test]
fn every_score_file_has_an_unfinished_file_of_its_own() {
    let [a, b] = ["s.a", "s.b"].map(|name| unfinished(Path::new(name)));
    assert_ne!(a, b);
    assert_eq!(
        unfinished(Path::new("x/s.json")),
        Path::new("x/s.json.part")
    );
}

#[test]
fn a_stopped_run_goes_on_and_batches_change_no_byte() {
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
    assert_eq!(
        fs::read_to_string(&whole).unwrap(),
        fs::read_to_string(&parts).unwrap()
    );
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

/// Needles of the original's head detection in its own haystacks; nothing of them is copied into this project.
#[test]
fn the_originals_needles_are_found() {
    let scorer = scorer();
    let tokenizer = scorer.engine().tokenizer();
    let mut least: f64 = 1.0;
    for name in ["haystack_for_detect", "haystack_for_detect_r2"] {
        let Some(folder) = headkv_tests::upstream_data(name) else {
            return headkv_tests::skipped(format_args!("no {name} among the public data"));
        };
        let needles = needle::read(&folder.join("needles.jsonl")).unwrap();
        let depths = vec![0.0, 50.0, 100.0];
        let entries = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
        for part in entries.filter(|path| path.is_dir()) {
            let grid = Grid {
                needles: needles.clone(),
                haystack: Haystack::read(&part).unwrap(),
                lengths: vec![600],
                depths: depths.clone(),
                template: Template::plain(),
            };
            let examples = grid.examples(scorer.engine()).unwrap();
            for (at, Example { prompt, needle, .. }) in examples.iter().enumerate() {
                let wanted = &needles[at / depths.len()].real_needle;
                let found = tokenizer.decode(&prompt[needle.clone()], false).unwrap();
                // Mr Green's "Because he is ..." is "... because he is ..." in the needle.
                let same = wanted.strip_prefix("Because ").unwrap_or(wanted);
                let same = same.trim_end_matches('.');
                assert!(found.contains(same), "{found:?} instead of {same:?}");
                let span = span::locate_text(prompt, wanted, tokenizer).unwrap();
                least = least.min(span.unwrap().overlap);
            }
        }
    }
    // The original's own limit of 0.9 loses that needle, which is why ours is lower.
    assert!(least > LEAST_OVERLAP && least <= 0.9, "{least}");
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
    let message = score(&["--lengths", "17000", "--draws", "1", "--depths", "0"]);
    assert!(message.contains("16384"), "{message}");
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

    // One of the needle's words is in the text, most are not.
    let absent = r#"{"needle": "Snow fell.", "question": "Q?", "real_needle": "Rivers froze in all nine valleys before the snow"}"#;
    fs::write(&needles, absent).unwrap();
    let message = score(&["--needles", &needles.to_string_lossy(), "--lengths", "200"]);
    assert!(
        message.starts_with("needle 1: of the tokens of its real_needle `Rivers froze"),
        "{message}"
    );
    assert!(
        message.ends_with("and more than 50 % have to; write it as in the needle"),
        "{message}"
    );

    // An answer that is right, but nothing of the real_needle is written.
    let nothing = r#"{"needle": "The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day. Snow", "question": "The best thing to do in San Francisco is: ", "real_needle": "Snow", "answer": "eat a sandwich and sit in Dolores Park on a sunny day."}"#;
    fs::write(&needles, nothing).unwrap();
    let message = score(&[
        "--needles",
        &needles.to_string_lossy(),
        "--lengths",
        "200",
        "--depths",
        "0,50",
    ]);
    assert!(
        message.starts_with("all head scores are zero over 2 counted examples; use needles"),
        "{message}"
    );
}

#[test]
fn devices_that_are_not_there_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = headkv_tests::tiny();
    let on = |device: &str| {
        let model = tiny.to_string_lossy();
        refusal(
            &["score", "--model", &model, "--device", device],
            dir.path(),
        )
    };
    let message = on("tpu");
    assert!(
        message.contains("device tpu: use cpu, cuda or cuda:N"),
        "{message}"
    );
    if candle_core::utils::cuda_is_available() {
        return eprintln!("SKIPPED: this build has CUDA");
    }
    let message = on("cuda");
    assert!(
        message.starts_with("device cuda:0: ") && message.ends_with("a build with --features cuda"),
        "{message}"
    );
}

#[test]
fn bad_score_files_are_refused() {
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let out = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let good = headkv_tests::root().join("head_scores/tiny_retrieval.json");
    let good = good.to_string_lossy();
    let bad = files.path().join("bad.json");
    let bad = bad.to_string_lossy();
    let refused = |args: &[&str], why: &str| {
        let failure = run(args).unwrap_err();
        assert_eq!(failure.code, 2, "{}", failure.message);
        assert!(
            failure.message.contains(why),
            "{args:?}: {}",
            failure.message
        );
        assert!(!failure.message.contains('\n'), "{}", failure.message);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            0,
            "{args:?} left a file"
        );
    };
    let everywhere = |why: &str| {
        refused(&["show", &bad], why);
        refused(&["show", &bad, "--svg", &out("map.svg")], why);
        refused(&["show", &good, &bad, "--svg", &out("map.svg")], why);
        refused(&["convert", &bad, "--out", &out("new.json")], why);
        refused(&["convert", &good, &bad, "--out", &out("new.json")], why);
    };
    everywhere("bad.json");
    for (text, why) in [
        ("", "not a score file"),
        ("{\"0-0\": [1", "not a score file"),
        (
            "{\"0-0\": [1], \"1-1\": [1]}",
            "not a full table of 2 layers x 2 heads",
        ),
        ("{\"0-0\": [0], \"0-1\": [0]}", "all head scores are zero"),
        (
            "{\"0-0\": [1], \"0-1\": [-1]}",
            "the score of head 0-1 is -1",
        ),
    ] {
        fs::write(&*bad, text).unwrap();
        everywhere(why);
    }
    fs::write(&*bad, "{\"0-0\": [1], \"0-1\": [0]}").unwrap();
    let why = "use files of one model";
    refused(&["show", &good, &bad, "--svg", &out("map.svg")], why);
    refused(&["convert", &good, &bad, "--out", &out("new.json")], why);
    fs::write(files.path().join("bad.meta.json"), "{}").unwrap();
    refused(&["show", &bad], "bad.meta.json does not say how");
    refused(
        &["convert", &bad, "--out", &out("new.json")],
        "bad.meta.json does not say how",
    );
    refused(&["convert", &good], "--out");
}
