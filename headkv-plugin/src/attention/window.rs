//! Scores of all positions before the window by the window's attention (SnapKV, arXiv 2404.14469, section 4.1).

use super::{
    Element,
    exponential::{LogitScale, MASKED, largest, weights},
    matrix::Aligned,
    panels::{key_size, multiply_keys, pack_keys},
};
use crate::shape::AttentionShape;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::f32::consts::LOG2_E;

/// Keys per block.
const KEYS: usize = 128;

/// The attention probabilities of the observation window's queries, summed over the window, `(heads, candidates)`.
///
/// The window is the last tokens of the prompt, the candidates are those before it. Each query's softmax runs over all
/// keys up to its own. `q` is `(heads, window, head_dim)`, `k` `(kv_heads, candidates + window, head_dim)`, contiguous.
pub fn window_scores<T: Element>(q: &[T], k: &[T], shape: &AttentionShape) -> Vec<f32> {
    scores(Arch::new(), q, k, shape, |sum, probability| {
        sum + probability
    })
}

/// As [`window_scores`], the largest probability over the window in place of the sum (KVzip, arXiv 2505.23416, section 3).
pub fn window_peaks<T: Element>(q: &[T], k: &[T], shape: &AttentionShape) -> Vec<f32> {
    scores(Arch::new(), q, k, shape, f32::max)
}

/// `fold` takes the probabilities of one position in, query by query, from 0 on.
fn scores<T: Element>(
    arch: Arch,
    q: &[T],
    k: &[T],
    shape: &AttentionShape,
    fold: impl Fn(f32, f32) -> f32 + Copy + Sync,
) -> Vec<f32> {
    let AttentionShape {
        heads,
        kv_heads,
        head_dim,
        ..
    } = *shape;
    let (window, tokens) = (q.len() / (heads * head_dim), shape.tokens(k));
    let (size, rows, candidates) = (
        tokens * head_dim,
        heads / kv_heads * window,
        tokens - window,
    );
    let scale = LogitScale::new(shape.scale, shape.softcap);

    // The windows of heads that share a KV head are the rows of one product.
    let mut queries = Vec::new();
    let queries: Vec<f32> = T::widen(q, &mut queries)
        .iter()
        .map(|x| x * scale.query)
        .collect();
    let blocks = tokens.div_ceil(KEYS);
    let mut logits = Aligned::default();
    let logits = logits.get(kv_heads * blocks * rows * KEYS);
    let keys: Vec<&[T]> = k
        .chunks(size)
        .flat_map(|head| head.chunks(KEYS * head_dim))
        .collect();
    let work = keys
        .par_iter()
        .zip(logits.par_chunks_mut(rows * KEYS))
        .enumerate();
    work.for_each_init(Default::default, |(packed, buffer), (i, (keys, logits))| {
        let queries = &queries[i / blocks * rows * head_dim..][..rows * head_dim];
        arch.dispatch(Logits {
            queries,
            keys,
            head_dim,
            scale,
            logits,
            packed,
            buffer,
        });
    });

    let mut scores = vec![0.0; heads * candidates];
    scores
        .par_chunks_mut(candidates)
        .enumerate()
        .for_each(|(head, scores)| {
            let first = head * window;
            let logits = &logits[first / rows * blocks * rows * KEYS..][..blocks * rows * KEYS];
            for t in 0..window {
                // `(blocks, KEYS)`, blocks `rows` rows apart.
                let row = &logits[(first % rows + t) * KEYS..];
                arch.dispatch(Row {
                    logits: row,
                    stride: rows * KEYS,
                    visible: candidates + t + 1,
                    sink: shape.sinks_of(head, 1).first().copied(),
                    scores,
                    fold,
                });
            }
        });
    scores
}

/// The logits `(rows, KEYS)` of one block of keys.
struct Logits<'a, T> {
    queries: &'a [f32],
    keys: &'a [T],
    head_dim: usize,
    scale: LogitScale,
    logits: &'a mut [f32],
    packed: &'a mut Aligned,
    buffer: &'a mut Vec<f32>,
}

impl<T: Element> WithSimd for Logits<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            queries,
            keys,
            head_dim: d,
            scale,
            logits,
            packed,
            buffer,
        } = self;
        let packed = packed.get(key_size(KEYS, d));
        pack_keys(keys, d, packed, buffer);
        multiply_keys(
            simd,
            queries,
            packed,
            (logits, KEYS),
            [queries.len() / d, d, keys.len() / d],
        );
        scale.cap(simd, logits);
    }
}

