//! The official LongBench files become samples, and what is wrong with them is named.

use headkv_eval::{
    Sample,
    datasets::{
        Target,
        longbench::{self, Options},
    },
    protocol::Protocol,
    sample::Scoring,
};
use std::{fs, path::Path};
use tokenizers::Tokenizer;

fn read(data: &Path, change: impl FnOnce(&mut Options)) -> Result<Vec<Sample>, String> {
    let tokenizer = Tokenizer::from_file(headkv_tests::tiny().join("tokenizer.json")).unwrap();
    let target = Target {
        model: "tiny",
        tokenizer: &tokenizer,
        context: 8192,
    };
    let mut options = Options {
        data: data.into(),
        datasets: vec![],
        limit: usize::MAX,
        protocol: Protocol::Paper,
        max_input: None,
        by_length: false,
    };
    change(&mut options);
    longbench::samples(&options, &target).map_err(|e| e.to_string())
}

#[test]
fn the_official_files_are_read() {
    let Some(data) = headkv_tests::upstream_data("longbench") else {
        return;
    };
    let samples = read(&data, |o| o.limit = 10).unwrap();
    let names: Vec<_> = samples
        .iter()
        .map(|s| (s.dataset.as_str(), s.scoring.metric(), s.max_tokens))
        .collect();
    assert_eq!(names[0], ("multifieldqa_zh", "qa_f1_zh", 64));
    assert_eq!(names[10], ("multi_news", "rouge", 512));
    assert_eq!(names[20], ("passage_retrieval_zh", "retrieval_zh", 32));
    assert_eq!(names.len(), 30);
    // This file has its lists in Python's notation.
    let Scoring::References { answers, .. } = &samples[10].scoring else {
        panic!()
    };
    assert!(
        answers.len() == 1 && answers[0].starts_with("The Occupy LA"),
        "{answers:?}"
    );
    let tokenizer = Tokenizer::from_file(headkv_tests::tiny().join("tokenizer.json")).unwrap();
    for sample in &samples {
        let tokens = tokenizer
            .encode(sample.prompt.text.as_str(), false)
            .unwrap()
            .len();
        assert!(
            tokens + sample.max_tokens <= 8192,
            "{}: {tokens}",
            sample.id
        );
    }
}

#[test]
fn buckets_protocols_and_limits() {
    let Some(data) = headkv_tests::upstream_data("longbench") else {
        return;
    };
    let file = data.join("multi_news.jsonl");
    let samples = read(&file, |o| {
        (o.by_length, o.max_input, o.protocol) = (true, Some(100), Protocol::Chat)
    })
    .unwrap();
    assert!(
        samples
            .iter()
            .all(|s| s.prompt.chat && matches!(s.bucket.as_deref(), Some("0-4k" | "4-8k" | "8k+")))
    );
    let text = &samples[0].prompt.text;
    assert!(
        text.starts_with("You are given several news") && text.ends_with("Summary:"),
        "{text}"
    );
    assert!(text.len() < 800);
}

/// A folder with the config and one file of the given name and text.
fn folder(name: &str, text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), text).unwrap();
    fs::write(
        dir.path().join("dataset2prompt.json"),
        r#"{"qasper": "{context} {input}", "trec": "{context}"}"#,
    )
    .unwrap();
    fs::write(
        dir.path().join("dataset2maxlen.json"),
        r#"{"qasper": 32, "trec": 8}"#,
    )
    .unwrap();
    dir
}

#[test]
fn wrong_data_is_named() {
    let good = r#"{"input": "Q", "context": "C", "answers": ["A"]}"#;
    let cases = [
        (
            "qasper.jsonl",
            format!("{good}\n{{\"input\": 1"),
            "qasper.jsonl, line 2: malformed JSON",
        ),
        (
            "qasper.jsonl",
            r#"{"input": "Q", "answers": ["A"]}"#.into(),
            "line 1: field `context` is missing",
        ),
        (
            "qasper.jsonl",
            r#"{"input": 3, "context": "C", "answers": ["A"]}"#.into(),
            "field `input` is not a text",
        ),
        (
            "qasper.jsonl",
            r#"{"input": "Q", "context": "C", "answers": []}"#.into(),
            "cannot be scored",
        ),
        ("qasper.jsonl", "[1]".into(), "not a JSON object"),
        ("trec.jsonl", good.into(), "field `all_classes` is missing"),
        (
            "musique.jsonl",
            good.into(),
            "dataset2prompt.json has no entry for `musique`",
        ),
        ("unknown.jsonl", good.into(), "holds no {dataset}.jsonl"),
    ];
    for (name, text, expected) in cases {
        let message = read(folder(name, &text).path(), |_| ()).unwrap_err();
        assert!(
            message.contains(expected) && !message.contains('\n'),
            "{name}: {message}"
        );
    }
    let dir = folder("qasper.jsonl", good);
    let message = read(dir.path(), |o| o.datasets = vec!["qaspr".into()]).unwrap_err();
    assert_eq!(message, "unknown data set `qaspr`; did you mean qasper?");
    let message = read(dir.path(), |o| o.datasets = vec!["lcc".into()]).unwrap_err();
    assert!(message.contains("holds no lcc.jsonl"), "{message}");
    fs::remove_file(dir.path().join("dataset2maxlen.json")).unwrap();
    assert!(
        read(dir.path(), |_| ())
            .unwrap_err()
            .contains("has no dataset2maxlen.json")
    );
}

#[test]
fn loogle_needs_no_config_of_its_own() {
    let dir = folder(
        "timeline_reorder.jsonl",
        r#"{"input": "Q?", "context": "C.", "answers": ["A"]}"#,
    );
    let samples = read(dir.path(), |_| ()).unwrap();
    assert!(
        samples[0]
            .prompt
            .text
            .ends_with("C.\n\nQuestion: Q?\nAnswer:")
    );
    assert_eq!(
        samples[0].scoring.score("A").score,
        0.0,
        "an article is no answer"
    );
}
