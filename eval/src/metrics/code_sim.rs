//! Similarity of a completed line of code.

use rapidfuzz::fuzz;

/// The fuzzy ratio (shared letters in order, over all letters) of the reference and the first line that is neither
/// markdown nor a comment, in whole percent as the Python package `fuzzywuzzy` gives it.
pub fn code_sim(prediction: &str, reference: &str) -> f64 {
    let code = |line: &&str| !line.contains(['`', '#']) && !line.contains("//");
    let line = prediction
        .trim_start_matches('\n')
        .split('\n')
        .find(code)
        .unwrap_or("");
    if line.is_empty() && reference.is_empty() {
        return 1.0;
    }
    (100.0 * fuzz::ratio(line.chars(), reference.chars())).round_ties_even() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_code_counts_in_whole_percent() {
        assert_eq!(
            code_sim("\n```rust\n// add\nlet c = a + b;\nnext", "let c = a + b;"),
            1.0
        );
        // 8 of 12 letters are shared: two thirds.
        assert_eq!(code_sim("abcdXX", "abcdYY"), 0.67);
        assert_eq!(code_sim("# only a comment", "x"), 0.0);
    }
}
