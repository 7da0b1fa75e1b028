//! Blocked causal attention over a prompt (FlashAttention, Dao et al., arXiv 2205.14135): memory linear in its length.

use super::{
    Element,
    simd::{self, ALIGN},
};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Keys per block.
const KEYS: usize = 64;
/// Query rows per block, over the query heads that share a KV head: amortizes the read of a key block.
const ROWS: usize = 96;
/// Stands for minus infinity: differences of it stay numbers.
const MASKED: f32 = -1e30;

/// What [`prompt_attention`] is given.
#[derive(Clone, Copy, Debug)]
pub struct PromptShape {
    /// Sequences.
    pub batch: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads; query head `h` reads KV head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Tokens of every sequence.
    pub tokens: usize,
    /// Elements of one head's key, and of its value.
    pub head_dim: usize,
    /// Factor on the logits.
    pub scale: f32,
    /// Soft cap on the scaled logits.
    pub softcap: Option<f32>,
}

/// Causal attention of every token to itself and those before it.
///
/// `q` and `out` are `(batch, heads, tokens, head_dim)`, `k` and `v` `(batch, kv_heads, tokens, head_dim)`, contiguous.
pub fn prompt_attention<T: Element>(q: &[T], k: &[T], v: &[T], shape: &PromptShape, out: &mut [T]) {
    let (size, group) = (shape.tokens * shape.head_dim, shape.heads / shape.kv_heads);
    if size == 0 {
        return;
    }
    let arch = Arch::new();
    let tokens = (ROWS / group).clamp(1, KEYS);
    // One KV head at a time: what is packed stays small, and the cores share it.
    let kv = k.chunks(size).zip(v.chunks(size));
    for ((k, v), (q, out)) in kv.zip(q.chunks(group * size).zip(out.chunks_mut(group * size))) {
        let packed = Packed::new(k, v, shape);
        let mut blocks: Vec<Vec<&mut [T]>> = Vec::new();
        for head in out.chunks_mut(size) {
            for (block, rows) in head.chunks_mut(tokens * shape.head_dim).enumerate() {
                if blocks.len() == block {
                    blocks.push(Vec::with_capacity(group));
                }
                blocks[block].push(rows);
            }
        }
        // The last blocks see the most keys: begin with them, so that the cores end together.
        blocks
            .into_par_iter()
            .enumerate()
            .rev()
            .with_max_len(1)
            .for_each_init(Scratch::default, |scratch, (block, out)| {
                arch.dispatch(Block {
                    q,
                    packed: &packed,
                    shape,
                    first: block * tokens,
                    out,
                    scratch,
                });
            });
    }
}

/// One KV head in f32: keys in blocks of [`KEYS`], each transposed to `(head_dim, KEYS)`; values `(tokens, width)`.
struct Packed {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// `head_dim`, padded for the matrix product.
    width: usize,
}

impl Packed {
    fn new<T: Element>(k: &[T], v: &[T], shape: &PromptShape) -> Self {
        let (d, width) = (shape.head_dim, shape.head_dim.next_multiple_of(ALIGN));
        let blocks = shape.tokens.div_ceil(KEYS);
        let (mut keys, mut values) = (
            vec![0.0; blocks * KEYS * d],
            vec![0.0; blocks * KEYS * width],
        );
        let sources = k.par_chunks(KEYS * d).zip(v.par_chunks(KEYS * d));
        let packed = keys
            .par_chunks_mut(KEYS * d)
            .zip(values.par_chunks_mut(KEYS * width));
        sources.zip(packed).for_each(|((k, v), (keys, values))| {
            let mut buffer = Vec::new();
            for (token, key) in T::widen(k, &mut buffer).chunks(d).enumerate() {
                key.iter()
                    .enumerate()
                    .for_each(|(i, x)| keys[i * KEYS + token] = *x);
            }
            for (value, to) in T::widen(v, &mut buffer)
                .chunks(d)
                .zip(values.chunks_mut(width))
            {
                to[..d].copy_from_slice(value);
            }
        });
        Self {
            keys,
            values,
            width,
        }
    }
}

#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    logits: Vec<f32>,
    output: Vec<f32>,
    largest: Vec<f32>,
    sums: Vec<f32>,
    widened: Vec<f32>,
}

/// A block of consecutive tokens, for all query heads of one KV head; rows are head by head.
struct Block<'a, T> {
    q: &'a [T],
    packed: &'a Packed,
    shape: &'a PromptShape,
    first: usize,
    out: Vec<&'a mut [T]>,
    scratch: &'a mut Scratch,
}

