//! What a position of a prompt is worth to a head: the rankings, one file each, and the registry that finds them.
//!
//! A ranking is combined with any method's budget, on any device. One of one's own implements [`Ranking`] and calls
//! [`register`].

mod compactor;
mod critical;
mod drop;
mod expected;
mod facts;
mod keydiff;
mod kvzip;
mod leverage;
mod tova;
mod value_norm;

use crate::{AttentionShape, Error, rotary::Rotary};
use candle_core::{D, DType, Result, Tensor};
use std::sync::{Arc, OnceLock, RwLock};

pub use facts::{Encode, Facts, Outputs};

/// The name of the observation window's attention, which needs no [`Ranking`]: devices have kernels for it.
pub const WINDOW: &str = "window";

/// A rule that scores positions; larger is better.
pub trait Ranking: Send + Sync {
    /// A score per query head and position, `(heads, tokens)` in f32; those of the window are not looked at.
    ///
    /// # Errors
    /// Those of the tensors' device.
    fn scores(&self, prompt: &Observed<'_>) -> Result<Tensor>;

    /// What it looks at besides the window's queries, the keys and the values.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// The kernel that gives the same scores on a GPU, if there is one.
    fn kernel(&self) -> Option<Kernel> {
        None
    }
}

impl dyn Ranking + '_ {
    /// Its scores, of the shape that they ought to have.
    pub(crate) fn checked(&self, prompt: &Observed<'_>) -> Result<Tensor> {
        let (scores, heads, tokens) = (
            self.scores(prompt)?,
            prompt.shape.heads,
            prompt.keys.dim(1)?,
        );
        if scores.dims() != [heads, tokens] {
            candle_core::bail!(
                "headkv: a ranking gave scores {:?} for {heads} heads and {tokens} tokens; correct its `scores`",
                scores.dims()
            );
        }
        Ok(scores)
    }
}

/// A ranking that GPUs have a kernel for, besides the window's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernel {
    /// `drop`.
    Drop,
}

/// What a ranking looks at besides the window's queries, the keys and the values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The queries of all positions. A layer holds them while its prompt comes, and a prompt that begins as an earlier one
    /// did is read from its beginning.
    pub all_queries: bool,
    /// The model's rotary embedding.
    pub rotary: bool,
    /// The weights of the layer's output projection.
    pub outputs: bool,
    /// A second pass in which the prompt is said again ([`crate::replay`]): the window's queries are then those of that pass,
    /// whose keys stand behind the prompt's. All layers hold the whole prompt until it is over.
    pub replay: bool,
}

/// One layer of a prompt, as a ranking sees it.
pub struct Observed<'a> {
    /// Queries of the observation window, `(heads, window, head_dim)`.
    pub queries: &'a Tensor,
    /// Keys, `(kv_heads, tokens, head_dim)`.
    pub keys: &'a Tensor,
    /// Values, `(kv_heads, tokens, head_dim)`.
    pub values: &'a Tensor,
    /// What attention computes with.
    pub shape: &'a AttentionShape,
    all_queries: Option<&'a Tensor>,
    rotary: Option<&'a Rotary>,
    outputs: Option<&'a Tensor>,
    probabilities: OnceLock<Tensor>,
}

impl<'a> Observed<'a> {
    /// A layer whose window's queries, keys and values these are.
    pub fn new(
        queries: &'a Tensor,
        keys: &'a Tensor,
        values: &'a Tensor,
        shape: &'a AttentionShape,
    ) -> Self {
        Self {
            queries,
            keys,
            values,
            shape,
            all_queries: None,
            rotary: None,
            outputs: None,
            probabilities: OnceLock::new(),
        }
    }

    /// Adds the queries of all positions, `(heads, tokens, head_dim)`.
    pub fn with_all_queries(mut self, queries: Option<&'a Tensor>) -> Self {
        self.all_queries = queries;
        self
    }

    /// Adds the model's rotary embedding.
    pub fn with_rotary(mut self, rotary: Option<&'a Rotary>) -> Self {
        self.rotary = rotary;
        self
    }

    /// Adds the weights of the layer's output projection, `(hidden, heads * head_dim)`.
    pub fn with_outputs(mut self, outputs: Option<&'a Tensor>) -> Self {
        self.outputs = outputs;
        self
    }

