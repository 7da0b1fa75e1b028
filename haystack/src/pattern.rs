//! Patterns: needles with variables, from which many names and orders are drawn.
//!
//! A handful of needles overfits a few heads. A pattern file is a needle file (JSON Lines) in which texts hold
//! `{name}` or `{name.1}`, `{name.2}`, ..., and whose line `{"variables": {...}}` says what they can be: a list of
//! texts, or `{"from": 10, "to": 99}` for whole numbers. Within one needle, different indices of a variable get different
//! values, and those of a number rise with the index, so that a pattern can say which is larger. A `needle` that is a
//! list of sentences is written in a random order:
//!
//! ```json
//! {"variables": {"person": ["Ada", "Ben", "Cid"], "age": {"from": 20, "to": 60}}}
//! {"needle": ["{person.1} is {age.1} years old.", "{person.2} is {age.2} years old."], "question": "Who is older, {person.1} or {person.2}?", "real_needle": "{person.2} is {age.2} years old.", "answer": "{person.2}."}
//! ```

use crate::{Error, Needle, needle};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Patterns and their variables.
#[derive(Clone, Debug)]
pub struct Patterns {
    file: PathBuf,
    variables: BTreeMap<String, Values>,
    patterns: Vec<Pattern>,
}

/// The patterns that come with the project.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Builtin {
    /// One fact, to be copied.
    Retrieval,
    /// Several facts of which the question chooses one in two steps.
    Reasoning,
}

/// A line of a pattern file; one that has variables is no pattern.
#[derive(Deserialize)]
#[serde(try_from = "serde_json::Value")]
enum Line {
    Variables(BTreeMap<String, Values>),
    Pattern(Pattern),
}

impl TryFrom<serde_json::Value> for Line {
    type Error = serde_json::Error;

    // Tried one after the other they would only say that neither fits.
    fn try_from(mut line: serde_json::Value) -> Result<Self, Self::Error> {
        match line.get_mut("variables") {
            Some(variables) => serde_json::from_value(variables.take()).map(Self::Variables),
            None => serde_json::from_value(line).map(Self::Pattern),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a variable is a list of texts, or {\"from\": 10, \"to\": 99} with whole numbers"
)]
enum Values {
    Texts(Vec<String>),
    Numbers { from: u64, to: u64 },
}

#[derive(Clone, Debug, Deserialize)]
struct Pattern {
    needle: Sentences,
    question: String,
    real_needle: String,
    answer: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "`needle` is a text, or a list of sentences in any order"
)]
enum Sentences {
    Text(String),
    AnyOrder(Vec<String>),
}

impl Patterns {
    /// Reads a pattern file; a plain needle file is one without variables.
    ///
    /// # Errors
    /// [`Error::Files`], [`Error::Line`], [`Error::NoNeedles`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::new(path, needle::lines(path)?)
    }

