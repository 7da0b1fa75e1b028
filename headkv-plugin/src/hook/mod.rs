//! HeadKV as mistral.rs's attention: the only module that touches the runtime's types.

mod dispatch;
mod linear;
mod model;

pub use linear::Panels;
pub use model::{Configured, Model};

use crate::{Compression, Error, HeadScores, methods, prefix::Place, ranking::Facts};
use candle_core::Result;
use mistralrs_core::attention_hook::{
    AttentionHook, ModelHook, ModelInfo, PromptPolicy, scope, sync_scope,
};
use std::sync::Arc;

/// Compresses the KV cache of every model that loads within its scope; each gets a [`Model`] of its own.
///
/// ```no_run
/// # fn load() {}
/// # fn main() -> Result<(), headkv_plugin::Error> {
/// use headkv_plugin::{Compression, HeadKv};
///
/// let hook = HeadKv::new(Compression::new("snapkv", 64))?;
/// hook.scope(|| load()); // loads a model of mistral.rs
/// # Ok(()) }
/// ```
pub struct HeadKv {
    config: Compression,
    scores: Option<HeadScores>,
    options: Options,
}

/// What prompts read on from, of earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// All that they have in common, whole: answers are those of prompts that are read anew ([`crate::prefix`]).
    #[default]
    Exact,
    /// What was kept of those that they go on from, which is less to hold and to attend to, and not exact
    /// ([`crate::conversation`]).
    Compressed,
}

/// How a model's prompts are read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How prompts share the engine with sequences that decode.
    pub prompts: PromptPolicy,
    /// Bytes of memory for prompts that have been read: one that begins as an earlier one did is read on from where they
    /// part ([`crate::prefix`]). 0 remembers none.
    pub prefix_bytes: usize,
    /// Where these bytes are, of whole prompts; what is kept of them is where the model is.
    pub prefix_place: Place,
    /// What is remembered within these bytes.
    pub reuse: Reuse,
    /// What is known of the model; some rankings need it ([`crate::ranking::Needs`]).
    pub facts: Facts,
}

impl HeadKv {
    /// Prepares a hook, reading the scores that `config.scores` names if the method needs one.
    ///
    /// # Errors
    /// A contradictory configuration, an unknown method, or a score file that is missing or malformed.
    pub fn new(config: Compression) -> std::result::Result<Arc<Self>, Error> {
        Self::with_options(config, Options::default())
    }

    /// As [`Self::new`], and says how prompts are read.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_options(
        config: Compression,
        options: Options,
    ) -> std::result::Result<Arc<Self>, Error> {
        let scores = read_scores(&config)?;
        Ok(Arc::new(Self {
            config,
            scores,
            options,
        }))
    }

    /// Calls `load`; the models that load in it, on this thread, take the hook.
    pub fn scope<R>(self: &Arc<Self>, load: impl FnOnce() -> R) -> R {
        sync_scope(self.clone(), || Panels::scope(load))
    }

    /// Awaits `load`; the models that load in it take the hook, those that load elsewhere meanwhile do not.
    pub async fn scope_async<F: Future>(self: &Arc<Self>, load: F) -> F::Output {
        scope(self.clone(), Panels::scope_async(load)).await
    }
}

impl AttentionHook for HeadKv {
    fn attach(&self, model: &ModelInfo) -> Result<Arc<dyn ModelHook>> {
        let model = Model::new(
            &self.config,
            model,
            self.scores.as_ref(),
            self.options.clone(),
        );
        Ok(Arc::new(model.map_err(candle_core::Error::msg)?))
    }
}

fn read_scores(config: &Compression) -> std::result::Result<Option<HeadScores>, Error> {
    config.check()?;
    let entry = methods::find(&config.method)?;
    match &config.scores {
        Some(scores) if entry.needs_scores => Ok(Some(scores.read()?.into_owned())),
        None if entry.needs_scores => Err(Error::NoScores(entry.name)),
        _ => Ok(None),
    }
}