/// One query's logits in blocks of `KEYS`, `stride` apart, of which the first `visible` count.
struct Row<'a, F> {
    logits: &'a [f32],
    stride: usize,
    visible: usize,
    /// The logit of the head's sink, in base e.
    sink: Option<f32>,
    scores: &'a mut [f32],
    fold: F,
}

impl<F: Fn(f32, f32) -> f32> WithSimd for Row<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            logits,
            stride,
            visible,
            sink,
            scores,
            fold,
        } = self;
        let mut row = vec![MASKED; visible.next_multiple_of(KEYS)];
        for (to, from) in row[..visible].chunks_mut(KEYS).zip(logits.chunks(stride)) {
            to.copy_from_slice(&from[..to.len()]);
        }
        let sink = sink.map_or(MASKED, |sink| sink * LOG2_E);
        let most = largest(simd, &row).max(sink);
        let factor = 1.0 / (weights(simd, &mut row, most) + (sink - most).exp2());
        scores
            .iter_mut()
            .zip(&row)
            .for_each(|(score, weight)| *score = fold(*score, weight * factor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::reference::{close, levels, random};
    use half::bf16;

    fn reference<T: Element>(
        q: &[T],
        k: &[T],
        s: &AttentionShape,
        fold: fn(f64, f64) -> f64,
    ) -> Vec<f32> {
        let wide = |x: &[T]| -> Vec<f64> {
            T::widen(x, &mut Vec::new())
                .iter()
                .map(|x| f64::from(*x))
                .collect()
        };
        let (q, k, d) = (wide(q), wide(k), s.head_dim);
        let (window, tokens) = (q.len() / (s.heads * d), k.len() / (s.kv_heads * d));
        let candidates = tokens - window;
        let mut scores = vec![0.0; s.heads * candidates];
        for head in 0..s.heads {
            let kv = head / (s.heads / s.kv_heads);
            for t in candidates..tokens {
                let logit = |j: usize| {
                    let (q, k) = (
                        &q[(head * window + t - candidates) * d..][..d],
                        &k[(kv * tokens + j) * d..][..d],
                    );
                    let x = q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() * f64::from(s.scale);
                    s.softcap
                        .map_or(x, |c| f64::from(c) * (x / f64::from(c)).tanh())
                };
                let weights: Vec<f64> = (0..=t).map(|j| logit(j).exp()).collect();
                let sink = s
                    .sinks_of(head, 1)
                    .first()
                    .map(|sink| f64::from(*sink).exp());
                let sum = weights.iter().sum::<f64>() + sink.unwrap_or(0.0);
                for j in 0..candidates {
                    let score = &mut scores[head * candidates + j];
                    *score = fold(*score, weights[j] / sum);
                }
            }
        }
        scores.into_iter().map(|x| x as f32).collect()
    }

    #[test]
    fn equals_the_definition() {
        for (heads, kv_heads, tokens, head_dim, window) in [
            (4, 2, 9, 32, 8),
            (4, 4, 200, 20, 8),
            (8, 1, 65, 64, 1),
            (6, 2, 130, 80, 16),
        ] {
            let sinks: Vec<f32> = (0..heads).map(|head| head as f32 / 2.0).collect();
            for (softcap, sinks) in [(None, None), (Some(1.5), None), (None, Some(sinks.into()))] {
                let s = AttentionShape {
                    heads,
                    kv_heads,
                    head_dim,
                    scale: 0.4,
                    softcap,
                    window: None,
                    sinks,
                };
                let (q, k) = (
                    random::<f32>(heads * window * head_dim, 1),
                    random::<f32>(kv_heads * tokens * head_dim, 2),
                );
                let sums = reference(&q, &k, &s, |sum, p| sum + p);
                let peaks = reference(&q, &k, &s, f64::max);
                for level in levels() {
                    close(&scores(level, &q, &k, &s, |sum, p| sum + p), &sums, 3e-6);
                    close(&scores(level, &q, &k, &s, f32::max), &peaks, 3e-6);
                }
                let (q, k) = (
                    random::<bf16>(heads * window * head_dim, 1),
                    random::<bf16>(kv_heads * tokens * head_dim, 2),
                );
                let sums = reference(&q, &k, &s, |sum, p| sum + p);
                let peaks = reference(&q, &k, &s, f64::max);
                for level in levels() {
                    close(&scores(level, &q, &k, &s, |sum, p| sum + p), &sums, 3e-6);
                    close(&scores(level, &q, &k, &s, f32::max), &peaks, 3e-6);
                }
            }
        }
    }
}
