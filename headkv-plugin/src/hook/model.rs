//! One loaded model under HeadKV: its configuration, its requests' own, and what its sequences hold.

use super::{
    Options, Reuse,
    dispatch::{Dispatch, Memory},
    read_scores,
};
use crate::{
    Compression, Error, HeadScores, ModelShape, Policy,
    conversation::Conversations,
    prefix::{Place, Prefixes, Reused},
    ranking::Facts,
    sequence::Sequence,
    usage::{Ledger, Usage},
    watch::Watch,
};
use candle_core::{Result, Tensor};
use mistralrs_core::{
    Pipeline,
    attention_hook::{
        AttendCx, HookedSequence, ModelHook, ModelInfo, NextPass, PromptPolicy, SeqInfo, hook_of,
    },
};
use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A model that was loaded within [`super::HeadKv::scope`].
///
/// Its configuration can be changed while it runs: sequences keep the one they began with.
pub struct Model {
    shape: ModelShape,
    /// By layer, the tokens that a sliding window shows.
    windows: Arc<[Option<usize>]>,
    /// Whether prompts run whole, from their first token, and once.
    whole_prompts: bool,
    prompts: PromptPolicy,
    /// The model's context in tokens.
    context: usize,
    facts: Facts,
    memory: Memory,
    policies: Mutex<Policies>,
    ledger: Arc<Ledger>,
    dispatch: Dispatch,
}

struct Policies {
    default: Arc<Policy>,
    /// By request.
    own: HashMap<usize, Own>,
}

/// What is particular about a request.
struct Own {
    /// `None` is the model's.
    policy: Option<Arc<Policy>>,
    /// Tokens at the end of its prompt that come once the others are compressed.
    then: usize,
}

/// A request's own configuration, until this is dropped.
pub struct Configured {
    model: Arc<Model>,
    request: usize,
}

impl Model {
    pub(super) fn new(
        config: &Compression,
        info: &ModelInfo,
        scores: Option<&HeadScores>,
        options: Options,
    ) -> std::result::Result<Self, Error> {
        let shape = ModelShape {
            layers: info.layers,
            heads: info.heads,
            kv_heads: info.kv_heads,
            head_dim: info.head_dim,
        };
        let windows = info.windows.clone();
        let default = Policy::with_windows(config, shape, &windows, scores)?;
        let default = Arc::new(default.with_facts(options.facts.clone())?);
        runs(&default, info.whole_prompts)?;
        Ok(Self {
            shape,
            windows,
            whole_prompts: info.whole_prompts,
            prompts: options.prompts,
            memory: Memory::new(options.reuse, options.prefix_bytes, options.prefix_place),
            context: info.max_seq_len,
            facts: options.facts,
            policies: Mutex::new(Policies {
                default,
                own: HashMap::new(),
            }),
            ledger: Arc::default(),
            dispatch: Dispatch::default(),
        })
    }

    /// The model's hook; `None` if it was loaded without HeadKV.
    pub fn of(pipeline: &dyn Pipeline) -> Option<Arc<Self>> {
        let hook: Arc<dyn Any + Send + Sync> = hook_of(pipeline)?;
        hook.downcast().ok()
    }

    /// The model's attention shape.
    pub fn shape(&self) -> ModelShape {
        self.shape
    }

    /// Changes the configuration of sequences that begin from now on.
    ///
    /// # Errors
    /// As [`super::HeadKv::new`], and scores of another shape than the model's; the old configuration then stays.
    pub fn set(&self, config: &Compression) -> std::result::Result<(), Error> {
        let policy = self.policy(config)?;
        self.policies().default = policy;
        Ok(())
    }

    /// Gives one request, by its `NormalRequest::id`, a [`Self::policy`] of its own; it is to be called before the request
    /// is sent, and the result held until it is answered.
    ///
    /// # Errors
    /// [`Error::Config`] for a policy of a model of another shape.
    pub fn configure(
        self: &Arc<Self>,
        request: usize,
        policy: Arc<Policy>,
    ) -> std::result::Result<Configured, Error> {
        self.configure_then(request, Some(policy), 0)
    }

