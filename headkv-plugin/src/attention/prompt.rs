//! Blocked causal attention over a prompt (FlashAttention, Dao et al., arXiv 2205.14135): memory linear in its length.

use super::{
    Element,
    exponential::{LogitScale, MASKED},
    matrix::Aligned,
    panels::{
        PANEL, key_size, multiply_keys, multiply_values, pack_keys, pack_values, value_size,
        value_width,
    },
    softmax::State,
};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::cmp::Reverse;

/// Keys per block: with [`ROWS`], its logits fit the first-level cache.
const KEYS: usize = 128;
/// Query rows per block, over the query heads that share a KV head: amortizes the read of a key block.
const ROWS: usize = 48;
/// Blocks of query rows per core that are worked on together: so many even out the causal triangle.
const BLOCKS_PER_CORE: usize = 8;

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
    attend(Arch::new(), q, k, v, shape, out);
}

fn attend<T: Element>(arch: Arch, q: &[T], k: &[T], v: &[T], shape: &PromptShape, out: &mut [T]) {
    let (size, group) = (shape.tokens * shape.head_dim, shape.heads / shape.kv_heads);
    if size == 0 {
        return;
    }
    let tokens = (ROWS / group).max(1);
    // A few KV heads at a time: what is packed stays small, and yet there is work for every core.
    let together =
        (BLOCKS_PER_CORE * rayon::current_num_threads()).div_ceil(shape.tokens.div_ceil(tokens));
    let mut packed = Packed::default();
    let kv = k.chunks(together * size).zip(v.chunks(together * size));
    let qo = q
        .chunks(together * group * size)
        .zip(out.chunks_mut(together * group * size));
    for ((k, v), (q, out)) in kv.zip(qo) {
        packed.fill(arch, k, v, shape);
        let mut blocks: Vec<(usize, usize, Vec<&mut [T]>)> = Vec::new();
        for (kv_head, out) in out.chunks_mut(group * size).enumerate() {
            let mut heads: Vec<_> = out
                .chunks_mut(size)
                .map(|head| head.chunks_mut(tokens * shape.head_dim))
                .collect();
            for first in (0..shape.tokens).step_by(tokens) {
                blocks.push((
                    first,
                    kv_head,
                    heads.iter_mut().filter_map(Iterator::next).collect(),
                ));
            }
        }
        // The last tokens see the most keys: begin with them, so that the cores end together.
        blocks.sort_by_key(|(first, ..)| Reverse(*first));
        blocks.into_par_iter().with_max_len(1).for_each_init(
            Scratch::default,
            |scratch, (first, kv_head, out)| {
                let q = &q[kv_head * group * size..][..group * size];
                arch.dispatch(Block {
                    q,
                    packed: packed.head(kv_head, shape),
                    shape,
                    first,
                    out,
                    scratch,
                });
            },
        );
    }
}

/// Some KV heads in f32, each in blocks of [`KEYS`] tokens, each block in panels.
#[derive(Default)]
struct Packed {
    keys: Aligned,
    values: Aligned,
}

/// Elements of one block's packed keys, and of its values.
fn block_sizes(head_dim: usize) -> (usize, usize) {
    (key_size(KEYS, head_dim), value_size(KEYS, head_dim))
}

impl Packed {
    fn fill<T: Element>(&mut self, arch: Arch, k: &[T], v: &[T], shape: &PromptShape) {
        let (size, head_dim) = (shape.tokens * shape.head_dim, shape.head_dim);
        let (key_size, value_size) = block_sizes(head_dim);
        let blocks = k.len() / size * shape.tokens.div_ceil(KEYS);
        fn cut<T>(all: &[T], [head, block]: [usize; 2]) -> Vec<&[T]> {
            all.chunks(head)
                .flat_map(|head| head.chunks(block))
                .collect()
        }
        let sizes = [size, KEYS * head_dim];
        let to_keys = self.keys.get(blocks * key_size).par_chunks_mut(key_size);
        let to_values = self
            .values
            .get(blocks * value_size)
            .par_chunks_mut(value_size);
        let work = cut(k, sizes)
            .into_par_iter()
            .zip(cut(v, sizes))
            .zip(to_keys.zip(to_values));
        work.for_each_init(Vec::new, |buffer, ((k, v), (keys, values))| {
            arch.dispatch(Pack {
                k,
                v,
                head_dim,
                keys,
                values,
                buffer,
            });
        });
    }

