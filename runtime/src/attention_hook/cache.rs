//! The cache's side of the seam: handles to the sequences of the batch at hand, no tensors.

use std::{
    fmt,
    sync::{Arc, PoisonError, Weak},
};

use candle_core::{Result, Tensor};

use super::{of, pass, HookedSequence, ModelHook, ModelInfo};
use crate::{
    kv_cache::{EitherCache, HybridCache, HybridLayerCache, KvCache},
    sequence::Sequence,
};

/// What stands where the runtime's own cache would: a handle, no tensors.
#[derive(Clone)]
pub struct HookedCache(Held);

#[derive(Clone)]
enum Held {
    /// In a sequence: its state, which goes with it.
    Sequence(Arc<HookedSequence>),
    /// In a model's layer: the batch at hand.
    Layer(LayerCache),
}

/// A model's layer, and the sequences of the batch at hand; they hold themselves, so that one that ends is freed.
#[derive(Clone)]
pub(super) struct LayerCache {
    pub hook: Arc<dyn ModelHook>,
    pub layer: usize,
    pub model: ModelInfo,
    batch: Arc<[Weak<HookedSequence>]>,
}

impl fmt::Debug for HookedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Held::Sequence(seq) => write!(f, "HookedCache(sequence {})", seq.info().seq_id),
            Held::Layer(LayerCache { layer, batch, .. }) => {
                write!(f, "HookedCache(layer {layer}, batch of {})", batch.len())
            }
        }
    }
}

/// Calls `f` with the caches of the layers that attend; `None` for an old-style cache, which has none apart.
pub(super) fn with_layers<R>(
    cache: &EitherCache,
    f: impl FnOnce(&mut [&mut KvCache]) -> R,
) -> Option<R> {
    match cache {
        EitherCache::Normal(cache) => {
            let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
            Some(f(&mut cache.0.iter_mut().collect::<Vec<_>>()))
        }
        EitherCache::Hybrid(cache) => {
            let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
            Some(f(&mut attending(&mut cache).collect::<Vec<_>>()))
        }
        EitherCache::Full(_) => None,
    }
}

/// The caches of a hybrid model's layers that attend.
fn attending(cache: &mut HybridCache) -> impl Iterator<Item = &mut KvCache> {
    let layers = cache.caches.iter_mut();
    layers.filter_map(HybridLayerCache::as_kv_cache_mut)
}

/// Whether the cache is a hooked one; a model's layers are either all hooked or none is.
pub(crate) fn hooked(caches: &[KvCache]) -> bool {
    matches!(caches.first(), Some(KvCache::Hooked(_)))
}

/// As [`hooked`], of a model with recurrent layers, which are the runtime's.
pub(crate) fn hooked_hybrid(cache: &HybridCache) -> bool {
    let mut layers = cache.caches.iter();
    let first = layers.find_map(HybridLayerCache::as_kv_cache);
    matches!(first, Some(KvCache::Hooked(_)))
}

/// Makes a batch of the sequences, whatever their lengths. False if the model is not hooked.
pub(crate) fn gather<'a>(
    caches: impl IntoIterator<Item = &'a mut KvCache>,
    seqs: &mut [&mut Sequence],
) -> bool {
    let mut batch: Option<Arc<[_]>> = None;
    for cache in caches {
        if let KvCache::Hooked(HookedCache(Held::Layer(layer))) = cache {
            let batch = batch.get_or_insert_with(|| {
                let states = seqs.iter_mut().map(|seq| of(seq).map(Arc::downgrade));
                states.map(Option::unwrap_or_default).collect()
            });
            layer.batch = batch.clone();
        }
    }
    batch.is_some()
}

/// As [`gather`], of a model with recurrent layers.
pub(crate) fn gather_hybrid(cache: &mut HybridCache, seqs: &mut [&mut Sequence]) -> bool {
    gather(attending(cache), seqs)
}

/// As [`reset`], of a model with recurrent layers; prompts that are about to run begin with empty states. Upstream empties
/// those of every sequence, the ones that decode included, and takes their places from them.
pub(crate) fn reset_hybrid(
    cache: &mut HybridCache,
    seqs: &mut [&mut Sequence],
    start: bool,
) -> bool {
    if !start {
        return gather_hybrid(cache, &mut []);
    }
    let hooked = gather_hybrid(cache, seqs);
    for seq in seqs.iter_mut().filter(|_| hooked) {
        let Some(place) = seq.recurrent_state_idx() else {
            continue;
        };
        if let Err(error) = cache.reset_seq(place) {
            if let Some(state) = of(seq) {
                state.fail(error.to_string());
            }
        }
    }
    hooked
}

/// Forgets the last batch and, if `start`, makes one of prompts that are about to run. False if not hooked.
pub(crate) fn reset(caches: &mut [KvCache], seqs: &mut [&mut Sequence], start: bool) -> bool {
    if start {
        gather(caches, seqs)
    } else {
        gather(caches, &mut [])
    }
}

/// Sequences hold their own states: nothing is handed back. False if not hooked.
pub(crate) fn scatter(caches: &[KvCache]) -> bool {
    hooked(caches)
}

impl HookedCache {
    pub(super) fn of_sequence(seq: Arc<HookedSequence>) -> Self {
        Self(Held::Sequence(seq))
    }

    pub(super) fn of_layer(hook: Arc<dyn ModelHook>, layer: usize, model: ModelInfo) -> Self {
        Self(Held::Layer(LayerCache {
            hook,
            layer,
            model,
            batch: Arc::new([]),
        }))
    }

    pub(super) fn sequence(&self) -> Option<&Arc<HookedSequence>> {
        match &self.0 {
            Held::Sequence(seq) => Some(seq),
            Held::Layer(_) => None,
        }
    }

    pub(super) fn layer(&self) -> Option<&LayerCache> {
        match &self.0 {
            Held::Sequence(_) => None,
            Held::Layer(layer) => Some(layer),
        }
    }

    /// Tokens that the longest sequence of the batch has seen.
    pub(crate) fn seen(&self) -> usize {
        match &self.0 {
            Held::Sequence(seq) => seq.seen(0),
            Held::Layer(LayerCache { layer, batch, .. }) => {
                let seqs = batch.iter().filter_map(Weak::upgrade);
                seqs.map(|seq| seq.seen(*layer)).max().unwrap_or(0)
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        if let Held::Layer(layer) = &mut self.0 {
            layer.batch = Arc::new([]);
        }
    }

    /// Arms the handle that [`super::attend_pending`] takes, and returns the new tokens' keys and values as they came.
    pub(crate) fn append(&mut self, k: Tensor, v: Tensor) -> Result<(Tensor, Tensor)> {
        let Held::Layer(cache) = &self.0 else {
            candle_core::bail!("attention hook: keys came to a sequence instead of its model");
        };
        let (batch, layer) = (k.dim(0)?, cache.layer);
        if cache.batch.len() != batch {
            candle_core::bail!(
                "attention hook: layer {layer}: {} sequences for a batch of {batch}",
                cache.batch.len()
            );
        }
        pass::arm(&k, cache)?;
        Ok((k, v))
    }
}

impl LayerCache {
    /// The sequences of the batch.
    pub fn sequences(&self) -> Result<Vec<Arc<HookedSequence>>> {
        let seqs = self.batch.iter().map(Weak::upgrade).collect::<Option<_>>();
        let gone = || {
            let layer = self.layer;
            candle_core::Error::msg(format!(
                "attention hook: layer {layer}: a sequence has no state; send the request again"
            ))
        };
        seqs.ok_or_else(gone)
    }
}
