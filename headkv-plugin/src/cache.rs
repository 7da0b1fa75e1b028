//! The ragged cache of one layer and sequence: each head's kept keys and values, and the generated tokens' tail.
//!
//! The compressed part is written once, when the prompt has run, and never moved again. Generated tokens go to a tail
//! of blocks, so that appending one costs the same at any length.

use crate::attention::Element;

/// Tokens per block of the tail.
pub const TAIL_BLOCK: usize = 32;

/// Shape of one sequence's keys, and of its values: `(kv_heads, tokens, head_dim)`, contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// KV heads.
    pub kv_heads: usize,
    /// Tokens.
    pub tokens: usize,
    /// Elements of one head's key, and of its value.
    pub head_dim: usize,
}

/// Keys and values of one layer and sequence, a different number of tokens for each stored head.
///
/// Stored heads are KV heads, or query heads where each keeps a set of its own; the tail is stored once per KV head.
#[derive(Debug)]
pub struct RaggedCache<T> {
    kv_heads: usize,
    head_dim: usize,
    /// Token offsets of the stored heads in `keys` and `values`, one more than heads.
    offsets: Vec<usize>,
    /// `(kept tokens of all heads, head_dim)`.
    keys: Vec<T>,
    values: Vec<T>,
    tail: Tail<T>,
}

/// Blocks of `TAIL_BLOCK` tokens; within a block `(kv_heads, TAIL_BLOCK, head_dim)`, keys then values.
#[derive(Debug)]
struct Tail<T> {
    tokens: usize,
    blocks: Vec<Box<[T]>>,
}

/// A run of consecutive tokens of one head, `(tokens, head_dim)` each.
#[derive(Debug)]
pub struct Segment<'a, T> {
    /// Keys.
    pub keys: &'a [T],
    /// Values.
    pub values: &'a [T],
}

impl<T> Clone for Segment<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Segment<'_, T> {}

impl<'a, T> Segment<'a, T> {
    /// The same tokens in runs of `elements`, a multiple of `head_dim`.
    pub fn split(self, elements: usize) -> impl Iterator<Item = Segment<'a, T>> {
        let runs = self.keys.chunks(elements).zip(self.values.chunks(elements));
        runs.map(|(keys, values)| Segment { keys, values })
    }
}

impl<T: Element> RaggedCache<T> {
    /// Keeps every token of the prompt.
    pub fn keep_all(keys: &[T], values: &[T], shape: KvShape) -> Self {
        Self {
            offsets: (0..=shape.kv_heads).map(|h| h * shape.tokens).collect(),
            keys: keys.to_vec(),
            values: values.to_vec(),
            ..Self::empty(shape)
        }
    }

    /// Keeps the prompt's tokens at `kept[stored head]`, in that order.
    ///
    /// There are as many stored heads as KV heads, or a multiple of them: then each `kept.len() / kv_heads` in a row
    /// draw on the same KV head.
    pub fn compress(keys: &[T], values: &[T], shape: KvShape, kept: &[Vec<u32>]) -> Self {
        let d = shape.head_dim;
        let sharing = kept.len() / shape.kv_heads;
        let total: usize = kept.iter().map(Vec::len).sum();
        let gather = |from: &[T]| {
            let mut to = Vec::with_capacity(total * d);
            for (stored, positions) in kept.iter().enumerate() {
                let head = &from[stored / sharing * shape.tokens * d..][..shape.tokens * d];
                for &at in positions {
                    to.extend_from_slice(&head[at as usize * d..][..d]);
                }
            }
            to
        };
        let mut offsets = vec![0];
        for positions in kept {
            offsets.push(offsets[offsets.len() - 1] + positions.len());
        }
        Self {
            offsets,
            keys: gather(keys),
            values: gather(values),
            ..Self::empty(shape)
        }
    }

    fn empty(shape: KvShape) -> Self {
        Self {
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            offsets: vec![0],
            keys: Vec::new(),
            values: Vec::new(),
            tail: Tail {
                tokens: 0,
                blocks: Vec::new(),
            },
        }
    }

    /// Appends one generated token; `keys` and `values` are `(kv_heads, head_dim)`.
    pub fn append(&mut self, keys: &[T], values: &[T]) {
        let (d, row) = (self.head_dim, self.tail.tokens % TAIL_BLOCK);
        if row == 0 {
            let size = 2 * self.kv_heads * TAIL_BLOCK * d;
            self.tail
                .blocks
                .push(vec![T::default(); size].into_boxed_slice());
        }
        if let Some(block) = self.tail.blocks.last_mut() {
            let (k, v) = block.split_at_mut(self.kv_heads * TAIL_BLOCK * d);
            for head in 0..self.kv_heads {
                let at = (head * TAIL_BLOCK + row) * d;
                k[at..at + d].copy_from_slice(&keys[head * d..][..d]);
                v[at..at + d].copy_from_slice(&values[head * d..][..d]);
            }
        }
        self.tail.tokens += 1;
    }