    /// The weights of the layer's output projection, `(hidden, heads * head_dim)`.
    ///
    /// # Errors
    /// A ranking that did not say that it [`Needs`] them.
    pub fn outputs(&self) -> Result<&'a Tensor> {
        match self.outputs {
            Some(outputs) => Ok(outputs),
            None => candle_core::bail!(
                "headkv: a ranking asks for the output projection without saying so; correct its `needs`"
            ),
        }
    }

    /// The queries of all positions in f32, `(heads, tokens, head_dim)`.
    ///
    /// # Errors
    /// A ranking that did not say that it [`Needs`] them, and those of the tensors' device.
    pub fn all_queries(&self) -> Result<Tensor> {
        match self.all_queries {
            Some(queries) => queries.to_dtype(DType::F32)?.contiguous(),
            None => candle_core::bail!(
                "headkv: a ranking asks for all queries without saying so; correct its `needs`"
            ),
        }
    }

    /// The model's rotary embedding.
    ///
    /// # Errors
    /// A ranking that did not say that it [`Needs`] it.
    pub fn rotary(&self) -> Result<&'a Rotary> {
        match self.rotary {
            Some(rotary) => Ok(rotary),
            None => candle_core::bail!(
                "headkv: a ranking asks for the rotary embedding without saying so; correct its `needs`"
            ),
        }
    }

    /// The keys in f32, as they were before the rotary embedding.
    ///
    /// # Errors
    /// As [`Self::rotary`], and those of the tensors' device.
    pub fn keys_without_position(&self) -> Result<Tensor> {
        self.rotary()?.undo(self.keys, 0)
    }

    /// All queries in f32, as they were before the rotary embedding.
    ///
    /// # Errors
    /// As [`Self::rotary`] and [`Self::all_queries`].
    pub fn queries_without_position(&self) -> Result<Tensor> {
        self.rotary()?.undo(&self.all_queries()?, 0)
    }

    /// The window's attention probabilities `(kv_heads, group * window, tokens)` in f32, window rows of a query head in a
    /// row; each query's softmax runs over the keys up to its own.
    ///
    /// # Errors
    /// Those of the tensors' device.
    pub fn probabilities(&self) -> Result<Tensor> {
        if let Some(known) = self.probabilities.get() {
            return Ok(known.clone());
        }
        let (heads, window, head_dim) = self.queries.dims3()?;
        let (kv_heads, tokens, _) = self.keys.dims3()?;
        let rows = heads / kv_heads * window;
        let q = (self.queries.to_dtype(DType::F32)? * f64::from(self.shape.scale))?;
        let q = q.contiguous()?.reshape((kv_heads, rows, head_dim))?;
        let mut logits = q.matmul(&self.keys_f32()?.transpose(1, 2)?)?;
        if let Some(cap) = self.shape.softcap.map(f64::from) {
            logits = ((logits / cap)?.tanh()? * cap)?;
        }
        let hidden: Vec<f32> = (0..rows)
            .flat_map(|row| {
                let sees = tokens - window + row % window;
                (tokens - window..tokens).map(move |key| if key <= sees { 0.0 } else { -1e30 })
            })
            .collect();
        let hidden = Tensor::from_vec(hidden, (1, rows, window), logits.device())?;
        let before = logits.narrow(2, 0, tokens - window)?;
        let among = logits.narrow(2, tokens - window, window)?;
        let logits = Tensor::cat(&[before, among.broadcast_add(&hidden)?], 2)?;
        // A sink takes its weight as one more key does.
        let logits = match self.shape.sinks.as_deref() {
            Some(sinks) => {
                let sinks = Tensor::from_slice(sinks, (heads, 1, 1), logits.device())?;
                let sinks = sinks.broadcast_as((heads, window, 1))?.contiguous()?;
                Tensor::cat(&[logits, sinks.reshape((kv_heads, rows, 1))?], 2)?
            }
            None => logits,
        };
        let powers = logits
            .broadcast_sub(&logits.max_keepdim(D::Minus1)?)?
            .exp()?;
        let probabilities = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
        let probabilities = probabilities.narrow(2, 0, tokens)?.contiguous()?;
        Ok(self.probabilities.get_or_init(|| probabilities).clone())
    }

    /// The keys in f32.
    ///
    /// # Errors
    /// Those of the tensors' device.
    pub fn keys_f32(&self) -> Result<Tensor> {
        self.keys.to_dtype(DType::F32)?.contiguous()
    }

    /// The values in f32.
    ///
    /// # Errors
    /// Those of the tensors' device.
    pub fn values_f32(&self) -> Result<Tensor> {
        self.values.to_dtype(DType::F32)?.contiguous()
    }

    /// Sums rows of the window, `(kv_heads, group * window, tokens)`, to `(heads, tokens)`.
    ///
    /// # Errors
    /// Those of the tensors' device.
    pub fn over_window(&self, rows: &Tensor) -> Result<Tensor> {
        let (heads, window, _) = self.queries.dims3()?;
        let tokens = rows.dim(2)?;
        rows.reshape((heads, window, tokens))?.sum(1)
    }

    /// Gives each query head what its KV head has, `(kv_heads, tokens)` to `(heads, tokens)`.
    ///
    /// # Errors
    /// Those of the tensors' device.
    pub fn per_query_head(&self, x: &Tensor) -> Result<Tensor> {
        let (kv_heads, tokens) = x.dims2()?;
        x.unsqueeze(1)?
            .broadcast_as((kv_heads, self.shape.group(), tokens))?
            .reshape((self.shape.heads, tokens))
    }
}

