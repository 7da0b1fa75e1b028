//! The way from the runtime's call to the backend of its tensors.

use super::Reuse;
use crate::{
    AttentionShape,
    backend::Backend,
    conversation::Conversations,
    cpu::Cpu,
    layer::{self, Row},
    prefix::{Place, Prefixes},
    sequence::{Open, Sequence},
};
use candle_core::{DType, Device, Result, Tensor};
use half::{bf16, f16};
use mistralrs_core::attention_hook::{AttendCx, HookedSequence};
use std::{sync::Arc, time::Duration};

/// What is remembered of earlier prompts, one way or the other.
pub struct Memory {
    /// All of their keys and values.
    pub prefixes: Prefixes,
    /// What is kept of them.
    pub conversations: Conversations,
}

impl Memory {
    /// Remembers up to `bytes` in that way and place, and nothing in the other.
    pub fn new(reuse: Reuse, bytes: usize, place: Place) -> Self {
        let memory = Self {
            prefixes: Prefixes::new(0, place),
            conversations: Conversations::new(0),
        };
        memory.restart(reuse, bytes, place);
        memory
    }

    /// Forgets everything, and is from now on as a new one.
    pub fn restart(&self, reuse: Reuse, bytes: usize, place: Place) {
        let of = |kind| if reuse == kind { bytes } else { 0 };
        self.prefixes.restart(of(Reuse::Exact), place);
        self.conversations.restart(of(Reuse::Compressed));
    }
}

/// The backends that a model's tensors may need.
#[derive(Default)]
pub struct Dispatch {
    f32: Cpu<f32>,
    bf16: Cpu<bf16>,
    f16: Cpu<f16>,
    #[cfg(feature = "cuda")]
    cuda: crate::cuda::Cuda,
}

impl Dispatch {
    /// Attends one layer of a batch; prompts that are to be remembered go to `memory` with their last layer.
    pub fn attend(
        &self,
        cx: &AttendCx<'_>,
        seqs: &[Arc<HookedSequence>],
        memory: &Memory,
    ) -> Result<Tensor> {
        match (cx.q.device(), cx.q.dtype()) {
            (Device::Cpu, DType::F32) => attend(&self.f32, cx, seqs, memory),
            (Device::Cpu, DType::BF16) => attend(&self.bf16, cx, seqs, memory),
            (Device::Cpu, DType::F16) => attend(&self.f16, cx, seqs, memory),
            #[cfg(feature = "cuda")]
            (Device::Cuda(_), DType::BF16 | DType::F16) => attend(&self.cuda, cx, seqs, memory),
            (device, dtype) => candle_core::bail!(
                "headkv: no attention for {dtype:?} on {device:?}; load the model on the CPU in f32, bf16 or f16, or, built with the feature cuda, on an NVIDIA GPU in bf16 or f16"
            ),
        }
    }
}

/// The logits of sinks, which only the CPU's kernels know.
fn logits(sinks: &Tensor) -> Result<Arc<[f32]>> {
    if !sinks.device().is_cpu() {
        candle_core::bail!(
            "headkv: attention sinks have no kernel for GPUs; run this model on the CPU, or without HeadKV"
        );
    }
    Ok(sinks.to_dtype(DType::F32)?.to_vec1::<f32>()?.into())
}

fn attend<B: Backend>(
    backend: &B,
    cx: &AttendCx<'_>,
    seqs: &[Arc<HookedSequence>],
    memory: &Memory,
) -> Result<Tensor> {
    let shape = AttentionShape {
        heads: cx.model.heads,
        kv_heads: cx.model.kv_heads,
        head_dim: cx.model.head_dim,
        scale: cx.softmax_scale,
        softcap: cx.softcap,
        window: cx.window,
        sinks: cx.sinks.map(logits).transpose()?,
    };
    let states = seqs.iter().map(|seq| seq.state::<Sequence>());
    let mut states = states.collect::<Result<Vec<_>>>()?;
    let mut compressing = vec![Duration::ZERO; seqs.len()];
    let mut accounts = Vec::with_capacity(seqs.len());
    let mut rows = Vec::with_capacity(seqs.len());
    for ((state, seq), compressing) in states.iter_mut().zip(seqs).zip(&mut compressing) {
        let tokens = seq.info().prompt.len();
        let Open {
            layer,
            policy,
            prompt,
            account,
            recording,
        } = state.layer::<B>(cx.layer, tokens, cx.k)?;
        let (record, aside) = (recording.is_some(), seq.is_aside());
        accounts.push((account, layer.own_bytes(), layer.kept_bytes(), recording));
        rows.push(Row {
            layer,
            policy,
            prompt,
            aside,
            record,
            recorded: None,
            compressing,
        });
    }
    let out = layer::attend(backend, cx.layer, [cx.q, cx.k, cx.v], &shape, &mut rows)?;
    let tokens = cx.k.dim(2)?;
    let last = cx.layer + 1 == cx.model.layers;
    for ((account, own, kept, recording), row) in accounts.into_iter().zip(&rows) {
        account.own.change(own, row.layer.own_bytes());
        account.kept.change(kept, row.layer.kept_bytes());
        let counted = cx.layer == 0 && !row.aside;
        account.add(*row.compressing, if counted { tokens } else { 0 });
        if let (Some(recording), Some([k, v])) = (recording, &row.recorded) {
            memory.prefixes.add(recording, [k, v], cx.model.layers)?;
        }
    }
    drop(rows);
    if last {
        for (state, seq) in states.iter_mut().zip(seqs) {
            let compressed = state.compressed(&seq.info().prompt).len();
            let of_prompt = seq.is_aside() || seq.seen(cx.layer) < compressed;
            if of_prompt && let Err(error) = state.end_pass(backend, compressed, seq.is_aside()) {
                // The layers have taken the pass in: it cannot be asked for again.
                seq.fail(error.to_string());
            }
            if let Some(recording) = state.recorded(cx.model.layers) {
                memory.prefixes.insert(recording);
            }
            // What cannot be remembered is no reason to fail.
            if seq.seen(cx.layer) + tokens >= compressed
                && let Ok(Some(past)) = state.past(compressed)
            {
                let prompt = &seq.info().prompt;
                let stays = compressed < prompt.len();
                memory
                    .conversations
                    .insert(&prompt[..compressed], past, stays);
            }
        }
    }
    Ok(out)
}
