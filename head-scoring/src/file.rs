//! Score files.

use crate::Error;
use headkv_files::whole;
use headkv_plugin::{HeadScores, ScoreLists};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Scores of every head in every counted example, in the original's format: one line of JSON,
/// `{"layer-head": [score per example, ...], ...}`, layer by layer and head by head.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreFile(ScoreLists);

impl ScoreFile {
    /// A file without examples.
    pub fn new(layers: usize, heads: usize) -> Self {
        Self(ScoreLists {
            layers,
            heads,
            lists: vec![Vec::new(); layers * heads],
        })
    }

    /// Adds one example; `scores` is `layers x heads`, layer by layer.
    pub fn push(&mut self, scores: &[f64]) {
        for (list, score) in self.0.lists.iter_mut().zip(scores) {
            list.push(*score);
        }
    }

    /// Reads and checks a file; heads may come in any order, and -0 is read as 0.
    ///
    /// # Errors
    /// As [`ScoreLists::read`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        Ok(Self(ScoreLists::read(path)?))
    }

    /// Reads several files of one model and puts their examples together.
    ///
    /// # Errors
    /// As [`ScoreFile::read`]; [`Error::Shapes`] for files of different models.
    pub fn merged(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut merged: Option<Self> = None;
        for path in paths {
            let file = Self::read(path)?;
            let Some(all) = &mut merged else {
                merged = Some(file);
                continue;
            };
            if all.shape() != file.shape() {
                return Err(Error::Shapes {
                    first: (paths[0].clone(), all.0.layers, all.0.heads),
                    second: (path.clone(), file.0.layers, file.0.heads),
                });
            }
            for (list, more) in all.0.lists.iter_mut().zip(file.0.lists) {
                list.extend(more);
            }
        }
        Ok(merged.unwrap_or_else(|| Self::new(0, 0)))
    }

    /// The same lists given to other heads, as a control: a good file must beat it.
    pub fn shuffled(mut self, seed: u64) -> Self {
        self.0.lists.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        self
    }

    /// Layers, and query heads per layer.
    pub fn shape(&self) -> (usize, usize) {
        (self.0.layers, self.0.heads)
    }

    /// The fewest and the most examples that a head has.
    pub fn examples(&self) -> (usize, usize) {
        let counts = || self.0.lists.iter().map(Vec::len);
        (counts().min().unwrap_or(0), counts().max().unwrap_or(0))
    }

    /// The mean score of each head, as the plugin uses it.
    ///
    /// # Errors
    /// As [`HeadScores::new`]: nothing but zeros cannot rank heads.
    pub fn means(&self) -> Result<HeadScores, Error> {
        Ok(self.0.means()?)
    }

    /// The file's one line.
    pub fn to_json(&self) -> String {
        let named = cells(self.0.layers, self.0.heads).zip(&self.0.lists);
        let map: Map<_, _> = named
            .map(|((layer, head), list)| (format!("{layer}-{head}"), json!(list)))
            .collect();
        format!("{}\n", Value::Object(map))
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        Ok(whole::write(path, self.to_json())?)
    }
}

fn cells(layers: usize, heads: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..layers).flat_map(move |layer| (0..heads).map(move |head| (layer, head)))
}

/// A path with something added to its last name: what is there stays there, so that no two paths become one.
pub(crate) fn appended(path: &Path, end: &str) -> PathBuf {
    let mut whole = path.as_os_str().to_owned();
    whole.push(end);
    whole.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    proptest! {
        #[test]
        fn files_survive_the_round_trip(
            layers in 1usize..5,
            heads in 1usize..13,
            examples in prop::collection::vec(prop::collection::vec(1u32..2_000_000, 60), 1..6),
        ) {
            let decimals = |scores: Vec<u32>| scores.into_iter().map(|x| f64::from(x) / 1e6).collect();
            let examples: Vec<Vec<f64>> = examples.into_iter().map(decimals).collect();
            let mut file = ScoreFile::new(layers, heads);
            examples.iter().for_each(|scores| file.push(scores));
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("new/scores.json");
            file.write(&path).unwrap();
            prop_assert_eq!(ScoreFile::read(&path).unwrap(), file.clone());
            prop_assert_eq!(file.examples(), (examples.len(), examples.len()));
            let mean = examples.iter().map(|scores| scores[0]).sum::<f64>() / examples.len() as f64;
            prop_assert_eq!(file.means().unwrap().values()[0], mean);
        }
    }

    #[test]
    fn heads_come_in_order_and_files_merge() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        fs::write(&path, "{\"0-10\": [0.5], \"0-2\": [1, 0.25]").unwrap();
        assert!(ScoreFile::read(&path).is_err());
        let heads: Vec<String> = (0..11)
            .rev()
            .map(|head| format!("\"0-{head}\": [{head}]"))
            .collect();
        fs::write(
            &path,
            format!("{{{}}}\nnotes of another program", heads.join(", ")),
        )
        .unwrap();
        let file = ScoreFile::read(&path).unwrap();
        assert!(
            file.to_json()
                .starts_with(r#"{"0-0":[0.0],"0-1":[1.0],"0-2":[2.0]"#)
        );
        assert_eq!(file.to_json().lines().count(), 1);
        assert_eq!(
            ScoreFile::merged(&[path.clone(), path.clone()])
                .unwrap()
                .examples(),
            (2, 2)
        );
        let other = dir.path().join("other.json");
        fs::write(&other, r#"{"0-0": [1], "0-1": [1]}"#).unwrap();
        let message = ScoreFile::merged(&[path, other]).unwrap_err().to_string();
        assert!(
            message.contains("has 1 layers x 11 heads, but") && message.contains("has 1 x 2"),
            "{message}"
        );
    }

    #[test]
    fn no_zero_is_negative() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        fs::write(&path, r#"{"0-0": [-0.0, 1.5], "0-1": [-0, -0e3]}"#).unwrap();
        let file = ScoreFile::read(&path).unwrap();
        assert_eq!(file.to_json(), "{\"0-0\":[0.0,1.5],\"0-1\":[0.0,0.0]}\n");
    }
}
