//! Selection from 4,096 tokens, and appending a token to heads that keep 64 or 4,096: the latter cost the same.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use headkv_plugin::{
    Compression, ModelShape, Policy,
    cache::RaggedCache,
    selection::{self, Scores},
};
use std::{convert::Infallible, hint::black_box};

const MODEL: ModelShape = ModelShape {
    layers: 1,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
};

fn append(c: &mut Criterion) {
    let new = vec![1.0f32; MODEL.kv_heads * MODEL.head_dim];
    for kept in [64, 4096] {
        let all = vec![0.5f32; MODEL.kv_heads * kept * MODEL.head_dim];
        let cache = || RaggedCache::keep_all(&all, &all, MODEL.kv_heads, MODEL.head_dim);
        c.bench_function(&format!("append 256 tokens, {kept} kept per head"), |b| {
            b.iter_batched_ref(
                cache,
                |cache| (0..256).for_each(|_| cache.append(&new, &new)),
                BatchSize::LargeInput,
            );
        });
    }
}

fn select(c: &mut Criterion) {
    let candidates = 4096 - 8;
    let values = (0..MODEL.heads * candidates)
        .map(|i| ((i * 7919) % 10_007) as f32)
        .collect();
    let window = Scores::new(candidates, values);
    for method in ["snapkv", "adakv"] {
        let config = Compression::new(method, 128);
        let policy = Policy::new(&config, MODEL, None).expect("a valid configuration");
        c.bench_function(
            &format!("select {method}@128 of 4,096 tokens, 32 heads"),
            |b| {
                b.iter(|| {
                    let rank = || {
                        Ok::<_, Infallible>(selection::rank(window.clone(), MODEL.group(), &config))
                    };
                    let budget = policy.budget(0, 4096).expect("a fitting budget");
                    let Ok(kept) = policy.select(&budget, 4096, rank);
                    black_box(kept)
                });
            },
        );
    }
}

criterion_group!(benches, append, select);
criterion_main!(benches);