    /// The blocks of one head's keys and values.
    fn head(&self, head: usize, shape: &PromptShape) -> (&[f32], &[f32]) {
        let blocks = shape.tokens.div_ceil(KEYS);
        let (keys, values) = block_sizes(shape.head_dim);
        let of = |size: usize| head * blocks * size..(head + 1) * blocks * size;
        (
            &self.keys.as_slice()[of(keys)],
            &self.values.as_slice()[of(values)],
        )
    }
}

struct Pack<'a, T> {
    k: &'a [T],
    v: &'a [T],
    head_dim: usize,
    keys: &'a mut [f32],
    values: &'a mut [f32],
    buffer: &'a mut Vec<f32>,
}

impl<T: Element> WithSimd for Pack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        pack_keys(self.k, self.head_dim, self.keys, self.buffer);
        pack_values(self.v, self.head_dim, self.values, self.buffer);
    }
}

#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    widened: Vec<f32>,
    logits: Aligned,
    state: State,
}

/// A block of consecutive tokens, for all query heads of one KV head; rows are head by head.
struct Block<'a, T> {
    q: &'a [T],
    packed: (&'a [f32], &'a [f32]),
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
        let d = shape.head_dim;
        let tokens = out[0].len() / d;
        let rows = out.len() * tokens;
        let Scratch {
            queries,
            widened,
            logits,
            state,
        } = scratch;

        let scale = LogitScale::new(shape.scale, shape.softcap);
        queries.clear();
        for head in q.chunks(shape.tokens * d) {
            let block = T::widen(&head[first * d..][..tokens * d], widened);
            queries.extend(block.iter().map(|x| x * scale.query));
        }
        let logits = logits.get(rows * KEYS);
        state.clear(rows, value_width(d));

        let (key_size, value_size) = block_sizes(d);
        let blocks = packed.0.chunks(key_size).zip(packed.1.chunks(value_size));
        // Blocks after the last of these tokens are hidden from all of them.
        for (block, (keys, values)) in blocks.take((first + tokens).div_ceil(KEYS)).enumerate() {
            let seen = KEYS.min(first + tokens - block * KEYS);
            multiply_keys(simd, queries, keys, (logits, KEYS), [rows, d, seen]);
            for (row, logits) in logits.chunks_mut(KEYS).enumerate() {
                let logits = &mut logits[..seen.next_multiple_of(PANEL)];
                let visible = (first + row % tokens + 1)
                    .saturating_sub(block * KEYS)
                    .min(logits.len());
                scale.cap(simd, logits);
                logits[visible..].fill(MASKED);
                state.weigh(simd, row, logits);
                logits[visible..].fill(0.0);
            }
            multiply_values(
                simd,
                (logits, KEYS),
                values,
                state.output(),
                [rows, d, seen],
            );
        }

        for (row, output) in state.finish().chunks(value_width(d)).enumerate() {
            T::narrow_all(
                &output[..d],
                &mut out[row / tokens][row % tokens * d..][..d],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::reference::{attention, close, levels, random};
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
        let group = heads / kv_heads;
        let exact = |row: usize| {
            let (head, t) = (row / tokens, row % tokens);
            let seen = head / group * size..head / group * size + (t + 1) * d;
            attention(
                &q[row * d..][..d],
                &k[seen.clone()],
                &v[seen],
                d,
                shape.scale,
                shape.softcap,
            )
        };
        let exact: Vec<f32> = (0..batch * heads * tokens).flat_map(exact).collect();
        for level in levels() {
            let mut out = vec![T::default(); q.len()];
            attend(level, &q, &k, &v, &shape, &mut out);
            close(&out, &exact, tolerance);
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
