//! Lets a crate outside the runtime take over attention and the storage of keys and values.
//!
//! A hook is set with [`set_global`] before a model is loaded. Every layer of a model that is loaded then hands its
//! new keys and values to the hook instead of its own cache, and asks the hook for the attention output:
//!
//! ```text
//! KvCache::append(k, v)           arms a thread-local handle {k's id, states of the batch}; stores nothing
//! Sdpa::run_attention(q, k, ..)   takes the handle if k is the armed tensor, and calls AttentionHook::attend
//! ```
//!
//! Both calls stand in one synchronous function of every supported model. The seam fails loudly: arming over a handle
//! that was not taken is an error, and so is a handle left when the forward pass ends.
#![warn(missing_docs)]

mod cache;
mod load;
mod pass;
mod rotary;
mod schedule;

use std::{
    any::Any,
    ops::DerefMut,
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc, PoisonError, RwLock,
    },
};

use candle_core::{Module, Result, Tensor};
use parking_lot::{Mutex, MutexGuard};
use tokenizers::Tokenizer;

use crate::{paged_attention::ModelConfigLike, pipeline::Pipeline};

pub use cache::HookedCache;
pub(crate) use cache::{gather, hooked, reset, scatter};
pub(crate) use load::{for_load, install, refuse};
pub(crate) use pass::{attend_pending, forward};
pub(crate) use rotary::rotary_rows;
pub(crate) use schedule::{bucket_len, limit_prompts, prompts_first};

/// The shape of a model's attention, the same in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Number of decoder layers.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// Key-value heads per layer; query head `h` reads key-value head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Elements of one head's key, and of its value.
    pub head_dim: usize,
    /// The model's context in tokens.
    pub max_seq_len: usize,
}

/// What a hook may know of a sequence when its prompt begins.
#[derive(Debug)]
pub struct SeqInfo {
    /// The engine's number of the sequence; later requests have larger ones.
    pub seq_id: usize,
    /// The prompt's token ids.
    pub prompt: Vec<u32>,
}

/// One sequence's state in one layer.
#[derive(Clone)]
pub struct SeqState {
    seq: Arc<SeqInfo>,
    seen: Arc<AtomicUsize>,
    inner: Arc<Mutex<Box<dyn Any + Send>>>,
}

impl SeqState {
    /// The sequence that this state belongs to.
    pub fn seq(&self) -> &SeqInfo {
        &self.seq
    }

    /// Tokens of the sequence that this layer attended before the current call: 0 means that its prompt comes now.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::Acquire)
    }

    /// Locks the value that [`AttentionHook::new_state`] made; an error if it is of another type.
    pub fn state<S: 'static>(&self) -> Result<impl DerefMut<Target = S> + '_> {
        MutexGuard::try_map(self.inner.lock(), |state| state.downcast_mut::<S>()).map_err(|_| {
            candle_core::Error::msg(format!("the state is not a {}", std::any::type_name::<S>()))
        })
    }
}

/// One layer's attention over a batch.
pub struct AttendCx<'a> {
    /// The layer, from 0.
    pub layer: usize,
    /// The model's shape.
    pub model: ModelInfo,
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
}

/// An attention of one's own, with storage of its own, for every layer of a model.
///
/// Attention must be causal: the runtime builds no mask for a hooked model.
pub trait AttentionHook: Send + Sync {
    /// Called once while a model loads; an error refuses the model.
    fn check_model(&self, model: &ModelInfo) -> Result<()> {
        let _ = model;
        Ok(())
    }

    /// Makes the state of one layer for a sequence whose prompt is about to run.
    fn new_state(
        &self,
        layer: usize,
        model: &ModelInfo,
        seq: &SeqInfo,
    ) -> Result<Box<dyn Any + Send>>;

    /// Stores the new keys and values and returns the output `(batch, heads, tokens, head_dim)`.
    ///
    /// `states[i]` belongs to batch row `i`. A prompt comes whole, in one call per layer, and all rows of that batch
    /// have its length; afterwards each call brings one token per row, and rows differ in how much they have seen.
    fn attend(&self, cx: &AttendCx<'_>, states: &[SeqState]) -> Result<Tensor>;

    /// Takes over an unquantized linear layer, `weight` being `(out, in)`: a module from `(rows, in)` to `(rows, out)`,
    /// to which the runtime adds the layer's bias. Called once per layer of a loaded model, whose own weights are freed
    /// then; `None` leaves the product to the runtime.
    fn linear(&self, weight: &Tensor) -> Result<Option<Box<dyn Module + Send + Sync>>> {
        let _ = weight;
        Ok(None)
    }
}

static GLOBAL: RwLock<Option<Arc<dyn AttentionHook>>> = RwLock::new(None);

/// Sets the hook that models loaded from now on will use; `None` restores the runtime's own attention for them.
pub fn set_global(hook: Option<Arc<dyn AttentionHook>>) {
    *GLOBAL.write().unwrap_or_else(PoisonError::into_inner) = hook;
}

fn global() -> Option<Arc<dyn AttentionHook>> {
    GLOBAL
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

// ---- what a caller has to know of a loaded model, and the runtime does not export ----

/// The tokenizer of a loaded model, also where it came out of a GGUF file.
pub fn tokenizer(pipeline: &dyn Pipeline) -> Option<Arc<Tokenizer>> {
    pipeline.tokenizer()
}

/// The attention shape of a loaded model, hooked or not; `None` if it is not a text model.
pub fn model_info(pipeline: &dyn Pipeline) -> Option<ModelInfo> {
    let metadata = pipeline.get_metadata();
    let config = metadata.model_metadata.as_ref()?;
    Some(info(
        &**config,
        metadata.num_hidden_layers,
        metadata.max_seq_len,
    ))
}

fn info(
    config: &(dyn ModelConfigLike + Send + Sync),
    layers: usize,
    max_seq_len: usize,
) -> ModelInfo {
    ModelInfo {
        layers,
        heads: config.num_attn_heads(),
        kv_heads: config.num_kv_heads(),
        head_dim: config.k_head_dim(),
        max_seq_len,
    }
}
