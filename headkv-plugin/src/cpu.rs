//! The CPU as a backend: candle's tensors as slices for the kernels of [`crate::attention`].

use crate::{
    AttentionShape,
    attention::{DecodeUnit, Element, decode_attention, prefill_attention, window_scores},
    backend::{Backend, KvCache, rank_on_host},
    cache::RaggedCache,
    config::Compression,
    ranking::{Observed, Ranking},
    selection::{self, Scores},
};
use candle_core::{Result, Storage, Tensor, WithDType};
use std::marker::PhantomData;

/// The CPU, for tensors of one element type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu<T>(PhantomData<T>);

impl<T: Element> KvCache for RaggedCache<T> {
    fn fork(&self) -> Result<Self> {
        Ok(RaggedCache::fork(self))
    }

    fn kept_bytes(&self) -> usize {
        RaggedCache::kept_bytes(self)
    }

    fn tail_bytes(&self) -> usize {
        RaggedCache::tail_bytes(self)
    }
}

/// Calls `f` with the tensor's elements, contiguous.
fn read<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => f(&storage.as_slice::<T>()?[start..end]),
        _ => candle_core::bail!("headkv: expected a contiguous tensor on the CPU"),
    }
}

fn read_pair<T: WithDType, R>(
    k: &Tensor,
    v: &Tensor,
    f: impl FnOnce(&[T], &[T]) -> Result<R>,
) -> Result<R> {
    read(k, |k| read(v, |v| f(k, v)))
}

impl<T: Element + WithDType> Backend for Cpu<T> {
    type Cache = RaggedCache<T>;
    type Scores = Scores;

    fn prefill(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        shape: &AttentionShape,
    ) -> Result<Tensor> {
        let mut out = vec![T::zero(); q.elem_count()];
        read(q, |q: &[T]| {
            read_pair(k, v, |keys: &[T], values: &[T]| {
                prefill_attention(q, keys, values, k.dim(0)?, shape, &mut out);
                Ok(())
            })
        })?;
        Tensor::from_vec(out, q.shape(), q.device())
    }

    fn extend(
        &self,
        _layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        shape: &AttentionShape,
        caches: &mut [&mut Self::Cache],
    ) -> Result<Tensor> {
        let new = k.dim(2)?;
        let mut out = vec![T::zero(); q.elem_count()];
        read(q, |q: &[T]| {
            read_pair(k, v, |k: &[T], v: &[T]| {
                let size = k.len() / caches.len();
                let rows = k.chunks(size).zip(v.chunks(size));
                for (cache, (k, v)) in caches.iter_mut().zip(rows) {
                    cache.append(k, v);
                    if let Some(window) = shape.window {
                        // The first of the new tokens still sees what the last no longer does.
                        cache.slide(window + new - 1);
                    }
                }
                let (mut queries, mut outputs) = (q, &mut out[..]);
                let mut units = Vec::new();
                for cache in caches.iter() {
                    let share = shape.heads / cache.stored_heads();
                    let rows = share * new * shape.head_dim;
                    for stored in 0..cache.stored_heads() {
                        let (q, rest) = queries.split_at(rows);
                        let (out, left) = outputs.split_at_mut(rows);
                        units.push(DecodeUnit {
                            q,
                            new,
                            window: shape.window,
                            sinks: shape.sinks_of(stored * share, share),
                            segments: cache.segments(stored),
                            out,
                        });
                        (queries, outputs) = (rest, left);
                    }
                }
                decode_attention(&mut units, shape.head_dim, shape.scale, shape.softcap);
                if let Some(window) = shape.window {
                    caches.iter_mut().for_each(|cache| cache.slide(window));
                }
                Ok(())
            })
        })?;
        Tensor::from_vec(out, q.shape(), q.device())
    }

    fn rank(
        &self,
        prompt: &Observed<'_>,
        ranking: Option<&dyn Ranking>,
        config: &Compression,
    ) -> Result<Scores> {
        if let Some(ranking) = ranking {
            return rank_on_host(prompt, ranking, config);
        }
        let (q, k, shape) = (prompt.queries, prompt.keys, prompt.shape);
        let candidates = k.dim(1)? - q.dim(1)?;
        let window = read_pair(q, k, |q: &[T], k: &[T]| Ok(window_scores(q, k, shape)))?;
        let group = shape.heads / shape.stored_heads(config.granularity);
        Ok(selection::rank(
            Scores::new(candidates, window),
            group,
            config,
        ))
    }

    fn to_host(&self, scores: &Scores) -> Result<Scores> {
        Ok(scores.clone())
    }

    fn keep_all(&self, k: &Tensor, v: &Tensor) -> Result<Self::Cache> {
        let (kv_heads, _, head_dim) = k.dims3()?;
        read_pair(k, v, |k, v| {
            Ok(RaggedCache::keep_all(k, v, kv_heads, head_dim))
        })
    }

    fn keep_last(&self, k: &Tensor, v: &Tensor, window: usize) -> Result<Self::Cache> {
        let (kv_heads, _, head_dim) = k.dims3()?;
        read_pair(k, v, |k, v| {
            Ok(RaggedCache::keep_last(k, v, kv_heads, head_dim, window))
        })
    }

    fn keep_at(&self, k: &Tensor, v: &Tensor, positions: &[Vec<u32>]) -> Result<Self::Cache> {
        let (kv_heads, tokens, head_dim) = k.dims3()?;
        if let Some(at) = positions
            .iter()
            .flatten()
            .find(|&&at| at as usize >= tokens)
        {
            candle_core::bail!("headkv: position {at} is beyond the prompt of {tokens} tokens");
        }
        read_pair(k, v, |k, v| {
            Ok(RaggedCache::keep_at(k, v, kv_heads, head_dim, positions))
        })
    }

    fn keep_best(
        &self,
        k: &Tensor,
        v: &Tensor,
        scores: &Scores,
        counts: &[usize],
        recent: usize,
    ) -> Result<Self::Cache> {
        let positions = selection::best_and_recent(scores, counts, k.dim(1)?, recent);
        self.keep_at(k, v, &positions)
    }
}
