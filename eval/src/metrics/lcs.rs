//! Longest common subsequences.

use rapidfuzz::distance::lcs_seq;
use std::collections::HashMap;

/// How many words a longest common subsequence has.
pub fn length(a: &[String], b: &[String]) -> usize {
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    let mut number = |word| {
        let next = numbers.len() as u64;
        *numbers.entry(word).or_insert(next)
    };
    let a: Vec<u64> = a.iter().map(|word| number(word)).collect();
    let b: Vec<u64> = b.iter().map(|word| number(word)).collect();
    lcs_seq::similarity(a, b)
}

/// A longest common subsequence of `a` and `b`: the items, taken from `a`, which no library tells.
///
/// Of several, the one that the reference implementations of ROUGE find: walking back from the ends, a tie drops an
/// item of `b` first.
pub fn lcs<'a, T: PartialEq>(a: &'a [T], b: &[T]) -> Vec<&'a T> {
    let width = b.len() + 1;
    let mut table = vec![0u32; (a.len() + 1) * width];
    for (i, x) in a.iter().enumerate() {
        for (j, y) in b.iter().enumerate() {
            table[(i + 1) * width + j + 1] = if x == y {
                table[i * width + j] + 1
            } else {
                table[i * width + j + 1].max(table[(i + 1) * width + j])
            };
        }
    }
    let (mut i, mut j) = (a.len(), b.len());
    let mut found = Vec::new();
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            found.push(&a[i - 1]);
            (i, j) = (i - 1, j - 1);
        } else if table[(i - 1) * width + j] > table[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_cases() {
        assert_eq!(lcs(&[1, 2, 3, 4], &[2, 9, 4]), [&2, &4]);
        assert!(lcs(&[1], &[] as &[i32]).is_empty());
        // Both [1] and [2] are longest: the walk drops from the right list first.
        assert_eq!(lcs(&[1, 2], &[2, 1]), [&2]);
    }

    proptest! {
        #[test]
        fn it_is_a_subsequence_of_both(a in prop::collection::vec(0u8..4, 0..12), b in prop::collection::vec(0u8..4, 0..12)) {
            let found: Vec<u8> = lcs(&a, &b).into_iter().copied().collect();
            for list in [&a, &b] {
                let mut rest = list.iter();
                prop_assert!(found.iter().all(|x| rest.any(|y| x == y)));
            }
            prop_assert_eq!(found.len(), lcs(&b, &a).len());
            let words = |list: &[u8]| list.iter().map(u8::to_string).collect::<Vec<_>>();
            prop_assert_eq!(found.len(), length(&words(&a), &words(&b)));
        }
    }
}
