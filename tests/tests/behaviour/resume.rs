//! A run that is killed at any moment and started again ends with the rows of an uninterrupted one.

use headkv_eval::{
    Backend, Completion, Error, Failure, Job, Row, Sample, Variant,
    datasets::{Target, ruler},
    row::Model,
    runner::{self, Options},
    store::{Results, Store},
};
use rand::{Rng, SeedableRng};
use std::{
    path::Path,
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
    thread,
    time::Duration,
};
use tokenizers::Tokenizer;

/// The folder of the child process: this test's own binary, told to run until it is killed.
const CHILD: &str = "HEADKV_RESUME_CHILD";
const KILLS: usize = 20;

/// Answers with the end of the prompt, after a moment.
struct Echo;

impl Backend for Echo {
    fn configure(&self, _: &Variant) -> Result<(), Error> {
        Ok(())
    }

    fn complete(&self, job: &Job) -> Result<Completion, Failure> {
        thread::sleep(Duration::from_millis(12));
        let words: Vec<&str> = job.prompt.text.split(' ').collect();
        let text = words[words.len() - 12..].join(" ");
        Ok(Completion {
            text,
            prompt_tokens: words.len(),
            tokens: 12,
            ..Completion::default()
        })
    }

    fn concurrency(&self) -> usize {
        2
    }
}

fn samples() -> Vec<Sample> {
    let tokenizer = Tokenizer::from_file(headkv_tests::tiny().join("tokenizer.json")).unwrap();
    let target = Target {
        model: "echo",
        tokenizer: &tokenizer,
        chat: None,
        context: 8192,
    };
    let options = ruler::Options {
        tasks: ruler::Task::ALL.map(|(task, _)| task).to_vec(),
        lengths: vec![300, 400],
        samples: 20,
        seed: 1,
        haystack: None,
        template: "plain".parse().unwrap(),
        question_apart: false,
    };
    ruler::samples(&options, &target).unwrap()
}

fn run(dir: &Path) {
    let variants = [
        Variant::new("full"),
        Variant::new("snapkv").capacity(16),
        Variant::new("snapkv").capacity(32),
    ];
    let model = Model {
        name: "echo".into(),
        digest: "0".into(),
        backend: "test".into(),
    };
    let stop = AtomicBool::new(false);
    let options = Options {
        shard: Default::default(),
        stop: &stop,
    };
    runner::run(
        &samples(),
        &variants,
        &model,
        &Echo,
        &mut Store::open(dir).unwrap(),
        options,
    )
    .unwrap();
}

fn rows(dir: &Path) -> Vec<Row> {
    Results::read(dir).unwrap().rows
}

#[test]
fn child() {
    if let Some(dir) = std::env::var_os(CHILD) {
        run(Path::new(&dir));
    }
}

/// Whole lines of a folder's rows, without reading them.
fn lines(dir: &Path) -> usize {
    let rows = std::fs::read(dir.join("rows.jsonl")).unwrap_or_default();
    rows.iter().filter(|byte| **byte == b'\n').count()
}

#[test]
fn twenty_kills_change_nothing() {
    let (whole, torn) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(whole.path());
    let total = lines(whole.path());
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(20);
    let mut killed = 0;
    for kill in 0..KILLS {
        let before = lines(torn.path());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "resume::child"])
            .env(CHILD, torn.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Most kills come while rows are written, every fourth while the run may still be starting.
        let midway = kill % 4 != 3;
        while midway && lines(torn.path()) == before && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(random.random_range(0..60_000)));
        // A run may have come to its end before: then there is nothing to kill, and nothing to go wrong.
        let _ = child.kill();
        killed += usize::from(!child.wait().unwrap().success());
    }
    assert!(
        killed > 0,
        "the first run has written a row of many when it is killed"
    );
    run(torn.path());
    assert_eq!(rows(torn.path()), rows(whole.path()));
    assert_eq!(lines(torn.path()), total, "no prompt was answered twice");
}