    /// As [`Self::configure`], for a request of which the last `then` tokens of the prompt come once the others are
    /// compressed: they see what is kept, have no part in ranking, and stay whole. Without a policy it has the model's.
    ///
    /// # Errors
    /// As [`Self::configure`]. A prompt of no more than `then` tokens fails when it begins.
    pub fn configure_then(
        self: &Arc<Self>,
        request: usize,
        policy: Option<Arc<Policy>>,
        then: usize,
    ) -> std::result::Result<Configured, Error> {
        if policy.as_ref().is_some_and(|p| p.model != self.shape) {
            return Err(Error::Config(
                "this policy was made for a model of another shape; ask this model for one".into(),
            ));
        }
        self.policies().own.insert(request, Own { policy, then });
        Ok(Configured {
            model: self.clone(),
            request,
        })
    }

    /// What is kept of a prompt under a configuration, as for [`Self::set`].
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn policy(&self, config: &Compression) -> std::result::Result<Arc<Policy>, Error> {
        let scores = read_scores(config)?;
        let policy = Policy::with_windows(config, self.shape, &self.windows, scores.as_ref())?;
        let policy = policy.with_facts(self.facts.clone())?;
        runs(&policy, self.whole_prompts)?;
        Ok(Arc::new(policy))
    }

    /// That policy, or the model's own, telling `watch` which positions of a prompt it keeps; for one request
    /// ([`Self::configure`]).
    pub fn watched(&self, policy: Option<Arc<Policy>>, watch: &Arc<Watch>) -> Arc<Policy> {
        let policy = policy.unwrap_or_else(|| self.policies().default.clone());
        Arc::new(Policy::clone(&policy).watched(watch.clone()))
    }

    /// What a sequence holds, or held at its end; by the `id` of its response. The most recent that ended are
    /// remembered, 65,536 of them.
    pub fn usage(&self, sequence: usize) -> Option<Usage> {
        self.ledger.usage(sequence)
    }

    /// Tokens that all sequences have seen which have not ended: what they hold with nothing dropped.
    pub fn held_tokens(&self) -> usize {
        self.ledger.held_tokens()
    }

    /// The earlier prompts that are remembered, to be read on from ([`super::Options::prefix_bytes`]).
    pub fn prefixes(&self) -> &Prefixes {
        &self.memory.prefixes
    }

    /// What is kept of earlier prompts and remembered, to be gone on from.
    pub fn conversations(&self) -> &Conversations {
        &self.memory.conversations
    }

    /// Forgets all earlier prompts, and remembers those that come, up to that many bytes; whole ones in that place.
    pub fn remember(&self, reuse: Reuse, bytes: usize, place: Place) {
        self.memory.restart(reuse, bytes, place);
    }

    /// Bytes of earlier prompts that are remembered, and how many may be.
    pub fn remembered_bytes(&self) -> (usize, usize) {
        let Memory {
            prefixes,
            conversations,
        } = &self.memory;
        (
            prefixes.bytes() + conversations.bytes(),
            prefixes.limit() + conversations.limit(),
        )
    }

    /// How often prompts were read on from earlier ones.
    pub fn reused(&self) -> Reused {
        match self.memory.conversations.is_on() {
            true => self.memory.conversations.reused(),
            false => self.memory.prefixes.reused(),
        }
    }

    /// Tokens of a prompt that are known, under the model's configuration.
    pub fn known(&self, prompt: &[u32]) -> usize {
        if self.memory.conversations.is_on() {
            let policy = self.policies().default.clone();
            return self.memory.conversations.known(prompt, &policy.config);
        }
        self.memory.prefixes.known(prompt)
    }

    /// Why no prompt is read on from another, if none is: a layer that slides has left most of an earlier prompt behind, and
    /// other models have more than keys and values to take up again.
    pub fn starts_anew(&self) -> Option<&'static str> {
        let slides = self.windows.iter().any(Option::is_some);
        slides.then_some("the model has sliding windows").or(self
            .whole_prompts
            .then_some("the model's prompts run whole"))
    }

    /// Bytes of keys and values that all sequences hold now.
    pub fn held_bytes(&self) -> usize {
        self.ledger.held_bytes()
    }

    fn policies(&self) -> MutexGuard<'_, Policies> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses what runs a prompt twice where it can run only once.
