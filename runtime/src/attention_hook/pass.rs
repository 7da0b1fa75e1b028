//! The attention's side of the seam: one handle, armed by `append` and taken by the attention that follows.

use std::{
    any::Any,
    cell::RefCell,
    panic::{catch_unwind, AssertUnwindSafe},
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::{Device, Result, Tensor, TensorId};

use super::{cache::HookedCache, AttendCx, SeqState};
use crate::attention::SdpaParams;

struct Pending {
    id: TensorId,
    cache: HookedCache,
}

thread_local! {
    static PENDING: RefCell<Option<Pending>> = const { RefCell::new(None) };
}

/// Arms the handle of a layer whose new keys are `k`; the one before must have been taken.
pub(super) fn arm(k: &Tensor, cache: &HookedCache) -> Result<()> {
    let armed = Pending {
        id: k.id(),
        cache: cache.clone(),
    };
    match PENDING.with(|pending| pending.replace(Some(armed))) {
        None => Ok(()),
        Some(left) => candle_core::bail!(
            "attention hook: layer {}: its attention never ran",
            left.cache.layer
        ),
    }
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
pub(super) static HOOKED: AtomicBool = AtomicBool::new(false);

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
