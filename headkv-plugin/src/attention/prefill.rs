//! Blocked causal attention of a prompt, or of a later part of it over what came before (FlashAttention, Dao et al.,
//! arXiv 2205.14135): memory linear in its length.

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
use crate::shape::AttentionShape;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::cmp::Reverse;

/// Keys per block: with [`ROWS`], its logits fit the first-level cache.
const KEYS: usize = 128;
/// Query rows per block, over the query heads that share a KV head: amortizes the read of a key block.
const ROWS: usize = 48;
/// Blocks of query rows per core that are worked on together: so many even out the causal triangle.
const BLOCKS_PER_CORE: usize = 8;

/// Causal attention of new tokens to those before them and themselves: the last of the keys are the new tokens' own.
///
/// `q` and `out` are `(batch, heads, new, head_dim)`, `k` and `v` `(batch, kv_heads, past + new, head_dim)`, contiguous.
pub fn prefill_attention<T: Element>(
    q: &[T],
    k: &[T],
    v: &[T],
    batch: usize,
    shape: &AttentionShape,
    out: &mut [T],
) {
    attend(Arch::new(), q, k, v, batch, shape, out);
}

fn attend<T: Element>(
    arch: Arch,
    q: &[T],
    k: &[T],
    v: &[T],
    batch: usize,
    shape: &AttentionShape,
    out: &mut [T],
) {
    let AttentionShape {
        heads,
        kv_heads,
        head_dim,
        ..
    } = *shape;
    if q.is_empty() {
        return;
    }
    let (rows_size, keys_size) = (q.len() / (batch * heads), k.len() / (batch * kv_heads));
    let (new, all) = (rows_size / head_dim, keys_size / head_dim);
    let group = shape.group();
    let tokens = (ROWS / group).max(1);
    // A few KV heads at a time: what is packed stays small, and yet there is work for every core.
    let together = (BLOCKS_PER_CORE * rayon::current_num_threads()).div_ceil(new.div_ceil(tokens));
    let mut packed = Packed::default();
    let kv = k
        .chunks(together * keys_size)
        .zip(v.chunks(together * keys_size));
    let qo = q
        .chunks(together * group * rows_size)
        .zip(out.chunks_mut(together * group * rows_size));
    for (part, ((k, v), (q, out))) in kv.zip(qo).enumerate() {
        packed.fill(arch, k, v, all, head_dim);
        let mut blocks: Vec<(usize, usize, Vec<&mut [T]>)> = Vec::new();
        for (kv_head, out) in out.chunks_mut(group * rows_size).enumerate() {
            let mut heads: Vec<_> = out
                .chunks_mut(rows_size)
                .map(|head| head.chunks_mut(tokens * head_dim))
                .collect();
            for first in (0..new).step_by(tokens) {
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
                arch.dispatch(Block {
                    q: &q[kv_head * group * rows_size..][..group * rows_size],
                    packed: packed.head(kv_head, all, head_dim),
                    shape,
                    sinks: shape.sinks_of((part * together + kv_head) % kv_heads * group, group),
                    first,
                    past: all - new,
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
    fn fill<T: Element>(&mut self, arch: Arch, k: &[T], v: &[T], tokens: usize, head_dim: usize) {
        let size = tokens * head_dim;
        let (key_size, value_size) = block_sizes(head_dim);
        let blocks = k.len() / size * tokens.div_ceil(KEYS);
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
    fn head(&self, head: usize, tokens: usize, head_dim: usize) -> (&[f32], &[f32]) {
        let blocks = tokens.div_ceil(KEYS);
        let (keys, values) = block_sizes(head_dim);
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
    shape: &'a AttentionShape,
    /// By query head, the logit of its sink; none where the model has none.
    sinks: &'a [f32],
    /// The first of these tokens among the new ones.
    first: usize,
    /// Tokens before the new ones.
    past: usize,
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
            sinks,
            first,
            past,
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
        for head in q.chunks(q.len() / out.len()) {
            let block = T::widen(&head[first * d..][..tokens * d], widened);
            queries.extend(block.iter().map(|x| x * scale.query));
        }
        let logits = logits.get(rows * KEYS);
        state.clear(rows, value_width(d));

        let (key_size, value_size) = block_sizes(d);
        let blocks = packed.0.chunks(key_size).zip(packed.1.chunks(value_size));
        // Tokens left of a query's window are hidden from it.
        let left = |token: usize| {
            let end = past + first + token + 1;
            shape.window.map_or(0, |window| end.saturating_sub(window))
        };
        // Blocks after the last of these tokens, and before the first one's window, are hidden from all of them.
        for (block, (keys, values)) in blocks
            .take((past + first + tokens).div_ceil(KEYS))
            .enumerate()
            .skip(left(0) / KEYS)
        {
            let seen = KEYS.min(past + first + tokens - block * KEYS);
            multiply_keys(simd, queries, keys, (logits, KEYS), [rows, d, seen]);
            for (row, logits) in logits.chunks_mut(KEYS).enumerate() {
                let logits = &mut logits[..seen.next_multiple_of(PANEL)];
                let visible = (past + first + row % tokens + 1)
                    .saturating_sub(block * KEYS)
                    .min(logits.len());
                let hidden = left(row % tokens).saturating_sub(block * KEYS).min(visible);
                scale.cap(simd, logits);
                logits[..hidden].fill(MASKED);
                logits[visible..].fill(MASKED);
                state.weigh(simd, row, logits);
                logits[..hidden].fill(0.0);
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

        for (head, &sink) in sinks.iter().enumerate() {
            (0..tokens).for_each(|t| state.sink(head * tokens + t, sink));
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
    use crate::attention::reference::{attention, close, levels, random, with_sink};
    use half::{bf16, f16};

    const BASE: AttentionShape = AttentionShape {
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        scale: 0.3,
        softcap: None,
        window: None,
        sinks: None,
    };

    /// Compares the attention of `new` tokens after `past` others.
    fn matches<T: Element>(
        shape: AttentionShape,
        batch: usize,
        [past, new]: [usize; 2],
        tolerance: f32,
    ) {
        let (d, all) = (shape.head_dim, past + new);
        let q = random::<T>(batch * shape.heads * new * d, 1);
        let [k, v] = [2, 3].map(|seed| random::<T>(batch * shape.kv_heads * all * d, seed));
        let exact = |row: usize| {
            let (head, t) = (row / new, row % new);
            let first = head / shape.group() * all * d;
            let hidden = shape.window.map_or(0, |w| (past + t + 1).saturating_sub(w));
            let seen = first + hidden * d..first + (past + t + 1) * d;
            let q = &q[row * d..][..d];
            let (k, v) = (&k[seen.clone()], &v[seen]);
            match shape.sinks_of(head % shape.heads, 1) {
                [] => attention(q, k, v, d, shape.scale, shape.softcap),
                sink => {
                    let [q, k, v] = [q, k, v].map(|x| T::widen(x, &mut Vec::new()).to_vec());
                    with_sink(&q, &k, &v, shape.scale, shape.softcap, sink[0])
                }
            }
        };
        let exact: Vec<f32> = (0..batch * shape.heads * new).flat_map(exact).collect();
        for level in levels() {
            let mut out = vec![T::default(); q.len()];
            attend(level, &q, &k, &v, batch, &shape, &mut out);
            close(&out, &exact, tolerance);
        }
    }

    #[test]
    fn equals_the_definition() {
        for tokens in [1, 7, 8, 63, 64, 65, 257] {
            let whole = [0, tokens];
            for head_dim in [32, 64, 80, 96, 128, 256, 20] {
                matches::<f32>(AttentionShape { head_dim, ..BASE }, 1, whole, 2e-6);
            }
            for (heads, kv_heads) in [(1, 1), (3, 1), (8, 2), (8, 1), (5, 5)] {
                let shape = AttentionShape {
                    heads,
                    kv_heads,
                    ..BASE
                };
                matches::<f32>(shape, 2, whole, 2e-6);
            }
            let softcap = Some(2.0);
            matches::<f32>(AttentionShape { softcap, ..BASE }, 1, whole, 2e-6);
            matches::<bf16>(BASE, 1, whole, 4e-3);
            matches::<f16>(BASE, 1, whole, 1e-3);
        }
        matches::<f32>(BASE, 1, [0, 1000], 2e-6);
    }

    #[test]
    fn a_window_hides_what_is_left_of_it() {
        for window in [1, 7, 128, 129, 300] {
            let shape = AttentionShape {
                window: Some(window),
                ..BASE
            };
            for part in [[0, 1], [0, 100], [0, 400], [130, 1], [300, 200]] {
                matches::<f32>(shape.clone(), 2, part, 2e-6);
            }
        }
    }

    #[test]
    fn sinks_take_weight_and_bring_no_value() {
        for (heads, kv_heads) in [(4, 2), (6, 1), (40, 40)] {
            let sinks = (0..heads).map(|head| head as f32 / 7.0 - 1.0);
            let shape = AttentionShape {
                heads,
                kv_heads,
                sinks: Some(sinks.collect()),
                ..BASE
            };
            for part in [[0, 1], [0, 200], [130, 40]] {
                matches::<f32>(shape.clone(), 2, part, 2e-6);
                let window = Some(50);
                let softcap = Some(2.0);
                let all = AttentionShape {
                    window,
                    softcap,
                    ..shape.clone()
                };
                matches::<f32>(all, 2, part, 2e-6);
            }
        }
    }

    #[test]
    fn a_later_part_sees_what_came_before() {
        for past in [1, 100, 127, 128, 300] {
            for new in [1, 2, 7, 100, 200] {
                matches::<f32>(BASE, 2, [past, new], 2e-6);
            }
        }
    }
}
