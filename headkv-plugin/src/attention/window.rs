//! Scores of all positions before the window by the window's attention (SnapKV, arXiv 2404.14469, section 4.1).

use super::{Element, simd};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// What [`window_scores`] is given.
#[derive(Clone, Copy, Debug)]
pub struct WindowShape {
    /// Query heads.
    pub heads: usize,
    /// KV heads; query head `h` reads KV head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Tokens of the prompt, more than the window.
    pub tokens: usize,
    /// Elements of one head's key.
    pub head_dim: usize,
    /// Tokens of the window, the prompt's last.
    pub window: usize,
    /// Factor on the logits.
    pub scale: f32,
    /// Soft cap on the scaled logits.
    pub softcap: Option<f32>,
}

/// The attention probabilities of the window's queries, summed over the window, `(heads, tokens - window)`.
///
/// Each query's softmax runs over all keys up to its own. `q` is `(heads, tokens, head_dim)`, `k` `(kv_heads, tokens,
/// head_dim)`, contiguous.
pub fn window_scores<T: Element>(q: &[T], k: &[T], shape: &WindowShape) -> Vec<f32> {
    let (size, group) = (shape.tokens * shape.head_dim, shape.heads / shape.kv_heads);
    let candidates = shape.tokens - shape.window;
    let mut scores = vec![0.0; shape.heads * candidates];
    let arch = Arch::new();
    scores
        .par_chunks_mut(candidates)
        .enumerate()
        .for_each(|(head, scores)| {
            let (q, k) = (&q[head * size..][..size], &k[head / group * size..][..size]);
            arch.dispatch(Head {
                q,
                k,
                shape,
                scores,
            });
        });
    scores
}

struct Head<'a, T> {
    q: &'a [T],
    k: &'a [T],
    shape: &'a WindowShape,
    scores: &'a mut [f32],
}

impl<T: Element> WithSimd for Head<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        /// Tokens converted at once.
        const KEYS: usize = 64;
        let Self {
            q,
            k,
            shape,
            scores,
        } = self;
        let (d, tokens, window) = (shape.head_dim, shape.tokens, shape.window);
        let first = tokens - window;
        let mut buffer = Vec::new();
        let q: Vec<f32> = T::widen(&q[first * d..], &mut buffer)
            .iter()
            .map(|x| x * shape.scale)
            .collect();

        let mut logits = vec![0.0; window * tokens];
        for (block, keys) in k.chunks(KEYS * d).enumerate() {
            let keys = T::widen(keys, &mut buffer);
            for (at, key) in keys.chunks(d).enumerate() {
                for (row, q) in q.chunks(d).enumerate() {
                    logits[row * tokens + block * KEYS + at] = simd::dot(simd, q, key);
                }
            }
        }
        for (row, logits) in logits.chunks_mut(tokens).enumerate() {
            let visible = &mut logits[..first + row + 1];
            simd::soft_cap(visible, shape.softcap);
            let most = simd::largest(simd, visible);
            let sum = simd::exponentials(simd, visible, most);
            simd::scale_add(simd, scores, 1.0, &visible[..first], 1.0 / sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::reference::{close, random};
    use half::bf16;

    fn reference<T: Element>(q: &[T], k: &[T], s: &WindowShape) -> Vec<f32> {
        let wide = |x: &[T]| -> Vec<f64> {
            T::widen(x, &mut Vec::new())
                .iter()
                .map(|x| f64::from(*x))
                .collect()
        };
        let (q, k, d) = (wide(q), wide(k), s.head_dim);
        let candidates = s.tokens - s.window;
        let mut scores = vec![0.0; s.heads * candidates];
        for head in 0..s.heads {
            let kv = head / (s.heads / s.kv_heads);
            for t in candidates..s.tokens {
                let logit = |j: usize| {
                    let (q, k) = (
                        &q[(head * s.tokens + t) * d..][..d],
                        &k[(kv * s.tokens + j) * d..][..d],
                    );
                    let x = q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() * f64::from(s.scale);
                    s.softcap
                        .map_or(x, |c| f64::from(c) * (x / f64::from(c)).tanh())
                };
                let weights: Vec<f64> = (0..=t).map(|j| logit(j).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for j in 0..candidates {
                    scores[head * candidates + j] += weights[j] / sum;
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
            for softcap in [None, Some(1.5)] {
                let s = WindowShape {
                    heads,
                    kv_heads,
                    tokens,
                    head_dim,
                    window,
                    scale: 0.4,
                    softcap,
                };
                let (q, k) = (
                    random::<f32>(heads * tokens * head_dim, 1),
                    random::<f32>(kv_heads * tokens * head_dim, 2),
                );
                close(&window_scores(&q, &k, &s), &reference(&q, &k, &s), 3e-6);
                let (q, k) = (
                    random::<bf16>(heads * tokens * head_dim, 1),
                    random::<bf16>(kv_heads * tokens * head_dim, 2),
                );
                close(&window_scores(&q, &k, &s), &reference(&q, &k, &s), 3e-6);
            }
        }
    }
}
