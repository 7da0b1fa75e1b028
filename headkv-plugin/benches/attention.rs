//! Attention of prompts and of generated tokens. Throughput counts floating-point operations: 4 per query head, visible
//! pair of tokens, and element of a head; so Gelem/s reads as GFLOP/s.

use candle_core::{D, Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use headkv_plugin::{
    AttentionShape,
    attention::{DecodeUnit, Element, Segment, decode_attention, prefill_attention, window_scores},
};
use std::hint::black_box;

const WINDOW: usize = 8;

/// Query heads, KV heads, elements of a head.
type Heads = (usize, usize, usize);
/// The embedded model's, and those of Llama 3 8B.
const MODELS: [Heads; 2] = [(8, 4, 32), (32, 8, 128)];

/// Elements between -1 and 1 without order.
fn elements<T: Element>(count: usize) -> Vec<T> {
    (0..count)
        .map(|i| T::narrow((i * 7919 % 10_007) as f32 / 5_003.0 - 1.0))
        .collect()
}

fn attention_shape((heads, kv_heads, head_dim): Heads) -> AttentionShape {
    AttentionShape {
        heads,
        kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        softcap: None,
        window: None,
        sinks: None,
    }
}

fn prompt_operations(s: &AttentionShape, tokens: usize) -> Throughput {
    Throughput::Elements((2 * s.heads * s.head_dim * tokens * (tokens + 1)) as u64)
}

fn inputs<T: Element>(s: &AttentionShape, tokens: usize) -> [Vec<T>; 3] {
    [s.heads, s.kv_heads, s.kv_heads].map(|heads| elements(heads * tokens * s.head_dim))
}

fn name(kind: &str, (heads, kv_heads, head_dim): Heads) -> String {
    format!("{kind}, {heads} heads of {kv_heads}, head_dim {head_dim}")
}

fn prompt(c: &mut Criterion) {
    for model in MODELS {
        let mut group = c.benchmark_group(name("prompt", model));
        group.sample_size(10);
        for tokens in [1024, 4096] {
            let shape = attention_shape(model);
            group.throughput(prompt_operations(&shape, tokens));
            let [q, k, v] = inputs::<f32>(&shape, tokens);
            let mut out = vec![0.0; q.len()];
            group.bench_function(BenchmarkId::new("f32", tokens), |b| {
                b.iter(|| prefill_attention(&q, &k, &v, 1, &shape, &mut out));
            });
            let [q, k, v] = inputs::<bf16>(&shape, tokens);
            let mut out = vec![bf16::ZERO; q.len()];
            group.bench_function(BenchmarkId::new("bf16", tokens), |b| {
                b.iter(|| prefill_attention(&q, &k, &v, 1, &shape, &mut out));
            });
        }
    }
}

/// The same by candle's products of whole matrices, which form every pair of tokens at once: what ours is compared with.
fn prompt_by_candle(c: &mut Criterion) {
    let model = MODELS[0];
    let mut group = c.benchmark_group(name("prompt by candle", model));
    group.sample_size(10);
    let (shape, tokens) = (attention_shape(model), 1024);
    group.throughput(prompt_operations(&shape, tokens));
    let mut attend = || -> candle_core::Result<()> {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
            ..
        } = shape;
        let [q, k, v] = inputs::<f32>(&shape, tokens);
        let grouped = (kv_heads, heads / kv_heads * tokens, head_dim);
        let q = Tensor::from_vec(q, grouped, &Device::Cpu)?;
        let [k, v] =
            [k, v].map(|x| Tensor::from_vec(x, (kv_heads, tokens, head_dim), &Device::Cpu));
        let (k, v) = (k?.t()?, v?);
        let hidden: Vec<f32> = (0..tokens * tokens)
            .map(|i| if i % tokens > i / tokens { -1e30 } else { 0.0 })
            .collect();
        let mask = Tensor::from_vec(hidden, (tokens, tokens), &Device::Cpu)?
            .repeat((heads / kv_heads, 1))?;
        group.bench_function(BenchmarkId::new("f32", tokens), |b| {
            b.iter(|| {
                let once = || -> candle_core::Result<Tensor> {
                    let logits = (q.matmul(&k)? * f64::from(shape.scale))?.broadcast_add(&mask)?;
                    let weights = logits
                        .broadcast_sub(&logits.max_keepdim(D::Minus1)?)?
                        .exp()?;
                    weights
                        .broadcast_div(&weights.sum_keepdim(D::Minus1)?)?
                        .matmul(&v)
                };
                once().expect("matching shapes")
            });
        });
        Ok(())
    };
    attend().expect("matching shapes");
}

fn window(c: &mut Criterion) {
    for model in MODELS {
        let mut group = c.benchmark_group(name("window", model));
        for tokens in [1024, 4096] {
            let shape = attention_shape(model);
            let [_, k, _] = inputs::<f32>(&shape, tokens);
            let q = elements::<f32>(shape.heads * WINDOW * shape.head_dim);
            group.bench_function(BenchmarkId::new("f32", tokens), |b| {
                b.iter(|| black_box(window_scores(&q, &k, &shape)));
            });
        }
    }
}

fn decode(c: &mut Criterion) {
    for model in MODELS {
        let mut group = c.benchmark_group(name("decode", model));
        for tokens in [24, 256, 4096] {
            decode_of::<f32>(&mut group, "f32", model, tokens);
            decode_of::<bf16>(&mut group, "bf16", model, tokens);
        }
    }
}

fn decode_of<T: Element>(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    element: &str,
    (heads, kv_heads, d): Heads,
    tokens: usize,
) {
    let (q, k, v) = (
        elements::<T>(heads * d),
        elements::<T>(kv_heads * tokens * d),
        elements::<T>(kv_heads * tokens * d),
    );
    let mut out = vec![T::default(); q.len()];
    group.throughput(Throughput::Elements((4 * heads * tokens * d) as u64));
    group.bench_function(BenchmarkId::new(element, tokens), |b| {
        b.iter(|| {
            let kv = k.chunks(tokens * d).zip(v.chunks(tokens * d));
            let rows = q
                .chunks(heads / kv_heads * d)
                .zip(out.chunks_mut(heads / kv_heads * d));
            let mut units: Vec<_> = kv
                .zip(rows)
                .map(|((keys, values), (q, out))| DecodeUnit {
                    q,
                    new: 1,
                    window: None,
                    sinks: &[],
                    segments: vec![Segment { keys, values }],
                    out,
                })
                .collect();
            decode_attention(&mut units, d, 0.2, None);
        });
    });
}

criterion_group!(benches, prompt, prompt_by_candle, window, decode);
criterion_main!(benches);
