//! Which methods are run, and with which parameters.

use super::Parameters;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Methods and their parameters; every combination that makes sense is run.
#[derive(Args, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Method")]
pub struct Methods {
    /// Compression methods
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "full,snapkv,headkv,headkv-plus"
    )]
    pub method: Vec<String>,
    /// Tokens kept per head on average, the window included
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "TOKENS",
        default_value = "16,32"
    )]
    pub capacity: Vec<usize>,
    /// How positions are ranked: window, value-norm, drop, critical, keydiff, tova, leverage, expected, compactor, kvzip
    /// [default: the method's own]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub ranking: Vec<String>,
    /// HeadKV: 1/beta of the budget goes by importance [default: the method's own, 1.2 for headkv]
    #[arg(long, value_delimiter = ',', value_name = "NUMBER")]
    pub beta: Vec<f64>,
    /// HeadKV: head score files; {model} stands for each model's name [default: head_scores/{model}_{kind}.json]
    #[arg(long, value_delimiter = ',', value_name = "FILE")]
    pub scores: Vec<PathBuf>,
    /// HeadKV: kinds of the default score files: retrieval, enhanced, reasoning [default: what the method's name says, retrieval]
    #[arg(long, value_delimiter = ',', value_name = "KIND")]
    pub head_choice: Vec<String>,
    /// Parameters that have one value.
    #[command(flatten)]
    pub parameters: Parameters,
}

impl Methods {
    /// The same for one model: `{model}` in the score files' paths becomes its name.
    pub fn of_model(&self, name: &str) -> Self {
        let fill = |path: &PathBuf| match path.to_str() {
            Some(text) => text.replace("{model}", name).into(),
            None => path.clone(),
        };
        Self {
            scores: self.scores.iter().map(fill).collect(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_has_score_files_of_its_own() {
        let methods = Methods {
            scores: vec!["scores/{model}_a.json".into(), "b.json".into()],
            ..Methods::default()
        };
        assert_eq!(
            methods.of_model("tiny").scores,
            ["scores/tiny_a.json", "b.json"].map(PathBuf::from)
        );
    }
}
