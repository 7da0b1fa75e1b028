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

use std::{
    any::Any,
    cell::RefCell,
    fmt,
    ops::DerefMut,
    panic::{catch_unwind, AssertUnwindSafe},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        Arc, PoisonError, RwLock,
    },
};

use candle_core::{Device, Module, Result, Tensor, TensorId};
use parking_lot::{Mutex, MutexGuard};
use tokenizers::Tokenizer;

use crate::{
    attention::SdpaParams,
    kv_cache::{EitherCache, KvCache},
    paged_attention::ModelConfigLike,
    pipeline::{CacheManagerMixin, MetadataMixin, ModelKind, Pipeline},
    sequence::Sequence,
    PagedAttentionConfig,
};

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

// ---- loading ----

/// Refuses to load what would silently run without the hook.
pub(crate) fn refuse(what: &str) -> anyhow::Result<()> {
    if global().is_some() {
        anyhow::bail!("an attention hook is set, but {what} cannot be hooked; unset the hook or load the plain model");
    }
    Ok(())
}

/// The hook for a model that begins to load; turns paged attention off, which would bypass it.
pub(crate) fn for_load(
    kind: &ModelKind,
    no_kv_cache: bool,
    paged: &mut Option<PagedAttentionConfig>,
) -> anyhow::Result<Option<Arc<dyn AttentionHook>>> {
    let Some(hook) = global() else {
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
        tracing::warn!("An attention hook is set: paged attention is off for this model.");
    }
    Ok(Some(hook))
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
    for (layer, cache) in caches.iter().enumerate() {
        match cache {
            KvCache::Normal { .. } => {}
            // A window that covers the whole context never drops anything.
            KvCache::Rotating { k, .. } if k.max_seq_len >= metadata.max_seq_len => {}
            KvCache::Rotating { k, .. } => {
                let window = k.max_seq_len;
                let context = metadata.max_seq_len;
                return refuse(&format!(
                    "layer {layer} (a sliding window of {window} tokens in a context of {context})"
                ));
            }
            KvCache::Shared { .. } | KvCache::Hooked(_) => {
                return refuse(&format!("layer {layer} (its cache is shared)"))
            }
        }
    }
    let model = info(&**config, caches.len(), metadata.max_seq_len);
    hook.check_model(&model)?;
    HOOKED.store(true, Ordering::Relaxed);
    for (layer, cache) in caches.iter_mut().enumerate() {
        *cache = KvCache::Hooked(HookedCache {
            hook: hook.clone(),
            layer,
            model,
            states: Vec::new(),
            poison: None,
        });
    }
    Ok(())
}

// ---- the cache's side ----

/// A layer's cache under a hook: handles to the states of the batch at hand, no tensors.
#[derive(Clone)]
pub struct HookedCache {
    hook: Arc<dyn AttentionHook>,
    layer: usize,
    model: ModelInfo,
    states: Vec<SeqState>,
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
            let one = HookedCache {
                states: vec![state.clone()],
                poison: None,
                ..cache.clone()
            };
            seq.normal_cache()[cache.layer] = Some(KvCache::Hooked(one));
        }
    }
    true
}

/// The length by which the scheduler buckets a sequence: hooked sequences decode together whatever their lengths.
pub(crate) fn bucket_len(seq: &mut Sequence) -> usize {
    let len = seq.len();
    let hooked = matches!(seq.normal_cache().first(), Some(Some(KvCache::Hooked(_))));
    if hooked && seq.is_completion() {
        usize::MAX
    } else {
        len
    }
}

impl HookedCache {
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
        PENDING.with(|pending| {
            match pending.replace(Some(Pending {
                id: k.id(),
                cache: self.clone(),
            })) {
                None => Ok((k, v)),
                Some(left) => candle_core::bail!(
                    "attention hook: layer {}: its attention never ran",
                    left.cache.layer
                ),
            }
        })
    }
}

// ---- the attention's side ----

struct Pending {
    id: TensorId,
    cache: HookedCache,
}

thread_local! {
    static PENDING: RefCell<Option<Pending>> = const { RefCell::new(None) };
}

/// The hook's attention if `k` is what the last `append` returned; `None` leaves the call to the runtime.
pub(crate) fn attend_pending(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    params: &SdpaParams,
) -> Result<Option<Tensor>> {
    let Some(Pending { cache, .. }) =
        PENDING.with(|pending| pending.borrow_mut().take_if(|armed| armed.id == k.id()))
    else {
        return Ok(None);
    };
    let layer = cache.layer;
    if params.sinks.is_some() {
        candle_core::bail!("attention hook: layer {layer} has attention sinks, which a hook does not get; unset the hook");
    }
    let tokens = k.dim(2)?;
    if let Some(window) = params
        .sliding_window
        .filter(|&window| cache.seen() + tokens > window)
    {
        candle_core::bail!("attention hook: layer {layer}: more tokens than its sliding window of {window}; unset the hook");
    }
    let cx = AttendCx {
        layer,
        model: cache.model,
        q,
        k,
        v,
        softmax_scale: params.softmax_scale,
        softcap: params.softcap,
    };
    // Nothing above catches a panic: it would end the engine's thread and leave every client waiting.
    let out = catch_unwind(AssertUnwindSafe(|| cache.hook.attend(&cx, &cache.states)))
        .unwrap_or_else(|panic| {
            candle_core::bail!("attention hook: layer {layer}: panic: {}", message(&*panic))
        })?;
    for state in &cache.states {
        state.seen.fetch_add(tokens, Ordering::AcqRel);
    }
    Ok(Some(out))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown")
}

/// Whether a model was hooked in this process.
static HOOKED: AtomicBool = AtomicBool::new(false);

/// Runs one forward pass; afterwards no handle is left armed, and one that was is an error.
///
/// On the CPU a hooked model runs inside the thread pool. From outside, each of a decode step's many small parallel
/// operations (norms, rotary embeddings) would wake the pool and wait for it, which takes longer than the operation.
pub(crate) fn forward<R>(device: &Device, pass: impl FnOnce() -> Result<R>) -> Result<R> {
    let pass = || {
        let result = pass();
        match PENDING.with(RefCell::take) {
            Some(left) if result.is_ok() => {
                let layer = left.cache.layer;
                candle_core::bail!("attention hook: layer {layer} stored its keys but did not ask for attention: unsupported model")
            }
            _ => result,
        }
    };
    if device.is_cpu() && HOOKED.load(Ordering::Relaxed) {
        let pass = Lent(pass);
        rayon::scope(move |_| pass.run()).0
    } else {
        pass()
    }
}

/// Something that another thread may use while its owner waits.
struct Lent<T>(T);

// SAFETY: made only in `forward`, whose thread waits in `rayon::scope` until the pool's thread has returned: the two
// never use it at the same time. A forward pass on the CPU holds nothing that is bound to its thread; the handle of
// `PENDING` is armed, taken and checked within the pass.
unsafe impl<T> Send for Lent<T> {}

impl<R, F: FnOnce() -> R> Lent<F> {
    fn run(self) -> Lent<R> {
        Lent((self.0)())
    }
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
