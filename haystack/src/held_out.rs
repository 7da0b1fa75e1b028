//! Needles that show what a method is worth: kinds of facts that no score file was made from, drawn as often as wanted.
//!
//! Head scores, and whatever else was chosen, come from the patterns in [`crate::pattern`]. The names, things and values
//! here stand in none of their examples.

use crate::{Error, Needle, Patterns};
use std::path::Path;

/// A kind of fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, as tables have it.
    pub name: &'static str,
    /// A pattern file.
    text: &'static str,
}

/// All of them: two words, a number, a long statement, a number of one key among three, a city in two hops.
pub const FAMILIES: [Family; 5] = [
    Family {
        name: "words",
        text: include_str!("../patterns/held_out/words.jsonl"),
    },
    Family {
        name: "digits",
        text: include_str!("../patterns/held_out/digits.jsonl"),
    },
    Family {
        name: "statements",
        text: include_str!("../patterns/held_out/statements.jsonl"),
    },
    Family {
        name: "keys",
        text: include_str!("../patterns/held_out/keys.jsonl"),
    },
    Family {
        name: "hops",
        text: include_str!("../patterns/held_out/two-hops.jsonl"),
    },
];

impl Family {
    /// `count` needles; the first ones do not depend on `count`.
    ///
    /// # Errors
    /// [`Error::Pattern`], which a test excludes.
    pub fn draw(&self, seed: u64, count: usize) -> Result<Vec<Needle>, Error> {
        let name = format!("held-out {}", self.name);
        Patterns::parse(Path::new(&name), self.text)?.draw(seed, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::{collections::BTreeSet, fs};

    #[test]
    fn families_hold_their_answers_and_hardly_repeat() {
        for family in FAMILIES {
            let drawn = family.draw(1, 40).unwrap();
            assert_eq!(drawn[..5], family.draw(1, 5).unwrap());
            assert_ne!(drawn, family.draw(2, 40).unwrap());
            let different: BTreeSet<_> = drawn.iter().map(|needle| &needle.needle).collect();
            assert!(
                different.len() >= 38,
                "{}: {}",
                family.name,
                different.len()
            );
            for needle in drawn {
                assert!(needle.needle.contains(&needle.real_needle), "{needle:?}");
            }
        }
    }

    /// The texts of a family's variables.
    fn values(family: Family) -> Vec<String> {
        let first = family.text.lines().next().unwrap();
        let line: Value = serde_json::from_str(first).unwrap();
        let variables = line["variables"].as_object().unwrap().values();
        let texts = variables.filter_map(Value::as_array).flatten();
        texts.map(|text| text.as_str().unwrap().into()).collect()
    }

    #[test]
    fn no_value_stands_in_a_score_files_examples() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../head_scores");
        let mut files = 0;
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if !path.to_string_lossy().ends_with(".meta.json") {
                continue;
            }
            files += 1;
            let meta: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let needles = meta["needles"].as_array().unwrap();
            let examples: Vec<String> = needles.iter().map(Value::to_string).collect();
            assert!(!examples.is_empty());
            for value in FAMILIES.into_iter().flat_map(values) {
                let found = examples.iter().find(|text| text.contains(&value));
                assert!(found.is_none(), "{value} stands in {path:?}: {found:?}");
            }
        }
        assert!(files > 0);
    }
}
