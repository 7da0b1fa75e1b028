//! The file format: `{"layer-head": [score per example, ...], ...}`, as in the original's `head_score` files.

use super::HeadScores;
use crate::Error;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::{fmt, path::Path};

/// A head, layer first, and its scores.
type Cell = ((usize, usize), Vec<f64>);

/// Every head's scores in every example.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreLists {
    /// Layers.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// `layers x heads` lists, layer by layer.
    pub lists: Vec<Vec<f64>>,
}

impl ScoreLists {
    /// Reads and checks a score file; heads may come in any order, and -0 is read as 0. It takes no more memory than some
    /// twenty times the file's size.
    ///
    /// # Errors
    /// [`Error::Read`] if there is no such file, [`Error::Format`] if it is not a complete set of scores that rank heads.
    pub fn read(path: &Path) -> Result<Self, Error> {
        // A pipe would wait for ever.
        let found = std::fs::metadata(path).and_then(|found| {
            let file = found.is_file().then_some(());
            file.ok_or_else(|| std::io::Error::other("it is not a file"))
        });
        let text = found
            .and_then(|()| std::fs::read_to_string(path))
            .map_err(|source| Error::Read {
                path: path.into(),
                source,
            })?;
        Self::parse(&text).map_err(|why| Error::Format {
            path: path.into(),
            why,
        })
    }

    /// Parses and checks a score file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        // The original reads the first line only; further lines would be another program's notes.
        let first = text.lines().next().unwrap_or_default();
        let Cells(mut cells) = serde_json::from_str(first)
            .or_else(|e| {
                if first.len() == text.trim_end().len() {
                    Err(e)
                } else {
                    serde_json::from_str(text)
                }
            })
            .map_err(|e| {
                format!("not a score file ({e}); expected {{\"layer-head\": [scores]}}")
            })?;
        cells.sort_by_key(|(head, _)| *head);
        if let Some(pair) = cells.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let (layer, head) = pair[0].0;
            return Err(format!("head {layer}-{head} is given twice"));
        }
        let count = |of: fn(&Cell) -> usize| {
            cells
                .iter()
                .map(of)
                .max()
                .map_or(0, |last| last.saturating_add(1))
        };
        let (layers, heads) = (count(|cell| cell.0.0), count(|cell| cell.0.1));
        let complete = (0..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head)));
        if !cells.iter().map(|(head, _)| *head).eq(complete) {
            return Err(format!(
                "{} heads are not a full table of {layers} layers x {heads} heads",
                cells.len()
            ));
        }
        let lists = cells.into_iter().map(|(_, list)| list).collect();
        let all = Self {
            layers,
            heads,
            lists,
        };
        all.means().map_err(|e| e.to_string())?;
        Ok(all)
    }

    /// The mean score of each head.
    ///
    /// # Errors
    /// As [`HeadScores::new`].
    pub fn means(&self) -> Result<HeadScores, Error> {
        let mean = |list: &Vec<f64>| list.iter().sum::<f64>() / list.len().max(1) as f64;
        HeadScores::new(
            self.layers,
            self.heads,
            self.lists.iter().map(mean).collect(),
        )
    }
}

/// A file's heads in its order, those that come twice included, which a map would not tell.
struct Cells(Vec<Cell>);

impl<'de> Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;

        impl<'de> Visitor<'de> for Table {
            type Value = Cells;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of heads")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cells, A::Error> {
                let mut cells = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let error = |why: String| serde::de::Error::custom(why);
                    let head = parse_head(&name)
                        .ok_or_else(|| error(format!("key `{name}` is not `layer-head`")))?;
                    let mut list: Vec<f64> = map
                        .next_value()
                        .map_err(|e| error(format!("head {name}: {e}")))?;
                    if list.is_empty() {
                        return Err(error(format!("head {name} has no list of scores")));
                    }
                    for score in &mut list {
                        if !(score.is_finite() && *score >= 0.0) {
                            return Err(error(format!(
                                "the score of head {name} is {score}; scores must be finite and not negative"
                            )));
                        }
                        // Other readers may tell -0 from 0.
                        *score += 0.0;
                    }
                    cells.push((head, list));
                }
                Ok(Cells(cells))
            }
        }

        deserializer.deserialize_map(Table)
    }
}

