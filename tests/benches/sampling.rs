//! What sampling adds to a decode step of 64 sequences with Llama-3's vocabulary, on the host: upstream's sampler, which
//! asking for log-probabilities selects, against ours. Logits are in bf16, as a model gives them.

use candle_core::{DType, Device, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use mistralrs_core::batch_sampling::{Isaac64Rng, Sampler};
use rand::SeedableRng;
use std::{
    hint::black_box,
    sync::{Arc, Mutex},
    time::Duration,
};

const SEQUENCES: usize = 64;
const VOCABULARY: usize = 128_256;

fn step(c: &mut Criterion) {
    let logits = Tensor::randn(0f32, 5.0, (SEQUENCES, VOCABULARY), &Device::Cpu).unwrap();
    let logits = logits.to_dtype(DType::BF16).unwrap();
    let mut group = c.benchmark_group("sampling, 64 sequences");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(10));
    for (name, temperature, top_k, top_p) in [
        ("greedy", None, -1, 1.0),
        ("temperature 0.7", Some(0.7), -1, 1.0),
        ("temperature 0.7, top-p 0.9", Some(0.7), -1, 0.9),
        ("temperature 0.7, top-k 50", Some(0.7), 50, 1.0),
    ] {
        let sampler = Sampler::new(
            temperature,
            0,
            None,
            None,
            None,
            None,
            None,
            top_k,
            top_p,
            0.0,
            Vec::new(),
        );
        let sampler = sampler.unwrap();
        for (side, upstream) in [("upstream", true), ("ours", false)] {
            group.bench_function(format!("{name}, {side}"), |b| {
                b.iter(|| {
                    let rng = Arc::new(Mutex::new(Isaac64Rng::seed_from_u64(1)));
                    for row in 0..SEQUENCES {
                        let row = logits.get(row).unwrap();
                        let token = sampler.sample(row, &[0], upstream, rng.clone(), false, true);
                        black_box(token.unwrap().token);
                    }
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
