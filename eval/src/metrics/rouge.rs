//! ROUGE-L between lists of sentences, as the Python package `rouge` 1.0 computes it for LongBench.
//!
//! It is not Lin's (2004) formula: sentences end at every period, and words are counted as a set. What a longest common
//! subsequence of any pair of sentences contains is united over all pairs; precision and recall divide the union's size
//! by the number of distinct words.

use super::{lcs::lcs, qa_f1::JIEBA};
use std::collections::HashSet;

/// What the package adds to the denominator of F.
const EPSILON: f64 = 1e-8;

/// ROUGE-L F over words between single spaces; 0 if either side is nothing but periods.
pub fn rouge(prediction: &str, reference: &str) -> f64 {
    let (predicted, expected) = (sentences(prediction), sentences(reference));
    if predicted.is_empty() || expected.is_empty() {
        return 0.0;
    }
    let mut union = HashSet::new();
    for expected in &expected {
        for predicted in &predicted {
            union.extend(lcs(expected, predicted).into_iter().copied());
        }
    }
    let distinct =
        |sentences: &[Vec<&str>]| sentences.iter().flatten().collect::<HashSet<_>>().len() as f64;
    let precision = union.len() as f64 / distinct(&predicted);
    let recall = union.len() as f64 / distinct(&expected);
    2.0 * precision * recall / (precision + recall + EPSILON)
}

/// ROUGE-L F over the words that jieba finds.
pub fn rouge_zh(prediction: &str, reference: &str) -> f64 {
    let spaced = |text| JIEBA.cut(text, true).join(" ");
    rouge(&spaced(prediction), &spaced(reference))
}

/// Sentences as lists of words. Between two periods that enclose white space there is one empty word.
fn sentences(text: &str) -> Vec<Vec<&str>> {
    let filled = text.split('.').filter(|sentence| !sentence.is_empty());
    let words = filled.map(|sentence| sentence.split_whitespace().collect::<Vec<_>>());
    words
        .map(|words| if words.is_empty() { vec![""] } else { words })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_count_once_and_sentences_are_united() {
        // Union {a, b, c, d}; 5 distinct words predicted, 4 expected.
        let score = rouge("a b. c d x", "a b c d a");
        let (p, r) = (4.0 / 5.0, 1.0);
        assert!((score - 2.0 * p * r / (p + r)).abs() < 1e-8, "{score}");
    }

    #[test]
    fn nothing_scores_nothing() {
        assert_eq!(rouge("", "a"), 0.0);
        assert_eq!(rouge("..", "a"), 0.0);
        assert_eq!(rouge("a", "b"), 0.0);
        assert_eq!(sentences("a. .b"), [vec!["a"], vec![""], vec!["b"]]);
    }
}
