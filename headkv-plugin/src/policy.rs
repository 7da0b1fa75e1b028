//! What is kept of a prompt: a method ready for one model, asked once per layer and prompt on any device.

use crate::{
    Compression, Error, HeadScores, ModelShape,
    methods::{Budget, Build, LayerContext, Method, find},
    ranking::{self, Ranking, WINDOW},
    selection::{self, Scores},
};
use std::sync::Arc;

/// The configuration, the model's shape, and the method with everything precomputed.
#[derive(Clone)]
pub struct Policy {
    /// The configuration, with nothing left open.
    pub config: Compression,
    /// The model.
    pub model: ModelShape,
    /// How many positions each head keeps.
    pub method: Arc<dyn Method>,
    /// How positions are ranked; `None` by the observation window's attention.
    pub ranking: Option<Arc<dyn Ranking>>,
}

impl Policy {
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
        let config = entry.defaults.complete(config);
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
            config: &config,
            model,
            scores,
        })?;
        let ranking = ranking::find(config.ranking.as_deref().unwrap_or(WINDOW))?.ranking;
        let config = Compression {
            method: entry.name,
            ..config
        };
        Ok(Self {
            config,
            model,
            method: method.into(),
            ranking,
        })
    }

    /// The budget of one layer for a prompt of that many tokens; a prompt within the capacity is kept whole.
    ///
    /// # Errors
    /// [`Error::Method`] if the method's answer does not fit the model.
    pub fn budget(&self, layer: usize, prompt: usize) -> Result<Budget, Error> {
        if prompt <= self.config.capacity {
            return Ok(Budget::All);
        }
        let budget = self.method.budget(&LayerContext {
            layer,
            candidates: prompt - self.config.window,
        });
        let heads = self.model.stored_heads(self.config.granularity);
        let wrong = match &budget {
            Budget::PerHead(counts) if counts.len() != heads => {
                format!("gave {} budgets for {heads} heads", counts.len())
            }
            Budget::Competing { weights, .. } if weights.len() != heads => {
                format!("gave {} weights for {heads} heads", weights.len())
            }
            Budget::Shared { floor, .. } if !(0.0..=1.0).contains(floor) => {
                format!("gave a floor of {floor}, which is not between 0 and 1")
            }
            _ => return Ok(budget),
        };
        Err(Error::Method {
            name: self.config.method.clone(),
            why: format!("{wrong} in layer {layer}"),
        })
    }

    /// Tokens that each stored head of a layer keeps of such a prompt, the window included; `None` where the prompt itself
    /// decides.
    ///
    /// # Errors
    /// As [`Self::budget`].
    pub fn lengths(&self, layer: usize, prompt: usize) -> Result<Option<Vec<usize>>, Error> {
        let heads = self.model.stored_heads(self.config.granularity);
        let candidates = prompt.saturating_sub(self.config.window);
        let kept = match self.budget(layer, prompt)? {
            Budget::All => return Ok(Some(vec![prompt; heads])),
            Budget::Ends { first, last } => vec![first + last; heads],
            Budget::PerHead(counts) => counts,
            Budget::Shared { .. } | Budget::Competing { .. } => return Ok(None),
        };
        let with_window = |n: usize| n.min(candidates) + self.config.window;
        Ok(Some(kept.into_iter().map(with_window).collect()))
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
