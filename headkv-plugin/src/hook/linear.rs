//! Linear layers of our own, as the runtime takes them.

use crate::linear::{self, Linear};
use candle_core::{Module, Result, Tensor, quantized::QTensor};
use mistralrs_core::linear_hook::{LinearHook, Quantized, scope, sync_scope};
use std::sync::Arc;

/// Replaces the linear layers of a model, on the CPU by panels of bf16 or of quantized blocks ([`crate::linear`]), on a GPU
/// by a kernel for the few rows of generated tokens; no part of the compression.
///
/// On the CPU its sums are the same however many sequences decode together.
///
/// One of it is for the layers of one model.
#[derive(Clone, Default)]
pub struct Panels {
    #[cfg(feature = "cuda")]
    siblings: Arc<crate::cuda::Siblings>,
}

impl Panels {
    /// Calls `load`; the model that loads in it, on this thread, takes these layers.
    pub fn scope<R>(load: impl FnOnce() -> R) -> R {
        sync_scope(Arc::new(Self::default()), load)
    }

    /// Awaits `load`; the model that loads in it takes these layers.
    pub async fn scope_async<F: Future>(load: F) -> F::Output {
        scope(Arc::new(Self::default()), load).await
    }
}

impl LinearHook for Panels {
    fn linear(&self, weight: &Tensor) -> Result<Option<Box<dyn Module + Send + Sync>>> {
        #[cfg(feature = "cuda")]
        if let Some(linear) = crate::cuda::Linear::new(weight, &self.siblings)? {
            return Ok(Some(Box::new(linear)));
        }
        Ok(Linear::new(weight)?.map(|linear| Box::new(linear) as _))
    }

    fn quantized(&self, weight: &QTensor) -> Result<Option<Arc<dyn Quantized>>> {
        Ok(linear::Quantized::new(weight)?.map(|weight| Arc::new(weight) as _))
    }
}

impl Quantized for linear::Quantized {
    fn rows(&self, ids: &Tensor) -> Result<Tensor> {
        linear::Quantized::rows(self, ids)
    }
}