/// A ranking's entry in the registry.
#[derive(Clone)]
#[non_exhaustive]
pub struct Entry {
    /// The name on command lines and in reports.
    pub name: String,
    /// One line for `--help`.
    pub about: String,
    /// The rule; `None` for the window's attention.
    pub ranking: Option<Arc<dyn Ranking>>,
}

impl Entry {
    /// A ranking of that name.
    pub fn new(
        name: impl Into<String>,
        about: impl Into<String>,
        ranking: impl Ranking + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            ranking: Some(Arc::new(ranking)),
        }
    }
}

fn builtin() -> Vec<Entry> {
    vec![
        Entry {
            name: WINDOW.into(),
            about: "attention of the prompt's last tokens (SnapKV, HeadKV)".into(),
            ranking: None,
        },
        Entry::new(
            "value-norm",
            "that attention times the value's norm",
            value_norm::ValueNorm,
        ),
        Entry::new(
            "drop",
            "how far the window's outputs move if the position is dropped",
            drop::Drop,
        ),
        Entry::new(
            "critical",
            "that attention times the norm of what the position adds to the layer's output (CriticalKV)",
            critical::Critical,
        ),
        Entry::new(
            "keydiff",
            "how much the key differs from the mean key; asks no query",
            keydiff::KeyDiff,
        ),
        Entry::new(
            "tova",
            "attention of the last token, the mean over all heads",
            tova::Tova,
        ),
        Entry::new(
            "leverage",
            "how far the key without its position stands out from all others; asks no query",
            leverage::Leverage,
        ),
        Entry::new(
            "expected",
            "attention that queries to come are expected to pay, from the mean and spread of the prompt's",
            expected::Expected,
        ),
        Entry::new(
            "compactor",
            "leverage, and the attention from a position's surroundings",
            compactor::Compactor,
        ),
        Entry::new(
            "kvzip",
            "the most that a repetition of the prompt attends to the position, in a second pass",
            kvzip::KvZip,
        ),
    ]
}

static CUSTOM: RwLock<Vec<Entry>> = RwLock::new(Vec::new());

/// Adds a ranking, or replaces the one of that name.
pub fn register(entry: Entry) {
    let mut custom = CUSTOM.write().unwrap_or_else(|e| e.into_inner());
    custom.retain(|known| known.name != entry.name);
    custom.push(entry);
}

/// All rankings, registered ones last.
pub fn all() -> Vec<Entry> {
    let custom = CUSTOM.read().unwrap_or_else(|e| e.into_inner());
    let mut entries = builtin();
    entries.retain(|known| custom.iter().all(|c| c.name != known.name));
    entries.extend(custom.iter().cloned());
    entries
}

/// The ranking of that name.
///
/// # Errors
/// [`Error::UnknownRanking`] lists the known names.
pub fn find(name: &str) -> std::result::Result<Entry, Error> {
    let entries = all();
    let known = || {
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        names.join(", ")
    };
    let found = entries.iter().find(|entry| entry.name == name).cloned();
    found.ok_or_else(|| Error::UnknownRanking {
        name: name.into(),
        known: known(),
    })
}

#[cfg(test)]
mod tests;
