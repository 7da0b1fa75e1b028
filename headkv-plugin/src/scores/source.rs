//! Where a configuration's head scores are: in a file, or in the configuration itself.

use super::HeadScores;
use crate::Error;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{
    borrow::Cow,
    fmt,
    path::{Path, PathBuf},
};

/// Head scores by their file or by value; in TOML and JSON a path, or a table of `layers`, `heads` and `values`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ScoreSource {
    /// A score file, read when a model is to be compressed.
    File(PathBuf),
    /// The scores themselves.
    Given(HeadScores),
}

impl ScoreSource {
    /// The file; `None` for scores by value.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Given(_) => None,
        }
    }

    /// The scores.
    ///
    /// # Errors
    /// As [`HeadScores::read`].
    pub fn read(&self) -> Result<Cow<'_, HeadScores>, Error> {
        match self {
            Self::File(path) => HeadScores::read(path).map(Cow::Owned),
            Self::Given(scores) => Ok(Cow::Borrowed(scores)),
        }
    }
}

macro_rules! from_paths {
    ($($path:ty),*) => {
        $(impl From<$path> for ScoreSource {
            fn from(path: $path) -> Self {
                Self::File(path.into())
            }
        })*
    };
}
from_paths!(PathBuf, &PathBuf, &Path, String, &str);

impl From<HeadScores> for ScoreSource {
    fn from(scores: HeadScores) -> Self {
        Self::Given(scores)
    }
}

impl Serialize for ScoreSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(path) => path.serialize(serializer),
            Self::Given(scores) => scores.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ScoreSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ScoreSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a score file, or a table of layers, heads and values")
            }

            fn visit_str<E>(self, path: &str) -> Result<ScoreSource, E> {
                Ok(path.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ScoreSource, A::Error> {
                HeadScores::deserialize(MapAccessDeserializer::new(map)).map(ScoreSource::Given)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Compression, HeadScores};

    #[test]
    fn both_forms_survive_toml_and_json() {
        let scores = HeadScores::new(2, 2, vec![0.5, 0.0, 1.0, 0.25]).unwrap();
        for config in [
            Compression::headkv(64).with_scores("a/b.json").beta(1.5),
            Compression::headkv(64).with_scores(scores),
        ] {
            let toml = toml::to_string(&config).unwrap();
            assert_eq!(Compression::from_toml(&toml).unwrap(), config);
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(Compression::from_json(&json).unwrap(), config);
        }
        let path = Compression::from_toml("scores = 'a/b.json'").unwrap();
        assert_eq!(path, Compression::headkv(128).with_scores("a/b.json"));
    }

    #[test]
    fn scores_that_rank_nothing_are_refused_by_name() {
        for (table, expected) in [
            (
                "{layers = 1, heads = 2, values = [0.0, 0.0]}",
                "all head scores are zero",
            ),
            (
                "{layers = 1, heads = 2, values = [1.0]}",
                "1 head scores for 1 layers x 2 heads",
            ),
            (
                "{layers = 1, heads = 1, values = [1.0], model = 'x'}",
                "unknown field `model`",
            ),
            (
                "{layers = 9223372036854775807, heads = 3, values = [1.0]}",
                "1 head scores for",
            ),
            ("3", "the path of a score file, or a table"),
        ] {
            let message = Compression::from_toml(&format!("scores = {table}")).unwrap_err();
            assert!(message.to_string().contains(expected), "{table}: {message}");
        }
    }
}
