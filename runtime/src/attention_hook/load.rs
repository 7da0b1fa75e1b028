//! A model takes the hook when it loads, whole, or is refused with the reason.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::{
    cache::{with_layers, HookedCache},
    current, info, AttentionHook,
};
use crate::{
    kv_cache::{KvCache, NormalCache},
    pipeline::{CacheManagerMixin, MetadataMixin, ModelKind},
    PagedAttentionConfig,
};

/// Multimodal models whose text goes the hook's way; requests with anything else are refused.
const TEXT_OF_MULTIMODAL: [&str; 5] = [
    "Gemma3ForCausalLM",
    "Gemma3ForConditionalGeneration",
    "Mistral3ForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
];

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

/// As [`for_load`], for a multimodal model of that config.json.
pub(crate) fn for_multimodal(
    kind: &ModelKind,
    config: &str,
    paged: &mut Option<PagedAttentionConfig>,
) -> anyhow::Result<Option<Arc<dyn AttentionHook>>> {
    let hook = for_load(kind, false, paged)?;
    let settings = settings(config);
    let class = architecture(&settings);
    if hook.is_some() && !TEXT_OF_MULTIMODAL.contains(&class) {
        refuse(&format!("the multimodal class {class:?}"))?;
    }
    Ok(hook)
}

fn settings(config: &str) -> Value {
    serde_json::from_str(config).unwrap_or_default()
}

fn architecture(settings: &Value) -> &str {
    settings["architectures"][0].as_str().unwrap_or_default()
}

/// The window of a Qwen 2 layer, which upstream has in no cache: it masks prompts in all layers, whatever the settings say.
fn window_of_qwen2(settings: &Value, layer: usize) -> Option<usize> {
    let number = |key: &str| usize::try_from(settings[key].as_u64()?).ok();
    if architecture(settings) != "Qwen2ForCausalLM" || settings["use_sliding_window"] != true {
        return None;
    }
    // As published ones have it where the settings do not.
    let first = number("max_window_layers").unwrap_or(28);
    number("sliding_window").filter(|_| layer >= first)
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

/// Puts the hook into every attending layer of a loaded model of that config.json, or refuses the model with the reason.
pub(crate) fn install<P: CacheManagerMixin + MetadataMixin>(
    hook: Option<&Arc<dyn AttentionHook>>,
    pipeline: &P,
    config_json: &str,
) -> anyhow::Result<()> {
    let Some(hook) = hook else { return Ok(()) };
    let settings = settings(config_json);
    let metadata = pipeline.get_metadata();
    let Some(config) = metadata.model_metadata.as_ref() else {
        return refuse("a model that does not tell its attention's shape");
    };
    if config.v_head_dim() > config.k_head_dim() {
        return refuse("a model whose values are larger than its keys");
    }
    let context = metadata.max_seq_len;
    let recurrent = pipeline.cache().is_hybrid();
    // Rotary factors of long prompts are others than those of short ones.
    let by_length = !settings["rope_scaling"]["long_factor"].is_null();
    let installed = with_layers(pipeline.cache(), |caches| {
        let mut windows = Vec::with_capacity(caches.len());
        for (layer, cache) in caches.iter().enumerate() {
            let window = match cache {
                KvCache::Normal { .. } => window_of_qwen2(&settings, layer),
                KvCache::Rotating { k, .. } => Some(k.max_seq_len),
                KvCache::Shared { .. } | KvCache::Hooked(_) => {
                    return refuse(&format!("layer {layer} (its cache is shared)"))
                }
            };
            // A window that covers the whole context never hides anything.
            windows.push(window.filter(|window| *window < context));
        }
        let model = info(&**config, windows.into(), context, recurrent || by_length);
        let hook = hook.attach(&model)?;
        for (layer, cache) in caches.iter_mut().enumerate() {
            **cache = KvCache::Hooked(HookedCache::of_layer(hook.clone(), layer, model.clone()));
        }
        Ok(())
    });
    installed.unwrap_or_else(|| refuse("a model with an old-style cache"))
}
