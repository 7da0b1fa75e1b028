//! A request's `seed`: random numbers of its own, so that it draws the same tokens again, whoever runs beside it.

use candle_core::{Result, Tensor};
use mistralrs_core::{
    CustomLogitsProcessor,
    batch_sampling::{Generator, seeded},
};

/// The random numbers of one choice.
pub struct Seed(Generator);

impl Seed {
    /// Those of a request's seed for its choice of that number; each choice draws others.
    pub fn new(seed: u64, choice: usize) -> Self {
        Self(seeded(seed.wrapping_add(choice as u64)))
    }
}

impl CustomLogitsProcessor for Seed {
    fn wants_logits(&self) -> bool {
        false
    }

    fn apply(&self, logits: &Tensor, _context: &[u32]) -> Result<Tensor> {
        Ok(logits.clone())
    }

    fn generator(&self) -> Option<Generator> {
        Some(self.0.clone())
    }
}
