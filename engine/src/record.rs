//! Watches a sequence: the tokens that were taken, their times, and, if asked for, the logits.

use crate::finite;
use candle_core::{DType, Result, Tensor};
use mistralrs_core::CustomLogitsProcessor;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
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
///
/// It asks for logits only while it needs them: a batch whose sequences are only watched samples on the device.
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
        std::mem::take(&mut *self.recording())
    }

    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn may_end(&self, recording: &Recording) -> bool {
        recording.tokens.len() >= self.end_from
    }
}

impl CustomLogitsProcessor for Recorder {
    fn wants_logits(&self) -> bool {
        let recording = self.recording();
        // The first ones are looked at.
        self.keep_logits
            || recording.tokens.is_empty()
            || !(self.end.is_empty() || self.may_end(&recording))
    }

    fn apply(&self, logits: &Tensor, _context: &[u32]) -> Result<Tensor> {
        let mut values = logits
            .flatten_all()?
            .to_dtype(DType::F32)?
            .to_vec1::<f32>()?;
        let mut recording = self.recording();
        if recording.tokens.is_empty() {
            finite::check(&values)?;
        }
        if self.keep_logits {
            recording.logits.push(values.clone());
        }
        if self.may_end(&recording) {
            return Ok(logits.clone());
        }
        for token in &self.end {
            if let Some(value) = values.get_mut(*token as usize) {
                *value = f32::NEG_INFINITY;
            }
        }
        Tensor::from_vec(values, logits.shape(), logits.device())?.to_dtype(logits.dtype())
    }

    fn taken(&self, token: u32) {
        let mut recording = self.recording();
        recording.tokens.push(token);
        recording.times.push(Instant::now());
    }
}
