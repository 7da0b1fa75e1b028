//! QA-F1: the overlap of normalized words (SQuAD, Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1).

use super::Overlap;
use std::collections::HashMap;

/// F1 of the words of a prediction and a reference, without case, punctuation and articles.
pub fn qa_f1(prediction: &str, reference: &str) -> f64 {
    let (prediction, reference) = (normalize(prediction), normalize(reference));
    Overlap::new(
        common(&prediction, &reference),
        prediction.len(),
        reference.len(),
    )
    .f
}

/// Words in lower case, without ASCII punctuation and without a, an, the.
fn normalize(text: &str) -> Vec<String> {
    let plain: String = text
        .to_lowercase()
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    plain
        .split_whitespace()
        .filter(|word| !matches!(*word, "a" | "an" | "the"))
        .map(str::to_string)
        .collect()
}

/// How many words both lists have, counted as often as in the list that has them less often.
pub(super) fn common(a: &[String], b: &[String]) -> usize {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in a {
        *left.entry(word).or_default() += 1;
    }
    let mut take = |word: &str| {
        left.get_mut(word)
            .filter(|n| **n > 0)
            .map(|n| *n -= 1)
            .is_some()
    };
    b.iter().filter(|word| take(word)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_case_punctuation_and_articles() {
        assert_eq!(qa_f1("The Dolores-Park!", "a dolorespark"), 1.0);
        assert_eq!(qa_f1("no", "yes"), 0.0);
        assert_eq!(qa_f1("", "yes"), 0.0);
        // 2 of 3 and 2 of 4 words.
        assert!((qa_f1("x y z", "x y u w") - 4.0 / 7.0).abs() < 1e-12);
        assert!((qa_f1("x x", "x y") - 0.5).abs() < 1e-12);
    }
}
