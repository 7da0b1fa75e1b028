//! Needles: a fact to hide, the question that asks for it, and the answer.

use crate::Error;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::Path;

/// A needle, with the field names of the original's `needles.jsonl`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(from = "Line")]
pub struct Needle {
    /// The text that is put into the haystack; one sentence or several.
    pub needle: String,
    /// The question asked after the context.
    pub question: String,
    /// The part of the needle that the answer is read from; head detection looks for its tokens in the prompt.
    pub real_needle: String,
    /// The right answer; where a file gives none, `real_needle` is it.
    pub answer: String,
}

/// A needle as it stands in a file.
#[derive(Deserialize)]
struct Line {
    needle: String,
    question: String,
    real_needle: String,
    answer: Option<String>,
}

impl From<Line> for Needle {
    fn from(line: Line) -> Self {
        Self {
            answer: line.answer.unwrap_or_else(|| line.real_needle.clone()),
            needle: line.needle.trim().into(),
            question: line.question,
            real_needle: line.real_needle,
        }
    }
}

/// Reads a file with one needle per line, as JSON; empty lines are skipped.
///
/// # Errors
/// [`Error::Files`], [`Error::Line`] for a line that is no needle, [`Error::NoNeedles`] for an empty file.
pub fn read(path: &Path) -> Result<Vec<Needle>, Error> {
    let needles = lines(path)?;
    if needles.is_empty() {
        return Err(Error::NoNeedles(path.into()));
    }
    Ok(needles)
}

/// Reads JSON Lines.
pub(crate) fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    parse_lines(path, &headkv_files::read::text(path)?)
}

pub(crate) fn parse_lines<T: DeserializeOwned>(path: &Path, text: &str) -> Result<Vec<T>, Error> {
    let filled = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let parse = |(at, line)| {
        serde_json::from_str(line).map_err(|e| Error::Line {
            path: path.into(),
            line: at + 1,
            why: e.to_string(),
        })
    };
    filled.map(parse).collect()
}

/// The needle of the usual test: what to do in San Francisco.
pub fn san_francisco() -> Needle {
    let real_needle = "eat a sandwich and sit in Dolores Park on a sunny day.";
    Needle {
        needle: format!("The best thing to do in San Francisco is {real_needle}"),
        question: "The best thing to do in San Francisco is: ".into(),
        real_needle: real_needle.into(),
        answer: real_needle.into(),
    }
}

/// A needle in two hops: a friend's name has to be found before the city where that friend lives.
pub fn two_hops() -> Needle {
    let real_needle = "Oscar lives in Havana.";
    Needle {
        needle: format!(
            "Grace's best friend is Henry. Henry lives in Vienna. Clara's best friend is Oscar. {real_needle}"
        ),
        question: "Where does the best friend of Clara live?".into(),
        real_needle: real_needle.into(),
        answer: real_needle.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Needle>, Error> {
        parse_lines(Path::new("needles.jsonl"), text)
    }

    #[test]
    fn the_real_needle_stands_in_for_an_answer() {
        let text = concat!(
            r#"{"question": "Q?", "needle": " A is b. ", "real_needle": "b."}"#,
            "\n\n",
            r#"{"answer": "C", "needle": "A is c.", "real_needle": "c.", "question": "Q?", "more": 1}"#,
        );
        let needles = parse(text).unwrap();
        assert_eq!(
            (needles[0].needle.as_str(), needles[0].answer.as_str()),
            ("A is b.", "b.")
        );
        assert_eq!(needles[1].answer, "C");
    }

    #[test]
    fn a_bad_line_is_named() {
        let message = parse("\n{\"needle\": \"x\"}\n").unwrap_err().to_string();
        assert!(
            message.starts_with("needles.jsonl, line 2: missing field `question`"),
            "{message}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(
            read(file.path())
                .unwrap_err()
                .to_string()
                .contains("holds no needles")
        );
    }
}