    /// The patterns of a text; `path` is what errors name.
    ///
    /// # Errors
    /// [`Error::Line`], [`Error::NoNeedles`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        Self::new(path, needle::parse_lines(path, text)?)
    }

    /// The project's own patterns.
    pub fn builtin(kind: Builtin) -> Self {
        let (name, text) = match kind {
            Builtin::Retrieval => (
                "built-in retrieval.jsonl",
                include_str!("../patterns/retrieval.jsonl"),
            ),
            Builtin::Reasoning => (
                "built-in reasoning.jsonl",
                include_str!("../patterns/reasoning.jsonl"),
            ),
        };
        Self::parse(Path::new(name), text).expect("the built-in patterns are tested")
    }

    fn new(path: &Path, lines: Vec<Line>) -> Result<Self, Error> {
        let mut all = Self {
            file: path.into(),
            variables: BTreeMap::new(),
            patterns: Vec::new(),
        };
        for line in lines {
            match line {
                Line::Variables(variables) => all.variables.extend(variables),
                Line::Pattern(pattern) => all.patterns.push(pattern),
            }
        }
        if all.patterns.is_empty() {
            return Err(Error::NoNeedles(path.into()));
        }
        Ok(all)
    }

    /// How many patterns there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    /// `count` needles, from one pattern after the other; the first ones do not depend on `count`.
    ///
    /// # Errors
    /// [`Error::Pattern`] for a variable that is not defined or has too few values.
    pub fn draw(&self, seed: u64, count: usize) -> Result<Vec<Needle>, Error> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..count)
            .map(|at| self.fill(&self.patterns[at % self.patterns.len()], &mut rng))
            .collect()
    }

    fn fill(&self, pattern: &Pattern, rng: &mut ChaCha8Rng) -> Result<Needle, Error> {
        let needle = match &pattern.needle {
            Sentences::Text(text) => text.clone(),
            Sentences::AnyOrder(sentences) => {
                let mut sentences = sentences.clone();
                sentences.shuffle(rng);
                sentences.join(" ")
            }
        };
        let answer = pattern.answer.as_ref().unwrap_or(&pattern.real_needle);
        let mut texts = [
            needle,
            pattern.question.clone(),
            pattern.real_needle.clone(),
            answer.clone(),
        ];
        for (name, places) in self.places(&texts) {
            let values = self.values(&name, places.len(), rng)?;
            for (place, value) in places.iter().zip(values) {
                texts = texts.map(|text| text.replace(place, &value));
            }
        }
        if let Some(left) = texts.iter().find_map(|text| variable(text)) {
            return Err(self.error(format!(
                "variable `{left}` is not defined; add it to a line of variables"
            )));
        }
        let [needle, question, real_needle, answer] = texts;
        Ok(Needle {
            needle,
            question,
            real_needle,
            answer,
        })
    }

    /// The places `{name}`, `{name.1}`, ... of each defined variable, in the order of their indices.
    fn places(&self, texts: &[String]) -> Vec<(String, Vec<String>)> {
        let used = |name: &String| {
            let mut found = BTreeSet::new();
            for text in texts {
                for rest in text.split('{').skip(1) {
                    let place = rest.split('}').next().unwrap_or_default();
                    let (stem, index) = place.split_once('.').unwrap_or((place, "0"));
                    if let (true, Ok(index)) = (stem == name, index.parse::<usize>()) {
                        found.insert((index, format!("{{{place}}}")));
                    }
                }
            }
            (
                name.clone(),
                found.into_iter().map(|(_, place)| place).collect(),
            )
        };
        self.variables.keys().map(used).collect()
    }

    /// That many different values.
    fn values(&self, name: &str, count: usize, rng: &mut ChaCha8Rng) -> Result<Vec<String>, Error> {
        let too_few = |has: usize| {
            self.error(format!(
                "variable `{name}` has {has} values, but {count} are needed"
            ))
        };
        match &self.variables[name] {
            Values::Texts(texts) => {
                let mut texts: Vec<_> = texts.iter().collect::<BTreeSet<_>>().into_iter().collect();
                let (drawn, _) = texts.partial_shuffle(rng, count);
                if drawn.len() < count {
                    return Err(too_few(drawn.len()));
                }
                Ok(drawn.iter().map(|text| text.to_string()).collect())
            }
            Values::Numbers { from, to } => {
                // One more than the distance, which for all numbers of 64 bits is one too many to count.
                let has = to
                    .checked_sub(*from)
                    .map_or(0, |distance| distance.saturating_add(1));
                let has = usize::try_from(has).unwrap_or(usize::MAX);
                if has < count {
                    return Err(too_few(has));
                }
                let mut drawn = BTreeSet::new();
                while drawn.len() < count {
                    drawn.insert(rng.random_range(*from..=*to));
                }
                Ok(drawn.iter().map(u64::to_string).collect())
            }
        }
    }

    fn error(&self, why: String) -> Error {
        Error::Pattern {
            path: self.file.clone(),
            why,
        }
    }
}

