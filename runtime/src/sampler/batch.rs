//! Sampling of a batch: the logits leave the device once or not at all.
//!
//! Upstream copies a batch's logits to the host once per sequence, because candle copies the whole storage behind each
//! view, and sorts the vocabulary whatever is asked for. Here a *plain* sequence (its sampler reads logits only: greedy,
//! temperature, top-k, top-p, min-p) gets the token that upstream would have drawn with the same random number, ties
//! included, in one of three ways:
//!
//! ```text
//! device    the GPU finds the largest logit, or the few logits that top-k or top-p may keep (device.rs), and the host
//!           decides among these, if it can be certain of upstream's choice (certain.rs)
//! host      one copy of all logits; the part of the vocabulary that can be drawn is selected, not sorted (host.rs)
//! upstream  `Sampler`'s own code, for all else: penalties, processors, log-probabilities, and ties across a limit,
//!           where its unstable sort decides
//! ```

mod certain;
#[cfg(feature = "cuda")]
mod device;
mod host;

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result, Tensor, D};
use rand::{
    distr::{Distribution, Uniform},
    SeedableRng,
};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::{Logprobs, Sampler as UpstreamSampler};
use crate::{
    pipeline::ForwardInputsResult,
    sequence::{Sequence, SequenceRecognizer},
};

// For whoever compares: the sampler, and its random numbers.
pub use super::Sampler;
pub use rand_isaac::Isaac64Rng;

pub use certain::{certain, Top};
pub(crate) use host::draw;

/// Random numbers that sequences draw with.
pub type Generator = Arc<Mutex<Isaac64Rng>>;

/// Random numbers that a seed determines.
pub fn seeded(seed: u64) -> Generator {
    Arc::new(Mutex::new(Isaac64Rng::seed_from_u64(seed)))
}

/// How a plain sampler draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Divisor of the logits; `None` takes the largest, the last of equal ones.
    pub temperature: Option<f64>,
    /// Keep so many of the most probable tokens, if positive.
    pub top_k: i64,
    /// Of those, keep the most probable ones until their sum reaches this, if between 0 and 1.
    pub top_p: f32,
    /// Of those, keep what is more probable than this part of the most probable, if between 0 and 1; upstream looks at
    /// it only where `top_p` applies.
    pub min_p: f32,
}

impl Rule {
    fn keeps_k(&self, vocabulary: usize) -> Option<usize> {
        let k = usize::try_from(self.top_k).ok()?;
        (k > 0 && k < vocabulary).then_some(k)
    }

    fn keeps_p(&self) -> Option<f32> {
        (self.top_p > 0.0 && self.top_p < 1.0).then_some(self.top_p)
    }

    fn keeps_min_p(&self) -> Option<f32> {
        let applies = self.keeps_p().is_some() && self.min_p > 0.0 && self.min_p < 1.0;
        applies.then_some(self.min_p)
    }
}

impl UpstreamSampler {
    /// The rule, if the sampler looks at nothing but the logits.
    pub(crate) fn rule(&self) -> Option<Rule> {
        let plain = self.frequency_penalty.is_none()
            && self.presence_penalty.is_none()
            && self.repetition_penalty.is_none()
            && self
                .dry_params
                .as_ref()
                .is_none_or(|dry| dry.multiplier == 0.)
            && !self.logits_processors.iter().any(|p| p.wants_logits());
        plain.then_some(Rule {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p as f32,
            min_p: self.min_p as f32,
        })
    }

    /// Random numbers of the sequence's own, if a processor has some.
    pub(crate) fn generator(&self) -> Option<Generator> {
        self.logits_processors.iter().find_map(|p| p.generator())
    }

    /// Tells the processors which token was taken.
    pub(crate) fn taken(&self, token: u32) {
        for processor in &self.logits_processors {
            processor.taken(token);
        }
    }
}

/// What a plain sequence remembers of a token: nobody asked for its log-probability's company.
fn token(token: u32, probability: f32) -> Logprobs {
    Logprobs {
        token,
        logprob: probability.log(10.0),
        bytes: None,
        top_logprobs: None,
    }
}

