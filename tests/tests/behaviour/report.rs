//! The numbers behind tables and charts, and the page that shows them.

use headkv_eval::{
    Completion, Row, Sample, Variant,
    grid::Parameters,
    report::{self, Options},
    row::Model,
    sample::{Prompt, Scoring},
    store::{Heads, Results, Run},
};

fn sample(length: usize, depth: f64) -> Sample {
    Sample {
        benchmark: "needle",
        dataset: "city".into(),
        // Another needle at each depth.
        id: format!("{length}/{} at {depth}", depth / 20.0),
        length: Some(length),
        depth: Some(depth),
        bucket: None,
        protocol: "plain".into(),
        prompt: Prompt {
            text: format!("<b>context</b> {length} {depth} eat a sandwich"),
            chat: false,
            special: true,
            apart: None,
        },
        min_tokens: 0,
        max_tokens: 8,
        stop: vec![],
        turn: None,
        scoring: Scoring::Needle {
            answer: "eat a sandwich".into(),
            needle: "Best is: eat a sandwich".into(),
        },
    }
}

/// Full finds everything, headkv most, snapkv little; one row failed.
fn results() -> Results {
    let model = Model {
        name: "tiny".into(),
        digest: "abc".into(),
        backend: "cpu".into(),
    };
    let mut results = Results {
        runs: vec![Run {
            command: "headkv-eval run grid.toml".into(),
            grid_file: Some("models = ['tiny'] # mine".into()),
            settings: "[needle]\nseed = 7".into(),
            device: "cuda:1".into(),
            version: "2".into(),
            commit: Some("7c96e70".into()),
            machine: Some("a chip, 2 threads".into()),
            date: Some("2026-01-01".into()),
        }],
        ..Results::default()
    };
    let headkv = |capacity, beta, file: &str| Variant {
        beta: Some(beta),
        scores: Some(format!("scores/{file}.json").into()),
        scores_digest: Some(format!("digest of {file}")),
        ..Variant::new("headkv").capacity(capacity)
    };
    let wide = |capacity| Variant {
        settings: Parameters {
            window: Some(4),
            ..Parameters::default()
        },
        ..Variant::new("snapkv").capacity(capacity)
    };
    let variants = [
        (Variant::new("full"), 40_000, 19),
        (Variant::new("snapkv").capacity(16), 400, 4),
        (Variant::new("snapkv").capacity(32), 800, 8),
        (wide(16), 400, 2),
        (wide(32), 800, 4),
        (headkv(16, 1.2, "good"), 400, 6),
        (headkv(16, 2.0, "good"), 400, 11),
        (headkv(32, 1.2, "good"), 800, 12),
        (headkv(16, 1.2, "poor"), 400, 5),
        (headkv(32, 1.2, "poor"), 800, 8),
    ];
    for (variant, kv_bytes, right) in variants {
        let depths = [0.0, 20.0, 40.0, 60.0, 80.0, 100.0];
        let cells = [1000, 2000]
            .into_iter()
            .flat_map(|length| depths.map(|depth| (length, depth)));
        for (at, (length, depth)) in cells.enumerate() {
            let sample = sample(length, depth);
            let outcome = match at {
                11 if variant.method == "snapkv" => Err("the engine & its <fault>".into()),
                at => Ok(Completion {
                    text: if at < right {
                        "eat a sandwich"
                    } else {
                        "sleep"
                    }
                    .into(),
                    prompt_tokens: length,
                    tokens: 5,
                    reused_tokens: None,
                    held_bytes: None,
                    prompt_seconds: Some(0.5),
                    decode_seconds: 0.02,
                    kept: None,
                    kv_bytes: Some(kv_bytes + 100),
                    kept_bytes: Some(kv_bytes),
                }),
            };
            results
                .rows
                .push(Row::new(&sample, &model, &variant, outcome));
            results.prompts.insert(
                Row::new(&sample, &model, &variant, Err(String::new())).prompt,
                sample.prompt.text,
            );
        }
    }
    let capacities = [
        (headkv(16, 1.2, "good"), vec![vec![9, 10], vec![40, 9]]),
        (headkv(16, 1.2, "poor"), vec![vec![20, 20], vec![14, 14]]),
        (Variant::new("snapkv").capacity(16), vec![vec![16; 2]; 2]),
    ];
    results.heads = capacities
        .map(|(variant, capacities)| Heads {
            model: "tiny".into(),
            variant,
            capacities,
        })
        .into();
    results
}

