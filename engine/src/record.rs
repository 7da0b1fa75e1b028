//! Watches a sequence's logits: the tokens that greedy decoding takes, their times, and the logits themselves.

use candle_core::{DType, Result, Tensor};
use mistralrs_core::CustomLogitsProcessor;
use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// What was seen of one sequence, a step per generated token.
#[derive(Default)]
pub struct Recording {
    pub tokens: Vec<u32>,
    pub times: Vec<Instant>,
    pub logits: Vec<Vec<f32>>,
}

/// The engine's responses carry neither tokens nor times, so a logits processor notes them.
pub struct Recorder {
    keep_logits: bool,
    /// End tokens, and the step from which they may be taken.
    end: Vec<u32>,
    end_from: usize,
    recording: Mutex<Recording>,
}

impl Recorder {
    /// The tokens `end` are not taken in the first `end_from` steps.
    pub fn new(keep_logits: bool, end: &[u32], end_from: usize) -> Self {
        Self {
            keep_logits,
            end: end.to_vec(),
            end_from,
            recording: Mutex::default(),
        }
    }

    pub fn take(&self) -> Recording {
        std::mem::take(
            &mut *self
                .recording
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl CustomLogitsProcessor for Recorder {
    fn apply(&self, logits: &Tensor, _context: &[u32]) -> Result<Tensor> {
        let mut values = logits
            .flatten_all()?
            .to_dtype(DType::F32)?
            .to_vec1::<f32>()?;
        let mut recording = self
            .recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.keep_logits {
            recording.logits.push(values.clone());
        }
        let open = recording.tokens.len() < self.end_from;
        if open {
            for token in &self.end {
                if let Some(value) = values.get_mut(*token as usize) {
                    *value = f32::NEG_INFINITY;
                }
            }
        }
        // The first of equal logits, as the engine's greedy sampler takes.
        let best = values
            .iter()
            .enumerate()
            .fold(0, |best, (i, x)| if *x > values[best] { i } else { best });
        recording.tokens.push(best as u32);
        recording.times.push(Instant::now());
        if open {
            Tensor::from_vec(values, logits.shape(), logits.device())?.to_dtype(logits.dtype())
        } else {
            Ok(logits.clone())
        }
    }
}
