//! The lines of an unfinished run.
//!
//! It knows no other module of this crate, so that `fuzz/` compiles it without the runtime.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// What came of one example.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Outcome {
    /// The model's answer.
    pub answer: String,
    /// Its QA-F1, 0 to 1.
    pub f1: f64,
    /// Every head's score, `layers x heads`, layer by layer.
    pub scores: Vec<f64>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct Line {
    pub example: usize,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The outcomes that an unfinished run's text holds: those of `examples` examples, of a model with that many heads.
///
/// # Errors
/// What is wrong with it.
pub fn parse<S: DeserializeOwned + PartialEq>(
    text: &str,
    settings: &S,
    examples: usize,
    heads: usize,
) -> Result<BTreeMap<usize, Outcome>, String> {
    let mut lines = text.lines().enumerate();
    let begun = lines.next().map_or("", |(_, line)| line);
    let begun: S =
        serde_json::from_str(begun).map_err(|_| "is not an unfinished run".to_string())?;
    if begun != *settings {
        return Err("was begun with other settings".into());
    }
    let mut done = BTreeMap::new();
    for (at, line) in lines {
        let damaged = |why: String| format!("is damaged in line {}: {why}", at + 1);
        let Line { example, outcome } =
            serde_json::from_str(line).map_err(|e| damaged(e.to_string()))?;
        if example >= examples {
            return Err(damaged(format!(
                "example {} of {examples}",
                example.saturating_add(1)
            )));
        }
        if let Some(why) = outcome.wrong(heads) {
            return Err(damaged(why));
        }
        if done.insert(example, outcome).is_some() {
            return Err(damaged(format!("example {} once more", example + 1)));
        }
    }
    Ok(done)
}

impl Outcome {
    /// What no run writes.
    pub(super) fn wrong(&self, heads: usize) -> Option<String> {
        let possible = |x: &f64| x.is_finite() && *x >= 0.0;
        if !(possible(&self.f1) && self.f1 <= 1.0) {
            return Some(format!("an F1 of {}", self.f1));
        }
        if self.scores.len() != heads {
            return Some(format!("scores of {} heads of {heads}", self.scores.len()));
        }
        let score = self.scores.iter().find(|score| !possible(score))?;
        Some(format!("a score of {score}"))
    }
}