    /// Number of stored heads.
    pub fn stored_heads(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Tokens of the prompt that a stored head keeps.
    pub fn kept(&self, stored: usize) -> usize {
        self.offsets[stored + 1] - self.offsets[stored]
    }

    /// Generated tokens.
    pub fn tail_tokens(&self) -> usize {
        self.tail.tokens
    }

    /// Everything that a stored head attends to: its kept part, then the tail's blocks.
    pub fn segments(&self, stored: usize) -> Vec<Segment<'_, T>> {
        let (d, head) = (
            self.head_dim,
            stored / (self.stored_heads() / self.kv_heads),
        );
        let kept = self.offsets[stored] * d..self.offsets[stored + 1] * d;
        let mut segments = vec![Segment {
            keys: &self.keys[kept.clone()],
            values: &self.values[kept],
        }];
        segments.extend(self.tail.blocks.iter().enumerate().map(|(i, block)| {
            let tokens = (self.tail.tokens - i * TAIL_BLOCK).min(TAIL_BLOCK);
            let (keys, values) = block.split_at(self.kv_heads * TAIL_BLOCK * d);
            let rows = head * TAIL_BLOCK * d..(head * TAIL_BLOCK + tokens) * d;
            Segment {
                keys: &keys[rows.clone()],
                values: &values[rows],
            }
        }));
        segments
    }

    /// Bytes of the compressed part.
    pub fn kept_bytes(&self) -> usize {
        (self.keys.capacity() + self.values.capacity()) * size_of::<T>()
    }

    /// Bytes of the tail's blocks.
    pub fn tail_bytes(&self) -> usize {
        self.tail
            .blocks
            .iter()
            .map(|block| size_of_val::<[T]>(block))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A key whose value tells its head and position.
    fn prompt(shape: KvShape) -> (Vec<f32>, Vec<f32>) {
        let rows =
            (0..shape.kv_heads).flat_map(|h| (0..shape.tokens).map(move |t| (h * 1000 + t) as f32));
        let keys: Vec<f32> = rows.flat_map(|x| vec![x; shape.head_dim]).collect();
        let values = keys.iter().map(|x| -x).collect();
        (keys, values)
    }

    fn held(cache: &RaggedCache<f32>, stored: usize) -> Vec<(f32, f32)> {
        let d = cache.head_dim;
        let rows = |s: &Segment<f32>| {
            s.keys
                .chunks(d)
                .zip(s.values.chunks(d))
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
            let sharing = if per_query_head { 2 } else { 1 };
            let shape = KvShape { kv_heads: 4 / sharing, tokens: 50, head_dim: 3 };
            let (k, v) = prompt(shape);
            let mut cache = RaggedCache::compress(&k, &v, shape, &kept);
            let compressed = cache.keys.as_ptr();
            for t in 0..appended {
                let new: Vec<f32> = (0..shape.kv_heads).flat_map(|h| vec![(h * 1000 + 500 + t) as f32; 3]).collect();
                cache.append(&new, &new);
            }
            prop_assert_eq!(cache.keys.as_ptr(), compressed, "the compressed part moved");
            for (stored, positions) in kept.iter().enumerate() {
                let head = stored / sharing * 1000;
                let prompt = positions.iter().map(|&t| ((head + t as usize) as f32, -((head + t as usize) as f32)));
                let tail = (0..appended).map(|t| ((head + 500 + t) as f32, (head + 500 + t) as f32));
                prop_assert_eq!(held(&cache, stored), prompt.chain(tail).collect::<Vec<_>>());
            }
            let total: usize = kept.iter().map(Vec::len).sum();
            prop_assert_eq!(cache.kept_bytes(), total * 2 * 3 * 4);
            prop_assert_eq!(cache.tail_bytes(), appended.div_ceil(TAIL_BLOCK) * TAIL_BLOCK * shape.kv_heads * 2 * 3 * 4);
        }
    }

    #[test]
    fn keep_all_is_the_prompt() {
        let shape = KvShape {
            kv_heads: 2,
            tokens: 5,
            head_dim: 3,
        };
        let (k, v) = prompt(shape);
        let cache = RaggedCache::keep_all(&k, &v, shape);
        assert_eq!(held(&cache, 1)[4], (1004.0, -1004.0));
        assert_eq!((cache.stored_heads(), cache.kept(0)), (2, 5));
    }
}
