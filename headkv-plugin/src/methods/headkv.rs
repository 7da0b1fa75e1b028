//! `headkv`: a capacity per head, from head scores (HeadKV, Fu et al., ICLR 2025, arXiv 2410.19258, section 3.3).
//!
//! With `b = capacity - window`, every head is sure of `floor = b - b // beta` tokens; the rest of all heads' budgets,
//! `pool = (b // beta) x layers x heads`, is shared in proportion to the heads' scores.

use super::{Budget, Build, LayerContext, Method};
use crate::{Compression, Error, HeadScores, apportion::apportion};
use std::sync::{Arc, Mutex, PoisonError};

/// The original's `beta`.
const BETA: f64 = 1.2;

pub(super) struct HeadBudgets {
    pub floor: usize,
    pool: usize,
    shares: Vec<f64>,
    heads: usize,
    redistribute: bool,
    /// Candidates of the last prompt and what its heads keep: the layers of a prompt ask one after the other.
    last: Mutex<Option<(usize, Arc<Vec<usize>>)>>,
}

impl HeadBudgets {
    pub fn new(config: &Compression, scores: &HeadScores) -> Self {
        let mean = config.chosen();
        let shared = floor_div(mean as f64, config.beta.unwrap_or(BETA)) as usize;
        Self {
            floor: mean - shared,
            pool: shared * scores.layers() * scores.heads(),
            shares: scores.shares(config.temp),
            heads: scores.heads(),
            redistribute: config.redistribute,
            last: Mutex::new(None),
        }
    }

    /// Tokens per head, layer by layer, when each head has that many candidates.
    fn capacities(&self, candidates: usize) -> Vec<usize> {
        if !self.redistribute {
            // The original's rounding (half to even); the sum may miss the budget by a few tokens.
            let kept =
                |share: &f64| (share * self.pool as f64 + self.floor as f64).round_ties_even();
            return self.shares.iter().map(|s| kept(s) as usize).collect();
        }
        let room = candidates.saturating_sub(self.floor);
        let shared = apportion(&self.shares, self.pool, room);
        shared
            .into_iter()
            .map(|tokens| tokens + self.floor)
            .collect()
    }
}

/// `a // b` of floats as Python computes it: the quotient's floor before rounding, where `(a / b).floor()` may be one more.
fn floor_div(a: f64, b: f64) -> f64 {
    let quotient = (a - a % b) / b;
    let floor = quotient.floor();
    if quotient - floor > 0.5 {
        floor + 1.0
    } else {
        floor
    }
}

impl HeadBudgets {
    /// Tokens that each head of a layer keeps.
    pub fn layer(&self, at: &LayerContext) -> Vec<usize> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let all = match &*last {
            Some((candidates, all)) if *candidates == at.candidates => all.clone(),
            _ => {
                let all = Arc::new(self.capacities(at.candidates));
                *last = Some((at.candidates, all.clone()));
                all
            }
        };
        all[at.layer * self.heads..][..self.heads].to_vec()
    }
}

impl Method for HeadBudgets {
    fn budget(&self, at: &LayerContext) -> Budget {
        Budget::PerHead(self.layer(at))
    }
}

/// Tokens that each head keeps besides the window, `layers x heads`, for prompts longer than any head's capacity.
pub fn head_capacities(config: &Compression, scores: &HeadScores) -> Vec<usize> {
    HeadBudgets::new(config, scores).capacities(usize::MAX)
}

pub fn build(b: &Build) -> Result<Box<dyn Method>, Error> {
    let Some(scores) = b.scores else {
        return Err(Error::NoScores("headkv".into()));
    };
    let stored = b.model.stored_heads(b.config.granularity);
    let scores = scores.grouped(b.model.heads / stored, b.config.reduce);
    Ok(Box::new(HeadBudgets::new(b.config, &scores)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `a // b` as CPython prints it: where the rounded quotient is a whole number above the exact one, and the budgets
    /// and betas of the paper.
    #[rustfmt::skip]
    const PYTHON: &[(u32, f64, u32)] = &[
        (101, 1.01, 99), (202, 1.01, 199), (303, 1.01, 299), (404, 1.01, 399), (11, 1.1, 9), (22, 1.1, 19),
        (44, 1.1, 39), (77, 1.1, 69), (808, 1.01, 799), (88, 1.1, 79), (8, 1.005, 7), (24, 1.005, 23),
        (56, 1.005, 55), (120, 1.005, 119), (248, 1.005, 246), (1016, 1.005, 1010), (8, 1.01, 7), (24, 1.01, 23),
        (56, 1.01, 55), (120, 1.01, 118), (248, 1.01, 245), (1016, 1.01, 1005), (8, 1.1, 7), (24, 1.1, 21),
        (56, 1.1, 50), (120, 1.1, 109), (248, 1.1, 225), (1016, 1.1, 923), (8, 1.2, 6), (24, 1.2, 20),
        (56, 1.2, 46), (120, 1.2, 100), (248, 1.2, 206), (1016, 1.2, 846), (8, 1.5, 5), (24, 1.5, 16),
        (56, 1.5, 37), (120, 1.5, 80), (248, 1.5, 165), (1016, 1.5, 677), (8, 2.0, 4), (24, 2.0, 12),
        (56, 2.0, 28), (120, 2.0, 60), (248, 2.0, 124), (1016, 2.0, 508), (8, 5.0, 1), (24, 5.0, 4),
        (56, 5.0, 11), (120, 5.0, 24), (248, 5.0, 49), (1016, 5.0, 203), (8, 10.0, 0), (24, 10.0, 2),
        (56, 10.0, 5), (120, 10.0, 12), (248, 10.0, 24), (1016, 10.0, 101),
    ];

    #[test]
    fn budgets_divide_as_in_python() {
        for &(a, b, quotient) in PYTHON {
            assert_eq!(floor_div(a.into(), b) as u32, quotient, "{a} // {b}");
        }
        let config = Compression {
            beta: Some(1.1),
            ..Compression::new("headkv", 96)
        };
        let scores = HeadScores::new(2, 3, vec![1.0; 6]).unwrap();
        let headkv = HeadBudgets::new(&config, &scores);
        assert_eq!((headkv.floor, headkv.pool), (9, 79 * 6));
    }

    proptest! {
        #[test]
        fn a_quotient_is_the_floor_of_the_exact_one(a in 0..100_000u32, hundredths in 100..2000u32) {
            let b = f64::from(hundredths) / 100.0;
            // b is mantissa / 2^(52 - exponent), exactly.
            let exponent = (b.to_bits() >> 52) - 1023;
            let mantissa = u128::from(b.to_bits() & ((1 << 52) - 1) | 1 << 52);
            let exact = (u128::from(a) << (52 - exponent)) / mantissa;
            prop_assert_eq!(floor_div(a.into(), b) as u128, exact);
        }
    }
}
