//! babilong's Arrow streams and JSON Lines become samples, and what is wrong with them is named.

use headkv_eval::{
    Sample,
    datasets::{
        Target,
        babilong::{self, Options},
    },
    protocol::Protocol,
    sample::Scoring,
};
use std::{fs, path::Path};
use tokenizers::Tokenizer;

fn read(data: &Path, tasks: &[&str], lengths: &[&str]) -> Result<Vec<Sample>, String> {
    read_as(data, tasks, lengths, false)
}

fn read_as(
    data: &Path,
    tasks: &[&str],
    lengths: &[&str],
    question_apart: bool,
) -> Result<Vec<Sample>, String> {
    let tokenizer = Tokenizer::from_file(headkv_tests::tiny().join("tokenizer.json")).unwrap();
    let target = Target {
        model: "tiny",
        tokenizer: &tokenizer,
        chat: None,
        context: 8192,
    };
    let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    let options = Options {
        data: data.into(),
        tasks: list(tasks),
        lengths: list(lengths),
        limit: 10,
        protocol: Protocol::Chat,
        max_input: None,
        question_apart,
    };
    babilong::samples(&options, &target).map_err(|e| e.to_string())
}

#[test]
fn a_question_apart_is_all_that_follows_the_context() {
    let Some(data) = headkv_tests::upstream_data("babilong") else {
        return;
    };
    for sample in read_as(&data, &["qa1", "qa3"], &["0k", "2k"], true).unwrap() {
        let Scoring::Label { question, .. } = &sample.scoring else {
            panic!()
        };
        let (context, rest) = sample.prompt.text.split_at(sample.prompt.apart.unwrap());
        assert!(context.ends_with("</context>"));
        assert_eq!(rest, format!("\n\nQuestion: {question}").trim_end());
        assert!(sample.protocol.starts_with("question apart, "));
    }
}

#[test]
fn arrow_streams_are_read() {
    let Some(data) = headkv_tests::upstream_data("babilong") else {
        return;
    };
    let samples = read(&data, &["qa1", "qa2", "qa5"], &["0k", "4k"]).unwrap();
    assert_eq!(samples.len(), 60);
    let first = &samples[0];
    let Scoring::Label {
        question, target, ..
    } = &first.scoring
    else {
        panic!()
    };
    assert!(
        first
            .prompt
            .text
            .contains("John travelled to the hallway. Mary journeyed to the bathroom.")
    );
    assert!(
        first
            .prompt
            .text
            .starts_with("I will give you context with the facts about positions")
    );
    assert!(
        first
            .prompt
            .text
            .ends_with(&format!("Question: {question}").trim_end().to_string())
    );
    assert_eq!(first.scoring.score(&format!("In the {target}.")).score, 1.0);
    assert_eq!(first.bucket.as_deref(), Some("0k"));
    assert!(samples[59].prompt.text.len() > 8000);
}

#[test]
fn json_lines_are_read_and_wrong_data_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (prompts, rows) = (
        dir.path().join("prompts.json"),
        dir.path().join("1k/qa1.jsonl"),
    );
    fs::create_dir(dir.path().join("1k")).unwrap();
    fs::write(
        &prompts,
        r#"{"qa1": {"instruction": "I", "examples": "E", "post_prompt": "P"}}"#,
    )
    .unwrap();
    fs::write(
        &rows,
        r#"{"input": " C ", "question": "Q", "target": "kitchen"}"#,
    )
    .unwrap();
    let samples = read(dir.path(), &["qa1"], &["1k"]).unwrap();
    assert_eq!(
        samples[0].prompt.text,
        "I\n\nE\n\nP\n\n<context>\nC\n</context>\n\nQuestion: Q"
    );
    let message = |tasks: &[&str], lengths: &[&str]| read(dir.path(), tasks, lengths).unwrap_err();
    assert!(message(&["qa1"], &["2k"]).starts_with("unknown length `2k`; known are 1k"));
    assert!(message(&["qa22"], &["1k"]).contains("did you mean qa2"));
    assert!(message(&["qa2"], &["1k"]).contains("has no entry for `qa2`"));
    fs::write(&rows, r#"{"input": "C", "question": "Q", "target": ""}"#).unwrap();
    assert!(message(&["qa1"], &["1k"]).contains("qa1.jsonl, line 1: field `target` is empty"));
    fs::write(&rows, r#"{"input": "C", "question": "Q"}"#).unwrap();
    assert!(message(&["qa1"], &["1k"]).contains("line 1: field `target` is missing"));
    fs::write(&rows, "\n").unwrap();
    assert!(message(&["qa1"], &["1k"]).contains("qa1.jsonl: holds no records"));
    fs::remove_file(&rows).unwrap();
    assert!(message(&["qa1"], &["1k"]).contains("holds neither qa1/ nor qa1.jsonl"));
}
