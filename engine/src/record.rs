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
    recording: Mutex<Recording>,
}

impl Recorder {
    pub fn new(keep_logits: bool) -> Self {
        Self {
            keep_logits,
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
        let values = logits
            .flatten_all()?
            .to_dtype(DType::F32)?
            .to_vec1::<f32>()?;
        // The first of equal logits, as the engine's greedy sampler takes.
        let best = values
            .iter()
            .enumerate()
            .fold(0, |best, (i, x)| if *x > values[best] { i } else { best });
        let mut recording = self
            .recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        recording.tokens.push(best as u32);
        recording.times.push(Instant::now());
        if self.keep_logits {
            recording.logits.push(values);
        }
        Ok(logits.clone())
    }
}
