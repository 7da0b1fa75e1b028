//! A method ready for one model: what the hook asks which positions to keep.

use super::{Budget, Build, LayerContext, Method, ModelShape, find};
use crate::{
    Compression, Error, HeadScores,
    selection::{self, Scores},
};
use std::sync::Arc;

/// The configuration, the model's shape, and the method with everything precomputed.
#[derive(Clone)]
pub struct Compressor {
    /// The configuration.
    pub config: Compression,
    /// The model.
    pub model: ModelShape,
    /// The rule.
    pub method: Arc<dyn Method>,
}

impl Compressor {
    /// Checks the configuration against the model and builds the method.
    ///
    /// # Errors
    /// A contradictory configuration, an unknown method, or scores that are missing or of another shape.
    pub fn new(
        config: &Compression,
        model: ModelShape,
        scores: Option<&HeadScores>,
    ) -> Result<Self, Error> {
        config.check()?;
        let entry = find(&config.method)?;
        let scores = scores.filter(|_| entry.needs_scores);
        if entry.needs_scores && scores.is_none() {
            return Err(Error::NoScores(entry.name));
        }
        if let Some(s) = scores
            && (s.layers(), s.heads()) != (model.layers, model.heads)
        {
            return Err(Error::ScoreShape {
                scored_layers: s.layers(),
                scored_heads: s.heads(),
                layers: model.layers,
                heads: model.heads,
            });
        }
        let method = (entry.factory)(&Build {
            config,
            model,
            scores,
        })?;
        let config = Compression {
            method: entry.name,
            ..config.clone()
        };
        Ok(Self {
            config,
            model,
            method: method.into(),
        })
    }

    /// The budget of one layer for a prompt of that many tokens; a prompt within the capacity is kept whole.
    pub fn budget(&self, layer: usize, prompt: usize) -> Budget {
        if prompt <= self.config.capacity {
            return Budget::All;
        }
        self.method.budget(&LayerContext {
            layer,
            candidates: prompt - self.config.window,
        })
    }

    /// The positions of a prompt of `tokens` that each stored head of a layer keeps, in ascending order: what `budget`
    /// allows of the candidates, and the window.
    ///
    /// The candidates' `ranking`, one row per stored head ([`selection::rank`]), is asked for only if the budget ranks.
    ///
    /// # Errors
    /// The ranking's own.
    pub fn select<E>(
        &self,
        budget: &Budget,
        tokens: usize,
        ranking: impl FnOnce() -> Result<Scores, E>,
    ) -> Result<Vec<Vec<u32>>, E> {
        let heads = self.model.stored_heads(self.config.granularity);
        let candidates = tokens.saturating_sub(self.config.window);
        let mut kept = selection::select(budget, heads, candidates, ranking)?;
        for positions in &mut kept {
            positions.extend(candidates as u32..tokens as u32);
        }
        Ok(kept)
    }
}
