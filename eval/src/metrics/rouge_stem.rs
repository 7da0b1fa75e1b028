//! ROUGE with Porter stemming, as the needle test of the original project uses it (Lin 2004; the rouge_score package).

use super::{Overlap, porter::stem, qa_f1::common};

/// Overlap of single stemmed words.
pub fn rouge1_stem(prediction: &str, reference: &str) -> Overlap {
    let (prediction, reference) = (tokens(prediction), tokens(reference));
    Overlap::new(
        common(&prediction, &reference),
        prediction.len(),
        reference.len(),
    )
}

/// Overlap by the longest common subsequence of stemmed words.
pub fn rouge_l_stem(prediction: &str, reference: &str) -> Overlap {
    let (prediction, reference) = (tokens(prediction), tokens(reference));
    Overlap::new(
        longest_common_subsequence(&prediction, &reference),
        prediction.len(),
        reference.len(),
    )
}

/// Runs of ASCII letters and digits in lower case; those of more than three letters are stemmed.
fn tokens(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    words
        .map(|word| {
            if word.len() > 3 {
                stem(word)
            } else {
                word.to_string()
            }
        })
        .collect()
}

fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y {
                diagonal + 1
            } else {
                above.max(row[j])
            };
            diagonal = above;
        }
    }
    row[b.len()]
}
