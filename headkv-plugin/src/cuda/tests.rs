//! The GPU against the CPU's kernels; skipped, with a message, where there is no GPU.

use super::*;
use crate::{
    attention::{DecodeUnit, PromptShape, WindowShape, window_scores},
    cache::{self, KvShape},
    config::{Compression, Pooling, Reduce},
    selection::{self, Scores},
};
use candle_core::{DType, Device, Tensor};
use half::bf16;
use std::io::Write;

fn gpu() -> Option<Device> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(why) => {
            // Not println!, which the test harness keeps to itself when a test passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED: no GPU ({why})");
            None
        }
    }
}

fn random(device: &Device, shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, device)
        .and_then(|x| x.to_dtype(DType::BF16))
        .unwrap()
}

fn host(x: &Tensor) -> Vec<bf16> {
    x.flatten_all().and_then(|x| x.to_vec1()).unwrap()
}

fn close(gpu: &[bf16], cpu: &[bf16]) {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut gpu.iter().zip(cpu).map(|(a, b)| a.to_f64() - b.to_f64()));
    let size = norm(&mut cpu.iter().map(|b| b.to_f64()));
    assert!(
        difference <= 5e-3 * size,
        "relative error {}",
        difference / size
    );
}

#[test]
fn prompts_equal_the_cpu() {
    let Some(device) = gpu() else { return };
    for (head_dim, tokens, softcap) in [(32, 70, None), (64, 129, Some(2.0)), (128, 300, None)] {
        let (batch, heads, kv_heads, scale) = (2, 6, 2, 0.2);
        // As models make them: the heads of a token together.
        let make = |heads| {
            random(&device, &[batch, tokens, heads, head_dim])
                .transpose(1, 2)
                .unwrap()
        };
        let (q, k, v) = (make(heads), make(kv_heads), make(kv_heads));
        let out = prompt_attention(&q, &k, &v, scale, softcap).unwrap();
        assert_eq!(out.dims(), q.dims());
        let shape = PromptShape {
            batch,
            heads,
            kv_heads,
            tokens,
            head_dim,
            scale,
            softcap,
        };
        let mut expected = vec![bf16::ZERO; batch * heads * tokens * head_dim];
        crate::attention::prompt_attention(&host(&q), &host(&k), &host(&v), &shape, &mut expected);
        close(&host(&out), &expected);
    }
}

#[test]
fn ranking_and_selection_equal_the_cpu() {
    let Some(device) = gpu() else { return };
    let (heads, kv_heads, tokens, head_dim, window, scale) = (8, 2, 1500, 64, 8, 0.125);
    let q = random(&device, &[heads, tokens, head_dim]);
    let (k, v) = (
        random(&device, &[kv_heads, tokens, head_dim]),
        random(&device, &[kv_heads, tokens, head_dim]),
    );
    for (stored_heads, pooling, reduce) in [
        (2, Pooling::Max, Reduce::Mean),
        (8, Pooling::Average, Reduce::Max),
        (4, Pooling::Max, Reduce::Max),
    ] {
        let ranking = Ranking {
            window,
            kernel: 7,
            pooling,
            stored_heads,
            reduce,
            scale,
            softcap: None,
        };
        let on_device = rank(&q, &k, &ranking).unwrap();
        let scores = on_device.to_host().unwrap();
        let shape = WindowShape {
            heads,
            kv_heads,
            tokens,
            head_dim,
            window,
            scale,
            softcap: None,
        };
        let window_scores =
            Scores::new(tokens - window, window_scores(&host(&q), &host(&k), &shape));
        let config = Compression {
            pooling,
            reduce,
            ..Compression::default()
        };
        let expected = selection::rank(window_scores, heads / stored_heads, &config);
        for head in 0..stored_heads {
            for (a, b) in scores.row(head).iter().zip(expected.row(head)) {
                assert!((a - b).abs() <= 1e-4 * b.abs(), "{a} instead of {b}");
            }
        }
        // From the same scores, the same positions: what is kept by rank equals what is kept by position.
        let counts: Vec<usize> = (0..stored_heads)
            .map(|head| [0, 300, 9999, 1][head % 4])
            .collect();
        let by_rank = RaggedCache::keep_best(&k, &v, &on_device, &counts).unwrap();
        let kept: Vec<Vec<u32>> = (0..stored_heads)
            .map(|head| {
                let mut at = selection::best(scores.row(head), counts[head]);
                at.extend((tokens - window) as u32..tokens as u32);
                at
            })
            .collect();
        let by_position = RaggedCache::keep_at(&k, &v, &kept).unwrap();
        let rows = |cache: &RaggedCache| cache.read();
        assert!(rows(&by_rank) == rows(&by_position));
        let (keys, _) = rows(&by_position);
        let k = host(&k);
        let expected = kept.iter().enumerate().flat_map(|(head, at)| {
            let from = &k[head / (stored_heads / kv_heads) * tokens * head_dim..];
            at.iter()
                .flat_map(move |&at| &from[at as usize * head_dim..][..head_dim])
                .map(|x| x.to_bits())
        });
        assert!(keys.into_iter().eq(expected));
    }
}

