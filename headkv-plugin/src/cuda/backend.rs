//! An NVIDIA GPU as a backend.
//!
//! A ranking with a budget that is known without the scores does not wait for the device while a prompt is compressed; where
//! heads compete, the host waits for how many positions each one keeps. Ada-KV's budgets and errors' bounds are decided on
//! the host.

use super::{
    cache::RaggedCache,
    decode::{Plans, decode_attention},
    device::device_of,
    prompt::prompt_attention,
    rank::{DeviceScores, pooled, rank},
    sinks::Sinks,
};
use crate::{
    AttentionShape,
    backend::Backend,
    config::Compression,
    ranking::{Observed, Ranking},
    selection::Scores,
};
use candle_core::{Result, Tensor};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// NVIDIA GPUs, for tensors in bf16 or f16.
#[derive(Default)]
pub struct Cuda {
    /// By layer: the batch of the next step is mostly that of the last one.
    plans: Mutex<HashMap<usize, Plans>>,
    sinks: Sinks,
}

impl Backend for Cuda {
    type Cache = RaggedCache;
    type Scores = DeviceScores;

    fn prefill(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        shape: &AttentionShape,
    ) -> Result<Tensor> {
        let sinks = self.sinks.address(shape, &device_of(q)?)?;
        prompt_attention(q, k, v, shape, sinks)
    }

    fn extend(
        &self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        shape: &AttentionShape,
        caches: &mut [&mut RaggedCache],
    ) -> Result<Tensor> {
        let sinks = self.sinks.address(shape, &device_of(q)?)?;
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plans = plans.entry(layer).or_default();
        let new = k.dim(2)?;
        if new == 1 {
            return decode_attention(q, k, v, shape, caches, plans, sinks);
        }
        let one_by_one = (0..new).map(|t| {
            let [q, k, v] = [q, k, v].map(|x| x.narrow(2, t, 1));
            decode_attention(&q?, &k?, &v?, shape, caches, plans, sinks)
        });
        Tensor::cat(&one_by_one.collect::<Result<Vec<_>>>()?, 2)
    }

    fn rank(
        &self,
        prompt: &Observed<'_>,
        ranking: Option<&dyn Ranking>,
        config: &Compression,
    ) -> Result<DeviceScores> {
        match ranking {
            Some(ranking) if ranking.kernel().is_none() => {
                pooled(prompt, &ranking.checked(prompt)?, config)
            }
            ranking => {
                let sinks = self.sinks.address(prompt.shape, &device_of(prompt.keys)?)?;
                rank(prompt, ranking.and_then(Ranking::kernel), config, sinks)
            }
        }
    }

    fn to_host(&self, scores: &DeviceScores) -> Result<Scores> {
        scores.to_host()
    }

    fn compete(
        &self,
        scores: &DeviceScores,
        total: usize,
        floor: usize,
        weights: &[f64],
    ) -> Result<Vec<usize>> {
        scores.compete(total, floor, weights)
    }

    fn keep_all(&self, k: &Tensor, v: &Tensor) -> Result<RaggedCache> {
        RaggedCache::keep_all(k, v)
    }

    fn keep_last(&self, k: &Tensor, v: &Tensor, window: usize) -> Result<RaggedCache> {
        RaggedCache::keep_last(k, v, window)
    }

    fn keep_at(&self, k: &Tensor, v: &Tensor, positions: &[Vec<u32>]) -> Result<RaggedCache> {
        RaggedCache::keep_at(k, v, positions)
    }

    fn keep_best(
        &self,
        k: &Tensor,
        v: &Tensor,
        scores: &DeviceScores,
        counts: &[usize],
        recent: usize,
    ) -> Result<RaggedCache> {
        RaggedCache::keep_best(k, v, scores, counts, recent)
    }
}
