//! The one configuration type that Rust code, command lines and servers share.

mod build;

pub use crate::heads::{Granularity, Reduce};

use crate::{
    Error, HeadScores, ScoreSource,
    scores::{Kind, model_name},
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How a KV cache is compressed; readable from TOML and JSON, where every key may be left out.
///
/// More fields will come: write `..Compression::default()` behind those that you name, or use the methods.
///
/// ```
/// use headkv_plugin::{Compression, HeadScores};
///
/// let scores = HeadScores::new(1, 2, vec![0.9, 0.1])?;
/// let by_value = Compression::headkv(32).with_scores(scores).beta(1.5);
/// let by_path = Compression::headkv(32).with_scores("head_scores/tiny_retrieval.json");
/// assert_eq!((by_value.beta, by_path.beta), (Some(1.5), None));
/// # Ok::<(), headkv_plugin::Error>(())
/// ```
///
/// ```
/// let c = headkv_plugin::Compression::from_toml("method = 'snapkv'\ncapacity = 64").unwrap();
/// assert_eq!((c.capacity, c.window), (64, 8));
/// assert!(headkv_plugin::Compression::from_toml("capcity = 64").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compression {
    /// A name or alias of the registry, see [`crate::methods`].
    pub method: String,
    /// Tokens kept per head on average, window included.
    pub capacity: usize,
    /// The last tokens of the prompt, whose queries rank the others.
    pub window: usize,
    /// Those of them that are kept whatever they are worth, the last ones; `None` is the method's own, mostly all.
    pub recent: Option<usize>,
    /// Width of the pooling over positions, in tokens; odd.
    pub kernel: usize,
    /// How neighbouring scores are pooled.
    pub pooling: Pooling,
    /// How positions are ranked: a name of the registry, see [`crate::ranking`]; `None` is the method's own.
    pub ranking: Option<String>,
    /// Pooling by the largest: a hit also counts for so many positions before it; `None` is the method's own, mostly
    /// `kernel / 2`.
    pub pool_before: Option<usize>,
    /// As `pool_before`, for so many positions after it: an answer is read on from where it begins.
    pub pool_after: Option<usize>,
    /// What is left of a hit's score one position further, 0 to 1; `None` is the method's own, mostly 1.
    pub pool_decay: Option<f32>,
    /// HeadKV: 1 / `beta` of the budget is shared by importance, the rest evenly (section 3.3, equation 5); `None` is the
    /// method's own, 1.2 for HeadKV.
    pub beta: Option<f64>,
    /// HeadKV-Plus: exponent on the heads' static scores when tokens compete; 0 leaves the prompt's evidence alone.
    pub prior: f64,
    /// HeadKV: exponent on the heads' shares; below 1 flattens, above 1 sharpens.
    pub temp: f64,
    /// HeadKV: the kind of the file that [`Compression::default_scores`] names; `None` is what the method's name says
    /// ([`crate::methods::Entry::score_kind`]), else retrieval.
    pub head_choice: Option<Kind>,
    /// HeadKV: the head scores, which must be given: a file's path, or the scores themselves. Programs that know the model's path fill in
    /// [`Compression::default_scores`] where the user names none; `headkv-eval` does.
    pub scores: Option<ScoreSource>,
    /// AdaKV: the part of the even capacity that every head is sure of.
    pub floor: f64,
    /// Threshold: the part of each head's ranking that may be dropped, 0 to 1.
    pub loss: f64,
    /// PyramidKV: divisor of the capacity that the last layer keeps.
    pub pyramid_beta: usize,
    /// StreamingLLM: first tokens of the prompt that are always kept.
    pub sinks: usize,
    /// For which heads a set of positions is kept.
    pub granularity: Granularity,
    /// How scores of the query heads that share a KV head become one.
    pub reduce: Reduce,
    /// Spend the budget exactly: what rounding leaves and what a prompt cannot fill goes to other heads, in proportion to
    /// their shares. Off, heads keep what the original's rounding gives, which may miss the budget.
    pub redistribute: bool,
}

