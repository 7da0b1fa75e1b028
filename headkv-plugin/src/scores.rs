//! Head importance scores, in the original project's file format.

mod kind;
mod lists;
mod name;
mod source;

pub use kind::Kind;
pub use lists::ScoreLists;
pub use name::model_name;
pub use source::ScoreSource;

use crate::{Error, heads::Reduce};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One importance score per layer and query head, as measured by head scoring.
///
/// A file is `{"layer-head": [score per example, ...], ...}` (the format of the original's `head_score` files); a
/// head's score is the mean of its list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Table")]
pub struct HeadScores {
    layers: usize,
    heads: usize,
    /// `layers x heads`, layer by layer.
    values: Vec<f64>,
}

/// Scores as a configuration says them, not yet checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    layers: usize,
    heads: usize,
    values: Vec<f64>,
}

impl TryFrom<Table> for HeadScores {
    type Error = Error;

    fn try_from(table: Table) -> Result<Self, Error> {
        Self::new(table.layers, table.heads, table.values)
    }
}

impl HeadScores {
    /// Wraps scores that are already means, `layers x heads`, layer by layer.
    ///
    /// # Errors
    /// [`Error::Config`] if the count is wrong, a score is negative or not finite, all are zero, or their sum overflows.
    pub fn new(layers: usize, heads: usize, values: Vec<f64>) -> Result<Self, Error> {
        if layers.checked_mul(heads) != Some(values.len()) || values.is_empty() {
            return Err(Error::Config(format!(
                "{} head scores for {layers} layers x {heads} heads",
                values.len()
            )));
        }
        if let Some(at) = values.iter().position(|s| !(s.is_finite() && *s >= 0.0)) {
            return Err(Error::Config(format!(
                "the score of head {}-{} is {}; scores must be finite and not negative",
                at / heads,
                at % heads,
                values[at]
            )));
        }
        let total: f64 = values.iter().sum();
        if total == 0.0 {
            return Err(Error::Config(
                "all head scores are zero; nothing can be ranked".into(),
            ));
        }
        if total.is_infinite() {
            return Err(Error::Config(
                "the sum of the head scores is too large for a number; scale them down".into(),
            ));
        }
        Ok(Self {
            layers,
            heads,
            values,
        })
    }

    /// Reads a score file.
    ///
    /// # Errors
    /// As [`ScoreLists::read`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        ScoreLists::read(path)?.means()
    }

    /// The name of a model's score file: `{model}_{kind}.json`. `model` is as [`model_name`] gives it.
    pub fn file_name(model: &str, kind: Kind) -> String {
        format!("{model}_{kind}.json")
    }

    /// Where a model's score file lies in a folder.
    pub fn path(folder: &Path, model: &str, kind: Kind) -> PathBuf {
        folder.join(Self::file_name(model, kind))
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Query heads per layer.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// All scores, `layers x heads`, layer by layer.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The scores of KV heads: those of each `group` of query heads that share one, reduced.
    pub fn grouped(&self, group: usize, reduce: Reduce) -> Self {
        let values = self.values.chunks(group).map(|heads| match reduce {
            Reduce::Mean => heads.iter().sum::<f64>() / heads.len() as f64,
            Reduce::Max => heads.iter().copied().fold(0.0, f64::max),
        });
        Self {
            layers: self.layers,
            heads: self.heads / group,
            values: values.collect(),
        }
    }

    /// The scores of some layers, in that order; layers that are not there are left out.
    pub fn of_layers(&self, layers: &[usize]) -> Self {
        let chosen = layers.iter().filter_map(|&layer| {
            self.values
                .get(layer * self.heads..(layer + 1) * self.heads)
        });
        let values: Vec<f64> = chosen.flatten().copied().collect();
        Self {
            layers: values.len() / self.heads,
            heads: self.heads,
            values,
        }
    }

    /// Shares of the budget that sum to 1: `s^t / sum s^t`.
    pub fn shares(&self, temp: f64) -> Vec<f64> {
        // Relative to the largest, whose power is 1: no exponent can make all of them vanish.
        let largest = self.values.iter().copied().fold(0.0, f64::max);
        let powers: Vec<f64> = self
            .values
            .iter()
            .map(|s| (s / largest).powf(temp))
            .collect();
        let total: f64 = powers.iter().sum();
        powers.into_iter().map(|p| p / total).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scores_are_grouped_and_shared() {
        let s = HeadScores::new(2, 2, vec![0.0, 0.5, 2.0, 0.5]).unwrap();
        assert_eq!(s.grouped(2, Reduce::Mean).values(), [0.25, 1.25]);
        assert_eq!(s.grouped(2, Reduce::Max).values(), [0.5, 2.0]);
        assert_eq!(s.of_layers(&[1]).values(), [2.0, 0.5]);
        let shares = s.shares(0.5);
        assert_eq!(shares[0], 0.0);
        assert!((shares[2] / shares[1] - 2.0).abs() < 1e-12);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_sum_that_is_no_number_is_refused() {
        let message = HeadScores::new(1, 2, vec![1e308; 2])
            .unwrap_err()
            .to_string();
        assert!(message.contains("scale them down"), "{message}");
    }

    #[test]
    fn no_exponent_makes_shares_that_are_not_numbers() {
        let scores = HeadScores::new(1, 3, vec![1e-300, 0.5e-300, 0.0]).unwrap();
        for temp in [1e-300, 1.0, 1e4, f64::MAX] {
            let shares = scores.shares(temp);
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{temp}");
            assert!(shares[0] >= shares[1] && shares[1] >= shares[2]);
        }
    }

    proptest! {
        #[test]
        fn scores_that_are_not_numbers_are_refused_with_their_head(
            mut values in prop::collection::vec(0.01..9.0f64, 12),
            at in 0..12usize,
            bad in prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0]),
        ) {
            prop_assert!(HeadScores::new(3, 4, values.clone()).is_ok());
            values[at] = bad;
            let message = HeadScores::new(3, 4, values).unwrap_err().to_string();
            let head = format!("the score of head {}-{} is {bad}", at / 4, at % 4);
            prop_assert!(message.starts_with(&head), "{message}");
        }
    }
}
