//! Lets a crate outside the runtime take over the linear layers of the models that load within a scope.

use std::sync::Arc;

use candle_core::{quantized::QTensor, Module, Result, Tensor};

/// Products of one's own.
pub trait LinearHook: Send + Sync {
    /// Takes over a linear layer, `weight` being `(out, in)`: a module from `(rows, in)` to `(rows, out)`, to which the
    /// runtime adds the layer's bias. Called once per layer of a loaded model, whose own weights are freed then; `None`
    /// leaves the product to the runtime.
    fn linear(&self, weight: &Tensor) -> Result<Option<Box<dyn Module + Send + Sync>>>;

    /// As [`LinearHook::linear`], for weights in blocks, `(out, in)`.
    fn quantized(&self, weight: &QTensor) -> Result<Option<Arc<dyn Quantized>>>;
}

/// Quantized weights of one's own: a module from `(rows, in)` to `(rows, out)`.
pub trait Quantized: Module + Send + Sync {
    /// The weights of the outputs `ids`, whose shape the result begins with: an embedding.
    fn rows(&self, ids: &Tensor) -> Result<Tensor>;
}

tokio::task_local! {
    static HOOK: Arc<dyn LinearHook>;
}

/// Calls a function in which the linear layers of every model that loads, on this thread, are offered to the hook.
pub fn sync_scope<R>(hook: Arc<dyn LinearHook>, f: impl FnOnce() -> R) -> R {
    HOOK.sync_scope(hook, f)
}

/// Runs a future in which the linear layers of every model that loads are offered to the hook.
pub async fn scope<F: std::future::Future>(hook: Arc<dyn LinearHook>, future: F) -> F::Output {
    HOOK.scope(hook, future).await
}

pub(crate) fn current() -> Option<Arc<dyn LinearHook>> {
    HOOK.try_with(Arc::clone).ok()
}
