//! Probabilities of the tokens taken: natural logarithms under the model's own distribution, as OpenAI has them. The
//! runtime's are decadic, of what the temperature and top-p left, and greedily of no distribution at all.

use candle_core::{DType, Result, Tensor};
use mistralrs_core::CustomLogitsProcessor;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokenizers::Tokenizer;

/// A token that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Its text.
    pub token: String,
    /// The logarithm of its probability.
    pub logprob: f32,
    /// The most probable tokens of the step with theirs, the best first.
    pub top: Vec<(String, f32)>,
}

/// Watches a sequence's logits.
pub struct Watcher {
    top: usize,
    steps: Mutex<Steps>,
}

#[derive(Default)]
struct Steps {
    /// The logits of the step that is being sampled.
    open: Vec<f32>,
    taken: VecDeque<Step>,
}

struct Step {
    token: u32,
    logprob: f32,
    top: Vec<(u32, f32)>,
}

impl Watcher {
    /// Notes so many alternatives per token.
    pub fn new(top: usize) -> Self {
        Self {
            top,
            steps: Mutex::default(),
        }
    }

    /// The tokens that a piece of text is made of: one, unless a character or a possible tool call took several; all that
    /// are left if it is the last.
    pub fn tokens_of(&self, text: &str, last: bool, tokenizer: &Tokenizer) -> Vec<TokenLogprob> {
        let mut steps = self.steps();
        let mut ids = Vec::new();
        let mut found = Vec::new();
        let word = |id: u32| tokenizer.decode(&[id], false).unwrap_or_default();
        while let Some(step) = steps.taken.pop_front() {
            ids.push(step.token);
            found.push(TokenLogprob {
                token: word(step.token),
                logprob: step.logprob,
                top: step.top.iter().map(|(id, p)| (word(*id), *p)).collect(),
            });
            let so_far = tokenizer.decode(&ids, true).unwrap_or_default();
            let whole = !so_far.ends_with('\u{fffd}');
            if !last && whole && so_far.trim_start().len() >= text.trim_start().len() {
                break;
            }
        }
        found
    }

    fn steps(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CustomLogitsProcessor for Watcher {
    fn wants_logits(&self) -> bool {
        true
    }

    fn apply(&self, logits: &Tensor, _context: &[u32]) -> Result<Tensor> {
        let values = logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
        self.steps().open = values;
        Ok(logits.clone())
    }

    fn taken(&self, token: u32) {
        let mut steps = self.steps();
        let open = std::mem::take(&mut steps.open);
        let step = step(&open, token, self.top);
        steps.taken.push_back(step);
    }
}

fn step(logits: &[f32], token: u32, top: usize) -> Step {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
    let whole = f64::from(largest) + sum.ln();
    let of = |x: f32| (f64::from(x) - whole) as f32;
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let better = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]);
    let top = top.min(order.len());
    if top > 0 && top < order.len() {
        order.select_nth_unstable_by(top - 1, better);
    }
    order.truncate(top);
    order.sort_by(better);
    let logprob = logits.get(token as usize).map_or(f32::MIN, |x| of(*x));
    Step {
        token,
        // JSON has no infinity.
        logprob: logprob.max(f32::MIN),
        top: order
            .into_iter()
            .map(|id| (id, of(logits[id as usize]).max(f32::MIN)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let logits = [1.0, 3.0, f32::NEG_INFINITY, 2.0];
        let step = step(&logits, 3, 4);
        let total: f32 = step.top.iter().map(|(_, p)| p.exp()).sum();
        assert!((total - 1.0).abs() < 1e-6);
        let order: Vec<u32> = step.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(order, [1, 3, 0, 2]);
        assert_eq!(step.logprob, step.top[1].1);
    }
}