fn runs(policy: &Policy, whole_prompts: bool) -> std::result::Result<(), Error> {
    if whole_prompts && policy.needs().replay {
        return Err(Error::Config(format!(
            "the ranking {} reads a prompt twice, and this model's prompts run once (recurrent layers, or rotary factors \
             by length); choose another ranking",
            policy.config.ranking.as_deref().unwrap_or("of the method")
        )));
    }
    Ok(())
}

impl Drop for Configured {
    fn drop(&mut self) {
        self.model.policies().own.remove(&self.request);
    }
}

impl ModelHook for Model {
    fn begin(&self, seq: &SeqInfo) -> Result<Box<dyn Any + Send>> {
        let policies = self.policies();
        let own = policies.own.get(&seq.request_id);
        let policy = own.and_then(|own| own.policy.as_ref());
        let policy = policy.unwrap_or(&policies.default).clone();
        let then = own.map_or(0, |own| own.then);
        if then > 0 && then >= seq.prompt.len() {
            candle_core::bail!(
                "headkv: {then} tokens follow a prompt of none; give at least one token to compress"
            );
        }
        let document = then > 0;
        if document && self.whole_prompts {
            candle_core::bail!(
                "headkv: prompts of this model run whole; compress the document and its question together"
            );
        }
        // A prompt that is said again is complete before its last token runs, which the first answer comes from.
        let then = match policy.needs().replay && seq.prompt.len() > 1 {
            true => then.max(1),
            false => then,
        };
        let account = self
            .ledger
            .open(seq.seq_id, seq.request_id, seq.prompt.len());
        Ok(Box::new(
            Sequence::new(policy, account).then(then, document),
        ))
    }

    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> Result<Tensor> {
        self.dispatch.attend(cx, seqs, &self.memory)
    }

    fn resume(&self, seq: &HookedSequence) -> Result<usize> {
        let Memory {
            prefixes,
            conversations,
        } = &self.memory;
        if self.starts_anew().is_some() {
            return Ok(0);
        }
        let mut state = seq.state::<Sequence>()?;
        let prompt = state.compressed(&seq.info().prompt);
        if conversations.is_on() {
            // What a ranking says again is complete but for a last token that nobody set apart: no next turn begins so.
            if prompt.len() < seq.info().prompt.len() && !state.is_document() {
                return Ok(0);
            }
            let (all, until) = (&seq.info().prompt, prompt.len());
            let Some(kept) = conversations.find(all, until, &state.policy().config) else {
                state.remember();
                return Ok(0);
            };
            // A document that is known is remembered already: what comes behind it is not part of it.
            if !state.is_document() {
                state.remember();
            }
            state.go_on(kept.past(), kept.tokens())?;
            return Ok(kept.tokens());
        }
        if !prefixes.is_on() {
            return Ok(0);
        }
        state.record(prefixes.record(prompt));
        let rest = match state.policy().needs().all_queries {
            true => prompt.len(),
            false => state.policy().config.window,
        };
        let Some(known) = prefixes.find(prompt, rest) else {
            return Ok(0);
        };
        let tokens = known.tokens();
        state.resume(known);
        Ok(tokens)
    }

    fn next_pass(&self, seq: &HookedSequence) -> Result<NextPass> {
        let mut state = seq.state::<Sequence>()?;
        let seen = seq.seen(0);
        let prompt = state.compressed(&seq.info().prompt);
        let stops = state.policy().waits() || state.leaves_a_document();
        if !stops || state.goes_on() || seen > prompt.len() {
            return Ok(NextPass::Prompt(usize::MAX));
        }
        if seen < prompt.len() {
            return Ok(NextPass::Prompt(prompt.len() - seen));
        }
        let room = self.context.saturating_sub(prompt.len());
        let replay = state.replay(prompt, room)?;
        Ok(replay.map_or(NextPass::Prompt(usize::MAX), NextPass::Aside))
    }

    fn prompts(&self) -> PromptPolicy {
        // Upstream's recurrent layers read one prompt at a time; a pass of less than a prompt is a pass of one.
        let tokens = match self.whole_prompts {
            true => 1,
            false => self.prompts.tokens,
        };
        PromptPolicy {
            tokens,
            ..self.prompts
        }
    }
}
