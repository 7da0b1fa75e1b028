//! Lets a crate outside the runtime take over attention and the storage of keys and values.
//!
//! A model that loads within [`scope`] (or [`sync_scope`]) asks the [`AttentionHook`] for a [`ModelHook`] of its own.
//! Each request's sequence then gets a state from [`ModelHook::begin`], which holds all layers and is dropped with the
//! sequence. Every layer hands its new keys and values to the hook instead of its own cache, and asks it for the
//! attention output:
//!
//! ```text
//! KvCache::append(k, v)           arms a thread-local handle {k's id, sequences of the batch}; stores nothing
//! Sdpa::run_attention(q, k, ..)   takes the handle if k is the armed tensor, and calls ModelHook::attend
//! ```
//!
//! Both calls stand in one synchronous function of every supported model. The seam fails loudly: arming over a handle
//! that was not taken is an error, and so is a handle left when the forward pass ends. What fails for one sequence of a
//! batch ends that sequence alone ([`HookedSequence::fail`]). Models that load outside a scope are upstream's.
#![warn(missing_docs)]

mod cache;
mod failure;
mod load;
mod mxfp4;
mod pass;
mod rotary;
mod schedule;
mod sequence;
mod shutdown;

use std::{any::Any, future::Future, sync::Arc};

use candle_core::{Result, Tensor};
use tokenizers::Tokenizer;

use crate::{kv_cache::KvCache, paged_attention::ModelConfigLike, pipeline::Pipeline};

pub use cache::HookedCache;
pub(crate) use cache::{
    gather, gather_hybrid, hooked, hooked_hybrid, reset, reset_hybrid, scatter,
};
use cache::{with_layers, LayerCache};
pub(crate) use failure::{end_failed, ended, patiently, send};
pub(crate) use load::{alternating, for_load, for_multimodal, install, refuse};
pub(crate) use mxfp4::packed_gptoss_linear;
pub(crate) use pass::{attend_pending, forward};
pub(crate) use rotary::{by_row, rotary_rows, text_positions, Past};
pub(crate) use schedule::{bucket, prompt_time, unfinished};
pub use schedule::{NextPass, PromptPolicy};
pub use sequence::HookedSequence;
pub(crate) use sequence::{begin, of};
pub(crate) use shutdown::end;

/// The shape of a model's attention, the same in every layer but for the windows. Layers without attention are not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Number of layers that attend.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// Key-value heads per layer; query head `h` reads key-value head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Elements of one head's key, and of its value as a hook gets it: shorter ones are filled up with zeros, which are cut
    /// off its output.
    pub head_dim: usize,
    /// Elements of one head's value as the model computes it.
    pub value_dim: usize,
    /// The model's context in tokens.
    pub max_seq_len: usize,
    /// By layer: the tokens that a sliding window shows to each query, its own included; `None` shows all.
    pub windows: Arc<[Option<usize>]>,
    /// Whether each prompt must run whole, from its first token: the model has a state besides keys and values, or embeds
    /// positions by the length of the whole prompt.
    pub whole_prompts: bool,
}

/// What a hook may know of a sequence when it begins.
#[derive(Clone, Debug)]
pub struct SeqInfo {
    /// The engine's number of the sequence, and the `id` of its responses.
    pub seq_id: usize,
    /// The request that asked for it: `NormalRequest::id`. A request of several choices begins several sequences.
    pub request_id: usize,
    /// The prompt's token ids.
    pub prompt: Vec<u32>,
}

/// One layer's attention over a batch.
pub struct AttendCx<'a> {
    /// The layer, from 0, of those that attend.
    pub layer: usize,
    /// The model's shape.
    pub model: &'a ModelInfo,
    /// Queries after rotary embedding, `(batch, heads, tokens, head_dim)`.
    pub q: &'a Tensor,
    /// Keys of the new tokens only, `(batch, kv_heads, tokens, head_dim)`, contiguous.
    pub k: &'a Tensor,
    /// Values of the new tokens only, `(batch, kv_heads, tokens, head_dim)`, contiguous.
    pub v: &'a Tensor,
    /// Factor on the logits.
    pub softmax_scale: f32,
    /// Soft cap `c` on the scaled logits, `x -> c tanh(x / c)`.
    pub softcap: Option<f32>,
    /// The tokens that this layer shows to each query, its own included; `None` shows all.
    pub window: Option<usize>,
    /// Attention sinks: a logit per query head, `(heads,)`, that takes part in the softmax and brings no value.
    pub sinks: Option<&'a Tensor>,
}

