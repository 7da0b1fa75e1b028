//! The ragged cache of one layer and sequence: each head's kept keys and values, and the generated tokens' tail.
//!
//! The compressed part is written once, when the prompt has run, and never moved again; forks share it. Later tokens go
//! to a tail of blocks, so that appending one costs the same at any length.

use crate::attention::{Element, Segment};
use std::sync::Arc;

/// Tokens per block of the tail.
pub const TAIL_BLOCK: usize = 32;

/// Keys and values of one layer and sequence, a different number of tokens for each stored head.
///
/// Stored heads are KV heads, or query heads where each keeps a set of its own; the tail is stored once per KV head.
#[derive(Debug)]
pub struct RaggedCache<T> {
    kv_heads: usize,
    head_dim: usize,
    kept: Arc<Kept<T>>,
    tail: Tail<T>,
}

#[derive(Debug)]
struct Kept<T> {
    /// Token offsets of the stored heads in `keys` and `values`, one more than heads.
    offsets: Vec<usize>,
    /// `(kept tokens of all heads, head_dim)`.
    keys: Vec<T>,
    values: Vec<T>,
}

/// Blocks of `TAIL_BLOCK` tokens; within a block `(kv_heads, TAIL_BLOCK, head_dim)`, keys then values.
#[derive(Clone, Debug)]
struct Tail<T> {
    /// Tokens at the beginning of the first block that a sliding window has left behind.
    left: usize,
    /// Tokens, those left behind included.
    tokens: usize,
    blocks: Vec<Arc<[T]>>,
}

impl<T: Element> RaggedCache<T> {
    /// Keeps every token; `keys` and `values` are `(kv_heads, tokens, head_dim)`.
    pub fn keep_all(keys: &[T], values: &[T], kv_heads: usize, head_dim: usize) -> Self {
        let tokens = keys.len() / (kv_heads * head_dim);
        let kept = Kept {
            offsets: (0..=kv_heads).map(|h| h * tokens).collect(),
            keys: keys.to_vec(),
            values: values.to_vec(),
        };
        Self::new(kept, kv_heads, head_dim)
    }

    /// Keeps the tokens at `kept[stored head]`, in that order; `keys` and `values` are `(kv_heads, tokens, head_dim)`.
    ///
    /// There are as many stored heads as KV heads, or a multiple of them: then each `kept.len() / kv_heads` in a row
    /// draw on the same KV head.
    pub fn keep_at(
        keys: &[T],
        values: &[T],
        kv_heads: usize,
        head_dim: usize,
        kept: &[Vec<u32>],
    ) -> Self {
        let per_kv_head = kept.len() / kv_heads;
        let total: usize = kept.iter().map(Vec::len).sum();
        let size = keys.len() / kv_heads;
        let gather = |from: &[T]| {
            let mut to = Vec::with_capacity(total * head_dim);
            for (stored, positions) in kept.iter().enumerate() {
                let head = &from[stored / per_kv_head * size..][..size];
                for &at in positions {
                    to.extend_from_slice(&head[at as usize * head_dim..][..head_dim]);
                }
            }
            to
        };
        let mut offsets = vec![0];
        for positions in kept {
            offsets.push(offsets[offsets.len() - 1] + positions.len());
        }
        let kept = Kept {
            offsets,
            keys: gather(keys),
            values: gather(values),
        };
        Self::new(kept, kv_heads, head_dim)
    }

    /// Keeps the last `window` tokens, as a tail that [`Self::slide`] shortens; `keys` and `values` are
    /// `(kv_heads, tokens, head_dim)`.
    pub fn keep_last(
        keys: &[T],
        values: &[T],
        kv_heads: usize,
        head_dim: usize,
        window: usize,
    ) -> Self {
        let kept = Kept {
            offsets: vec![0; kv_heads + 1],
            keys: Vec::new(),
            values: Vec::new(),
        };
        let mut cache = Self::new(kept, kv_heads, head_dim);
        let size = keys.len() / kv_heads;
        let first = size.saturating_sub(window * head_dim);
        let last = |all: &[T]| -> Vec<T> {
            let heads = all.chunks(size.max(1));
            heads.flat_map(|head| head[first..].to_vec()).collect()
        };
        cache.append(&last(keys), &last(values));
        cache
    }

    /// Leaves all but the last `tokens` of the tail behind; blocks that are then empty are freed.
    pub fn slide(&mut self, tokens: usize) {
        let tail = &mut self.tail;
        tail.left = tail.left.max(tail.tokens.saturating_sub(tokens));
        let blocks = tail.left / TAIL_BLOCK;
        tail.blocks.drain(..blocks);
        tail.left -= blocks * TAIL_BLOCK;
        tail.tokens -= blocks * TAIL_BLOCK;
    }

