//! What is kept of a prompt: a method ready for one model, asked once per layer and prompt on any device.

use crate::{
    Compression, Error, HeadScores, ModelShape,
    methods::{Budget, Build, LayerContext, Method, find},
    ranking::{self, Facts, Needs, Ranking, WINDOW},
    selection::{self, Scores},
    watch::Watch,
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
    layers: Vec<Layer>,
    /// How positions are ranked; `None` by the observation window's attention.
    pub ranking: Option<Arc<dyn Ranking>>,
    /// What is known of the model besides.
    pub facts: Facts,
    /// Is told which positions are kept, if anybody wants to know.
    pub(crate) watch: Option<Arc<Watch>>,
}

/// What becomes of a layer of the model.
#[derive(Clone, Copy)]
enum Layer {
    /// It is compressed, as the method's layer of that number.
    Compressed(usize),
    /// It keeps the tokens of its sliding window, so many.
    Slides(usize),
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
        Self::with_windows(config, model, &vec![None; model.layers], scores)
    }

    /// As [`Self::new`], for a model of which some layers slide: by layer, the tokens that its window shows. Those layers
    /// keep these tokens and have no part in the budget; scores of them are passed over.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_windows(
        config: &Compression,
        model: ModelShape,
        windows: &[Option<usize>],
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
        let mut compressed = Vec::new();
        let layers = windows.iter().enumerate().map(|(layer, window)| {
            window.map_or_else(
                || {
                    compressed.push(layer);
                    Layer::Compressed(compressed.len() - 1)
                },
                Layer::Slides,
            )
        });
        let layers = layers.collect();
        // A model that slides everywhere has nothing to share a budget among; its method is never asked.
        let scores = match compressed.len() {
            0 => scores.cloned(),
            _ => scores.map(|scores| scores.of_layers(&compressed)),
        };
        let method = (entry.factory)(&Build {
            config: &config,
            model: ModelShape {
                layers: compressed.len().max(1),
                ..model
            },
            scores: scores.as_ref(),
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
            layers,
            ranking,
            facts: Facts::default(),
            watch: None,
        })
    }

    /// The same for a model of which that is known.
    ///
    /// # Errors
    /// [`Error::Config`] if the ranking needs more, or a replay of a model whose layers slide.
    pub fn with_facts(self, facts: Facts) -> Result<Self, Error> {
        let (ranking, needs) = (self.config.ranking.as_deref(), self.needs());
        facts.check(ranking, needs)?;
        let slides = |layer: &Layer| matches!(layer, Layer::Slides(_));
        if needs.replay && self.layers.iter().any(slides) {
            return Err(Error::Config(format!(
                "ranking `{}` says the prompt again, which layers with a sliding window have left behind by then; use another --ranking",
                ranking.unwrap_or(WINDOW)
            )));
        }
        Ok(Self { facts, ..self })
    }

    /// The same, telling that which positions of a prompt it keeps.
    pub fn watched(self, watch: Arc<Watch>) -> Self {
        let watch = Some(watch);
        Self { watch, ..self }
    }

    /// Whether what is kept is decided for all layers together, when the last one has what it takes; with it, all layers hold
    /// the whole prompt until then.
    pub fn waits(&self) -> bool {
        self.method.across_layers() || self.needs().replay
    }

    /// Whether a layer's budget has to wait, if the policy [`Self::waits`].
    pub(crate) fn has_to_wait(&self, budget: &Budget) -> bool {
        match budget {
            Budget::All | Budget::Ends { .. } => false,
            _ => self.waits(),
        }
    }

    /// What its ranking looks at besides the window's queries, the keys and the values.
    pub fn needs(&self) -> Needs {
        let ranking = self.ranking.as_deref();
        ranking.map(Ranking::needs).unwrap_or_default()
    }

    /// The budget of one layer for a prompt of that many tokens; a prompt within the capacity is kept whole, and so is
    /// what the window of a sliding layer shows.
    ///
    /// # Errors
    /// [`Error::Method`] if the method's answer does not fit the model.
    pub fn budget(&self, layer: usize, prompt: usize) -> Result<Budget, Error> {
        let Some(Layer::Compressed(number)) = self.layers.get(layer).copied() else {
            return Ok(Budget::All);
        };
        if prompt <= self.config.capacity {
            return Ok(Budget::All);
        }
        let budget = self.method.budget(&LayerContext {
            layer: number,
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
            Budget::PerHead(_) | Budget::Shared { .. } | Budget::Enough { .. }
                if self.method.across_layers() =>
            {
                "has all layers compete, but gave a budget of another kind".into()
            }
            Budget::Shared { floor, .. } if !(0.0..=1.0).contains(floor) => {
                format!("gave a floor of {floor}, which is not between 0 and 1")
            }
            Budget::Enough { loss, .. } if !(0.0..=1.0).contains(loss) => {
                format!("gave a loss of {loss}, which is not between 0 and 1")
            }
            _ => return Ok(budget),
        };
        Err(Error::Method {
            name: self.config.method.clone(),
            why: format!("{wrong} in layer {layer}"),
        })
    }

    /// The last tokens of such a prompt that are kept whatever they are worth: more than [`Compression::recent`] where the
    /// capacity is not filled by all candidates.
    pub fn recent(&self, prompt: usize) -> usize {
        let candidates = prompt.saturating_sub(self.config.window);
        let unfilled = self.config.capacity.saturating_sub(candidates);
        let window = prompt.min(self.config.window);
        self.config.recent().max(unfilled).min(window)
    }

    /// Tokens that each stored head of a layer keeps of such a prompt, the window included; `None` where the prompt itself
    /// decides.
    ///
    /// # Errors
    /// As [`Self::budget`].
    pub fn lengths(&self, layer: usize, prompt: usize) -> Result<Option<Vec<usize>>, Error> {
        if let Some(window) = self.window(layer) {
            return Ok(Some(vec![prompt.min(window); self.model.kv_heads]));
        }
        let heads = self.model.stored_heads(self.config.granularity);
        let candidates = prompt.saturating_sub(self.config.window);
        let window = self.config.window;
        let kept = match self.budget(layer, prompt)? {
            Budget::All => return Ok(Some(vec![prompt; heads])),
            Budget::Ends { first, last } => {
                return Ok(Some(vec![(first + last).min(candidates) + window; heads]));
            }
            Budget::PerHead(counts) => counts,
            Budget::Shared { .. } | Budget::Competing { .. } | Budget::Enough { .. } => {
                return Ok(None);
            }
        };
        let with_recent = |n: usize| n.min(candidates) + self.recent(prompt);
        Ok(Some(kept.into_iter().map(with_recent).collect()))
    }

    /// The tokens that a layer's sliding window keeps; `None` for a layer that is compressed.
    pub fn window(&self, layer: usize) -> Option<usize> {
        match self.layers.get(layer) {
            Some(Layer::Slides(window)) => Some(*window),
            _ => None,
        }
    }

    /// The most tokens that a layer keeps of such a prompt, all stored heads together; where each head's rounding depends on the
    /// prompt, up to one token per head more than it will be.
    ///
    /// # Errors
    /// As [`Self::budget`].
    pub fn kept(&self, layer: usize, prompt: usize) -> Result<usize, Error> {
        if let Some(window) = self.window(layer) {
            return Ok(prompt.min(window) * self.model.kv_heads);
        }
        let heads = self.model.stored_heads(self.config.granularity);
        let candidates = prompt.saturating_sub(self.config.window);
        let all = candidates * heads;
        let chosen = match self.budget(layer, prompt)? {
            // A prompt that is kept whole is stored once per KV head.
            Budget::All => return Ok(prompt * self.model.kv_heads),
            Budget::Ends { first, last } => {
                return Ok(((first + last).min(candidates) + self.config.window) * heads);
            }
            Budget::PerHead(counts) => counts.iter().map(|n| *n.min(&candidates)).sum(),
            Budget::Competing { total, .. } | Budget::Enough { total, .. } => total.min(all),
            Budget::Shared { mean, exact, .. } => {
                (mean * heads + if exact { 0 } else { heads }).min(all)
            }
        };
        Ok(chosen + self.recent(prompt) * heads)
    }

    /// The positions of a prompt of `tokens` that each stored head of a layer keeps, in ascending order: what `budget`
    /// allows of the candidates, and the recent tokens.
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
        // Both ends are kept without a ranking: what follows is as recent as they are.
        let rest = match budget {
            Budget::All | Budget::Ends { .. } => candidates,
            _ => tokens - self.recent(tokens),
        };
        for positions in &mut kept {
            positions.extend(rest as u32..tokens as u32);
        }
        if let Some(watch) = &self.watch {
            watch.layer(&kept, tokens);
        }
        Ok(kept)
    }
}
