//! A hook that watches HeadKV's calls, or disturbs them.

use candle_core::{Result, Tensor};
use headkv_plugin::HeadKv;
use mistralrs_core::attention_hook::{
    AttendCx, AttentionHook, HookedSequence, ModelHook, ModelInfo, NextPass, PromptPolicy, SeqInfo,
};
use std::{any::Any, sync::Arc};

/// What a test does before HeadKV does its part; an error takes HeadKV's place.
pub trait Watch: Send + Sync + 'static {
    /// A sequence is about to begin.
    fn begin(&self, seq: &SeqInfo) -> Result<()> {
        let _ = seq;
        Ok(())
    }

    /// A layer is about to be attended.
    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> Result<()>;
}

/// HeadKV under a test's eyes.
pub struct Watched<W> {
    inner: Arc<HeadKv>,
    watch: Arc<W>,
}

impl<W> Watched<W> {
    /// Puts `watch` before `inner`.
    pub fn new(inner: Arc<HeadKv>, watch: Arc<W>) -> Arc<Self> {
        Arc::new(Self { inner, watch })
    }
}

struct Model<W> {
    inner: Arc<dyn ModelHook>,
    watch: Arc<W>,
}

impl<W: Watch> AttentionHook for Watched<W> {
    fn attach(&self, model: &ModelInfo) -> Result<Arc<dyn ModelHook>> {
        Ok(Arc::new(Model {
            inner: self.inner.attach(model)?,
            watch: self.watch.clone(),
        }))
    }
}

impl<W: Watch> ModelHook for Model<W> {
    fn begin(&self, seq: &SeqInfo) -> Result<Box<dyn Any + Send>> {
        self.watch.begin(seq)?;
        self.inner.begin(seq)
    }

    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> Result<Tensor> {
        self.watch.attend(cx, seqs)?;
        self.inner.attend(cx, seqs)
    }

    fn resume(&self, seq: &HookedSequence) -> Result<usize> {
        self.inner.resume(seq)
    }

    fn next_pass(&self, seq: &HookedSequence) -> Result<NextPass> {
        self.inner.next_pass(seq)
    }

    fn prompts(&self) -> PromptPolicy {
        self.inner.prompts()
    }
}
