//! The attention's side of the seam: one handle, armed by `append` and taken by the attention that follows.

use std::{
    any::Any,
    cell::RefCell,
    panic::{catch_unwind, AssertUnwindSafe},
    sync::Arc,
};

use candle_core::{DType, Device, Result, Tensor, TensorId, D};

use super::{cache::LayerCache, of, AttendCx, HookedSequence};
use crate::{attention::SdpaParams, sequence::Sequence};

struct Pending {
    id: TensorId,
    dims: Vec<usize>,
    dtype: DType,
    cache: LayerCache,
}

impl Pending {
    /// Whether these keys are the armed ones, or them in another element type.
    fn is_for(&self, k: &Tensor) -> bool {
        self.id == k.id() || (self.dtype != k.dtype() && self.dims == k.dims())
    }
}

thread_local! {
    static PENDING: RefCell<Option<Pending>> = const { RefCell::new(None) };
}

/// Arms the handle of a layer whose new keys are `k`; the one before must have been taken, and stays if it was not.
pub(super) fn arm(k: &Tensor, cache: &LayerCache) -> Result<()> {
    PENDING.with_borrow_mut(|pending| match pending {
        Some(left) => candle_core::bail!(
            "attention hook: layer {}: its attention never ran",
            left.cache.layer
        ),
        None => {
            *pending = Some(Pending {
                id: k.id(),
                dims: k.dims().to_vec(),
                dtype: k.dtype(),
                cache: cache.clone(),
            });
            Ok(())
        }
    })
}

/// The hook's attention if `k` is what the last `append` returned; `None` leaves the call to the runtime.
pub(crate) fn attend_pending(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    params: &SdpaParams,
) -> Result<Option<Tensor>> {
    let Some(Pending { cache, dtype, .. }) =
        PENDING.with_borrow_mut(|pending| pending.take_if(|armed| armed.is_for(k)))
    else {
        return Ok(None);
    };
    // Models that attend in another type than they compute in have widened what they computed: nothing is lost.
    let attended_in = q.dtype();
    let (q, k) = (&q.to_dtype(dtype)?, &k.to_dtype(dtype)?);
    // Latent attention has shorter values than keys. Zeros fill them up: they are held, and counted, as keys are.
    let (key_dim, value_dim) = (k.dim(D::Minus1)?, v.dim(D::Minus1)?);
    let mut v = v.to_dtype(dtype)?;
    if value_dim < key_dim {
        v = v
            .pad_with_zeros(D::Minus1, 0, key_dim - value_dim)?
            .contiguous()?;
    }
    let layer = cache.layer;
    let window = cache.model.windows[layer];
    // A window that the cache does not have hides nothing: it covers the context, or the model does not use it.
    if window.is_some() && params.sliding_window != window {
        candle_core::bail!("attention hook: layer {layer} slides over {:?} tokens where its cache has {window:?}; load the model without a hook", params.sliding_window);
    }
    let seqs = cache.sequences()?;
    let cx = AttendCx {
        layer,
        model: &cache.model,
        q,
        k,
        v: &v,
        softmax_scale: params.softmax_scale,
        softcap: params.softcap,
        window,
        sinks: params.sinks.as_ref(),
    };
    let out = attend(&cache, &cx, &seqs)?;
    let out = match value_dim < key_dim {
        true => out.narrow(D::Minus1, 0, value_dim)?,
        false => out,
    };
    out.to_dtype(attended_in).map(Some)
}

/// The hook's attention for those sequences that have not failed; a failure stays with its sequence, whose output is
/// zeros from then on.
fn attend(cache: &LayerCache, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> Result<Tensor> {
    if seqs.iter().all(|seq| seq.failure().is_none()) {
        match call(cache, cx, seqs) {
            Ok(out) => return Ok(out),
            Err(error) if seqs.len() == 1 => seqs[0].fail(error.to_string()),
            Err(_) => {}
        }
    }
    let mut rows = Vec::with_capacity(seqs.len());
    for (row, seq) in seqs.iter().enumerate() {
        let only = |x: &Tensor| x.narrow(0, row, 1);
        let (q, k, v) = (&only(cx.q)?, &only(cx.k)?, &only(cx.v)?);
        let cx = AttendCx { q, k, v, ..*cx };
        let out = match seq.failure() {
            Some(_) => None,
            None => call(cache, &cx, std::slice::from_ref(seq))
                .map_err(|error| seq.fail(error.to_string()))
                .ok(),
        };
        rows.push(match out {
            Some(out) => out,
            None => q.zeros_like()?,
        });
    }
    if seqs.iter().all(|seq| seq.failure().is_some()) {
        // Nobody is left for whom the pass would have to go on.
        let whys: Vec<_> = seqs.iter().filter_map(|seq| seq.failure()).collect();
        candle_core::bail!("{}", whys[0]);
    }
    Tensor::cat(&rows, 0)
}

fn call(cache: &LayerCache, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> Result<Tensor> {
    let layer = cx.layer;
    // Nothing above catches a panic: it would end the engine's thread and leave every client waiting.
    let out =
        catch_unwind(AssertUnwindSafe(|| cache.hook.attend(cx, seqs))).unwrap_or_else(|panic| {
            candle_core::bail!("attention hook: layer {layer}: panic: {}", message(&*panic))
        })?;
    let tokens = cx.k.dim(2)?;
    for seq in seqs {
        seq.advance(layer, tokens);
    }
    Ok(out)
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown")
}

/// Runs one forward pass; afterwards no handle is left armed, and one that was is an error.
///
/// On the CPU a hooked model runs inside the thread pool. From outside, each of a decode step's many small parallel
/// operations (norms, rotary embeddings) would wake the pool and wait for it, which takes longer than the operation.
pub(crate) fn forward<R>(
    seqs: &mut [&mut Sequence],
    device: &Device,
    pass: impl FnOnce() -> Result<R>,
) -> Result<R> {
    if seqs.first_mut().and_then(|seq| of(seq)).is_none() {
        return pass();
    }
    let pass = || {
        let result = pass();
        match PENDING.take() {
            Some(left) if result.is_ok() => {
                let layer = left.cache.layer;
                candle_core::bail!("attention hook: layer {layer} stored its keys but did not ask for attention: unsupported model")
            }
            _ => result,
        }
    };
    if device.is_cpu() {
        let pass = Lent(pass);
        rayon::scope(move |_| pass.run()).0
    } else {
        pass()
    }
}

/// A forward pass, or its result, that another thread may run or return while its owner waits.
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
