//! Several questions over one text: what is read on from the turn before is answered as what is read anew.

use headkv_eval::{
    Completion, Reuse, Row, Sample, Variant, cli, report,
    row::Model,
    sample::{Prompt, Scoring, Turn},
    store::Results,
};
use std::{collections::HashMap, fs, path::Path};

fn run(out: &Path, more: &[&str]) -> Vec<Row> {
    let out = out.to_str().unwrap();
    let args = [
        "headkv-eval",
        "turns",
        "--documents",
        "1",
        "--questions",
        "3",
        "--lengths",
        "600",
        "--out",
        out,
    ];
    assert!(cli::run_with(args.iter().chain(more)).unwrap());
    Results::read(Path::new(out)).unwrap().rows
}

/// Answers by question, of one mode.
fn answers(rows: &[Row], reuse: Option<Reuse>) -> HashMap<(String, String), &Row> {
    let of = rows.iter().filter(|row| row.variant.reuse == reuse);
    of.map(|row| ((row.dataset.clone(), row.sample.clone()), row))
        .collect()
}

#[test]
fn exact_turns_are_answered_as_fresh_ones() {
    let dir = tempfile::tempdir().unwrap();
    let rows = run(dir.path(), &["--method", "full"]);
    let (fresh, exact) = (answers(&rows, None), answers(&rows, Some(Reuse::Exact)));
    assert_eq!((rows.len(), fresh.len(), exact.len()), (12, 6, 6));
    for (question, row) in &exact {
        let other = fresh[question];
        assert_eq!(
            (&row.answer, row.tokens),
            (&other.answer, other.tokens),
            "{question:?}"
        );
        let (reused, later) = (row.reused_tokens.unwrap(), row.turn.unwrap() > 1);
        assert_eq!(other.reused_tokens, Some(0));
        assert_eq!(
            (other.held_bytes, row.held_bytes.unwrap() > 0),
            (None, true)
        );
        // All but the question and what is short of a block.
        assert!(
            !later || row.prompt_tokens - reused < 160,
            "{question:?}: {reused}"
        );
    }

    // An interrupted run goes on in the middle of a text, and reads it first.
    let file = dir.path().join("rows.jsonl");
    let lines = fs::read_to_string(&file).unwrap();
    let kept = |line: &&str| !(line.contains(r#""reuse":"exact""#) && line.contains(r#""turn":3"#));
    let kept: Vec<&str> = lines.lines().filter(kept).collect();
    assert_eq!(kept.len(), 10);
    fs::write(&file, kept.join("\n") + "\n").unwrap();
    let again = run(dir.path(), &["--method", "full"]);
    let keys = |rows: &[Row]| rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&again), keys(&rows));
    for (question, row) in answers(&again, Some(Reuse::Exact)) {
        assert_eq!(
            row.reused_tokens, exact[&question].reused_tokens,
            "{question:?}"
        );
        assert_eq!(row.answer, exact[&question].answer);
    }
}

/// Six answers of each mode, over two texts.
fn made_up() -> Vec<Row> {
    let model = Model {
        name: "tiny".into(),
        digest: "abc".into(),
        backend: "cpu".into(),
    };
    let mut rows = Vec::new();
    for reuse in [None, Some(Reuse::Exact)] {
        for (text, number) in (0..6).map(|i| (i / 3, i % 3 + 1)) {
            let sample = Sample {
                benchmark: "turns",
                dataset: "questions".into(),
                id: format!("600/{text}.{number}"),
                length: Some(600),
                depth: None,
                bucket: None,
                protocol: "plain".into(),
                prompt: Prompt {
                    text: format!("text {text}, question {number}"),
                    chat: false,
                    special: true,
                    apart: None,
                },
                min_tokens: 0,
                max_tokens: 50,
                stop: vec![],
                scoring: Scoring::Values(vec!["yes".into()]),
                turn: Some(Turn {
                    number,
                    before: None,
                }),
            };
            let known = reuse.is_some() && number > 1;
            let answer = Completion {
                text: "yes".into(),
                prompt_tokens: 640,
                tokens: 5,
                reused_tokens: Some(if known { 576 } else { 0 }),
                held_bytes: reuse.map(|_| 2 << 20),
                prompt_seconds: Some(if known { 0.05 } else { 0.5 }),
                decode_seconds: 0.02,
                kv_bytes: Some(9_000),
                kept_bytes: Some(8_192),
            };
            let variant = Variant::new("full").reuse(reuse);
            rows.push(Row::new(&sample, &model, &variant, Ok(answer)));
        }
    }
    rows
}