    fn new(kept: Kept<T>, kv_heads: usize, head_dim: usize) -> Self {
        Self {
            kv_heads,
            head_dim,
            kept: Arc::new(kept),
            tail: Tail {
                left: 0,
                tokens: 0,
                blocks: Vec::new(),
            },
        }
    }

    /// Another cache with the same past, which goes on by itself: the kept part and full blocks are stored once.
    pub fn fork(&self) -> Self {
        let mut tail = self.tail.clone();
        if !tail.tokens.is_multiple_of(TAIL_BLOCK)
            && let Some(open) = tail.blocks.last_mut()
        {
            *open = Arc::from(&**open);
        }
        Self {
            kept: self.kept.clone(),
            tail,
            ..*self
        }
    }

    /// Appends new tokens; `keys` and `values` are `(kv_heads, new, head_dim)`.
    pub fn append(&mut self, keys: &[T], values: &[T]) {
        let (d, new) = (self.head_dim, keys.len() / (self.kv_heads * self.head_dim));
        for token in 0..new {
            let row = self.tail.tokens % TAIL_BLOCK;
            if row == 0 {
                let block = vec![T::default(); 2 * self.kv_heads * TAIL_BLOCK * d];
                self.tail.blocks.push(block.into());
            }
            if let Some(block) = self.tail.blocks.last_mut() {
                let (k, v) = Arc::make_mut(block).split_at_mut(self.kv_heads * TAIL_BLOCK * d);
                for head in 0..self.kv_heads {
                    let to = (head * TAIL_BLOCK + row) * d;
                    let from = (head * new + token) * d;
                    k[to..to + d].copy_from_slice(&keys[from..from + d]);
                    v[to..to + d].copy_from_slice(&values[from..from + d]);
                }
            }
            self.tail.tokens += 1;
        }
    }

    /// Number of stored heads.
    pub fn stored_heads(&self) -> usize {
        self.kept.offsets.len() - 1
    }

    /// Tokens of the prompt that a stored head keeps.
    pub fn kept(&self, stored: usize) -> usize {
        self.kept.offsets[stored + 1] - self.kept.offsets[stored]
    }

    /// Tokens of the tail.
    pub fn tail_tokens(&self) -> usize {
        self.tail.tokens - self.tail.left
    }