/// `3-14` and nothing that merely means the same, such as `03-14`: two keys would be one head.
fn parse_head(name: &str) -> Option<(usize, usize)> {
    let (layer, head) = name.split_once('-')?;
    let head = (layer.parse().ok()?, head.parse().ok()?);
    (format!("{}-{}", head.0, head.1) == name).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads_come_in_any_order() {
        let text = r#"{"1-0": [1, 3], "0-1": [0.5], "0-0": [-0.0], "1-1": [0.5]}"#;
        let read = ScoreLists::parse(text).unwrap();
        assert_eq!((read.layers, read.heads), (2, 2));
        assert_eq!(read.lists[2], [1.0, 3.0]);
        assert!(read.lists[0][0].is_sign_positive());
        assert_eq!(read.means().unwrap().values(), [0.0, 0.5, 2.0, 0.5]);
        let noted = format!("{text}\nnotes of another program");
        assert_eq!(ScoreLists::parse(&noted).unwrap(), read);
        let spread = text.replace(", ", ",\n");
        assert_eq!(ScoreLists::parse(&spread).unwrap(), read);
    }

    #[test]
    fn what_cannot_rank_heads_is_refused() {
        let cases = [
            (r#"{"0-0": [0], "0-1": [0]}"#, "all head scores are zero"),
            (r#"{"0-0": [1], "0-1": [NaN]}"#, "not a score file"),
            (r#"{"0-0": [1], "0-1": [1e999]}"#, "not a score file"),
            (r#"{"0-0": [1], "0-1": ["x"]}"#, "head 0-1"),
            (
                r#"{"0-0": [1], "0-1": [-1]}"#,
                "the score of head 0-1 is -1",
            ),
            (
                r#"{"0-0": [1], "0-1": [9, -1]}"#,
                "the score of head 0-1 is -1",
            ),
            (r#"{"0-0": [1], "0-1": []}"#, "head 0-1 has no list"),
            (
                r#"{"0-0": [1], "1-1": [1]}"#,
                "not a full table of 2 layers x 2 heads",
            ),
            (r#"{"0-0": [1], "0-0": [1]}"#, "head 0-0 is given twice"),
            (
                r#"{"0-0": [1], "0-01": [1]}"#,
                "key `0-01` is not `layer-head`",
            ),
            (r#"{"0-0": [1], "0-+1": [1]}"#, "key `0-+1`"),
            (r#"{"0-18446744073709551615": [1]}"#, "not a full table"),
            (r#"{"zero": [1]}"#, "key `zero`"),
            (r#"{"0-0": [1"#, "not a score file"),
            (
                r#"{"0-0": [1], "0-1": [1e308, 1e308]}"#,
                "the score of head 0-1 is inf",
            ),
            ("{}", "0 head scores"),
            ("[]", "expected a table of heads"),
            ("", "not a score file"),
        ];
        for (text, expected) in cases {
            let message = ScoreLists::parse(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_no_file() {
        let message = ScoreLists::read(Path::new("/dev/zero")).unwrap_err();
        assert!(
            message.to_string().contains("it is not a file"),
            "{message}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Damage is refused or read; what is read is a full table of scores.
        #[test]
        fn a_damaged_file_is_refused_or_whole(
            damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        ) {
            let mut bytes = br#"{"0-0": [0.25, 1], "0-1": [0, 1e-3], "1-0": [1, 2], "1-1": [0.5, 0]}"#.to_vec();
            for (at, byte) in damages {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.map_or(bytes.len(), |at| at.index(bytes.len())));
            if let Ok(read) = ScoreLists::parse(&String::from_utf8_lossy(&bytes)) {
                prop_assert_eq!(read.lists.len(), read.layers * read.heads);
                prop_assert!(read.lists.iter().all(|list| !list.is_empty()));
                prop_assert!(read.means().is_ok());
            }
        }
    }
}
