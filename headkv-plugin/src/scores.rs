//! Head importance scores, in the original project's file format.

use crate::{Error, config::Reduce};
use serde_json::{Map, Value};
use std::path::Path;

/// One importance score per layer and query head, as measured by head scoring.
///
/// A file is `{"layer-head": [score per example, ...], ...}` (the format of the original's `head_score` files); a
/// head's score is the mean of its list.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadScores {
    layers: usize,
    heads: usize,
    /// `layers x heads`, layer by layer.
    values: Vec<f64>,
}

impl HeadScores {
    /// Wraps scores that are already means, `layers x heads`, layer by layer.
    ///
    /// # Errors
    /// [`Error::Config`] if the count is wrong, a score is negative or not finite, all are zero, or their sum overflows.
    pub fn new(layers: usize, heads: usize, values: Vec<f64>) -> Result<Self, Error> {
        if values.len() != layers * heads || values.is_empty() {
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
    /// [`Error::Read`] if there is no such file, [`Error::Format`] if it is not a complete set of finite scores.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.into(),
            source,
        })?;
        Self::parse(&text).map_err(|why| Error::Format {
            path: path.into(),
            why,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The original reads the first line only; further lines would be another program's notes.
        let first = text.lines().next().unwrap_or_default();
        let map: Map<String, Value> = serde_json::from_str(first)
            .or_else(|_| serde_json::from_str(text))
            .map_err(|e| {
                format!("not a score file ({e}); expected {{\"layer-head\": [scores]}}")
            })?;
        let mut cells = Vec::with_capacity(map.len());
        for (name, list) in &map {
            let head = name
                .split_once('-')
                .and_then(|(l, h)| Some((l.parse::<usize>().ok()?, h.parse::<usize>().ok()?)));
            let (layer, head) = head.ok_or_else(|| format!("key `{name}` is not `layer-head`"))?;
            cells.push((layer, head, mean(name, list)?));
        }
        let layers = cells.iter().map(|c| c.0 + 1).max().unwrap_or(0);
        let heads = cells.iter().map(|c| c.1 + 1).max().unwrap_or(0);
        cells.sort_by_key(|c| (c.0, c.1));
        let complete = (0..layers).flat_map(|l| (0..heads).map(move |h| (l, h)));
        if !cells.iter().map(|c| (c.0, c.1)).eq(complete) {
            return Err(format!(
                "{} heads are not a full table of {layers} layers x {heads} heads",
                cells.len()
            ));
        }
        let values = cells.into_iter().map(|c| c.2).collect();
        Self::new(layers, heads, values).map_err(|e| e.to_string())
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

fn mean(name: &str, list: &Value) -> Result<f64, String> {
    let scores = list.as_array().filter(|list| !list.is_empty());
    let scores = scores.ok_or_else(|| format!("head {name} has no list of scores"))?;
    let mut sum = 0.0;
    for score in scores {
        sum += score
            .as_f64()
            .ok_or_else(|| format!("head {name}: {score} is not a finite number"))?;
    }
    Ok(sum / scores.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_means_in_layer_head_order() {
        let s = HeadScores::parse(r#"{"1-0": [1, 3], "0-1": [0.5], "0-0": [0], "1-1": [0.5]}"#)
            .unwrap();
        assert_eq!((s.layers(), s.heads()), (2, 2));
        assert_eq!(s.values(), [0.0, 0.5, 2.0, 0.5]);
        assert_eq!(s.grouped(2, Reduce::Mean).values(), [0.25, 1.25]);
        assert_eq!(s.grouped(2, Reduce::Max).values(), [0.5, 2.0]);
        let shares = s.shares(0.5);
        assert_eq!(shares[0], 0.0);
        assert!((shares[2] / shares[1] - 2.0).abs() < 1e-12);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn refuses_what_cannot_rank_heads() {
        let cases = [
            (r#"{"0-0": [0], "0-1": [0]}"#, "all head scores are zero"),
            (r#"{"0-0": [1], "0-1": [NaN]}"#, "not a score file"),
            (r#"{"0-0": [1], "0-1": [1e999]}"#, "not a score file"),
            (r#"{"0-0": [1], "0-1": ["x"]}"#, "head 0-1"),
            (
                r#"{"0-0": [1], "0-1": [-1]}"#,
                "the score of head 0-1 is -1",
            ),
            (r#"{"0-0": [1], "0-1": []}"#, "head 0-1 has no list"),
            (
                r#"{"0-0": [1], "1-1": [1]}"#,
                "not a full table of 2 layers x 2 heads",
            ),
            (r#"{"zero": [1]}"#, "key `zero`"),
            (r#"{"0-0": [1"#, "not a score file"),
            ("{}", "0 head scores"),
        ];
        for (text, expected) in cases {
            let message = HeadScores::parse(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
        // Finite numbers whose mean or sum is not.
        let message = HeadScores::parse(r#"{"0-0": [1], "0-1": [1e308, 1e308]}"#).unwrap_err();
        assert!(
            message.contains("the score of head 0-1 is inf"),
            "{message}"
        );
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
