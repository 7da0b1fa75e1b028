//! `headkv-plus`, the project's own: HeadKV's budget by layer, shared inside it by the prompt's own evidence.
//!
//! A layer's total is what HeadKV gives its heads together. Every head is sure of HeadKV's floor `b - b // beta`; the rest
//! goes to the positions of all heads that are worth most, their scores times `share^prior`, `share` being the head's part
//! of the model's head scores: a static prior on what this prompt shows. Positions are ranked by how far the outputs move
//! without them ([`crate::ranking`], `drop`), and hits count forwards: the window's queries look at where an answer begins,
//! and have no reason yet to look at the tokens that are read on from there. Of the window no more is kept for being recent
//! than a sixth of the capacity: at 12 tokens a head, a window of 8 would leave 4 for the text.

use super::{Budget, Build, Defaults, Entry, LayerContext, Method, headkv::HeadBudgets};
use crate::{Error, config::Pool};

pub struct HeadKvPlus {
    budgets: HeadBudgets,
    /// By layer, one for each stored head.
    weights: Vec<Vec<f64>>,
    across_layers: bool,
}

impl HeadKvPlus {
    /// The same in one competition of all layers.
    pub fn across_layers(self) -> Self {
        Self {
            across_layers: true,
            ..self
        }
    }
}

impl Method for HeadKvPlus {
    fn budget(&self, at: &LayerContext) -> Budget {
        Budget::Competing {
            total: self.budgets.layer(at).iter().sum(),
            floor: self.budgets.floor,
            weights: self.weights[at.layer].clone(),
        }
    }

    fn across_layers(&self) -> bool {
        self.across_layers
    }
}

pub fn entry() -> Entry {
    let about = "HeadKV's budget by layer, shared inside it by the prompt; looks forwards";
    Entry::new("headkv-plus", |b| Ok(Box::new(plus(b)?)))
        .about(about)
        .needs_scores()
        .defaults(defaults())
}

pub fn defaults() -> Defaults {
    Defaults {
        ranking: "drop".into(),
        pool: Some(Pool {
            before: 7,
            after: 24,
            decay: 0.8,
        }),
        recent_part: Some(6),
        beta: 1.5,
    }
}

pub fn plus(b: &Build) -> Result<HeadKvPlus, Error> {
    let Some(scores) = b.scores else {
        return Err(Error::NoScores("headkv-plus".into()));
    };
    let stored = b.model.stored_heads(b.config.granularity);
    let scores = scores.grouped(b.model.heads / stored, b.config.reduce);
    let shares = scores.shares(b.config.temp);
    let weigh = |layer: &[f64]| layer.iter().map(|s| s.powf(b.config.prior)).collect();
    Ok(HeadKvPlus {
        budgets: HeadBudgets::new(b.config, &scores),
        weights: shares.chunks(stored).map(weigh).collect(),
        across_layers: false,
    })
}
