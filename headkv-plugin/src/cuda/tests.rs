//! The GPU against the CPU's kernels; skipped, with a message, where there is no GPU.

use super::*;
use crate::{
    AttentionShape,
    backend::{Backend, KvCache},
    config::{Compression, Granularity, Pooling, Reduce},
    cpu::Cpu,
    ranking::Observed,
    selection,
};
use candle_core::{DType, Device, Tensor};
use half::bf16;
use std::{io::Write, sync::Arc};

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

/// Tokens of [`ranked`].
const TOKENS: usize = 1500;

/// The queries of a window, keys and values.
fn ranked(device: &Device) -> (AttentionShape, [Tensor; 3]) {
    let shape = AttentionShape {
        heads: 8,
        scale: 0.125,
        ..SHAPE
    };
    let rows = [
        (shape.heads, 8),
        (shape.kv_heads, TOKENS),
        (shape.kv_heads, TOKENS),
    ];
    let rows = rows.map(|(heads, tokens)| random(device, &[heads, tokens, shape.head_dim]));
    (shape, rows)
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

const SHAPE: AttentionShape = AttentionShape {
    heads: 6,
    kv_heads: 2,
    head_dim: 64,
    scale: 0.2,
    softcap: None,
    window: None,
    sinks: None,
};

/// The same tensor for the CPU's backend.
fn cpu(x: &Tensor) -> Tensor {
    x.to_device(&Device::Cpu).unwrap()
}

fn reference() -> Cpu<bf16> {
    Cpu::default()
}

#[test]
fn prompts_equal_the_cpu() {
    let Some(device) = gpu() else { return };
    for (head_dim, past, new, softcap) in [
        (32, 0, 70, None),
        (64, 0, 129, Some(2.0)),
        (128, 0, 300, None),
        (64, 200, 1, None),
        (64, 100, 7, Some(2.0)),
        (128, 300, 200, None),
    ] {
        let shape = AttentionShape {
            head_dim,
            softcap,
            ..SHAPE
        };
        // As models make them: the heads of a token together.
        let make = |heads, tokens| {
            random(&device, &[2, tokens, heads, head_dim])
                .transpose(1, 2)
                .unwrap()
        };
        let q = make(shape.heads, new);
        let [k, v] = [(); 2].map(|()| make(shape.kv_heads, past + new));
        let out = Cuda::default().prefill(&q, &k, &v, &shape).unwrap();
        assert_eq!(out.dims(), q.dims());
        let expected = reference().prefill(&cpu(&q), &cpu(&k), &cpu(&v), &shape);
        close(&host(&out), &host(&expected.unwrap()));
    }
}

#[test]
fn ranking_and_selection_equal_the_cpu() {
    let Some(device) = gpu() else { return };
    let gpu = Cuda::default();
    let (shape, [q, k, v]) = ranked(&device);
    for (granularity, pooling, reduce) in [
        (Granularity::KvHead, Pooling::Max, Reduce::Mean),
        (Granularity::QueryHead, Pooling::Average, Reduce::Max),
        (Granularity::KvHead, Pooling::Max, Reduce::Max),
    ] {
        let config = Compression {
            granularity,
            pooling,
            reduce,
            // The second one pools by the average, which has no bounds.
            pool_before: (pooling == Pooling::Max).then_some(7),
            pool_after: (pooling == Pooling::Max).then_some(24),
            pool_decay: (reduce == Reduce::Mean).then_some(0.8),
            ..Compression::default()
        };
        let stored_heads = shape.stored_heads(granularity);
        let prompt = Observed::new(&q, &k, &v, &shape);
        let on_device = gpu.rank(&prompt, None, &config).unwrap();
        let scores = gpu.to_host(&on_device).unwrap();
        let [q, k_cpu, v_cpu] = [&q, &k, &v].map(cpu);
        let prompt = Observed::new(&q, &k_cpu, &v_cpu, &shape);
        let expected = reference().rank(&prompt, None, &config).unwrap();
        for head in 0..stored_heads {
            for (a, b) in scores.row(head).iter().zip(expected.row(head)) {
                assert!((a - b).abs() <= 1e-4 * b.abs(), "{a} instead of {b}");
            }
        }
        // From the same scores, the same positions: what is kept by rank equals what is kept by position.
        let counts: Vec<usize> = (0..stored_heads)
            .map(|head| [0, 300, 9999, 1][head % 4])
            .collect();
        let recent = 5;
        let by_rank = gpu.keep_best(&k, &v, &on_device, &counts, recent).unwrap();
        let kept: Vec<Vec<u32>> = (0..stored_heads)
            .map(|head| {
                let mut at = selection::best(scores.row(head), counts[head]);
                at.extend((TOKENS - recent) as u32..TOKENS as u32);
                at
            })
            .collect();
        let by_position = RaggedCache::keep_at(&k, &v, &kept).unwrap();
        let rows = |cache: &RaggedCache| cache.read();
        assert!(rows(&by_rank) == rows(&by_position));
        let (keys, _) = rows(&by_position);
        let (k, d) = (host(&k), shape.head_dim);
        let expected = kept.iter().enumerate().flat_map(|(head, at)| {
            let from = &k[head / (stored_heads / shape.kv_heads) * TOKENS * d..];
            at.iter()
                .flat_map(move |&at| &from[at as usize * d..][..d])
                .map(|x| x.to_bits())
        });
        assert!(keys.into_iter().eq(expected));
    }
}

/// A ranking's scores on the device and here, which are the CPU's within that part of them.
fn ranks(
    gpu: &Cuda,
    name: &str,
    shape: &AttentionShape,
    [q, k, v]: [&Tensor; 3],
    config: &Compression,
    within: f32,
) -> (DeviceScores, selection::Scores) {
    let ranking = crate::ranking::find(name).unwrap().ranking;
    let prompt = Observed::new(q, k, v, shape);
    let on_device = gpu.rank(&prompt, ranking.as_deref(), config).unwrap();
    let scores = gpu.to_host(&on_device).unwrap();
    let [q, k, v] = [q, k, v].map(cpu);
    let prompt = Observed::new(&q, &k, &v, shape);
    let expected = reference().rank(&prompt, ranking.as_deref(), config);
    let expected = expected.unwrap();
    for head in 0..shape.kv_heads {
        for (a, b) in scores.row(head).iter().zip(expected.row(head)) {
            assert!(
                (a - b).abs() <= within * b.abs(),
                "{name}: {a} instead of {b}"
            );
        }
    }
    (on_device, scores)
}

#[test]
fn rankings_equal_the_cpu() {
    let Some(device) = gpu() else { return };
    let gpu = Cuda::default();
    let (shape, [q, k, v]) = ranked(&device);
    // One with a kernel; one of tensors, whose scores are negative; and the mean of neighbours of it.
    for (name, pooling, within) in [
        ("drop", Pooling::Max, 2e-4),
        ("keydiff", Pooling::Max, 2e-3),
        ("keydiff", Pooling::Average, 2e-3),
    ] {
        let config = Compression {
            pooling,
            pool_after: (pooling == Pooling::Max).then_some(24),
            ..Compression::default()
        };
        let (on_device, scores) = ranks(&gpu, name, &shape, [&q, &k, &v], &config, within);
        // From the same scores, the same numbers of positions.
        for (total, floor) in [(700, 20), (900, 0), (40, 20), (99_999, 3)] {
            let weights = [0.3, 1.7];
            let counts = gpu.compete(&on_device, total, floor, &weights).unwrap();
            let expected = selection::compete(&scores, total, floor, &weights);
            assert_eq!(counts, expected, "{name}: {total} with {floor} sure");
        }
    }
}

#[test]
fn sinks_weigh_as_on_the_cpu() {
    let Some(device) = gpu() else { return };
    let gpu = Cuda::default();
    // Two layers: what one has must not be the other's.
    for layer in 0..2 {
        let (shape, [q, k, v]) = ranked(&device);
        let sinks = (0..shape.heads).map(|head| 3.0 * layer as f32 + head as f32 / 2.0 - 1.0);
        let shape = AttentionShape {
            sinks: Some(sinks.collect()),
            ..shape
        };
        let whole = random(&device, &[1, shape.heads, TOKENS, shape.head_dim]);
        let [keys, values] = [&k, &v].map(|x| x.unsqueeze(0).unwrap());
        let out = gpu.prefill(&whole, &keys, &values, &shape).unwrap();
        let [whole, keys, values] = [&whole, &keys, &values].map(cpu);
        let expected = reference().prefill(&whole, &keys, &values, &shape).unwrap();
        close(
            &host(&out.contiguous().unwrap()),
            &host(&expected.contiguous().unwrap()),
        );

        for name in ["window", "drop"] {
            let config = Compression::default();
            ranks(&gpu, name, &shape, [&q, &k, &v], &config, 2e-4);
        }

        let mut on_gpu = gpu.keep_all(&k, &v).unwrap();
        let mut on_cpu = reference().keep_all(&cpu(&k), &cpu(&v)).unwrap();
        for _ in 0..70 {
            let make = |heads| random(&device, &[1, heads, 1, shape.head_dim]);
            let [q, k, v] = [shape.heads, shape.kv_heads, shape.kv_heads].map(make);
            let out = gpu.extend(layer, &q, &k, &v, &shape, &mut [&mut on_gpu]);
            let [q, k, v] = [&q, &k, &v].map(cpu);
            let expected = reference().extend(layer, &q, &k, &v, &shape, &mut [&mut on_cpu]);
            close(&host(&out.unwrap()), &host(&expected.unwrap()));
        }
    }
}

#[test]
fn what_is_no_number_is_no_attention() {
    let Some(device) = gpu() else { return };
    let shape = AttentionShape { heads: 2, ..SHAPE };
    let (tokens, window, head_dim) = (300, 8, shape.head_dim);
    let mut q = host(&random(&device, &[shape.heads, window, head_dim]));
    // A query of the first head's window.
    q[(window - 1) * head_dim] = bf16::NAN;
    let q = Tensor::from_vec(q, (shape.heads, window, head_dim), &device).unwrap();
    let k = random(&device, &[shape.kv_heads, tokens, head_dim]);
    let gpu = Cuda::default();
    let scores = gpu.rank(
        &Observed::new(&q, &k, &k, &shape),
        None,
        &Compression::default(),
    );
    let scores = gpu.to_host(&scores.unwrap()).unwrap();
    assert!(scores.row(0).iter().all(|&score| score == 0.0));
    assert!(scores.row(1).iter().all(|&score| score > 0.0));
}

#[test]
fn generated_tokens_equal_the_cpu() {
    let Some(device) = gpu() else { return };
    let (shape, gpu) = (SHAPE, Cuda::default());
    for stored_heads in [shape.kv_heads, shape.heads] {
        let (mut on_gpu, mut on_cpu) = (Vec::new(), Vec::new());
        for tokens in [500, 40] {
            let [k, v] =
                [(); 2].map(|()| random(&device, &[shape.kv_heads, tokens, shape.head_dim]));
            let kept: Vec<Vec<u32>> = (0..stored_heads)
                .map(|h| (0..tokens as u32).step_by(h + 1).collect())
                .collect();
            on_gpu.push(gpu.keep_at(&k, &v, &kept).unwrap());
            on_cpu.push(reference().keep_at(&cpu(&k), &cpu(&v), &kept).unwrap());
        }
        // Across the first blocks' ends, which the sequences reach at different steps, with several tokens at once, a batch
        // that changes on the way, and a fork whose other half must stay as it is.
        let mut forked = None;
        for step in 0..150 {
            if step == 33 {
                let [k, v] =
                    [(); 2].map(|()| random(&device, &[shape.kv_heads, 300, shape.head_dim]));
                on_gpu.push(gpu.keep_all(&k, &v).unwrap());
                on_cpu.push(reference().keep_all(&cpu(&k), &cpu(&v)).unwrap());
            }
            if step == 100 {
                forked = Some((on_gpu[0].fork().unwrap(), on_cpu[0].fork()));
                on_gpu.remove(1);
                on_cpu.remove(1);
            }
            let new = if step == 20 { 7 } else { 1 };
            let batch = on_gpu.len();
            let make = |heads| random(&device, &[batch, heads, new, shape.head_dim]);
            let [q, k, v] = [shape.heads, shape.kv_heads, shape.kv_heads].map(make);
            let mut caches: Vec<_> = on_gpu.iter_mut().collect();
            let out = gpu.extend(0, &q, &k, &v, &shape, &mut caches).unwrap();
            let mut caches: Vec<_> = on_cpu.iter_mut().collect();
            let [q, k, v] = [&q, &k, &v].map(cpu);
            let expected = reference().extend(0, &q, &k, &v, &shape, &mut caches);
            close(&host(&out), &host(&expected.unwrap()));
        }
        assert_eq!(on_gpu[0].tail_tokens(), 156);
        let words = 2 * shape.kv_heads * shape.head_dim * (64 + 64 + 128);
        assert_eq!(on_gpu[0].tail_bytes(), 2 * words);
        let (mut gpu_fork, mut cpu_fork) = forked.unwrap();
        let make = |heads| random(&device, &[1, heads, 1, shape.head_dim]);
        let [q, k, v] = [shape.heads, shape.kv_heads, shape.kv_heads].map(make);
        let out = gpu.extend(0, &q, &k, &v, &shape, &mut [&mut gpu_fork]);
        let [q, k, v] = [&q, &k, &v].map(cpu);
        let expected = reference().extend(0, &q, &k, &v, &shape, &mut [&mut cpu_fork]);
        close(&host(&out.unwrap()), &host(&expected.unwrap()));
    }
}

#[test]
fn windows_slide_as_on_the_cpu() {
    let Some(device) = gpu() else { return };
    let gpu = Cuda::default();
    for window in [50, 200] {
        let shape = AttentionShape {
            window: Some(window),
            ..SHAPE
        };
        let (mut on_gpu, mut on_cpu) = (Vec::new(), Vec::new());
        // Prompts longer and shorter than the window, which then fills up.
        for tokens in [260, 40] {
            let make = |heads| random(&device, &[1, heads, tokens, shape.head_dim]);
            let [q, k, v] = [shape.heads, shape.kv_heads, shape.kv_heads].map(make);
            let out = gpu.prefill(&q, &k, &v, &shape).unwrap();
            let [k1, v1] = [&k, &v].map(|x| x.squeeze(0).unwrap());
            on_gpu.push(gpu.keep_last(&k1, &v1, window).unwrap());
            let [q, k, v, k1, v1] = [&q, &k, &v, &k1, &v1].map(cpu);
            let expected = reference().prefill(&q, &k, &v, &shape).unwrap();
            close(&host(&out), &host(&expected));
            on_cpu.push(reference().keep_last(&k1, &v1, window).unwrap());
        }
        let step = |on_gpu: &mut [RaggedCache], on_cpu: &mut [_], new| {
            let make = |heads| random(&device, &[on_gpu.len(), heads, new, shape.head_dim]);
            let [q, k, v] = [shape.heads, shape.kv_heads, shape.kv_heads].map(make);
            let mut caches: Vec<_> = on_gpu.iter_mut().collect();
            let out = gpu.extend(0, &q, &k, &v, &shape, &mut caches).unwrap();
            let mut caches: Vec<_> = on_cpu.iter_mut().collect();
            let [q, k, v] = [&q, &k, &v].map(cpu);
            let expected = reference().extend(0, &q, &k, &v, &shape, &mut caches);
            close(&host(&out), &host(&expected.unwrap()));
        };
        for at in 0..250 {
            step(&mut on_gpu, &mut on_cpu, if at == 20 { 7 } else { 1 });
        }
        let words = 2 * shape.kv_heads * shape.head_dim * window;
        for cache in &on_gpu {
            assert_eq!((cache.kept_bytes(), cache.tail_bytes()), (0, 2 * words));
        }
        // A fork goes on by itself, and so does what it was forked from.
        let mut forks = [on_gpu[0].fork().unwrap()];
        let mut expected = [on_cpu[0].fork()];
        for _ in 0..3 {
            step(&mut forks, &mut expected, 1);
            step(&mut on_gpu, &mut on_cpu, 1);
        }
    }
}

#[test]
fn products_of_few_rows_equal_the_cpu() {
    let Some(device) = gpu() else { return };
    for (outputs, inputs) in [(64, 40), (1001, 4096), (7, 14336), (4096, 512), (3, 8)] {
        let weight = random(&device, &[outputs, inputs]);
        let linear = Linear::new(&weight, &Arc::default()).unwrap().unwrap();
        let check = |x: Tensor| {
            let out = candle_core::Module::forward(&linear, &x).unwrap();
            assert_eq!(out.dims(), [x.dims()[0], outputs]);
            let [x, weight] = [&x, &weight].map(|x| cpu(x).to_dtype(DType::F32).unwrap());
            let expected = x.matmul(&weight.t().unwrap()).unwrap();
            close(&host(&out), &host(&expected.to_dtype(DType::BF16).unwrap()));
        };
        for rows in [1, 2, 3, 8, 11, 16, 17] {
            check(random(&device, &[rows, inputs]));
        }
        // Rows that lie apart, as the last ones of prompts do.
        let x = random(&device, &[3, 5, inputs]).narrow(1, 4, 1).unwrap();
        check(x.squeeze(1).unwrap());
    }
}

#[test]
fn layers_of_the_same_rows_are_multiplied_together() {
    let Some(device) = gpu() else { return };
    let siblings = Arc::default();
    let inputs = 512;
    // Queries, keys and values; then a gate and what goes through it, neither of them small.
    let weights: Vec<Tensor> = [1024, 256, 256, 2304, 2304]
        .map(|outputs| random(&device, &[outputs, inputs]))
        .into();
    let layers: Vec<Linear> = weights
        .iter()
        .map(|weight| Linear::new(weight, &siblings).unwrap().unwrap())
        .collect();
    let expected = |x: &Tensor, layer: usize| {
        let [x, weight] = [x, &weights[layer]].map(|x| cpu(x).to_dtype(DType::F32).unwrap());
        let out = x.matmul(&weight.t().unwrap()).unwrap();
        host(&out.to_dtype(DType::BF16).unwrap())
    };
    let check = |x: &Tensor, layer: usize| {
        // As the runtime calls it: another view of the same rows each time.
        let rows = x.dim(0).unwrap();
        let view = x.reshape((1, rows, inputs)).unwrap();
        let out =
            candle_core::Module::forward(&layers[layer], &view.reshape((rows, inputs)).unwrap());
        close(&host(&out.unwrap()), &expected(x, layer));
    };
    for rows in [1, 3, 16, 64, 300, 256, 1] {
        for step in 0..3 {
            let (x, y) = (
                random(&device, &[rows, inputs]),
                random(&device, &[rows, inputs]),
            );
            (0..3).for_each(|layer| check(&x, layer));
            // Once a layer is left out, and once another order is asked for.
            match (rows, step) {
                (256, 1) => check(&y, 3),
                (256, 2) => [4, 3].into_iter().for_each(|layer| check(&y, layer)),
                _ => [3, 4].into_iter().for_each(|layer| check(&y, layer)),
            }
        }
    }
    // Another order than before.
    let z = random(&device, &[1, inputs]);
    [2, 0, 1].into_iter().for_each(|layer| check(&z, layer));

    // Together, and not one by one: the first one's product brings the others', few rows or many.
    let siblings = Arc::<Siblings>::default();
    let of = |weight| Linear::new(weight, &siblings).unwrap().unwrap();
    let layers: Vec<Linear> = weights[..3].iter().map(of).collect();
    let x = [1, 1, 90].map(|rows| random(&device, &[rows, inputs]));
    let waiting = x.iter().flat_map(|x| {
        let layers = layers.iter();
        let run = layers.map(move |layer| candle_core::Module::forward(layer, x).map(|_| ()));
        run.map(|out| out.map(|()| siblings.waiting()).unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(waiting.collect::<Vec<_>>(), [0, 0, 0, 2, 1, 0, 2, 1, 0]);
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
    let message = prompt::prompt_attention(&x, &x, &x, &SHAPE, 0)
        .unwrap_err()
        .to_string();
    assert!(message.contains("head_dim must be"), "{message}");
    let x = x.to_dtype(DType::F32).unwrap();
    let message = prompt::prompt_attention(&x, &x, &x, &SHAPE, 0)
        .unwrap_err()
        .to_string();
    assert!(message.contains("bf16 or f16"), "{message}");
}
