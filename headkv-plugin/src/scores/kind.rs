//! What head scores measure.

use crate::Error;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// How the scores of a file were estimated. Names are `retrieval`, `enhanced` and `reasoning`; `copy` and `reason`, the
/// original's, mean the first and the last.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The share of the needle that the head copied (Wu et al. 2024, arXiv 2404.15574, section 2).
    #[serde(alias = "copy")]
    Retrieval,
    /// The attention that the head gave to the needle (Fu et al. 2024, arXiv 2410.19258, section 3.2).
    Enhanced,
    /// The same on examples that need reasoning, counted on the right answer's tokens (Fu et al., section 3.2).
    #[serde(alias = "reason")]
    Reasoning,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Retrieval, Self::Enhanced, Self::Reasoning];

    /// The `{kind}` in `{model}_{kind}.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retrieval => "retrieval",
            Self::Enhanced => "enhanced",
            Self::Reasoning => "reasoning",
        }
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "retrieval" | "copy" => Ok(Self::Retrieval),
            "enhanced" => Ok(Self::Enhanced),
            "reasoning" | "reason" => Ok(Self::Reasoning),
            _ => Err(Error::Config(format!(
                "unknown kind `{name}`; use retrieval, enhanced or reasoning"
            ))),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_files_know_the_same_names() {
        let names = Kind::ALL.map(|kind| (kind.name(), kind));
        let aliases = [("copy", Kind::Retrieval), ("reason", Kind::Reasoning)];
        for (name, kind) in names.into_iter().chain(aliases) {
            assert_eq!(name.parse::<Kind>().unwrap(), kind);
            let json = serde_json::Value::String(name.into());
            assert_eq!(serde_json::from_value::<Kind>(json).unwrap(), kind);
        }
        assert_eq!(
            serde_json::to_string(&Kind::ALL).unwrap(),
            r#"["retrieval","enhanced","reasoning"]"#
        );
        let message = "copying".parse::<Kind>().unwrap_err().to_string();
        assert_eq!(
            message,
            "unknown kind `copying`; use retrieval, enhanced or reasoning"
        );
    }
}
