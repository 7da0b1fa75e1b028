//! The numbers behind tables and charts, and the page that shows them.

use headkv_eval::{
    Completion, Row, Sample, Variant, report,
    row::Model,
    sample::{Prompt, Scoring},
    store::{Heads, Results},
};

fn sample(length: usize, depth: f64) -> Sample {
    Sample {
        benchmark: "needle",
        dataset: "city".into(),
        id: format!("{length}/{depth}"),
        length: Some(length),
        depth: Some(depth),
        bucket: None,
        protocol: "plain".into(),
        prompt: Prompt {
            text: format!("<b>context</b> {length} {depth} eat a sandwich"),
            chat: false,
            special: true,
        },
        max_tokens: 8,
        stop: vec![],
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
        runs: vec!["headkv-eval needle".into()],
        ..Results::default()
    };
    let headkv = |capacity, beta| Variant {
        beta: Some(beta),
        ..Variant::new("headkv").capacity(capacity)
    };
    let variants = [
        (Variant::new("full"), 40_000, 9),
        (Variant::new("snapkv").capacity(16), 400, 2),
        (Variant::new("snapkv").capacity(32), 800, 4),
        (headkv(16, 1.2), 400, 5),
        (headkv(16, 2.0), 400, 6),
        (headkv(32, 1.2), 800, 6),
    ];
    for (variant, kv_bytes, right) in variants {
        let cells = [
            (1000, 0.0),
            (1000, 50.0),
            (1000, 100.0),
            (2000, 0.0),
            (2000, 50.0),
            (2000, 100.0),
        ];
        for (at, (length, depth)) in cells.into_iter().enumerate() {
            let sample = sample(length, depth);
            let outcome = match at {
                5 if variant.method == "snapkv" => Err("the engine & its <fault>".into()),
                at => Ok(Completion {
                    text: if at < right {
                        "eat a sandwich"
                    } else {
                        "sleep"
                    }
                    .into(),
                    prompt_tokens: length,
                    tokens: 5,
                    prompt_seconds: Some(0.5),
                    decode_seconds: 0.02,
                    kv_bytes: Some(kv_bytes),
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
    results.heads.push(Heads {
        model: "tiny".into(),
        variant: "headkv@16 beta 1.2".into(),
        capacities: vec![vec![9, 10], vec![40, 9]],
    });
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
fn the_page_shows_everything_and_needs_nothing_else() {
    let page = report::html(&results()).unwrap();
    // Six heatmaps, two kinds of curves, one map of heads.
    assert_eq!(page.matches("<svg").count(), 6 + 2 + 1);
    for shown in [
        "headkv@16 beta 1.2",
        "the engine &amp; its &lt;fault&gt;",
        "&lt;b&gt;context",
        "headkv-eval needle",
        "<details>",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    let elsewhere = page
        .split("http")
        .skip(1)
        .find(|rest| !rest.starts_with("://www.w3.org/"));
    assert_eq!(elsewhere, None);
    assert!(!page.contains("<script") && !page.contains("<link"));
}
