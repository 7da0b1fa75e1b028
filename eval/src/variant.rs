//! One cell of the grid: a compression method and its parameters.

use crate::grid::{Parameters, parameters};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// What is read on from earlier prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reuse {
    /// The whole keys and values of what the prompt has in common with them.
    Exact,
    /// What was kept of the turn before, with all that came behind it.
    Compressed,
}

impl Reuse {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Compressed => "compressed",
        }
    }
}

/// A method with those of its parameters that matter to it; the others are `None`, so that no two variants mean the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// The method's name.
    pub method: String,
    /// Tokens kept per head on average; none for `full`.
    pub capacity: Option<usize>,
    /// 1 / beta of the budget goes by importance; for methods with head scores.
    pub beta: Option<f64>,
    /// The head score file, for methods that need one.
    pub scores: Option<PathBuf>,
    /// SHA-256 over the score file, in hexadecimal.
    pub scores_digest: Option<String>,
    /// Further parameters that were given.
    #[serde(
        default,
        skip_serializing_if = "Parameters::are_default",
        deserialize_with = "parameters::read"
    )]
    pub settings: Parameters,
    /// What is read on from earlier prompts; `None` reads every prompt from its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
}

impl Variant {
    /// A method without parameters.
    pub fn new(method: &str) -> Self {
        Self {
            method: method.into(),
            ..Self::default()
        }
    }

    /// With that capacity in tokens.
    pub fn capacity(mut self, tokens: usize) -> Self {
        self.capacity = Some(tokens);
        self
    }

    /// Reading on from earlier prompts that way.
    pub fn reuse(mut self, reuse: Option<Reuse>) -> Self {
        self.reuse = reuse;
        self
    }

    /// Whether both are the same configuration. Where the score file lies makes no difference: its digest tells.
    pub fn same(&self, other: &Self) -> bool {
        let anywhere = |variant: &Self| Self {
            scores: variant
                .scores
                .clone()
                .filter(|_| variant.scores_digest.is_none()),
            ..variant.clone()
        };
        anywhere(self) == anywhere(other)
    }

    /// A text that those, and only those, have in common that are [`Variant::same`].
    pub(crate) fn identity(&self) -> String {
        match (&self.scores_digest, &self.scores) {
            (Some(digest), _) => format!("{self} of {digest}"),
            (None, Some(file)) => format!("{self} from {}", file.display()),
            (None, None) => self.to_string(),
        }
    }

    /// The score file's name without folder and ending.
    pub fn scores_name(&self) -> Option<String> {
        let stem = self.scores.as_deref()?.file_stem()?;
        Some(stem.to_string_lossy().into_owned())
    }
}

/// `headkv@16 beta 1.2`, as in tables; the score file is named only by its kind.
impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.method)?;
        if let Some(capacity) = self.capacity {
            write!(f, "@{capacity}")?;
        }
        if let Some(beta) = self.beta {
            write!(f, " beta {beta}")?;
        }
        for setting in self.settings.settings() {
            write!(f, " {setting}")?;
        }
        if let Some(reuse) = self.reuse {
            write!(f, " {}", reuse.name())?;
        }
        Ok(())
    }
}