/// The most positions that pooling reaches to one side.
pub const MOST_POOLED: usize = 128;

/// How far a hit counts for its neighbours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pool {
    /// Positions before a hit.
    pub before: usize,
    /// Positions after a hit.
    pub after: usize,
    /// What is left of its score one position further.
    pub decay: f32,
}

/// How neighbouring scores are pooled before the best are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Pooling {
    /// The largest of the neighbourhood.
    #[serde(alias = "maxpool")]
    Max,
    /// The mean of the neighbourhood, positions outside the prompt counting as zero.
    #[serde(alias = "avgpool")]
    Average,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            method: "headkv".into(),
            capacity: 128,
            window: 8,
            recent: None,
            kernel: 7,
            pooling: Pooling::Max,
            ranking: None,
            pool_before: None,
            pool_after: None,
            pool_decay: None,
            beta: None,
            prior: 0.25,
            temp: 1.0,
            head_choice: None,
            scores: None,
            floor: 0.2,
            loss: 0.1,
            pyramid_beta: 20,
            sinks: 4,
            granularity: Granularity::KvHead,
            reduce: Reduce::Mean,
            redistribute: true,
        }
    }
}

impl Compression {
    /// A configuration that differs from the default in method and capacity.
    pub fn new(method: &str, capacity: usize) -> Self {
        Self {
            method: method.into(),
            capacity,
            ..Self::default()
        }
    }

    /// How far hits count: the bounds and the decay that are given, `kernel` for those that are not.
    pub fn pool(&self) -> Pool {
        Pool {
            before: self.pool_before.unwrap_or(self.kernel / 2),
            after: self.pool_after.unwrap_or(self.kernel / 2),
            decay: self.pool_decay.unwrap_or(1.0),
        }
    }

    /// The prompt's last tokens that are kept whatever they are worth.
    pub fn recent(&self) -> usize {
        self.recent.unwrap_or(self.window)
    }

    /// Tokens per head on average that are chosen by what they are worth.
    pub fn chosen(&self) -> usize {
        self.capacity - self.recent()
    }

