//! An attention hook that leaves attention as it is and notes where every head looks.
//!
//! Attention itself, and the keys and values it needs, are HeadKV's with the method `full`. The observer holds on to the
//! same keys and forms, for every generated token, the logits of the last query row alone: memory grows linearly
//! with the context.

use crate::estimator::Sight;
use candle_core::{D, DType, Error, Result, Tensor};
use headkv_plugin::{Compression, HeadKv};
use mistralrs_core::attention_hook::{
    AttendCx, AttentionHook, HookedSequence, ModelHook, ModelInfo, SeqInfo,
};
use rayon::prelude::*;
use std::{
    any::Any,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What was seen of one sequence: layers x steps x heads.
pub type Sights = Vec<Vec<Vec<Sight>>>;

/// Watches the sequences that were announced by [`Observer::watch`].
pub struct Observer {
    attention: Arc<HeadKv>,
    watched: Arc<Mutex<Vec<Watched>>>,
}

/// The observer in one model.
struct Watching {
    attention: Arc<dyn ModelHook>,
    layers: usize,
    watched: Arc<Mutex<Vec<Watched>>>,
}

struct Watched {
    prompt: Vec<u32>,
    needle: Range<usize>,
    /// The engine's number, once the sequence has begun.
    seq_id: Option<usize>,
    layers: Vec<Layer>,
}

#[derive(Clone, Default)]
struct Layer {
    /// Keys of the prompt and then of the generated tokens, `(kv_heads, tokens, head_dim)` each.
    keys: Vec<Tensor>,
    /// Steps x heads.
    sights: Vec<Vec<Sight>>,
}

impl Observer {
    /// An observer without anything to watch yet.
    ///
    /// # Errors
    /// As [`HeadKv::new`].
    pub fn new() -> std::result::Result<Arc<Self>, headkv_plugin::Error> {
        let attention = HeadKv::new(Compression {
            method: "full".into(),
            ..Compression::default()
        })?;
        Ok(Arc::new(Self {
            attention,
            watched: Arc::default(),
        }))
    }

    /// Announces a prompt, and the positions in it that are the needle.
    pub fn watch(&self, prompt: &[u32], needle: Range<usize>) {
        lock(&self.watched).push(Watched {
            prompt: prompt.to_vec(),
            needle,
            seq_id: None,
            layers: Vec::new(),
        });
    }

    /// What was seen of the first announced sequence with that prompt, which is no longer watched. `None` if there is
    /// none, or it never ran.
    pub fn take(&self, prompt: &[u32]) -> Option<Sights> {
        let mut watched = lock(&self.watched);
        let at = watched.iter().position(|w| w.prompt == prompt)?;
        let layers = watched.remove(at).layers;
        (!layers.is_empty()).then(|| layers.into_iter().map(|layer| layer.sights).collect())
    }
}

fn lock(watched: &Mutex<Vec<Watched>>) -> MutexGuard<'_, Vec<Watched>> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AttentionHook for Observer {
    fn attach(&self, model: &ModelInfo) -> Result<Arc<dyn ModelHook>> {
        Ok(Arc::new(Watching {
            attention: self.attention.attach(model)?,
            layers: model.layers,
            watched: self.watched.clone(),
        }))
    }
}

impl ModelHook for Watching {
    fn begin(&self, seq: &SeqInfo) -> Result<Box<dyn Any + Send>> {
        let state = self.attention.begin(seq)?;
        let mut watched = lock(&self.watched);
        if let Some(new) = watched
            .iter_mut()
            .find(|w| w.seq_id.is_none() && w.prompt == seq.prompt)
        {
            new.seq_id = Some(seq.seq_id);
            new.layers = vec![Layer::default(); self.layers];
        }
        Ok(state)
    }

    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> Result<Tensor> {
        if cx.sinks.is_some() {
            candle_core::bail!(
                "heads with attention sinks are not scored; use another model, or a method without scores"
            );
        }
        let out = self.attention.attend(cx, seqs)?;
        let mut watched = lock(&self.watched);
        for (row, seq) in seqs.iter().enumerate() {
            let seq_id = Some(seq.info().seq_id);
            if let Some(one) = watched.iter_mut().find(|w| w.seq_id == seq_id) {
                one.layers[cx.layer].look(cx, row, &one.needle)?;
            }
        }
        Ok(out)
    }
}

impl Layer {
    /// Takes in the new keys of one batch row, and notes where its last query looks.
    fn look(&mut self, cx: &AttendCx<'_>, row: usize, needle: &Range<usize>) -> Result<()> {
        let new = cx.k.get(row)?;
        match self.keys.as_mut_slice() {
            [_, generated] => *generated = Tensor::cat(&[&*generated, &new], 1)?,
            _ => self.keys.push(new),
        }
        let query = cx.q.get(row)?;
        let last = query.narrow(1, query.dim(1)? - 1, 1)?;
        let logits = logits(&last, &self.keys, cx)?;
        let heads = logits.par_iter().map(|head| Sight::new(head, needle));
        let heads: Option<_> = heads.collect();
        let heads = heads.ok_or_else(|| {
            Error::msg(format!(
                "the attention of layer {} is not a number; the model's weights are damaged, download them again",
                cx.layer
            ))
        })?;
        self.sights.push(heads);
        Ok(())
    }
}

/// Logits of one query `(heads, 1, head_dim)` for all keys, heads x tokens.
fn logits(query: &Tensor, keys: &[Tensor], cx: &AttendCx<'_>) -> Result<Vec<Vec<f32>>> {
    let (heads, _, head_dim) = query.dims3()?;
    let group = heads / cx.model.kv_heads;
    let query = (query.to_dtype(DType::F32)? * f64::from(cx.softmax_scale))?;
    let query = query.reshape((cx.model.kv_heads, group, head_dim))?;
    let parts = keys
        .iter()
        .map(|keys| query.matmul(&keys.to_dtype(DType::F32)?.transpose(1, 2)?));
    let mut logits = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, D::Minus1)?;
    if let Some(cap) = cx.softcap.map(f64::from) {
        logits = ((logits / cap)?.tanh()? * cap)?;
    }
    logits.flatten_to(1)?.to_vec2()
}
