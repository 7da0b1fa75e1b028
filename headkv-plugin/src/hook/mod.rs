//! HeadKV as mistral.rs's attention: the only module that touches the runtime's types.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod usage;

pub use usage::Usage;

use crate::{
    Compression, Error, HeadScores,
    cache::RaggedCache,
    linear::Linear,
    methods::{self, Compressor, ModelShape},
};
use candle_core::{DType, Device, Module, Result, Tensor};
use half::{bf16, f16};
use mistralrs_core::attention_hook::{
    AttendCx, AttentionHook, ModelInfo, SeqInfo, SeqState, set_global,
};
use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use usage::{Counters, Recent};

/// Compresses the KV cache of every model that is loaded after [`HeadKv::install`].
///
/// The configuration can be changed while a model runs: sequences keep the one they began with.
pub struct HeadKv {
    inner: Mutex<Inner>,
}

struct Inner {
    config: Compression,
    scores: Option<HeadScores>,
    /// Known once a model was loaded.
    model: Option<ModelShape>,
    compressor: Option<Arc<Compressor>>,
    recent: Recent,
}

impl HeadKv {
    /// Prepares a hook, reading the score file that `config.scores` names if the method needs one.
    ///
    /// # Errors
    /// A contradictory configuration, an unknown method, or a score file that is missing or malformed.
    pub fn new(config: Compression) -> std::result::Result<Arc<Self>, Error> {
        let scores = load(&config)?;
        Ok(Arc::new(Self {
            inner: Mutex::new(Inner {
                config,
                scores,
                model: None,
                compressor: None,
                recent: Recent::default(),
            }),
        }))
    }

    /// Makes models that are loaded from now on use this hook.
    pub fn install(self: &Arc<Self>) {
        set_global(Some(self.clone()));
    }

    /// Makes models that are loaded from now on use the runtime's own attention.
    pub fn uninstall() {
        set_global(None);
    }

    /// Changes the configuration for sequences that begin from now on.
    ///
    /// # Errors
    /// As [`HeadKv::new`], and scores of another shape than the loaded model's; the old configuration then stays.
    pub fn set(&self, config: Compression) -> std::result::Result<(), Error> {
        let scores = load(&config)?;
        let mut inner = self.lock();
        if let Some(model) = inner.model {
            inner.compressor = Some(Arc::new(Compressor::new(&config, model, scores.as_ref())?));
        }
        inner.config = config;
        inner.scores = scores;
        Ok(())
    }

    /// What the most recent sequences hold or held, oldest first.
    pub fn usage(&self) -> Vec<Usage> {
        self.lock().recent.list()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(config: &Compression) -> std::result::Result<Option<HeadScores>, Error> {
    config.check()?;
    let entry = methods::find(&config.method)?;
    match &config.scores {
        Some(path) if entry.needs_scores => HeadScores::read(path).map(Some),
        None if entry.needs_scores => Err(Error::NoScores(entry.name)),
        _ => Ok(None),
    }
}

/// One layer's state of one sequence.
struct LayerState {
    compressor: Arc<Compressor>,
    counters: Arc<Counters>,
    cache: Option<Cache>,
}

/// A layer's cache, in the model's element type and on its device.
enum Cache {
    F32(RaggedCache<f32>),
    Bf16(RaggedCache<bf16>),
    F16(RaggedCache<f16>),
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::RaggedCache),
}

impl AttentionHook for HeadKv {
    fn check_model(&self, model: &ModelInfo) -> Result<()> {
        let shape = ModelShape {
            layers: model.layers,
            heads: model.heads,
            kv_heads: model.kv_heads,
            head_dim: model.head_dim,
        };
        let mut inner = self.lock();
        let compressor = Compressor::new(&inner.config, shape, inner.scores.as_ref());
        inner.compressor = Some(Arc::new(compressor.map_err(candle_core::Error::msg)?));
        inner.model = Some(shape);
        Ok(())
    }

    fn new_state(&self, layer: usize, _: &ModelInfo, seq: &SeqInfo) -> Result<Box<dyn Any + Send>> {
        let mut inner = self.lock();
        let Some(compressor) = inner.compressor.clone() else {
            candle_core::bail!("headkv: no model was loaded with this hook");
        };
        let counters = inner
            .recent
            .counters(seq.seq_id, seq.prompt.len(), layer == 0);
        Ok(Box::new(LayerState {
            compressor,
            counters,
            cache: None,
        }))
    }

    fn attend(&self, cx: &AttendCx<'_>, states: &[SeqState]) -> Result<Tensor> {
        match (cx.q.device(), cx.q.dtype()) {
            (Device::Cpu, DType::F32) => cpu::attend::<f32>(cx, states),
            (Device::Cpu, DType::BF16) => cpu::attend::<bf16>(cx, states),
            (Device::Cpu, DType::F16) => cpu::attend::<f16>(cx, states),
            #[cfg(feature = "cuda")]
            (Device::Cuda(_), DType::BF16 | DType::F16) => cuda::attend(cx, states),
            (device, dtype) => candle_core::bail!(
                "headkv: no attention for {dtype:?} on {device:?}; load the model on the CPU in f32, bf16 or f16, or, built with the feature cuda, on an NVIDIA GPU in bf16 or f16"
            ),
        }
    }

    fn linear(&self, weight: &Tensor) -> Result<Option<Box<dyn Module + Send + Sync>>> {
        Ok(Linear::new(weight)?.map(|linear| Box::new(linear) as _))
    }
}
