//! The compression methods, one file each, and the registry that finds them by name.
//!
//! A method answers one question: how many positions does each head of a layer keep ([`Budget`])? Ranking, storage
//! and attention are the same for all. A method of one's own implements [`Method`] and calls [`register`].

mod adakv;
mod full;
mod headkv;
mod headkv_plus;
mod headkv_pool;
mod kvzip;
mod pyramidkv;
mod snapkv;
mod streaming;
mod threshold;

use crate::{
    Compression, Error, HeadScores, ModelShape,
    config::{Pool, Pooling},
    ranking::WINDOW,
    scores::Kind,
};
use std::sync::{Arc, RwLock};

pub use headkv::head_capacities;

/// Which layer of which prompt a method is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerContext {
    /// The layer, from 0.
    pub layer: usize,
    /// Tokens of the prompt that compete: those before the window.
    pub candidates: usize,
}

/// How many of the candidates (the prompt without its window) the heads of one layer keep.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Budget {
    /// All of them.
    All,
    /// The first and the last ones, the same for every head, without ranking.
    Ends {
        /// Tokens kept at the beginning.
        first: usize,
        /// Tokens kept at the end.
        last: usize,
    },
    /// The best-ranked ones, so many for each stored head of the layer.
    PerHead(Vec<usize>),
    /// The best-ranked ones over all heads of the layer, each score times its head's weight, after every head's own best.
    Competing {
        /// Tokens of all heads together.
        total: usize,
        /// Tokens that every head is sure of.
        floor: usize,
        /// One factor per stored head.
        weights: Vec<f64>,
    },
    /// The best-ranked ones over all heads of the layer (Ada-KV, arXiv 2407.11550, algorithm 1).
    Shared {
        /// Tokens per head on average.
        mean: usize,
        /// The part of `mean` that every head is sure of, 0 to 1.
        floor: f64,
        /// Whether the heads keep `mean` on average exactly; otherwise each is rounded alone, as in the original.
        exact: bool,
    },
    /// The best-ranked ones of each head, as few as hold all but a part of its ranking's sum, up to a ceiling.
    Enough {
        /// The most tokens of all heads together.
        total: usize,
        /// The part of the sum that may be dropped, 0 to 1.
        loss: f64,
    },
}

/// A rule that gives every head of every layer its budget.
pub trait Method: Send + Sync {
    /// How many candidates each head of a layer keeps. Called once per layer and prompt, after that layer's prompt
    /// pass; the answer must depend on the arguments only.
    fn budget(&self, at: &LayerContext) -> Budget;

    /// Whether the heads of all layers compete with each other: each layer's budget is then a [`Budget::Competing`], whose
    /// totals add up. What is kept is decided when the last layer has ranked its positions; all layers hold the whole prompt
    /// until then.
    fn across_layers(&self) -> bool {
        false
    }
}

/// What a method is built from.
#[non_exhaustive]
pub struct Build<'a> {
    /// The configuration, already checked.
    pub config: &'a Compression,
    /// The model.
    pub model: ModelShape,
    /// Head scores of this model, if the configuration named some.
    pub scores: Option<&'a HeadScores>,
}

/// Builds a method for one model; it may capture what it needs.
pub type Factory = Arc<dyn Fn(&Build) -> Result<Box<dyn Method>, Error> + Send + Sync>;

/// What a method does where the configuration leaves it open.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// The name of its ranking.
    pub ranking: String,
    /// How far hits count; `None` goes by the configuration's `kernel`.
    pub pool: Option<Pool>,
    /// Of the window, no more is kept whatever it is worth than one of so many tokens of the capacity; `None` keeps all.
    pub recent_part: Option<usize>,
    /// HeadKV's `beta`.
    pub beta: f64,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            ranking: WINDOW.into(),
            pool: None,
            recent_part: None,
            beta: 1.2,
        }
    }
}

impl Defaults {
    /// The configuration with nothing left open.
    pub fn complete(&self, config: &Compression) -> Compression {
        let pool = match (self.pool, config.pooling) {
            (Some(pool), Pooling::Max) => pool,
            _ => config.pool(),
        };
        let maximum = config.pooling == Pooling::Max;
        let part = |part: usize| (config.capacity / part.max(1)).clamp(1, config.window.max(1));
        Compression {
            ranking: Some(config.ranking.clone().unwrap_or(self.ranking.clone())),
            pool_before: config.pool_before.or(maximum.then_some(pool.before)),
            pool_after: config.pool_after.or(maximum.then_some(pool.after)),
            pool_decay: config.pool_decay.or(maximum.then_some(pool.decay)),
            recent: config.recent.or(self.recent_part.map(part)),
            beta: Some(config.beta.unwrap_or(self.beta)),
            ..config.clone()
        }
    }
}

