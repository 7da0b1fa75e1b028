//! The cache's side of the seam: handles to the states of the batch at hand, no tensors.

use std::{
    fmt,
    sync::{atomic::AtomicUsize, Arc},
};

use candle_core::{Result, Tensor};
use parking_lot::Mutex;

use super::{pass, AttentionHook, ModelInfo, SeqInfo, SeqState};
use crate::{kv_cache::KvCache, sequence::Sequence};

/// A layer's cache under a hook: handles to the states of the batch at hand, no tensors.
#[derive(Clone)]
pub struct HookedCache {
    pub(super) hook: Arc<dyn AttentionHook>,
    pub(super) layer: usize,
    pub(super) model: ModelInfo,
    pub(super) states: Vec<SeqState>,
    /// An error of a call that could not return it, reported by the next `append`.
    poison: Option<String>,
}

impl fmt::Debug for HookedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "HookedCache(layer {}, batch of {})",
            self.layer,
            self.states.len()
        )
    }
}

/// Whether the cache is a hooked one; a model's layers are either all hooked or none is.
pub(crate) fn hooked(caches: &[KvCache]) -> bool {
    matches!(caches.first(), Some(KvCache::Hooked(_)))
}

fn hooked_mut(caches: &mut [KvCache]) -> impl Iterator<Item = &mut HookedCache> {
    caches.iter_mut().filter_map(|cache| match cache {
        KvCache::Hooked(cache) => Some(cache),
        _ => None,
    })
}

/// Forgets the last batch and, if `start`, makes the states of prompts that are about to run. False if not hooked.
pub(crate) fn reset(caches: &mut [KvCache], seqs: &[&mut Sequence], start: bool) -> bool {
    if !hooked(caches) {
        return false;
    }
    let infos: Vec<Arc<SeqInfo>> = seqs
        .iter()
        .filter(|_| start)
        .map(|seq| {
            Arc::new(SeqInfo {
                seq_id: *seq.id(),
                prompt: seq.get_toks().to_vec(),
            })
        })
        .collect();
    for cache in hooked_mut(caches) {
        cache.poison = None;
        cache.states.clear();
        for seq in &infos {
            match cache.hook.new_state(cache.layer, &cache.model, seq) {
                Ok(state) => cache.states.push(SeqState {
                    seq: seq.clone(),
                    seen: Arc::new(AtomicUsize::new(0)),
                    inner: Arc::new(Mutex::new(state)),
                }),
                Err(error) => cache.poison = Some(error.to_string()),
            }
        }
    }
    true
}

/// Collects the sequences' handles into the model's cache, whatever their lengths. False if not hooked.
pub(crate) fn gather(caches: &mut [KvCache], seqs: &mut [&mut Sequence]) -> bool {
    if !hooked(caches) {
        return false;
    }
    for cache in hooked_mut(caches) {
        cache.poison = None;
        cache.states.clear();
        for seq in seqs.iter_mut() {
            match seq.normal_cache().get(cache.layer) {
                Some(Some(KvCache::Hooked(one))) => cache.states.extend(one.states.iter().cloned()),
                _ => {
                    cache.poison = Some(format!(
                        "sequence {} has no state; send the request again",
                        seq.id()
                    ))
                }
            }
        }
    }
    true
}

/// Hands each sequence its own handles back. False if not hooked.
pub(crate) fn scatter(caches: &mut [KvCache], seqs: &mut [&mut Sequence]) -> bool {
    if !hooked(caches) {
        return false;
    }
    for cache in hooked_mut(caches) {
        for (seq, state) in seqs.iter_mut().zip(&cache.states) {
            // It has them already, but for the step that follows its prompt.
            if let Some(KvCache::Hooked(one)) = &seq.normal_cache()[cache.layer] {
                if matches!(&one.states[..], [own] if Arc::ptr_eq(&own.inner, &state.inner)) {
                    continue;
                }
            }
            let mut one = HookedCache::new(cache.hook.clone(), cache.layer, cache.model);
            one.states.push(state.clone());
            seq.normal_cache()[cache.layer] = Some(KvCache::Hooked(one));
        }
    }
    true
}

impl HookedCache {
    pub(super) fn new(hook: Arc<dyn AttentionHook>, layer: usize, model: ModelInfo) -> Self {
        Self {
            hook,
            layer,
            model,
            states: Vec::new(),
            poison: None,
        }
    }

    /// Tokens that the longest sequence of the batch has seen.
    pub(crate) fn seen(&self) -> usize {
        self.states.iter().map(SeqState::seen).max().unwrap_or(0)
    }

    pub(crate) fn clear(&mut self) {
        self.states.clear();
    }

    /// Arms the handle that [`attend_pending`] takes, and returns the new tokens' keys and values as they came.
    pub(crate) fn append(&mut self, k: Tensor, v: Tensor) -> Result<(Tensor, Tensor)> {
        let layer = self.layer;
        if let Some(error) = self.poison.take() {
            candle_core::bail!("attention hook: layer {layer}: {error}");
        }
        let (batch, _, tokens, _) = k.dims4()?;
        if self.states.len() != batch {
            candle_core::bail!(
                "attention hook: layer {layer}: {} states for a batch of {batch}",
                self.states.len()
            );
        }
        if tokens > 1 && self.seen() != 0 {
            candle_core::bail!("attention hook: layer {layer}: several tokens after the prompt; send them one by one");
        }
        pass::arm(&k, self)?;
        Ok((k, v))
    }
}
