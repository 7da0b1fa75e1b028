//! The hook's two passes on an NVIDIA GPU, as [`super::cpu`] has them.
//!
//! Only a budget that heads share by their scores (Ada-KV) waits for the device while a prompt is compressed.

use super::{Cache, LayerState};
use crate::{
    cuda::{DeviceScores, RaggedCache, Ranking, decode_attention, prompt_attention, rank},
    methods::{Budget, Compressor},
};
use candle_core::{Result, Tensor};
use mistralrs_core::attention_hook::{AttendCx, SeqState};
use std::{ops::DerefMut, sync::atomic::Ordering::Relaxed};

/// Attends one layer of a batch, `(batch, heads, tokens, head_dim)`.
pub fn attend(cx: &AttendCx<'_>, states: &[SeqState]) -> Result<Tensor> {
    if states.iter().all(|state| state.seen() == 0) {
        prompt(cx, states)
    } else {
        decode(cx, states)
    }
}

fn prompt(cx: &AttendCx<'_>, states: &[SeqState]) -> Result<Tensor> {
    let out = prompt_attention(cx.q, cx.k, cx.v, cx.softmax_scale, cx.softcap)?;
    for (row, state) in states.iter().enumerate() {
        let mut state = state.state::<LayerState>()?;
        let (q, k, v) = (cx.q.get(row)?, cx.k.get(row)?, cx.v.get(row)?);
        let cache = compress(&state.compressor, cx, &q, &k, &v)?;
        state
            .counters
            .kept_bytes
            .fetch_add(cache.kept_bytes(), Relaxed);
        state.cache = Some(Cache::Cuda(cache));
    }
    Ok(out)
}

fn decode(cx: &AttendCx<'_>, states: &[SeqState]) -> Result<Tensor> {
    let mut states = states
        .iter()
        .map(SeqState::state::<LayerState>)
        .collect::<Result<Vec<_>>>()?;
    let (mut caches, mut counters) = (Vec::new(), Vec::new());
    for state in &mut states {
        let state = state.deref_mut();
        let Some(Cache::Cuda(cache)) = state.cache.as_mut() else {
            candle_core::bail!("headkv: a token came before its prompt, or on another device");
        };
        counters.push((&state.counters, cache.tail_bytes()));
        caches.push(cache);
    }
    let out = decode_attention(cx.q, cx.k, cx.v, &mut caches, cx.softmax_scale, cx.softcap)?;
    for (cache, (counters, before)) in caches.iter().zip(counters) {
        let grown = cache.tail_bytes() - before;
        counters.tail_bytes.fetch_add(grown, Relaxed);
    }
    Ok(out)
}

/// Keeps what the method's budget allows of one sequence's prompt; `q` is `(heads, tokens, head_dim)`.
fn compress(
    compressor: &Compressor,
    cx: &AttendCx<'_>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<RaggedCache> {
    let (model, config) = (compressor.model, &compressor.config);
    let tokens = k.dim(1)?;
    let budget = compressor.budget(cx.layer, tokens);
    if budget == Budget::All {
        return RaggedCache::keep_all(k, v);
    }
    let scores = || -> Result<DeviceScores> {
        let ranking = Ranking {
            window: config.window,
            kernel: config.kernel,
            pooling: config.pooling,
            stored_heads: model.stored_heads(config.granularity),
            reduce: config.reduce,
            scale: cx.softmax_scale,
            softcap: cx.softcap,
        };
        rank(q, k, &ranking)
    };
    if let Budget::PerHead(counts) = &budget {
        return RaggedCache::keep_best(k, v, &scores()?, counts);
    }
    let kept = compressor.select(&budget, tokens, || scores()?.to_host())?;
    RaggedCache::keep_at(k, v, &kept)
}
