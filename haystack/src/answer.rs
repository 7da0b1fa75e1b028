//! What an answer is worth: QA-F1, the F1 of the words that two texts share.

use std::{collections::HashMap, hash::Hash};

/// F1 over words, 0 to 1: lower case, no ASCII punctuation, no articles (SQuAD's normalization, Rajpurkar et al. 2016, as
/// LongBench uses it).
pub fn qa_f1(prediction: &str, reference: &str) -> f64 {
    f1(&words(prediction), &words(reference))
}

/// F1 over two texts that are cut into words already, 0 to 1.
pub fn f1<T: Hash + Eq>(prediction: &[T], reference: &[T]) -> f64 {
    let same = overlap(prediction, reference) as f64;
    if same == 0.0 {
        return 0.0;
    }
    f_measure(
        same / prediction.len() as f64,
        same / reference.len() as f64,
    )
}

/// The harmonic mean of precision and recall; 0 if both are.
pub fn f_measure(precision: f64, recall: f64) -> f64 {
    if precision + recall > 0.0 {
        2.0 * precision * recall / (precision + recall)
    } else {
        0.0
    }
}

/// How many items two lists share, each as often as it occurs in both.
pub fn overlap<T: Hash + Eq>(a: &[T], b: &[T]) -> usize {
    let mut left = HashMap::new();
    for item in a {
        *left.entry(item).or_insert(0usize) += 1;
    }
    let take = |item: &&T| {
        left.get_mut(*item)
            .filter(|n| **n > 0)
            .map(|n| *n -= 1)
            .is_some()
    };
    b.iter().filter(take).count()
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let plain: String = lower
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    without_articles(&plain)
        .split_whitespace()
        .map(String::from)
        .collect()
}

/// Replaces `a`, `an` and `the` by a space wherever they are a whole word; a word is letters and digits in a row, so
/// that the `a` in `a–b` is one too.
fn without_articles(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let inside = |c: char| c.is_alphanumeric();
        let word = rest.find(|c| !inside(c)).unwrap_or(rest.len());
        out.push_str(if matches!(&rest[..word], "a" | "an" | "the") {
            " "
        } else {
            &rest[..word]
        });
        let next = rest[word..].find(inside).map_or(rest.len(), |at| word + at);
        out.push_str(&rest[word..next]);
        rest = &rest[next..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_punctuation_and_articles_do_not_count() {
        assert_eq!(qa_f1("The cat, a DOG!", "cat dog"), 1.0);
        assert_eq!(words("a–b of the_thing"), ["–b", "of", "thething"]);
        assert_eq!(qa_f1("", "the"), 0.0);
    }

    #[test]
    fn repeated_words_count_as_often_as_in_both() {
        let (p, r) = (2.0 / 3.0, 2.0 / 2.0);
        assert_eq!(qa_f1("red red red", "red red"), 2.0 * p * r / (p + r));
        assert_eq!(qa_f1("cat cat cat", "cat"), 0.5);
    }
}
