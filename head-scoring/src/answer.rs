//! Whether an answer is right: QA-F1, the F1 of two texts' words.

use std::collections::HashMap;

/// An example counts when its answer reaches more than this.
pub const RIGHT: f64 = 0.5;

/// The F1 of the words that two texts share, 0 to 1, after lower-casing and dropping punctuation and articles (SQuAD's
/// measure, as LongBench uses it).
pub fn qa_f1(answer: &str, right: &str) -> f64 {
    let (answer, right) = (words(answer), words(right));
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for word in &right {
        *counts.entry(word).or_default() += 1;
    }
    let mut shared = 0;
    for word in &answer {
        if let Some(count) = counts.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    // 2 pr / (p + r) with p = shared / answer and r = shared / right.
    if shared == 0 {
        0.0
    } else {
        2.0 * f64::from(shared) / (answer.len() + right.len()) as f64
    }
}

fn words(text: &str) -> Vec<String> {
    let letters: String = text
        .to_lowercase()
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    letters
        .split_whitespace()
        .filter(|word| !matches!(*word, "a" | "an" | "the"))
        .map(String::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_words_count_once_each() {
        assert_eq!(qa_f1("The cat sat.", "a cat, SAT"), 1.0);
        assert_eq!(qa_f1("cat cat cat", "cat"), 0.5);
        assert_eq!(qa_f1("dog", "cat"), 0.0);
        assert_eq!(qa_f1("", "cat"), 0.0);
        assert!(
            (qa_f1("eat a sandwich on a sunny day", "eat a sandwich") - 4.0 / 7.0).abs() < 1e-12
        );
    }
}