/// What a program puts into the models that it loads.
pub trait AttentionHook: Send + Sync {
    /// Called once while a model loads: gives the model its own hook, or refuses it with the reason.
    fn attach(&self, model: &ModelInfo) -> Result<Arc<dyn ModelHook>>;
}

/// An attention of one's own, with storage of its own, for every layer of one model.
///
/// Attention must be causal: the runtime builds no mask for a hooked model.
pub trait ModelHook: Any + Send + Sync {
    /// Makes the state, of all layers, of a sequence that a request asked for; it is dropped with the sequence.
    fn begin(&self, seq: &SeqInfo) -> Result<Box<dyn Any + Send>>;

    /// Stores the new keys and values and returns the output `(batch, heads, tokens, head_dim)`.
    ///
    /// `seqs[i]` belongs to batch row `i`. All rows bring the same number of tokens, and differ in how much they have
    /// seen. On an error no state may have changed: the runtime then asks again row by row, to find whose it is.
    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> Result<Tensor>;

    /// Tokens at the prompt's beginning that the state has taken in from elsewhere, fewer than the prompt has; they are
    /// not run. Asked once, just before the prompt runs, unless [`ModelInfo::whole_prompts`].
    fn resume(&self, seq: &HookedSequence) -> Result<usize> {
        let _ = seq;
        Ok(0)
    }

    /// What the next pass of a prompt is to run, asked before each of them; all of it where [`ModelInfo::whole_prompts`] says
    /// so.
    fn next_pass(&self, seq: &HookedSequence) -> Result<NextPass> {
        let _ = seq;
        Ok(NextPass::Prompt(usize::MAX))
    }

    /// How this model's prompts share the engine with the sequences that decode.
    fn prompts(&self) -> PromptPolicy {
        PromptPolicy::default()
    }
}

tokio::task_local! {
    static HOOK: Arc<dyn AttentionHook>;
}

/// Runs a future in which every model that loads takes the hook; models that load elsewhere meanwhile do not.
pub async fn scope<F: Future>(hook: Arc<dyn AttentionHook>, future: F) -> F::Output {
    HOOK.scope(hook, future).await
}

/// Calls a function in which every model that loads, on this thread, takes the hook.
pub fn sync_scope<R>(hook: Arc<dyn AttentionHook>, f: impl FnOnce() -> R) -> R {
    HOOK.sync_scope(hook, f)
}

fn current() -> Option<Arc<dyn AttentionHook>> {
    HOOK.try_with(Arc::clone).ok()
}

// ---- what a caller has to know of a loaded model, and the runtime does not export ----

/// The hook that a loaded model took; `None` if it is not hooked.
pub fn hook_of(pipeline: &dyn Pipeline) -> Option<Arc<dyn ModelHook>> {
    Some(first_layer(pipeline)?.hook)
}

/// The first layer of a hooked model, which knows what all of them know.
fn first_layer(pipeline: &dyn Pipeline) -> Option<LayerCache> {
    // The other kinds of models have no cache to ask for.
    pipeline.get_metadata().model_metadata.as_ref()?;
    with_layers(pipeline.cache(), |layers| match layers.first() {
        Some(KvCache::Hooked(cache)) => cache.layer().cloned(),
        _ => None,
    })?
}

/// The tokenizer of a loaded model, also where it came out of a GGUF file.
pub fn tokenizer(pipeline: &dyn Pipeline) -> Option<Arc<Tokenizer>> {
    pipeline.tokenizer()
}

/// The attention shape of a loaded model, hooked or not; `None` if it is not a text model.
pub fn model_info(pipeline: &dyn Pipeline) -> Option<ModelInfo> {
    if let Some(layer) = first_layer(pipeline) {
        return Some(layer.model);
    }
    let metadata = pipeline.get_metadata();
    let config = metadata.model_metadata.as_ref()?;
    let layers = with_layers(pipeline.cache(), |layers| layers.len());
    let windows = vec![None; layers.unwrap_or(metadata.num_hidden_layers)];
    Some(info(&**config, windows.into(), metadata.max_seq_len, false))
}

fn info(
    config: &(dyn ModelConfigLike + Send + Sync),
    windows: Arc<[Option<usize>]>,
    max_seq_len: usize,
    whole_prompts: bool,
) -> ModelInfo {
    ModelInfo {
        layers: windows.len(),
        heads: config.num_attn_heads(),
        kv_heads: config.num_kv_heads(),
        head_dim: config.k_head_dim(),
        value_dim: config.v_head_dim(),
        max_seq_len,
        windows,
        whole_prompts,
    }
}