    /// Reads a configuration from TOML text.
    ///
    /// # Errors
    /// Malformed text, an unknown key, or values that contradict each other.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let config: Self =
            toml::from_str(text).map_err(|e| Error::Config(one_line(&e.to_string())))?;
        config.check()?;
        Ok(config)
    }

    /// Reads a configuration from JSON text.
    ///
    /// # Errors
    /// As [`Self::from_toml`].
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let config: Self =
            serde_json::from_str(text).map_err(|e| Error::Config(one_line(&e.to_string())))?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values that contradict each other.
    ///
    /// # Errors
    /// [`Error::Config`] names the value and its range.
    pub fn check(&self) -> Result<(), Error> {
        let fail = |why: String| Err(Error::Config(why));
        if self.window == 0 {
            return fail("window is 0; it must be at least 1 token".into());
        }
        if let Some(recent) = self.recent
            && !(1..=self.window).contains(&recent)
        {
            let window = self.window;
            return fail(format!(
                "recent {recent} is not between 1 and the window of {window}"
            ));
        }
        if self.capacity <= self.window {
            return fail(format!(
                "capacity {} is not larger than the window of {}; raise --capacity",
                self.capacity, self.window
            ));
        }
        if self.kernel.is_multiple_of(2) {
            return fail(format!("kernel {} is even; use an odd width", self.kernel));
        }
        if self.kernel / 2 > MOST_POOLED {
            return fail(format!(
                "kernel {} reaches {} positions; {MOST_POOLED} are the most",
                self.kernel,
                self.kernel / 2
            ));
        }
        if let Some(beta) = self.beta
            && !(beta >= 1.0 && beta.is_finite())
        {
            return fail(format!("beta {beta} is below 1; use 1 or more"));
        }
        if !(self.prior >= 0.0 && self.prior.is_finite()) {
            return fail(format!("prior {} is below 0; use 0 or more", self.prior));
        }
        if let Some(decay) = self.pool_decay
            && !(0.0..=1.0).contains(&decay)
        {
            return fail(format!("pool_decay {decay} is not between 0 and 1"));
        }
        let reach = self.pool_before.max(self.pool_after).unwrap_or(0);
        if reach > MOST_POOLED {
            return fail(format!(
                "pooling reaches {reach} positions; {MOST_POOLED} are the most"
            ));
        }
        let bounds = self.pool_before.is_some() || self.pool_after.is_some();
        if self.pooling == Pooling::Average && (bounds || self.pool_decay.is_some()) {
            return fail("pooling by the average has no bounds or decay; set kernel alone".into());
        }
        if !(self.temp > 0.0 && self.temp.is_finite()) {
            return fail(format!("temp {} is not a positive number", self.temp));
        }
        if !(0.0..=1.0).contains(&self.floor) {
            return fail(format!("floor {} is not between 0 and 1", self.floor));
        }
        if !(0.0..=1.0).contains(&self.loss) {
            return fail(format!("loss {} is not between 0 and 1", self.loss));
        }
        if self.pyramid_beta == 0 {
            return fail("pyramid_beta is 0; use 1 or more".into());
        }
        if self.sinks > self.capacity - self.window {
            let room = self.capacity - self.window;
            return fail(format!(
                "sinks {} do not fit; capacity leaves {room}",
                self.sinks
            ));
        }
        Ok(())
    }

    /// The score file of the model at a path that a folder holds, of the kind that is configured.
    pub fn default_scores(&self, dir: &Path, model: &Path) -> PathBuf {
        let kind = self.head_choice.unwrap_or(Kind::Retrieval);
        HeadScores::path(dir, &model_name(model), kind)
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_and_json_hold_the_same_keys() {
        let c = Compression {
            scores: Some("x.json".into()),
            ..Compression::new("adakv", 64)
        };
        let toml = toml::to_string(&c).unwrap();
        let json = serde_json::to_string(&c).unwrap();
        assert_eq!(Compression::from_toml(&toml).unwrap(), c);
        assert_eq!(Compression::from_json(&json).unwrap(), c);
    }

    #[test]
    fn contradictions_are_named() {
        let cases = [
            (
                "capacity = 8",
                "capacity 8 is not larger than the window of 8",
            ),
            ("beta = 0.5", "beta 0.5 is below 1"),
            ("beta = nan", "beta NaN is below 1"),
            ("kernel = 4", "kernel 4 is even"),
            ("kernel = 100001", "reaches 50000 positions"),
            ("floor = 1.5", "floor 1.5"),
            ("loss = 2.0", "loss 2"),
            ("window = 0", "window is 0"),
            ("temp = 0.0", "temp 0"),
            ("capacity = 10\nsinks = 4", "sinks 4 do not fit"),
            ("pool_decay = 1.5", "pool_decay 1.5"),
            ("pool_after = 1000", "pooling reaches 1000 positions"),
            (
                "pooling = 'average'\npool_after = 3",
                "has no bounds or decay",
            ),
            ("prior = -1.0", "prior -1"),
            ("metod = 'full'", "unknown field `metod`"),
        ];
        for (text, expected) in cases {
            let message = Compression::from_toml(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn default_score_file_follows_the_model_name() {
        let c = Compression::default();
        let path = |model: &str| c.default_scores(Path::new("head_scores"), Path::new(model));
        assert_eq!(
            path("models/Tiny/"),
            Path::new("head_scores/tiny_retrieval.json")
        );
        assert_eq!(
            path("a/SmolLM2-Q4_1.gguf"),
            Path::new("head_scores/smollm2-q4_1_retrieval.json")
        );
    }
}