/// A method's entry in the registry.
#[derive(Clone)]
#[non_exhaustive]
pub struct Entry {
    /// The name in reports and on command lines.
    pub name: String,
    /// Other names that find it, the original project's among them.
    pub aliases: Vec<String>,
    /// One line for `--help`.
    pub about: String,
    /// Whether it ranks heads and so needs head scores.
    pub needs_scores: bool,
    /// Whether it keeps every token, so that no capacity or other parameter changes it.
    pub keeps_all: bool,
    /// Names that say which head scores are meant.
    pub score_kinds: Vec<(String, Kind)>,
    /// What it does where the configuration leaves it open.
    pub defaults: Defaults,
    /// Builds it.
    pub factory: Factory,
}

impl Entry {
    /// A method of that name that `factory` builds, without aliases, head scores or a description.
    pub fn new(
        name: impl Into<String>,
        factory: impl Fn(&Build) -> Result<Box<dyn Method>, Error> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            aliases: Vec::new(),
            about: String::new(),
            needs_scores: false,
            keeps_all: false,
            score_kinds: Vec::new(),
            defaults: Defaults::default(),
            factory: Arc::new(factory),
        }
    }

    /// Adds one line for `--help`.
    pub fn about(mut self, about: impl Into<String>) -> Self {
        self.about = about.into();
        self
    }

    /// Adds other names that find it.
    pub fn aliases(mut self, aliases: &[&str]) -> Self {
        self.aliases = aliases.iter().map(|alias| alias.to_string()).collect();
        self
    }

    /// Adds another name, which also says which head scores are meant.
    pub fn alias_with_scores(mut self, alias: &str, kind: Kind) -> Self {
        self.aliases.push(alias.into());
        self.score_kinds.push((alias.into(), kind));
        self
    }

    /// The head scores that are meant where the method was asked for by that name.
    pub fn score_kind(&self, name: &str) -> Kind {
        let mut kinds = self.score_kinds.iter();
        kinds
            .find(|(alias, _)| alias.eq_ignore_ascii_case(name))
            .map_or(Kind::Retrieval, |(_, kind)| *kind)
    }

    /// Says that it needs head scores.
    pub fn needs_scores(mut self) -> Self {
        self.needs_scores = true;
        self
    }

    /// Says what it does where the configuration leaves it open.
    pub fn defaults(mut self, defaults: Defaults) -> Self {
        self.defaults = defaults;
        self
    }

    /// Says that it keeps every token.
    pub fn keeps_all(mut self) -> Self {
        self.keeps_all = true;
        self
    }
}

fn builtin() -> Vec<Entry> {
    vec![
        Entry::new("full", full::build)
            .aliases(&["FullKV"])
            .about("nothing dropped")
            .keeps_all(),
        Entry::new("streaming", streaming::build)
            .aliases(&["StreamingLLM"])
            .about("attention sinks and the most recent tokens"),
        Entry::new("snapkv", snapkv::build)
            .aliases(&["SnapKV"])
            .about("the window's attention, the same capacity for every head"),
        Entry::new("pyramidkv", pyramidkv::build)
            .aliases(&["PyramidKV"])
            .about("as snapkv, with a capacity that falls by layer"),
        Entry::new("adakv", adakv::build)
            .aliases(&["AdaKV", "AdativeKV"])
            .about("as snapkv, with the capacity shared inside a layer"),
        Entry::new("headkv", headkv::build)
            .aliases(&["HeadKV"])
            .alias_with_scores("ReasonKV", Kind::Reasoning)
            .about("a capacity per head, from head scores")
            .needs_scores(),
        headkv_plus::entry(),
        headkv_pool::entry(),
        kvzip::entry(),
        Entry::new("threshold", threshold::build)
            .about("as few as lose no more than a part of the ranking's sum, the capacity at most"),
    ]
}

static CUSTOM: RwLock<Vec<Entry>> = RwLock::new(Vec::new());

/// Adds a method, or replaces the one of that name.
pub fn register(entry: Entry) {
    let mut custom = CUSTOM.write().unwrap_or_else(|e| e.into_inner());
    custom.retain(|known| known.name != entry.name);
    custom.push(entry);
}

/// All methods, registered ones last.
pub fn all() -> Vec<Entry> {
    let custom = CUSTOM.read().unwrap_or_else(|e| e.into_inner());
    let mut entries = builtin();
    entries.retain(|known| custom.iter().all(|c| c.name != known.name));
    entries.extend(custom.iter().cloned());
    entries
}

/// The method of that name or alias, in any letter case.
///
/// # Errors
/// [`Error::UnknownMethod`] lists the known names.
pub fn find(name: &str) -> Result<Entry, Error> {
    let known = |entry: &Entry| {
        std::iter::once(&entry.name)
            .chain(&entry.aliases)
            .any(|n| n.eq_ignore_ascii_case(name))
    };
    let entries = all();
    entries
        .iter()
        .find(|e| known(e))
        .cloned()
        .ok_or_else(|| Error::UnknownMethod {
            name: name.into(),
            known: entries
                .iter()
                .map(|e| e.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })
}