#[test]
fn the_table_says_how_long_the_first_tokens_took() {
    let tables = report::tables(&made_up());
    insta::assert_snapshot!(report::markdown(&tables), @r"
    ### turns · tiny (prompt protocol: plain)

    | method     | average |           95 % | vs full |         95 % | n | kept KV | questions 600 |  turn 1 | later turns | remembered | prompt tok/s | decode tok/s |
    | ---------- | ------: | -------------: | ------: | -----------: | -: | ------: | ------------: | ------: | ----------: | ---------: | -----------: | -----------: |
    | full       |   100.0 | 100.0 to 100.0 |       - |            - | 6 | 8.0 KiB |         100.0 | 0.500 s |     0.500 s |          - |         1280 |          200 |
    | full exact |   100.0 | 100.0 to 100.0 |    +0.0 | +0.0 to +0.0 | 6 | 8.0 KiB |         100.0 | 0.500 s |     0.050 s |   2.00 MiB |         3200 |          200 |

    Turn 1 and later turns: median seconds to the first token. Remembered: the most bytes of earlier prompts. `exact` reads prompts on from these, `compressed` from what was kept of the turn before.
    ");
    let csv = report::csv(&tables);
    assert!(
        csv.contains("reuse=exact") && csv.contains(",0.5,0.05,2097152,"),
        "{csv}"
    );
    let results = Results {
        rows: made_up(),
        ..Results::default()
    };
    let page = report::html(&results, &report::Options::default()).unwrap();
    assert!(page.contains("<th>turn 1</th><th>later turns</th><th>remembered</th>"));
    assert!(page.contains("<td>0.050 s</td><td>2.00 MiB</td>"));
}

#[test]
fn a_run_knows_its_times() {
    let dir = tempfile::tempdir().unwrap();
    let more = [
        "--method",
        "full,snapkv",
        "--capacity",
        "64",
        "--kinds",
        "questions",
    ];
    let rows = run(dir.path(), &more);
    let lines = report::tables(&rows).remove(0).lines;
    let names = ["full", "full exact", "snapkv@64", "snapkv@64 exact"];
    assert!(lines.iter().map(|line| line.name.as_str()).eq(names));
    for line in &lines {
        for time in [line.first_turn, line.later_turns] {
            assert!(time.is_some_and(|seconds| seconds > 0.0));
        }
        assert_eq!(line.held_bytes.is_some(), line.name.ends_with("exact"));
    }
}

#[test]
fn a_text_is_read_once_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("text.state");
    let state = state.to_str().unwrap();
    let questions = ["--method", "full", "--kinds", "questions"];
    let read = run(
        &dir.path().join("read"),
        &[&questions[..], &["--save-state", state]].concat(),
    );
    let known = run(
        &dir.path().join("known"),
        &[&questions[..], &["--state", state]].concat(),
    );
    let (read, known) = (
        answers(&read, Some(Reuse::Exact)),
        answers(&known, Some(Reuse::Exact)),
    );
    for (question, row) in &known {
        assert_eq!(row.answer, read[question].answer);
        assert!(row.reused_tokens.unwrap() > 500, "{question:?}");
    }
    let first = |rows: &HashMap<_, &Row>| {
        let mut first = rows.values().filter(|row| row.turn == Some(1));
        first.next().unwrap().reused_tokens
    };
    assert_eq!(first(&read), Some(0));

    let out = dir.path().join("none");
    let out = out.to_str().unwrap();
    let base = ["headkv-eval", "turns", "--lengths", "600", "--out", out];
    for (more, expected) in [
        (["--save-state", state], "set --documents 1"),
        (["--state", "nowhere"], "state nowhere: cannot be read"),
        (["--reuse", "exakt"], "did you mean exact?"),
        (["--kinds", "talk"], "unknown kind `talk`"),
        (["--template", "chat"], "--kinds questions"),
        (["--prefix-bytes", "1KiB"], "raise --prefix-bytes"),
    ] {
        let also: &[&str] = match more[0] {
            "--prefix-bytes" => &["--state", state],
            _ => &[],
        };
        let args = base.iter().chain(&more).chain(also);
        let message = format!("{:#}", cli::run_with(args).unwrap_err());
        assert!(message.contains(expected), "{more:?}: {message}");
    }
}

#[test]
fn babilongs_stories_are_turns() {
    let Some(data) = headkv_tests::upstream_data("babilong") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = data.to_str().unwrap();
    let more = [
        "--method",
        "full",
        "--documents",
        "0",
        "--babilong",
        data,
        "--tasks",
        "qa1",
        "--limit",
        "8",
    ];
    let rows = run(dir.path(), &more);
    let (fresh, exact) = (answers(&rows, None), answers(&rows, Some(Reuse::Exact)));
    assert_eq!((fresh.len(), exact.len()), (8, 8));
    assert!(rows.iter().any(|row| row.turn == Some(2)));
    for (question, row) in &exact {
        assert_eq!(row.answer, fresh[question].answer, "{question:?}");
    }
}
