//! Finds a needle's tokens inside a prompt's.

use std::{collections::HashSet, ops::Range};

/// The positions of a needle.
pub type Span = Range<usize>;

/// The stretch of `tokens`, as long as the needle, whose set of tokens overlaps most with the needle's.
///
/// As in the original's head detection: tokens at the needle's edges may differ inside the text, so an exact search
/// would miss it. The first stretch with more than 90 % overlap is taken, else the best one; `None` if nothing overlaps
/// or the needle is longer than the prompt.
pub fn locate(tokens: &[u32], needle: &[u32]) -> Option<Span> {
    if needle.is_empty() || needle.len() > tokens.len() {
        return None;
    }
    let wanted: HashSet<u32> = needle.iter().copied().collect();
    let mut best = (0, 0..0);
    for (start, window) in tokens.windows(needle.len()).enumerate() {
        let found = window.iter().copied().collect::<HashSet<u32>>().intersection(&wanted).count();
        if found > best.0 {
            best = (found, start..start + needle.len());
            if found * 10 > wanted.len() * 9 {
                break;
            }
        }
    }
    (best.0 > 0).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_best_overlap() {
        let tokens: Vec<u32> = (100..200).chain([1, 2, 9, 4, 5, 6]).chain(200..300).collect();
        assert_eq!(locate(&tokens, &[1, 2, 3, 4, 5, 6]), Some(100..106));
        assert_eq!(locate(&tokens, &[150, 151, 152]), Some(50..53));
        assert_eq!(locate(&tokens, &[7, 8]), None);
        assert_eq!(locate(&[1], &[1, 2]), None);
    }
}