#[test]
fn what_is_no_number_is_no_attention() {
    let Some(device) = gpu() else { return };
    let (heads, tokens, head_dim) = (2, 300, 64);
    let mut q = host(&random(&device, &[heads, tokens, head_dim]));
    // A query of the first head's window.
    q[(tokens - 1) * head_dim] = bf16::NAN;
    let q = Tensor::from_vec(q, (heads, tokens, head_dim), &device).unwrap();
    let k = random(&device, &[heads, tokens, head_dim]);
    let ranking = Ranking {
        window: 8,
        kernel: 7,
        pooling: Pooling::Max,
        stored_heads: heads,
        reduce: Reduce::Mean,
        scale: 0.125,
        softcap: None,
    };
    let scores = rank(&q, &k, &ranking).unwrap().to_host().unwrap();
    assert!(scores.row(0).iter().all(|&score| score == 0.0));
    assert!(scores.row(1).iter().all(|&score| score > 0.0));
}

#[test]
fn generated_tokens_equal_the_cpu() {
    let Some(device) = gpu() else { return };
    let (heads, kv_heads, head_dim, scale) = (6, 2, 64, 0.125);
    for stored_heads in [kv_heads, heads] {
        let mut on_gpu = Vec::new();
        let mut on_cpu = Vec::new();
        for tokens in [500, 40] {
            let (k, v) = (
                random(&device, &[kv_heads, tokens, head_dim]),
                random(&device, &[kv_heads, tokens, head_dim]),
            );
            let kept: Vec<Vec<u32>> = (0..stored_heads)
                .map(|h| (0..tokens as u32).step_by(h + 1).collect())
                .collect();
            on_gpu.push(RaggedCache::keep_at(&k, &v, &kept).unwrap());
            let shape = KvShape {
                kv_heads,
                tokens,
                head_dim,
            };
            on_cpu.push(cache::RaggedCache::compress(
                &host(&k),
                &host(&v),
                shape,
                &kept,
            ));
        }
        // Across the first two blocks' ends, and with a batch that changes on the way.
        for step in 0..150 {
            if step == 100 {
                (on_gpu.pop(), on_cpu.pop());
            }
            let batch = on_gpu.len();
            let make = |heads| random(&device, &[batch, heads, 1, head_dim]);
            let (q, k, v) = (make(heads), make(kv_heads), make(kv_heads));
            let mut caches: Vec<&mut RaggedCache> = on_gpu.iter_mut().collect();
            let out = decode_attention(&q, &k, &v, &mut caches, scale, None).unwrap();
            let (q, k, v) = (host(&q), host(&k), host(&v));
            let mut expected = vec![bf16::ZERO; q.len()];
            let (new, rows) = (kv_heads * head_dim, heads / stored_heads * head_dim);
            for (row, cache) in on_cpu.iter_mut().enumerate() {
                cache.append(&k[row * new..][..new], &v[row * new..][..new]);
            }
            let places = q.chunks(rows).zip(expected.chunks_mut(rows)).enumerate();
            let mut units: Vec<DecodeUnit<'_, bf16>> = places
                .map(|(i, (q, out))| {
                    let segments = on_cpu[i / stored_heads].segments(i % stored_heads);
                    DecodeUnit { q, segments, out }
                })
                .collect();
            crate::attention::decode_attention(&mut units, head_dim, scale, None);
            close(&host(&out), &expected);
        }
        assert_eq!(on_gpu[0].tail_tokens(), 150);
        assert_eq!(
            on_gpu[0].tail_bytes(),
            2 * kv_heads * head_dim * 2 * (64 + 64 + 128)
        );
    }
}

#[test]
fn memory_in_use_is_what_tensors_take() {
    let Some(device) = gpu() else { return };
    let bytes = || allocated_bytes(&device).unwrap().unwrap();
    // Other tests allocate at the same time, but nothing as large.
    let before = bytes();
    let x = Tensor::zeros((1 << 20, 256), DType::BF16, &device).unwrap();
    let with = bytes();
    drop(x);
    let after = bytes();
    for grown in [with - before, with - after] {
        assert!((480 << 20..544 << 20).contains(&grown), "{grown} bytes");
    }
    assert_eq!(allocated_bytes(&Device::Cpu).unwrap(), None);
}

#[test]
fn what_does_not_fit_is_named() {
    let Some(device) = gpu() else { return };
    let x = random(&device, &[1, 2, 8, 48]);
    let message = prompt_attention(&x, &x, &x, 1.0, None)
        .unwrap_err()
        .to_string();
    assert!(message.contains("head_dim must be"), "{message}");
    let x = x.to_dtype(DType::F32).unwrap();
    let message = prompt_attention(&x, &x, &x, 1.0, None)
        .unwrap_err()
        .to_string();
    assert!(message.contains("bf16 or f16"), "{message}");
}
