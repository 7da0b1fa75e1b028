//! The hook's two passes on the CPU: a prompt is attended and compressed, a generated token appended and attended.

use super::{Cache, LayerState};
use crate::{
    attention::{
        DecodeUnit, Element, PromptShape, WindowShape, decode_attention, prompt_attention,
        window_scores,
    },
    cache::{KvShape, RaggedCache},
    methods::{Budget, Compressor},
    selection::{self, Scores},
};
use candle_core::{CpuStorage, Result, Storage, Tensor, WithDType};
use half::{bf16, f16};
use mistralrs_core::attention_hook::{AttendCx, SeqState};
use std::{convert::Infallible, ops::DerefMut, sync::atomic::Ordering::Relaxed, time::Instant};

/// An element type that the hook stores.
pub trait Stored: Element + WithDType {
    fn wrap(cache: RaggedCache<Self>) -> Cache;
    fn unwrap(cache: &mut Cache) -> Option<&mut RaggedCache<Self>>;
}

macro_rules! stored {
    ($($element:ty => $variant:ident),*) => {$(
        impl Stored for $element {
            fn wrap(cache: RaggedCache<Self>) -> Cache {
                Cache::$variant(cache)
            }
            fn unwrap(cache: &mut Cache) -> Option<&mut RaggedCache<Self>> {
                match cache {
                    Cache::$variant(cache) => Some(cache),
                    _ => None,
                }
            }
        }
    )*};
}
stored!(f32 => F32, bf16 => Bf16, f16 => F16);

/// Attends one layer of a batch, `(batch, heads, tokens, head_dim)`.
pub fn attend<T: Stored>(cx: &AttendCx<'_>, states: &[SeqState]) -> Result<Tensor> {
    let (batch, heads, tokens, head_dim) = cx.q.dims4()?;
    let mut out = vec![T::zero(); batch * heads * tokens * head_dim];
    let prompt = states.iter().all(|state| state.seen() == 0);
    read(cx.q, |q: &[T]| {
        read(cx.k, |k: &[T]| {
            read(cx.v, |v: &[T]| {
                let new = New { q, k, v, tokens };
                if prompt {
                    new.prompt(cx, states, &mut out)
                } else {
                    new.decode(cx, states, &mut out)
                }
            })
        })
    })?;
    Tensor::from_vec(out, (batch, heads, tokens, head_dim), cx.q.device())
}

/// Calls `f` with the tensor's elements, contiguous.
fn read<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => f(&slice::<T>(storage)?[start..end]),
        _ => candle_core::bail!("headkv: expected a contiguous tensor on the CPU"),
    }
}

fn slice<T: WithDType>(storage: &CpuStorage) -> Result<&[T]> {
    storage.as_slice::<T>()
}

/// The new tokens of a batch: queries `(batch, heads, tokens, head_dim)`, keys and values with `kv_heads`.
struct New<'a, T> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    tokens: usize,
}

impl<T: Stored> New<'_, T> {
    fn prompt(&self, cx: &AttendCx<'_>, states: &[SeqState], out: &mut [T]) -> Result<()> {
        let (model, tokens) = (cx.model, self.tokens);
        let start = Instant::now();
        let shape = PromptShape {
            batch: states.len(),
            heads: model.heads,
            kv_heads: model.kv_heads,
            tokens,
            head_dim: model.head_dim,
            scale: cx.softmax_scale,
            softcap: cx.softcap,
        };
        prompt_attention(self.q, self.k, self.v, &shape, out);
        let attended = start.elapsed() / states.len() as u32;

        for (row, state) in states.iter().enumerate() {
            let start = Instant::now();
            let mut state = state.state::<LayerState>()?;
            let size = tokens * model.head_dim;
            let rows = |heads: usize| row * heads * size..(row + 1) * heads * size;
            let (q, k, v) = (
                &self.q[rows(model.heads)],
                &self.k[rows(model.kv_heads)],
                &self.v[rows(model.kv_heads)],
            );
            let cache = compress(&state.compressor, cx, tokens, q, k, v);
            state
                .counters
                .kept_bytes
                .fetch_add(cache.kept_bytes(), Relaxed);
            state
                .counters
                .attention_nanos
                .fetch_add(attended.as_nanos() as u64, Relaxed);
            state
                .counters
                .selection_nanos
                .fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
            state.cache = Some(T::wrap(cache));
        }
        Ok(())
    }

    fn decode(&self, cx: &AttendCx<'_>, states: &[SeqState], out: &mut [T]) -> Result<()> {
        let model = cx.model;
        if self.tokens != 1 {
            candle_core::bail!(
                "headkv: {} tokens at once after the prompt; send them one by one",
                self.tokens
            );
        }
        let size = model.kv_heads * model.head_dim;
        let mut states = states
            .iter()
            .map(SeqState::state::<LayerState>)
            .collect::<Result<Vec<_>>>()?;
        let mut caches = Vec::with_capacity(states.len());
        for (row, state) in states.iter_mut().enumerate() {
            let LayerState {
                counters, cache, ..
            } = state.deref_mut();
            let Some(cache) = cache.as_mut().and_then(T::unwrap) else {
                candle_core::bail!(
                    "headkv: a token came before its prompt, or in another element type"
                );
            };
            let before = cache.tail_bytes();
            cache.append(&self.k[row * size..][..size], &self.v[row * size..][..size]);
            counters
                .tail_bytes
                .fetch_add(cache.tail_bytes() - before, Relaxed);
            caches.push(&*cache);
        }
        let mut queries = self.q;
        let mut outputs = out;
        let mut units = Vec::new();
        for cache in caches {
            let rows = model.heads / cache.stored_heads() * model.head_dim;
            for stored in 0..cache.stored_heads() {
                let (q, rest) = queries.split_at(rows);
                let (out, left) = outputs.split_at_mut(rows);
                units.push(DecodeUnit {
                    q,
                    segments: cache.segments(stored),
                    out,
                });
                (queries, outputs) = (rest, left);
            }
        }
        decode_attention(&mut units, model.head_dim, cx.softmax_scale, cx.softcap);
        Ok(())
    }
}

/// Keeps what the method's budget allows of one sequence's prompt.
fn compress<T: Stored>(
    compressor: &Compressor,
    cx: &AttendCx<'_>,
    tokens: usize,
    q: &[T],
    k: &[T],
    v: &[T],
) -> RaggedCache<T> {
    let (model, config) = (compressor.model, &compressor.config);
    let shape = KvShape {
        kv_heads: model.kv_heads,
        tokens,
        head_dim: model.head_dim,
    };
    let budget = compressor.budget(cx.layer, tokens);
    if budget == Budget::All {
        return RaggedCache::keep_all(k, v, shape);
    }
    let ranking = || {
        let shape = WindowShape {
            heads: model.heads,
            kv_heads: model.kv_heads,
            tokens,
            head_dim: model.head_dim,
            window: config.window,
            scale: cx.softmax_scale,
            softcap: cx.softcap,
        };
        let window = Scores::new(tokens - config.window, window_scores(q, k, &shape));
        let group = model.heads / model.stored_heads(config.granularity);
        Ok::<_, Infallible>(selection::rank(window, group, config))
    };
    let Ok(kept) = compressor.select(&budget, tokens, ranking);
    RaggedCache::compress(k, v, shape, &kept)
}
