//! What a run does besides its model: making prompts, keeping rows, writing reports. A model of 7M parameters takes some
//! seconds for the prompts here, so a hundredth of that is what there is to lose.

use criterion::{Criterion, criterion_group, criterion_main};
use headkv_eval::{
    Backend, Completion, Error, Failure, Job, Sample, Variant,
    datasets::{Target, needle},
    report,
    row::Model,
    runner, session,
    store::{Results, Store},
};
use headkv_haystack::Template;
use std::{hint::black_box, path::Path, sync::atomic::AtomicBool};
use tokenizers::Tokenizer;

/// Answers at once.
struct Instantly;

impl Backend for Instantly {
    fn configure(&self, _: &Variant) -> Result<(), Error> {
        Ok(())
    }

    fn complete(&self, job: &Job) -> Result<Completion, Failure> {
        Ok(Completion {
            text: "silent falcon.".into(),
            prompt_tokens: job.prompt.text.len() / 4,
            tokens: 4,
            prompt_seconds: Some(0.1),
            decode_seconds: 0.1,
            ..Completion::default()
        })
    }
}

/// 60 prompts of 2,000 tokens.
fn samples() -> Vec<Sample> {
    let file = headkv_tests::tiny().join("tokenizer.json");
    let tokenizer = Tokenizer::from_file(file).unwrap();
    let target = Target {
        model: "tiny",
        tokenizer: &tokenizer,
        chat: None,
        context: 8192,
    };
    let options = needle::Options {
        haystack: None,
        seed: 0,
        needles: "held-out".into(),
        draws: 12,
        lengths: vec![2000],
        depths: vec![0.0, 50.0, 100.0],
        template: Template::plain(),
        question_apart: false,
    };
    needle::samples(&options, &target).unwrap()
}

fn run(samples: &[Sample], dir: &Path) {
    let variants = [Variant::new("full"), Variant::new("snapkv").capacity(16)];
    let model = Model {
        name: "tiny".into(),
        digest: "0".into(),
        backend: "cpu".into(),
    };
    let stop = AtomicBool::new(false);
    let options = runner::Options {
        shard: Default::default(),
        stop: &stop,
    };
    let mut store = Store::open(dir).unwrap();
    runner::run(samples, &variants, &model, &Instantly, &mut store, options).unwrap();
}

fn overhead(c: &mut Criterion) {
    let mut group = c.benchmark_group("60 prompts of 2,000 tokens, two methods");
    group.sample_size(10);
    group.bench_function("making the prompts", |b| b.iter(|| black_box(samples())));
    let samples = samples();
    group.bench_function("asking and keeping rows", |b| {
        b.iter(|| run(&samples, tempfile::tempdir().unwrap().path()));
    });
    let dir = tempfile::tempdir().unwrap();
    run(&samples, dir.path());
    group.bench_function("writing reports", |b| {
        b.iter(|| {
            let results = Results::read(dir.path()).unwrap();
            session::write_reports(&results, dir.path(), &report::Options::default()).unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, overhead);
criterion_main!(benches);