/// The first variable that a text still holds.
fn variable(text: &str) -> Option<&str> {
    let name = text.split_once('{')?.1.split_once('}')?.0;
    let word = |c: char| c.is_alphanumeric() || c == '.' || c == '_';
    (!name.is_empty() && name.chars().all(word)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Patterns, Error> {
        let path = Path::new("p.jsonl");
        Patterns::new(path, needle::parse_lines(path, text)?)
    }

    const AGES: &str = concat!(
        r#"{"variables": {"person": ["Ada", "Ben", "Cid"], "age": {"from": 20, "to": 22}}}"#,
        "\n",
        r#"{"needle": ["{person.1} is {age.1}.", "{person.2} is {age.2}."], "question": "Older, {person.1} or {person.2}?","#,
        r#" "real_needle": "{person.2} is {age.2}.", "answer": "{person.2}."}"#,
    );

    #[test]
    fn names_numbers_and_orders_are_drawn() {
        let drawn = parse(AGES).unwrap().draw(5, 60).unwrap();
        assert_eq!(drawn[..7], parse(AGES).unwrap().draw(5, 7).unwrap());
        let mut first = BTreeSet::new();
        for needle in &drawn {
            let (a, b) = needle.needle.split_once(". ").unwrap();
            let age = |s: &str| {
                s.trim_end_matches('.')[s.len().min(7)..]
                    .parse::<u32>()
                    .unwrap()
            };
            let older = if age(a) > age(b) { a } else { b };
            assert_eq!(needle.answer, format!("{}.", &older[..3]));
            assert!(needle.needle.contains(&needle.real_needle));
            first.insert(needle.needle.starts_with(&needle.real_needle));
        }
        assert_eq!(first.len(), 2, "both orders occur");
    }

    #[test]
    fn a_plain_needle_file_draws_itself() {
        let plain = parse(r#"{"needle": "N.", "question": "Q?", "real_needle": "N."}"#).unwrap();
        let drawn = plain.draw(0, 2).unwrap();
        assert_eq!(drawn[0], drawn[1]);
        assert_eq!(drawn[0].answer, "N.");
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text: &str| match parse(text) {
            Ok(patterns) => patterns.draw(0, 1).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        let line = r#"{"needle": "{a.1} {a.2}", "question": "Q", "real_needle": "R"}"#;
        assert_eq!(
            message(line),
            "p.jsonl: variable `a.1` is not defined; add it to a line of variables"
        );
        let with =
            |values: &str| message(&format!("{{\"variables\": {{\"a\": {values}}}}}\n{line}"));
        assert_eq!(
            with(r#"["x", "x"]"#),
            "p.jsonl: variable `a` has 1 values, but 2 are needed"
        );
        assert_eq!(
            with(r#"{"from": 3, "to": 2}"#),
            "p.jsonl: variable `a` has 0 values, but 2 are needed"
        );
        assert!(message(r#"{"variables": {}}"#).contains("holds no needles"));
        for (text, why) in [
            (r#"{"needle": "N"}"#, "missing field `question`"),
            (
                r#"{"needle": 7, "question": "Q", "real_needle": "R"}"#,
                "`needle` is a text, or a list",
            ),
            (
                r#"{"variables": {"a": 7}}"#,
                "a variable is a list of texts, or {\"from\": 10",
            ),
            (r#"{"variables": 7}"#, "expected a map"),
            ("7", "expected struct Pattern"),
        ] {
            let message = message(text);
            assert!(
                message.starts_with("p.jsonl, line 1: ") && message.contains(why),
                "{message}"
            );
        }
    }

    #[test]
    fn numbers_reach_the_largest() {
        let line = r#"{"needle": "{n.1} {n.2}", "question": "Q", "real_needle": "{n.2}"}"#;
        let draw = |from: u64| {
            let values = format!(r#"{{"from": {from}, "to": {}}}"#, u64::MAX);
            let text = format!("{{\"variables\": {{\"n\": {values}}}}}\n{line}");
            parse(&text).unwrap().draw(0, 1)
        };
        let both = format!("{} {}", u64::MAX - 1, u64::MAX);
        assert_eq!(draw(u64::MAX - 1).unwrap()[0].needle, both);
        assert!(draw(0).is_ok());
        let message = draw(u64::MAX).unwrap_err().to_string();
        assert!(message.contains("has 1 values, but 2"), "{message}");
    }

    #[test]
    fn built_in_needles_hold_their_answers() {
        for kind in [Builtin::Retrieval, Builtin::Reasoning] {
            let patterns = Patterns::builtin(kind);
            assert!(patterns.len() >= 3);
            for needle in patterns.draw(1, 60).unwrap() {
                assert!(needle.needle.contains(&needle.real_needle), "{needle:?}");
                assert!(needle.answer == needle.real_needle);
            }
        }
    }
}