#[test]
fn the_numbers() {
    let tables = report::tables(&results().rows);
    insta::assert_json_snapshot!(tables);
}

#[test]
fn markdown_and_csv() {
    let tables = report::tables(&results().rows);
    insta::assert_snapshot!("markdown", report::markdown(&tables));
    insta::assert_snapshot!("csv", report::csv(&tables).replace("\r\n", "\n"));
}

#[test]
fn the_numbers_behind_the_pictures() {
    insta::assert_json_snapshot!(report::figures(&results()));
}

#[test]
fn rows_of_different_setups_are_not_averaged() {
    let mut results = results();
    let changes: [fn(&mut Row); 4] = [
        |row| row.protocol = "chat".into(),
        |row| row.backend = "cuda".into(),
        |row| row.model_digest = "def".into(),
        |row| row.version = "1".into(),
    ];
    let rows = results.rows.clone();
    let alone = report::tables(&rows);
    for change in changes {
        let more = rows.iter().map(|row| {
            let mut row = Row {
                score: 0.0,
                ..row.clone()
            };
            change(&mut row);
            row
        });
        results.rows = rows.iter().cloned().chain(more).collect();
        let tables = report::tables(&results.rows);
        assert_eq!(tables.len(), 2);
        let lines = |table: &report::Table| table.lines.clone();
        assert!(tables.iter().any(|table| lines(table) == lines(&alone[0])));
        assert_ne!(tables[0].title, tables[1].title);
        assert_eq!(report::figures(&results).tables.len(), 2);
    }
}

#[test]
fn where_the_score_file_lay_does_not_matter() {
    let mut results = results();
    let before = report::tables(&results.rows)[0].lines.len();
    for row in results.rows.iter_mut().step_by(2) {
        let moved = |path: &std::path::PathBuf| std::path::Path::new("/elsewhere").join(path);
        row.variant.scores = row.variant.scores.as_ref().map(moved);
    }
    assert_eq!(report::tables(&results.rows)[0].lines.len(), before);
}

#[test]
fn failures_can_be_counted_and_seen() {
    let results = results();
    let found = report::failures(&results, &Options::default());
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].failed, found[0].examples.len()), (10, 3));
    let all = Options {
        failures: 100,
        ..Options::default()
    };
    let found = report::failures(&results, &all);
    assert_eq!(found[0].examples.len(), 10);
    insta::assert_json_snapshot!("failures", found[0].examples[0]);
}

#[test]
fn the_page_shows_everything_and_needs_nothing_else() {
    let results = results();
    let page = report::html(&results, &Options::default()).unwrap();
    // A heatmap for each variant, three kinds of curves, two maps of heads; snapkv's is a line.
    assert_eq!(page.matches("<svg").count(), 10 + 3 + 2);
    for shown in [
        "headkv@16 beta 1.2 good",
        "tiny, headkv@16 beta 1.2, scores poor",
        "tiny, snapkv@16: 16 tokens of every head",
        // It opens with what it shows.
        "<p class=\"lead\">On needle · tiny, headkv@16 beta 2 keeps 1.0 % of full attention&#x27;s cache",
        "the engine &amp; its &lt;fault&gt;",
        "&lt;b&gt;context",
        "<mark>eat a sandwich</mark>",
        // What it takes to repeat it.
        "headkv-eval run grid.toml",
        "models = [&#x27;tiny&#x27;] # mine",
        "seed = 7",
        "cuda:1, version 2, commit 7c96e70",
        "a chip, 2 threads; 2026-01-01",
        "digest of good",
        "<code>abc</code>",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    // The best of a capacity are marked, and nothing else.
    let best: usize = report::tables(&results.rows)[0]
        .lines
        .iter()
        .map(|line| line.best.iter().filter(|best| **best).count())
        .sum();
    assert!(best > 0);
    assert_eq!(page.matches("class=\"best\"").count(), best);
    assert!(page.contains("class=\"average best\""));
    // Whatever there is to see is one click away.
    let nested = page.split("<details").skip(1).any(|rest| {
        rest.find("<details")
            .is_some_and(|next| rest.find("</details>").is_none_or(|end| next < end))
    });
    assert!(!nested);
    headkv_tests::assert_self_contained(&page);
}
