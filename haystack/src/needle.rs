//! Facts to hide, and the questions that ask for them.

use crate::Error;
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};

/// A fact, the question about it and its answer.
///
/// The fields are those of the original project's `needles.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needle {
    /// The text that is put into the haystack.
    pub needle: String,
    /// The question.
    pub question: String,
    /// The part of the needle that is looked for.
    pub real_needle: String,
    /// The right answer; `real_needle` where a file has none.
    #[serde(default)]
    pub answer: String,
}

/// Needles that this crate brings: facts that one sentence states.
pub fn retrieval_needles() -> Vec<Needle> {
    let things = [
        ("Lisbon", "ride the yellow tram and watch the boats from the castle hill at sunset"),
        ("Toronto", "row a small boat to the island and read a novel under the maple trees"),
        ("Cairo", "drink a cup of tea in the old market and listen to the street musicians"),
        ("Helsinki", "swim in the cold water and warm up in a wooden sauna before breakfast"),
        ("Denver", "bake an apple pie with friends and count the stars from the roof at midnight"),
        ("Naples", "buy fresh bread in the harbor and feed the birds on a rainy morning"),
    ];
    let needle = |(city, thing): (&str, &str)| Needle {
        needle: format!("The best thing to do in {city} is {thing}."),
        question: format!("The best thing to do in {city} is: "),
        real_needle: format!("{thing}."),
        answer: format!("{thing}."),
    };
    things.into_iter().map(needle).collect()
}

/// Reads needles, one JSON object a line.
///
/// # Errors
/// [`Error::Read`] if there is no such file, [`Error::Format`] with the line if one is not a needle.
pub fn read_needles(path: &Path) -> Result<Vec<Needle>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let fail = |why: String| Error::Format { path: path.into(), why };
    let mut needles = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut needle: Needle = serde_json::from_str(line)
            .map_err(|e| fail(format!("line {}: {e}; expected needle, question, real_needle, answer", number + 1)))?;
        if needle.answer.is_empty() {
            needle.answer = needle.real_needle.clone();
        }
        if needle.needle.trim().is_empty() || needle.answer.trim().is_empty() {
            return Err(fail(format!("line {}: needle or answer is empty", number + 1)));
        }
        needles.push(needle);
    }
    if needles.is_empty() {
        return Err(fail("holds no needles; write one JSON object a line".into()));
    }
    Ok(needles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_answer_is_the_real_needle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.jsonl");
        fs::write(&path, "{\"needle\": \"A b.\", \"question\": \"A?\", \"real_needle\": \"b\"}\n\n").unwrap();
        assert_eq!(read_needles(&path).unwrap()[0].answer, "b");
        fs::write(&path, "{\"needle\": \"A b.\", \"question\": \"A?\"}\n").unwrap();
        let message = read_needles(&path).unwrap_err().to_string();
        assert!(message.contains("line 1") && message.contains("real_needle"), "{message}");
        fs::write(&path, "\n").unwrap();
        assert!(read_needles(&path).is_err());
    }
}
