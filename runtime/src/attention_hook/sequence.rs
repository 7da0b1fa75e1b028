//! One sequence under a hook: its state over all layers, and what went wrong with it.

use std::{
    any::Any,
    ops::DerefMut,
    sync::{
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        Arc, OnceLock,
    },
    time::Duration,
};

use candle_core::Result;
use parking_lot::{Mutex, MutexGuard};

use super::{cache::LayerCache, first_layer, HookedCache, ModelHook, NextPass, SeqInfo};
use crate::{kv_cache::KvCache, pipeline::Pipeline, sequence::Sequence};

/// A sequence under a hook, from its request to its last token.
pub struct HookedSequence {
    info: SeqInfo,
    pub(super) hook: Arc<dyn ModelHook>,
    /// Tokens attended so far, by layer.
    seen: Vec<AtomicUsize>,
    failure: OnceLock<String>,
    /// Whether the hook was asked how much of the prompt it knows.
    resumed: AtomicBool,
    /// Whether the prompt must run whole.
    whole: bool,
    /// Whether the pass at hand runs tokens that are no part of the sequence.
    aside: AtomicBool,
    /// Nanoseconds that the prompt's earlier pieces took.
    prompt_nanos: AtomicU64,
    state: Mutex<Box<dyn Any + Send>>,
}

impl HookedSequence {
    /// What was known of the sequence when it began.
    pub fn info(&self) -> &SeqInfo {
        &self.info
    }

    /// Tokens of the sequence that a layer attended before the current call.
    pub fn seen(&self, layer: usize) -> usize {
        self.seen[layer].load(Ordering::Acquire)
    }

    /// Whether the pass at hand runs tokens that are no part of the sequence ([`NextPass::Aside`]).
    pub fn is_aside(&self) -> bool {
        self.aside.load(Ordering::Acquire)
    }

    pub(super) fn advance(&self, layer: usize, tokens: usize) {
        if !self.is_aside() {
            self.seen[layer].fetch_add(tokens, Ordering::AcqRel);
        }
    }

    /// What the hook says that the prompt's next pass is to run.
    pub(super) fn next_pass(&self) -> NextPass {
        let next = match self.hook.next_pass(self) {
            Ok(NextPass::Prompt(0)) => Err("attention hook: a pass of no tokens".into()),
            Ok(NextPass::Aside(tokens)) if tokens.is_empty() => {
                Err("attention hook: a pass of no tokens".into())
            }
            Ok(NextPass::Aside(_)) if self.whole => {
                Err("attention hook: prompts of this model run whole, and once".into())
            }
            Ok(NextPass::Prompt(some)) if self.whole && some < self.info.prompt.len() => {
                Err("attention hook: prompts of this model run whole".into())
            }
            Ok(next) => Ok(next),
            Err(error) => Err(error.to_string()),
        };
        next.unwrap_or_else(|why: String| {
            self.fail(why);
            NextPass::Prompt(usize::MAX)
        })
    }

    pub(super) fn set_aside(&self, aside: bool) {
        self.aside.store(aside, Ordering::Release);
    }

    /// Tokens of the prompt that are still to run; asks the hook, once, how many it knows from elsewhere.
    pub(super) fn remaining(&self) -> usize {
        if !self.resumed.swap(true, Ordering::AcqRel) && !self.whole {
            let last = self.info.prompt.len().saturating_sub(1);
            match self.hook.resume(self) {
                Ok(known) if known <= last => {
                    (0..self.seen.len()).for_each(|layer| self.advance(layer, known));
                }
                Ok(known) => self.fail(format!(
                    "attention hook: {known} tokens known of a prompt of {}; its last must run",
                    last + 1
                )),
                Err(error) => self.fail(error.to_string()),
            }
        }
        self.info.prompt.len().saturating_sub(self.seen(0))
    }

    /// Whether the prompt must run in one pass ([`super::ModelInfo::whole_prompts`]).
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Adds the time of one of the prompt's pieces, and returns that of all so far.
    pub(super) fn add_prompt_time(&self, piece: Duration) -> Duration {
        #[allow(clippy::cast_possible_truncation)]
        let nanos = piece.as_nanos() as u64;
        let before = self.prompt_nanos.fetch_add(nanos, Ordering::AcqRel);
        Duration::from_nanos(before) + piece
    }

    /// Locks the value that [`ModelHook::begin`] made; an error if it is of another type.
    pub fn state<S: 'static>(&self) -> Result<impl DerefMut<Target = S> + '_> {
        MutexGuard::try_map(self.state.lock(), |state| state.downcast_mut::<S>()).map_err(|_| {
            candle_core::Error::msg(format!("the state is not a {}", std::any::type_name::<S>()))
        })
    }

    /// Ends the sequence with that error when the pass is over; the others of its batch go on.
    pub fn fail(&self, why: impl Into<String>) {
        // The first failure is the cause of those that follow.
        let _ = self.failure.set(why.into());
    }

    /// Why the sequence failed, if it did.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

/// Gives a new sequence its state, if its model is hooked.
pub(crate) fn begin(pipeline: &dyn Pipeline, seq: &mut Sequence, request_id: usize) -> Result<()> {
    let Some(LayerCache { hook, model, .. }) = first_layer(pipeline) else {
        return Ok(());
    };
    if seq.has_images() || seq.has_audios() || seq.has_videos() {
        candle_core::bail!("attention hook: images, audio and video are not supported; ask with text alone, or load the model without a hook");
    }
    let info = SeqInfo {
        seq_id: *seq.id(),
        request_id,
        prompt: seq.get_toks().to_vec(),
    };
    let state = hook.begin(&info)?;
    let sequence = HookedSequence {
        info,
        hook,
        seen: (0..model.layers).map(|_| AtomicUsize::new(0)).collect(),
        failure: OnceLock::new(),
        resumed: AtomicBool::new(false),
        whole: model.whole_prompts,
        aside: AtomicBool::new(false),
        prompt_nanos: AtomicU64::new(0),
        state: Mutex::new(state),
    };
    let caches = seq.normal_cache();
    caches.truncate(0);
    caches.push(Some(KvCache::Hooked(HookedCache::of_sequence(Arc::new(
        sequence,
    )))));
    Ok(())
}

/// The state of a sequence whose model is hooked.
pub(crate) fn of(seq: &mut Sequence) -> Option<&Arc<HookedSequence>> {
    match seq.normal_cache().first() {
        Some(Some(KvCache::Hooked(cache))) => cache.sequence(),
        _ => None,
    }
}
