//! ROUGE-1 and ROUGE-L over stemmed words, as in the package `rouge_score` that the needle test uses.

use super::{lcs, porter::stem};
use headkv_haystack::answer::{f_measure, overlap};

/// Precision, recall and their harmonic mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rouge {
    /// Shared words over predicted words.
    pub precision: f64,
    /// Shared words over expected words.
    pub recall: f64,
    /// The harmonic mean.
    pub f: f64,
}

impl Rouge {
    fn new(shared: usize, predicted: usize, expected: usize) -> Self {
        let precision = shared as f64 / predicted.max(1) as f64;
        let recall = shared as f64 / expected.max(1) as f64;
        Self {
            precision,
            recall,
            f: f_measure(precision, recall),
        }
    }
}

/// Words in common (Lin 2004, ROUGE-N with n = 1).
pub fn rouge1(prediction: &str, reference: &str) -> Rouge {
    let (predicted, expected) = (words(prediction), words(reference));
    Rouge::new(
        overlap(&predicted, &expected),
        predicted.len(),
        expected.len(),
    )
}

/// The longest common subsequence of words (Lin 2004, ROUGE-L of one sentence).
pub fn rouge_l(prediction: &str, reference: &str) -> Rouge {
    let (predicted, expected) = (words(prediction), words(reference));
    Rouge::new(
        lcs::length(&expected, &predicted),
        predicted.len(),
        expected.len(),
    )
}

/// Runs of ASCII letters and digits in lower case; those of more than three are stemmed.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let runs = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|run| !run.is_empty());
    runs.map(|run| {
        if run.len() > 3 {
            stem(run)
        } else {
            run.to_string()
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_matters_to_rouge_l_only() {
        let (prediction, reference) = ("sunny days, eating", "eats on sunny day");
        // "day" has three letters and is not stemmed; "days" is, to the same.
        assert_eq!(rouge1(prediction, reference), Rouge::new(3, 3, 4));
        assert_eq!(rouge_l(prediction, reference), Rouge::new(2, 3, 4));
        assert_eq!(rouge1("", "word").f, 0.0);
    }
}
