//! A model takes the hook when it loads, whole, or is refused with the reason.

use std::sync::{Arc, Mutex, PoisonError};

use super::{cache::HookedCache, current, info, AttentionHook};
use crate::{
    kv_cache::{EitherCache, KvCache, NormalCache},
    pipeline::{CacheManagerMixin, MetadataMixin, ModelKind},
    PagedAttentionConfig,
};

/// Refuses to load what would silently run without the hook.
pub(crate) fn refuse(what: &str) -> anyhow::Result<()> {
    if current().is_some() {
        anyhow::bail!(
            "{what} cannot be hooked; load it without the attention hook, or load the plain model"
        );
    }
    Ok(())
}

/// The hook for a model that begins to load; turns paged attention off, which would bypass it.
pub(crate) fn for_load(
    kind: &ModelKind,
    no_kv_cache: bool,
    paged: &mut Option<PagedAttentionConfig>,
) -> anyhow::Result<Option<Arc<dyn AttentionHook>>> {
    let Some(hook) = current() else {
        return Ok(None);
    };
    if kind.is_adapted_and(|adapter| adapter.is_x_lora()) {
        refuse("an X-LoRA model")?;
    }
    if no_kv_cache {
        refuse("a model without a KV cache (no_kv_cache)")?;
    }
    if mistralrs_quant::distributed::use_nccl() || mistralrs_quant::distributed::use_ring() {
        refuse("a model spread over several processes (NCCL, ring)")?;
    }
    if paged.take().is_some() {
        tracing::warn!("this model takes an attention hook: its paged attention is off");
    }
    Ok(Some(hook))
}

/// The caches of a model whose even layers slide; upstream gives its others a window too, which a hook must not see.
pub(crate) fn alternating(
    caches: Arc<Mutex<NormalCache>>,
    max_seq_len: usize,
) -> Arc<Mutex<NormalCache>> {
    if current().is_some() {
        let layers = &mut caches.lock().unwrap_or_else(PoisonError::into_inner).0;
        for cache in layers.iter_mut().skip(1).step_by(2) {
            *cache = KvCache::new_normal(2, max_seq_len, NormalCache::CACHE_GROW_SIZE);
        }
    }
    caches
}

/// Puts the hook into every layer of a loaded model, or refuses the model with the reason.
pub(crate) fn install<P: CacheManagerMixin + MetadataMixin>(
    hook: Option<&Arc<dyn AttentionHook>>,
    pipeline: &P,
) -> anyhow::Result<()> {
    let Some(hook) = hook else { return Ok(()) };
    let EitherCache::Normal(cache) = pipeline.cache() else {
        return refuse("a model with recurrent layers or an old-style cache");
    };
    let metadata = pipeline.get_metadata();
    let Some(config) = metadata.model_metadata.as_ref() else {
        return refuse("a model that does not tell its attention's shape");
    };
    if config.k_head_dim() != config.v_head_dim() {
        return refuse(
            "a model whose keys and values differ in size (multi-head latent attention)",
        );
    }
    let caches = &mut cache.lock().unwrap_or_else(PoisonError::into_inner).0;
    let context = metadata.max_seq_len;
    let mut windows = Vec::with_capacity(caches.len());
    for (layer, cache) in caches.iter().enumerate() {
        windows.push(match cache {
            KvCache::Normal { .. } => None,
            // A window that covers the whole context never hides anything.
            KvCache::Rotating { k, .. } => Some(k.max_seq_len).filter(|window| *window < context),
            KvCache::Shared { .. } | KvCache::Hooked(_) => {
                return refuse(&format!("layer {layer} (its cache is shared)"))
            }
        });
    }
    let model = info(&**config, windows.into(), context);
    let hook = hook.attach(&model)?;
    for (layer, cache) in caches.iter_mut().enumerate() {
        *cache = KvCache::Hooked(HookedCache::of_layer(hook.clone(), layer, model.clone()));
    }
    Ok(())
}
