//! `headkv`: a capacity per head, from head scores (HeadKV, Fu et al., ICLR 2025, arXiv 2410.19258, section 3.3).
//!
//! With `b = capacity - window`, every head is sure of `floor = b - b // beta` tokens; the rest of all heads' budgets,
//! `pool = (b // beta) x layers x heads`, is shared in proportion to the heads' scores.

use super::{Budget, Build, LayerContext, Method, apportion};
use crate::{Compression, Error, HeadScores};
use std::sync::{Arc, Mutex, PoisonError};

struct HeadKv {
    floor: usize,
    pool: usize,
    shares: Vec<f64>,
    heads: usize,
    redistribute: bool,
    /// Candidates of the last prompt and what its heads keep: the layers of a prompt ask one after the other.
    last: Mutex<Option<(usize, Arc<Vec<usize>>)>>,
}

impl HeadKv {
    fn new(config: &Compression, scores: &HeadScores) -> Self {
        let mean = config.capacity - config.window;
        let shared = (mean as f64).div_euclid(config.beta) as usize;
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

impl Method for HeadKv {
    fn budget(&self, at: &LayerContext) -> Budget {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let all = match &*last {
            Some((candidates, all)) if *candidates == at.candidates => all.clone(),
            _ => {
                let all = Arc::new(self.capacities(at.candidates));
                *last = Some((at.candidates, all.clone()));
                all
            }
        };
        Budget::PerHead(all[at.layer * self.heads..][..self.heads].to_vec())
    }
}

/// Tokens that each head keeps besides the window, `layers x heads`, for prompts longer than any head's capacity.
pub fn head_capacities(config: &Compression, scores: &HeadScores) -> Vec<usize> {
    HeadKv::new(config, scores).capacities(usize::MAX)
}

pub fn build(b: &Build) -> Result<Box<dyn Method>, Error> {
    let Some(scores) = b.scores else {
        return Err(Error::NoScores("headkv".into()));
    };
    let stored = b.model.stored_heads(b.config.granularity);
    let scores = scores.grouped(b.model.heads / stored, b.config.reduce);
    Ok(Box::new(HeadKv::new(b.config, &scores)))
}
