//! The share of the numbers in an answer that are the right one.

use regex::Regex;
use std::sync::LazyLock;

static NUMBER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\d+").expect("the pattern is valid"));

/// For references such as `Paragraph 7`.
pub fn retrieval(prediction: &str, reference: &str) -> f64 {
    behind("Paragraph ", reference).map_or(0.0, |number| count(prediction, number))
}

/// For references such as `段落7`.
pub fn retrieval_zh(prediction: &str, reference: &str) -> f64 {
    behind("段落", reference).map_or(0.0, |number| count(prediction, number))
}

/// For references that are a number.
pub fn count(prediction: &str, reference: &str) -> f64 {
    let numbers: Vec<_> = NUMBER
        .find_iter(prediction)
        .map(|found| found.as_str())
        .collect();
    let right = numbers
        .iter()
        .filter(|number| **number == reference)
        .count();
    if numbers.is_empty() {
        0.0
    } else {
        right as f64 / numbers.len() as f64
    }
}

/// The number right behind the first `word` that has one.
fn behind<'a>(word: &str, text: &'a str) -> Option<&'a str> {
    text.match_indices(word).find_map(|(at, _)| {
        let found = NUMBER.find(&text[at + word.len()..])?;
        (found.start() == 0).then_some(found.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_numbers_dilute_the_score() {
        assert_eq!(retrieval("Paragraph 7 or 8", "Paragraph 7"), 0.5);
        assert_eq!(retrieval_zh("段落17", "段落7"), 0.0);
        assert_eq!(count("between 3 and 5, so 3", "3"), 2.0 / 3.0);
        assert_eq!(count("none", "3"), 0.0);
        assert_eq!(retrieval("7", "paragraph 7"), 0.0);
    }
}