    /// Everything that a stored head attends to: its kept part, then the tail's blocks.
    pub fn segments(&self, stored: usize) -> Vec<Segment<'_, T>> {
        let (d, head) = (
            self.head_dim,
            stored / (self.stored_heads() / self.kv_heads),
        );
        let kept = self.kept.offsets[stored] * d..self.kept.offsets[stored + 1] * d;
        let mut segments = vec![Segment {
            keys: &self.kept.keys[kept.clone()],
            values: &self.kept.values[kept],
        }];
        segments.extend(self.tail.blocks.iter().enumerate().map(|(i, block)| {
            let tokens = (self.tail.tokens - i * TAIL_BLOCK).min(TAIL_BLOCK);
            let left = if i == 0 { self.tail.left } else { 0 };
            let (keys, values) = block.split_at(self.kv_heads * TAIL_BLOCK * d);
            let rows = (head * TAIL_BLOCK + left) * d..(head * TAIL_BLOCK + tokens) * d;
            Segment {
                keys: &keys[rows.clone()],
                values: &values[rows],
            }
        }));
        segments
    }

    /// Bytes of the kept part, which forks share.
    pub fn kept_bytes(&self) -> usize {
        (self.kept.keys.capacity() + self.kept.values.capacity()) * size_of::<T>()
    }

    /// Bytes of the tail's blocks.
    pub fn tail_bytes(&self) -> usize {
        let blocks = self.tail.blocks.iter();
        blocks.map(|block| size_of_val::<[T]>(block)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const D: usize = 3;

    /// A key whose value tells its head and position.
    fn prompt(kv_heads: usize, tokens: usize) -> (Vec<f32>, Vec<f32>) {
        let rows = (0..kv_heads).flat_map(|h| (0..tokens).map(move |t| (h * 1000 + t) as f32));
        let keys: Vec<f32> = rows.flat_map(|x| vec![x; D]).collect();
        let values = keys.iter().map(|x| -x).collect();
        (keys, values)
    }

    fn held(cache: &RaggedCache<f32>, stored: usize) -> Vec<(f32, f32)> {
        let rows = |s: &Segment<f32>| {
            s.keys
                .chunks(D)
                .zip(s.values.chunks(D))
                .map(|(k, v)| (k[0], v[0]))
                .collect::<Vec<_>>()
        };
        cache.segments(stored).iter().flat_map(rows).collect()
    }

    proptest! {
        #[test]
        fn holds_what_was_kept_then_what_was_appended(
            kept in prop::collection::vec(prop::collection::btree_set(0..50u32, 0..50), 4),
            per_query_head: bool,
            appended in 0..100usize,
        ) {
            let kept: Vec<Vec<u32>> = kept.into_iter().map(|s| s.into_iter().collect()).collect();
            let per_kv_head = if per_query_head { 2 } else { 1 };
            let kv_heads = 4 / per_kv_head;
            let (k, v) = prompt(kv_heads, 50);
            let mut cache = RaggedCache::keep_at(&k, &v, kv_heads, D, &kept);
            let compressed = cache.kept.keys.as_ptr();
            let token = |t: usize| -> Vec<f32> {
                (0..kv_heads).flat_map(|h| vec![(h * 1000 + 500 + t) as f32; D]).collect()
            };
            for t in 0..appended {
                cache.append(&token(t), &token(t));
            }
            prop_assert_eq!(cache.kept.keys.as_ptr(), compressed, "the compressed part moved");
            for (stored, positions) in kept.iter().enumerate() {
                let head = stored / per_kv_head * 1000;
                let prompt = positions.iter().map(|&t| ((head + t as usize) as f32, -((head + t as usize) as f32)));
                let tail = (0..appended).map(|t| ((head + 500 + t) as f32, (head + 500 + t) as f32));
                prop_assert_eq!(held(&cache, stored), prompt.chain(tail).collect::<Vec<_>>());
            }
            let total: usize = kept.iter().map(Vec::len).sum();
            prop_assert_eq!(cache.kept_bytes(), total * 2 * D * 4);
            prop_assert_eq!(cache.tail_bytes(), appended.div_ceil(TAIL_BLOCK) * TAIL_BLOCK * kv_heads * 2 * D * 4);
        }

        #[test]
        fn forks_share_the_past_and_go_on_apart(before in 0..70usize, after in 0..70usize) {
            let (k, v) = prompt(2, 5);
            let mut first = RaggedCache::keep_all(&k, &v, 2, D);
            let tokens = |value: f32, n: usize| vec![value; 2 * n * D];
            first.append(&tokens(1.0, before), &tokens(1.0, before));
            let mut second = first.fork();
            prop_assert_eq!(first.kept.keys.as_ptr(), second.kept.keys.as_ptr());
            first.append(&tokens(2.0, after), &tokens(2.0, after));
            second.append(&tokens(3.0, after), &tokens(3.0, after));
            let expected = |value: f32| {
                let kept = (0..5).map(|t| ((1000 + t) as f32, -((1000 + t) as f32)));
                let tail = [vec![(1.0, 1.0); before], vec![(value, value); after]].concat();
                kept.chain(tail).collect::<Vec<_>>()
            };
            prop_assert_eq!(held(&first, 1), expected(2.0));
            prop_assert_eq!(held(&second, 1), expected(3.0));
        }
    }

    proptest! {
        #[test]
        fn a_window_keeps_the_last_tokens_and_frees_the_others(
            window in 1..80usize,
            tokens in 1..100usize,
            appended in 0..200usize,
        ) {
            let (k, v) = prompt(2, tokens);
            let mut cache = RaggedCache::keep_last(&k, &v, 2, D, window);
            let token = |t: usize| [[t as f32; D], [(1000 + t) as f32; D]].concat();
            for t in tokens..tokens + appended {
                let values: Vec<f32> = token(t).iter().map(|x| -x).collect();
                cache.append(&token(t), &values);
                cache.slide(window);
            }
            let last = (tokens + appended).saturating_sub(window)..tokens + appended;
            let expected: Vec<_> = last.map(|t| ((1000 + t) as f32, -((1000 + t) as f32))).collect();
            prop_assert_eq!(held(&cache, 1), expected);
            prop_assert_eq!(cache.tail_tokens(), window.min(tokens + appended));
            let most = window.div_ceil(TAIL_BLOCK) + 1;
            prop_assert!(cache.tail_bytes() <= most * TAIL_BLOCK * 2 * 2 * D * 4);
        }
    }

    #[test]
    fn several_tokens_at_once_are_as_one_by_one() {
        let (k, v) = prompt(2, 40);
        let (mut whole, mut single) = (
            RaggedCache::keep_all(&[], &[], 2, D),
            RaggedCache::keep_all(&[], &[], 2, D),
        );
        whole.append(&k, &v);
        for t in 0..40 {
            let row = |x: &[f32]| [&x[t * D..][..D], &x[(40 + t) * D..][..D]].concat();
            single.append(&row(&k), &row(&v));
        }
        assert_eq!(held(&whole, 1), held(&single, 1));
        assert_eq!(whole.tail_bytes(), single.tail_bytes());
    }

    #[test]
    fn keep_all_is_the_prompt() {
        let (k, v) = prompt(2, 5);
        let cache = RaggedCache::keep_all(&k, &v, 2, D);
        assert_eq!(held(&cache, 1)[4], (1004.0, -1004.0));
        assert_eq!((cache.stored_heads(), cache.kept(0)), (2, 5));
    }
}
