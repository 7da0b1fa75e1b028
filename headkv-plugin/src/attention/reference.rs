//! Attention straight from its definition in f64, for tests.

use super::Element;
use pulp::Arch;
use rand::{Rng, SeedableRng};

/// Elements uniform in -1..1.
pub fn random<T: Element>(count: usize, seed: u64) -> Vec<T> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|_| T::narrow(rng.random_range(-1.0..1.0)))
        .collect()
}

/// Attention of every row of `q` to all keys, `(rows, d)`.
pub fn attention<T: Element>(
    q: &[T],
    k: &[T],
    v: &[T],
    d: usize,
    scale: f32,
    softcap: Option<f32>,
) -> Vec<f32> {
    let wide = |x: &[T]| -> Vec<f64> {
        T::widen(x, &mut Vec::new())
            .iter()
            .map(|x| f64::from(*x))
            .collect()
    };
    let (q, k, v) = (wide(q), wide(k), wide(v));
    let row = |q: &[f64]| {
        let logit = |k: &[f64]| {
            let x = q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() * f64::from(scale);
            softcap.map_or(x, |c| f64::from(c) * (x / f64::from(c)).tanh())
        };
        let weights: Vec<f64> = k.chunks(d).map(|k| logit(k).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let column = |i: usize| {
            weights
                .iter()
                .zip(v.chunks(d))
                .map(|(w, v)| w * v[i])
                .sum::<f64>()
        };
        (0..d).map(|i| (column(i) / sum) as f32).collect::<Vec<_>>()
    };
    q.chunks(d).flat_map(row).collect()
}

/// Attention of one query to all keys and to a sink of that logit, `(d)`.
pub fn with_sink(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    scale: f32,
    softcap: Option<f32>,
    sink: f32,
) -> Vec<f32> {
    let d = q.len();
    // Of all weight, what the sink leaves.
    let logit = |k: &[f32]| {
        let dot: f64 = q.iter().zip(k).map(|(a, b)| f64::from(a * b)).sum();
        let x = dot * f64::from(scale);
        softcap.map_or(x, |c| f64::from(c) * (x / f64::from(c)).tanh())
    };
    let sum: f64 = k.chunks(d).map(|k| logit(k).exp()).sum();
    let rest = (sum / (sum + f64::from(sink).exp())) as f32;
    let mut out = attention(q, k, v, d, scale, softcap);
    out.iter_mut().for_each(|x| *x *= rest);
    out
}

/// Panics where two results differ by more than the tolerance.
pub fn close<T: Element>(ours: &[T], exact: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), exact.len());
    for (i, (a, b)) in T::widen(ours, &mut Vec::new())
        .iter()
        .zip(exact)
        .enumerate()
    {
        assert!(
            (a - b).abs() <= tolerance,
            "element {i}: {a} instead of {b}"
        );
    }
}

/// Every instruction set that this machine has.
pub fn levels() -> Vec<Arch> {
    let mut levels = vec![Arch::Scalar, Arch::new()];
    #[cfg(target_arch = "x86_64")]
    levels.extend(pulp::x86::V3::try_new().map(Arch::V3));
    levels
}
