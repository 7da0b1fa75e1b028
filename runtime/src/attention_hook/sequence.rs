//! One sequence under a hook: its state over all layers, and what went wrong with it.

use std::{
    any::Any,
    ops::DerefMut,
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc, OnceLock,
    },
};

use candle_core::Result;
use parking_lot::{Mutex, MutexGuard};

use super::{hook_of, model_info, HookedCache, ModelHook, SeqInfo};
use crate::{kv_cache::KvCache, pipeline::Pipeline, sequence::Sequence};

/// A sequence under a hook, from its request to its last token.
pub struct HookedSequence {
    info: SeqInfo,
    pub(super) hook: Arc<dyn ModelHook>,
    /// Tokens attended so far, by layer.
    seen: Vec<AtomicUsize>,
    failure: OnceLock<String>,
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

    pub(super) fn advance(&self, layer: usize, tokens: usize) {
        self.seen[layer].fetch_add(tokens, Ordering::AcqRel);
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
    let (Some(hook), Some(model)) = (hook_of(pipeline), model_info(pipeline)) else {
        return Ok(());
    };
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