/// Brings the logits `(batch, 1, vocabulary)` of a forward pass to the host in one copy, or instead of them the tokens
/// drawn on the device, `(batch, 1, 2)`, which [`drawn`] reads. `order[i]` is the sequence of row `i`.
pub(crate) fn bring(
    result: ForwardInputsResult,
    seqs: &mut [&mut Sequence],
    order: &[usize],
    shared: &Generator,
) -> Result<ForwardInputsResult> {
    let ForwardInputsResult::CausalGeneration { logits } = &result else {
        return Ok(result);
    };
    if logits.device().is_cpu() {
        return Ok(result);
    }
    let rules: Option<Vec<Rule>> = order.iter().map(|&seq| plain(seqs[seq])).collect();
    let drawn = match rules {
        Some(rules) => {
            let own = order.iter().map(|&seq| seqs[seq].sampler().generator());
            let rngs: Vec<_> = own
                .map(|own| own.unwrap_or_else(|| shared.clone()))
                .collect();
            on_device(logits, &rules, &rngs)?
        }
        None => None,
    };
    let logits = match drawn {
        Some(tokens) => tokens,
        None => logits.to_device(&Device::Cpu)?,
    };
    Ok(ForwardInputsResult::CausalGeneration { logits })
}

fn plain(seq: &mut Sequence) -> Option<Rule> {
    if seq.return_logprobs() || !matches!(seq.recognizer, SequenceRecognizer::None) {
        return None;
    }
    seq.sampler().rule()
}

/// The token that [`bring`] drew already, if `logits` are none.
pub(crate) fn drawn(logits: &Tensor) -> Result<Option<Logprobs>> {
    if logits.dtype() != DType::U32 {
        return Ok(None);
    }
    match logits.flatten_all()?.to_vec1::<u32>()?[..] {
        [taken, logprob] => Ok(Some(Logprobs {
            logprob: f32::from_bits(logprob),
            ..token(taken, 1.0)
        })),
        _ => candle_core::bail!("batch sampling: {:?} is no drawn token", logits.shape()),
    }
}

#[cfg(not(feature = "cuda"))]
fn on_device(_: &Tensor, _: &[Rule], _: &[Generator]) -> Result<Option<Tensor>> {
    Ok(None)
}

/// Tokens and their log-probabilities' bits; `None` where all rows have to come to the host.
#[cfg(feature = "cuda")]
fn on_device(logits: &Tensor, rules: &[Rule], rngs: &[Generator]) -> Result<Option<Tensor>> {
    use device::Found;
    use rayon::iter::IndexedParallelIterator;

    let Some(found) = device::find(logits, rules)? else {
        return Ok(None);
    };
    // In the batch's order, so that a seed means the same tokens whichever way each row takes.
    let unit = Uniform::new(0f32, 1f32).map_err(candle_core::Error::wrap)?;
    let draw = |(rule, rng): (&Rule, &Generator)| {
        let mut rng = rng.lock().unwrap_or_else(PoisonError::into_inner);
        let before = rng.clone();
        let draw = rule.temperature.map_or(0.0, |_| unit.sample(&mut *rng));
        (before, draw)
    };
    let draws: Vec<_> = rules.iter().zip(rngs).map(draw).collect();
    let vocabulary = logits.dim(D::Minus1)?;
    let mut tokens: Vec<Option<Logprobs>> = found
        .par_iter()
        .zip(rules)
        .zip(&draws)
        .map(|((found, rule), (_, draw))| {
            let (taken, probability) = match found {
                Found::Largest(taken, logit) => (*taken, *logit),
                Found::Top(top) => certain(rule, top, vocabulary, *draw)?,
                Found::Nothing => return None,
            };
            Some(token(taken, probability))
        })
        .collect();

    let open: Vec<usize> = (0..rules.len())
        .filter(|&row| tokens[row].is_none())
        .collect();
    if !open.is_empty() {
        let rows = Tensor::from_iter(open.iter().map(|&row| row as u32), logits.device())?;
        let rows = logits.reshape(((), vocabulary))?.index_select(&rows, 0)?;
        let rows = rows.to_device(&Device::Cpu)?.chunk(open.len(), 0)?;
        let drawn: Vec<Logprobs> = open
            .par_iter()
            .zip(rows)
            .map(|(&row, logits)| {
                let rng = Arc::new(Mutex::new(draws[row].0.clone()));
                host::draw(&logits.squeeze(0)?, &rules[row], &rng)
            })
            .collect::<Result<_>>()?;
        for (row, drawn) in open.into_iter().zip(drawn) {
            tokens[row] = Some(drawn);
        }
    }
    let words = tokens.into_iter().flatten();
    let words: Vec<u32> = words.flat_map(|t| [t.token, t.logprob.to_bits()]).collect();
    Tensor::from_vec(words, (rules.len(), 1, 2), &Device::Cpu).map(Some)
}