impl<T: Element> WithSimd for Block<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            q,
            packed,
            shape,
            first,
            mut out,
            scratch,
        } = self;
        let (d, width) = (shape.head_dim, packed.width);
        let tokens = out[0].len() / d;
        let rows = out.len() * tokens;

        scratch.queries.clear();
        for head in q.chunks(shape.tokens * d) {
            let block = T::widen(&head[first * d..][..tokens * d], &mut scratch.widened);
            scratch
                .queries
                .extend(block.iter().map(|x| x * shape.scale));
        }
        let Scratch {
            queries,
            logits,
            output,
            largest,
            sums,
            ..
        } = scratch;
        let reset = |buffer: &mut Vec<f32>, len, value| {
            buffer.clear();
            buffer.resize(len, value);
        };
        reset(output, rows * width, 0.0);
        reset(largest, rows, MASKED);
        reset(sums, rows, 0.0);

        for block in 0..(first + tokens).div_ceil(KEYS) {
            let keys = &packed.keys[block * KEYS * d..][..KEYS * d];
            reset(logits, rows * KEYS, 0.0);
            simd::multiply(
                simd,
                (queries, d),
                (keys, KEYS),
                (logits, KEYS),
                [rows, d, KEYS],
            );
            for (row, logits) in logits.chunks_mut(KEYS).enumerate() {
                simd::soft_cap(logits, shape.softcap);
                let visible = (first + row % tokens + 1).saturating_sub(block * KEYS);
                if visible < KEYS {
                    logits[visible..].fill(MASKED);
                }
                let most = simd::largest(simd, logits).max(largest[row]);
                if most > largest[row] {
                    let shrink = (largest[row] - most).exp();
                    largest[row] = most;
                    sums[row] *= shrink;
                    output[row * width..][..width]
                        .iter_mut()
                        .for_each(|x| *x *= shrink);
                }
                sums[row] += simd::exponentials(simd, logits, most);
            }
            let values = &packed.values[block * KEYS * width..][..KEYS * width];
            simd::multiply(
                simd,
                (logits, KEYS),
                (values, width),
                (output, width),
                [rows, KEYS, width],
            );
        }

        for (row, output) in output.chunks(width).enumerate() {
            let to = &mut out[row / tokens][row % tokens * d..][..d];
            let factor = 1.0 / sums[row];
            to.iter_mut()
                .zip(output)
                .for_each(|(to, x)| *to = T::narrow(x * factor));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::reference::{attention, close, random};
    use half::{bf16, f16};

    fn matches<T: Element>(shape: PromptShape, tolerance: f32) {
        let PromptShape {
            batch,
            heads,
            kv_heads,
            tokens,
            head_dim: d,
            ..
        } = shape;
        let size = tokens * d;
        let q = random::<T>(batch * heads * size, 1);
        let (k, v) = (
            random::<T>(batch * kv_heads * size, 2),
            random::<T>(batch * kv_heads * size, 3),
        );
        let mut out = vec![T::default(); q.len()];
        prompt_attention(&q, &k, &v, &shape, &mut out);
        for head in 0..batch * heads {
            let kv = head / (heads / kv_heads) * size;
            for t in 0..tokens {
                let at = head * size + t * d;
                let seen = kv..kv + (t + 1) * d;
                let exact = attention(
                    &q[at..at + d],
                    &k[seen.clone()],
                    &v[seen],
                    d,
                    shape.scale,
                    shape.softcap,
                );
                close(&out[at..at + d], &exact, tolerance);
            }
        }
    }

    #[test]
    fn equals_the_definition() {
        let base = PromptShape {
            batch: 1,
            heads: 2,
            kv_heads: 1,
            tokens: 1,
            head_dim: 32,
            scale: 0.3,
            softcap: None,
        };
        for tokens in [1, 7, 8, 63, 64, 65, 257] {
            for head_dim in [32, 64, 80, 96, 128, 256, 20] {
                matches::<f32>(
                    PromptShape {
                        tokens,
                        head_dim,
                        ..base
                    },
                    2e-6,
                );
            }
            for (heads, kv_heads) in [(1, 1), (3, 1), (8, 2), (8, 1), (5, 5)] {
                matches::<f32>(
                    PromptShape {
                        tokens,
                        heads,
                        kv_heads,
                        batch: 2,
                        ..base
                    },
                    2e-6,
                );
            }
            matches::<f32>(
                PromptShape {
                    tokens,
                    softcap: Some(2.0),
                    ..base
                },
                2e-6,
            );
            matches::<bf16>(PromptShape { tokens, ..base }, 4e-3);
            matches::<f16>(PromptShape { tokens, ..base }, 1e-3);
        }
        matches::<f32>(
            PromptShape {
                tokens: 1000,
                ..base
            },
            2e-6,
        );
    }
}
