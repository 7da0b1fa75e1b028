//! The official LongBench files become samples, and what is wrong with them is named.

use headkv_eval::{
    Completion, Row, Sample, Variant,
    datasets::{
        Target,
        longbench::{self, Options},
    },
    protocol::Protocol,
    report,
    row::Model,
    sample::Scoring,
};
use std::{fs, path::Path};
use tokenizers::Tokenizer;

fn read(data: &Path, change: impl FnOnce(&mut Options)) -> Result<Vec<Sample>, String> {
    read_for("tiny", data, change)
}

fn read_for(
    model: &str,
    data: &Path,
    change: impl FnOnce(&mut Options),
) -> Result<Vec<Sample>, String> {
    let tokenizer = Tokenizer::from_file(headkv_tests::tiny().join("tokenizer.json")).unwrap();
    let target = Target {
        model,
        tokenizer: &tokenizer,
        chat: None,
        context: 8192,
    };
    let mut options = Options {
        data: data.into(),
        datasets: vec![],
        limit: usize::MAX,
        protocol: Protocol::Paper,
        max_input: None,
        longbench_e: false,
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
        (o.max_input, o.protocol) = (Some(100), Protocol::Chat)
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
        (
            "qasper.jsonl",
            r#"{"input": "Q", "context": "C", "answers": [""]}"#.into(),
            "cannot be scored",
        ),
        ("qasper.jsonl", " \n\n".into(), "holds no records"),
        ("qasper.jsonl", "[1]".into(), "not a JSON object"),
        (
            "qasper_e.jsonl",
            good.into(),
            "field `length` is missing or not a number of words",
        ),
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
fn loogle_is_asked_as_in_the_original() {
    for (name, tokens) in [
        ("comprehension_and_reasoning", 64),
        ("computation", 32),
        ("multiple_information_retrieval", 64),
        ("timeline_reorder", 32),
    ] {
        let dir = folder(
            &format!("{name}.jsonl"),
            r#"{"input": "Q?", "context": "C.", "answers": ["A"]}"#,
        );
        let samples = read(dir.path(), |_| ()).unwrap();
        assert_eq!(
            (samples[0].prompt.text.as_str(), samples[0].max_tokens),
            (
                "Please answer the question based on the long texts below. \nC.\nQuestion: Q?\nAnswer:",
                tokens
            )
        );
        assert_eq!(
            samples[0].scoring.score("A").score,
            0.0,
            "an article is no answer"
        );
    }
}

#[test]
fn the_first_token_may_not_end_the_answer() {
    let dir = folder("qasper.jsonl", GOOD);
    assert_eq!(read(dir.path(), |_| ()).unwrap()[0].min_tokens, 1);
}

/// One record of each edition in one folder.
fn both() -> tempfile::TempDir {
    let dir = folder("qasper.jsonl", GOOD);
    let even = r#"{"input": "E", "context": "C", "answers": ["A"], "length": 5000}"#;
    fs::write(dir.path().join("qasper_e.jsonl"), even).unwrap();
    dir
}

const GOOD: &str = r#"{"input": "Q", "context": "C", "answers": ["A"], "length": 4000}"#;

/// Benchmark, bucket and prompt of the only sample.
fn only(samples: Vec<Sample>) -> (&'static str, Option<String>, String) {
    let [sample] = <[Sample; 1]>::try_from(samples).unwrap();
    (sample.benchmark, sample.bucket, sample.prompt.text)
}

#[test]
fn longbench_e_is_read_where_it_is_asked_for_or_alone() {
    let dir = both();
    let plain = ("longbench", Some("4-8k".into()), "C Q".into());
    let even = ("longbench-e", Some("4-8k".into()), "C E".into());
    assert_eq!(only(read(dir.path(), |_| ()).unwrap()), plain);
    assert_eq!(
        only(read(dir.path(), |o| o.longbench_e = true).unwrap()),
        even
    );
    let file = dir.path().join("qasper_e.jsonl");
    assert_eq!(only(read(&file, |_| ()).unwrap()), even);
    fs::remove_file(dir.path().join("qasper.jsonl")).unwrap();
    let named = |o: &mut Options| o.datasets = vec!["qasper".into()];
    assert_eq!(only(read(dir.path(), named).unwrap()), even);
}

#[test]
fn lengths_are_in_every_row_and_in_the_table_of_longbench_e() {
    let dir = both();
    let model = Model {
        name: "tiny".into(),
        digest: "0".into(),
        backend: "cpu".into(),
    };
    let row = |longbench_e| {
        let samples = read(dir.path(), |o| o.longbench_e = longbench_e).unwrap();
        let answer = Ok(Completion::default());
        Row::new(&samples[0], &model, &Variant::new("full"), answer)
    };
    let rows = [row(false), row(true)];
    assert!(rows.iter().all(|row| row.bucket.as_deref() == Some("4-8k")));
    let tables = report::tables(&rows);
    let columns: Vec<_> = tables.iter().map(|table| &table.columns[..]).collect();
    assert_eq!(columns, [["qasper"], ["qasper 4-8k"]]);
}

#[test]
fn editions_and_files_that_do_not_match_are_refused() {
    let dir = both();
    let file = dir.path().join("qasper.jsonl");
    let message = read(&file, |o| o.datasets = vec!["trec".into()]).unwrap_err();
    assert!(
        message.contains("qasper.jsonl: is not `trec`") && message.contains("--datasets"),
        "{message}"
    );
    read(&file, |o| o.datasets = vec!["qasper".into()]).unwrap();
    let message = read(&file, |o| o.longbench_e = true).unwrap_err();
    assert!(message.contains("qasper_e.jsonl"), "{message}");
    fs::remove_file(dir.path().join("qasper_e.jsonl")).unwrap();
    let message = read(dir.path(), |o| o.longbench_e = true).unwrap_err();
    assert!(message.contains("holds no {dataset}_e.jsonl"), "{message}");
}

#[test]
fn an_input_limit_that_does_not_fit_is_refused_before_anything_runs() {
    let dir = folder("qasper.jsonl", GOOD);
    let message = read(dir.path(), |o| o.max_input = Some(8190)).unwrap_err();
    assert!(
        message.contains("8190") && message.contains("8192") && !message.contains('\n'),
        "{message}"
    );
    read(dir.path(), |o| o.max_input = Some(8160)).unwrap();
}

#[test]
fn the_papers_limits_go_by_the_models_name() {
    let words = "one two three four ".repeat(2500);
    let record = serde_json::json!({"input": "Q", "context": words, "answers": ["A"]});
    let dir = folder("qasper.jsonl", &record.to_string());
    let tokenizer = Tokenizer::from_file(headkv_tests::tiny().join("tokenizer.json")).unwrap();
    for (model, protocol, limit) in [
        ("llama-2-7b-chat", Protocol::Paper, 3950),
        ("meta-llama-3-8b-instruct", Protocol::Paper, 7950),
        ("mistral-7b", Protocol::Paper, 8192 - 32 - 64),
        ("llama-2-7b-chat", Protocol::Chat, 8192 - 32 - 128 - 64),
    ] {
        let samples = read_for(model, dir.path(), |o| o.protocol = protocol).unwrap();
        let text = samples[0].prompt.text.as_str();
        let tokens = tokenizer.encode(text, false).unwrap().len();
        assert!(tokens.abs_diff(limit) <= 3, "{model}: {tokens}");
        let framed = text.starts_with("[INST] ") && text.ends_with(" [/INST]");
        assert_eq!(framed, limit == 3950, "the frame is not cut off");
    }
}
