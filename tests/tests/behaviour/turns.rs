//! Several questions over one text: what is read on from the turn before is answered as what is read anew.

use headkv_eval::{
    Completion, Error, Reuse, Row, Sample, Variant,
    grid::{Grid, Methods, Turns},
    report,
    row::Model,
    sample::{Prompt, Scoring, Turn},
    session::{Options, Session},
    store::Results,
};
use std::{collections::HashMap, fs, path::Path, sync::atomic::AtomicBool};

/// Three questions over a short text.
fn short() -> Turns {
    Turns {
        documents: 1,
        questions: 3,
        lengths: vec![600],
        kinds: vec!["questions".into()],
        ..Turns::default()
    }
}

/// Those, and a conversation.
fn both() -> Turns {
    Turns {
        kinds: Turns::default().kinds,
        ..short()
    }
}

fn run(out: &Path, turns: Turns, methods: &[&str]) -> Result<Vec<Row>, Error> {
    static NEVER: AtomicBool = AtomicBool::new(false);
    let grid = Grid {
        models: vec![headkv_tests::tiny()],
        methods: Methods {
            method: methods.iter().map(|name| name.to_string()).collect(),
            capacity: vec![64],
            ..Methods::default()
        },
        turns: Some(turns),
        ..Grid::default()
    };
    let session = Session {
        grid: &grid,
        options: &Options::default(),
        out,
        command: "test",
        stop: &NEVER,
    };
    assert!(session.run()?.complete());
    Ok(Results::read(out)?.rows)
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
    let rows = run(dir.path(), both(), &["full"]).unwrap();
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
    let again = run(dir.path(), both(), &["full"]).unwrap();
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
                kept: None,
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
    let rows = run(dir.path(), short(), &["full", "snapkv"]).unwrap();
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
    let saving = Turns {
        save_state: Some(state.clone()),
        ..short()
    };
    let knowing = Turns {
        state: vec![state.clone()],
        ..short()
    };
    let read = run(&dir.path().join("read"), saving.clone(), &["full"]).unwrap();
    let known = run(&dir.path().join("known"), knowing.clone(), &["full"]).unwrap();
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

    let wrong: [(Turns, &str); 6] = [
        (
            Turns {
                documents: 2,
                ..saving
            },
            "set --documents 1",
        ),
        (
            Turns {
                state: vec!["nowhere".into()],
                ..short()
            },
            "state nowhere: cannot be read",
        ),
        (
            Turns {
                reuse: vec!["exakt".into()],
                ..short()
            },
            "did you mean exact?",
        ),
        (
            Turns {
                kinds: vec!["talk".into()],
                ..short()
            },
            "unknown kind `talk`",
        ),
        (
            Turns {
                template: "chat".into(),
                ..both()
            },
            "--kinds questions",
        ),
        (
            Turns {
                prefix_bytes: 1024,
                ..knowing
            },
            "raise --prefix-bytes",
        ),
    ];
    for (turns, expected) in wrong {
        let out = dir.path().join("none");
        let message = run(&out, turns, &["full"]).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!out.exists());
    }
}

#[test]
fn babilongs_stories_are_turns() {
    let Some(data) = headkv_tests::upstream_data("babilong") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let stories = Turns {
        documents: 0,
        babilong: Some(data),
        tasks: vec!["qa1".into()],
        limit: 8,
        ..short()
    };
    let rows = run(dir.path(), stories, &["full"]).unwrap();
    let (fresh, exact) = (answers(&rows, None), answers(&rows, Some(Reuse::Exact)));
    assert_eq!((fresh.len(), exact.len()), (8, 8));
    assert!(rows.iter().any(|row| row.turn == Some(2)));
    for (question, row) in &exact {
        assert_eq!(row.answer, fresh[question].answer, "{question:?}");
    }
}
