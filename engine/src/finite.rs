//! Output that is no number: it must not become an answer.

use candle_core::{DType, Result, Tensor};
use mistralrs_core::CustomLogitsProcessor;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What is said of it.
pub(crate) const NOT_A_NUMBER: &str =
    "the model's output is not a number: its weights are damaged, or too large for this precision";

/// Fails a sequence whose first logits are not numbers.
///
/// Only the first step asks for logits, so that a batch goes on to be sampled where they are: what comes later is
/// computed from the same weights.
#[derive(Debug, Default)]
pub struct Finite(AtomicBool);

/// # Errors
/// Logits of which one is not a number.
pub(crate) fn check(logits: &[f32]) -> Result<()> {
    if logits.iter().any(|logit| logit.is_nan()) {
        candle_core::bail!("{NOT_A_NUMBER}");
    }
    Ok(())
}

impl CustomLogitsProcessor for Finite {
    fn wants_logits(&self) -> bool {
        !self.0.load(Relaxed)
    }

    fn apply(&self, logits: &Tensor, _context: &[u32]) -> Result<Tensor> {
        if self.wants_logits() {
            let values = logits.flatten_all()?.to_dtype(DType::F32)?;
            check(&values.to_vec1::<f32>()?)?;
        }
        Ok(logits.clone())
    }

    fn taken(&self, _token: u32) {
        self.0.store(true, Relaxed);
    }
}
