//! What was measured, as lines of a file.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The name by which a folder of results holds them, so that `report` shows them.
pub const FILE: &str = "bench.jsonl";

/// What one row of a table measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// The model, as it was named.
    pub model: String,
    /// The device, as it was named.
    pub device: String,
    /// Tokens of the prompts, in turn.
    pub lengths: Vec<usize>,
    /// Prompts that were sent at once.
    pub batch: usize,
    /// Tokens generated for each.
    pub decode: usize,
    /// The path, as it was named.
    pub path: String,
    /// The method's beta, if not its own.
    pub beta: Option<f64>,
}

impl Key {
    /// Its name in a table.
    pub fn name(&self) -> String {
        let batch = match self.batch {
            1 => String::new(),
            batch => format!("{batch} x "),
        };
        format!("{batch}{} {}", self.tokens(), self.path)
    }

    /// The prompts' tokens.
    fn tokens(&self) -> String {
        let lengths: Vec<_> = self.lengths.iter().map(ToString::to_string).collect();
        lengths.join("/")
    }

    /// The arguments of the process that measures it, without the model.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--lengths={}", self.tokens().replace('/', ",")),
            format!("--decode={}", self.decode),
            format!("--batch={}", self.batch),
            format!("--path={}", self.path),
            format!("--device={}", self.device),
        ];
        arguments.extend(self.beta.map(|beta| format!("--beta={beta}")));
        arguments
    }
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Tokens of prompts per second.
    pub prompt: f64,
    /// Tokens generated per second, all prompts together.
    pub decode: f64,
    /// Bytes of keys and values at the end.
    pub kv_bytes: f64,
    /// The most memory that the process, or on a GPU the card, held.
    pub peak_bytes: f64,
    /// What tensors take of the GPU's memory once the last token is there; none on the CPU.
    pub held_bytes: Option<f64>,
    /// Seconds to the first token, of each prompt.
    pub first_token: Vec<f64>,
    /// Seconds between two tokens of one answer, of all answers.
    pub between_tokens: Vec<f64>,
}

/// A row of a table, with its measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    #[serde(flatten)]
    pub key: Key,
    /// The measurements.
    pub rounds: Vec<Measured>,
}

impl Row {
    /// A row without measurements.
    pub fn new(key: Key) -> Self {
        let rounds = Vec::new();
        Self { key, rounds }
    }

    /// The median of a figure.
    pub fn median(&self, figure: fn(&Measured) -> f64) -> f64 {
        percentile(self.rounds.iter().map(figure).collect(), 0.5)
    }

    /// What the rounds differ by, as a share of the median.
    pub fn spread(&self, figure: fn(&Measured) -> f64) -> f64 {
        let values: Vec<f64> = self.rounds.iter().map(figure).collect();
        let range = percentile(values.clone(), 1.0) - percentile(values, 0.0);
        range / self.median(figure)
    }

    /// A percentile of all rounds' times, `share` from 0 to 1.
    pub fn percentile(&self, times: fn(&Measured) -> &[f64], share: f64) -> f64 {
        let all = self
            .rounds
            .iter()
            .flat_map(|round| times(round).iter().copied());
        percentile(all.collect(), share)
    }
}

/// The smallest value that `share` of all do not exceed; not a number without values.
fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Reads what a run with `--out` wrote.
///
/// # Errors
/// [`Error::Read`], or [`Error::Line`] for a line that is no row.
pub fn read(path: &Path) -> Result<Vec<Row>, Error> {
    let text = headkv_files::read::text(path)?;
    let row = |(at, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|why| Error::Line {
            path: path.into(),
            line: at + 1,
            why: format!("not a row that bench --out wrote: {why}"),
        })
    };
    text.lines().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = || (1..=100).rev().map(f64::from).collect();
        for (share, wanted) in [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            assert_eq!(percentile(values(), share), wanted);
        }
        assert_eq!(percentile(vec![3.0, 1.0, 2.0], 0.5), 2.0);
        assert!(percentile(Vec::new(), 0.5).is_nan());
    }

    #[test]
    fn rows_come_back_and_other_lines_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows.jsonl");
        let key = Key {
            model: "m".into(),
            device: "cpu".into(),
            lengths: vec![100, 200],
            batch: 4,
            decode: 8,
            path: "headkv@32".into(),
            beta: Some(1.5),
        };
        assert_eq!(key.name(), "4 x 100/200 headkv@32");
        headkv_files::whole::write_lines(&file, &[Row::new(key.clone())]).unwrap();
        assert_eq!(read(&file).unwrap()[0].key, key);
        std::fs::write(&file, "{}\n").unwrap();
        let message = read(&file).unwrap_err().to_string();
        assert!(message.contains("line 1"), "{message}");
    }
}
