//! The estimators: what one example says about one head.

use headkv_plugin::scores::Kind;
use std::ops::Range;

/// One head's score in one example, from what it saw as each token of `generated` was chosen.
///
/// `needle` are the positions in `prompt` that count, N of them. Retrieval adds 1/N for every step whose most
/// attended token lies in the needle and is the token generated. The others add the attention on those of the N
/// most attended tokens that lie in the needle, divided by N.
pub fn score(
    kind: Kind,
    sights: &[Sight],
    generated: &[u32],
    prompt: &[u32],
    needle: &Range<usize>,
) -> f64 {
    let copied =
        |sight: &Sight, token: u32| needle.contains(&sight.top) && prompt[sight.top] == token;
    let steps = sights.iter().zip(generated);
    let sum: f64 = match kind {
        Kind::Retrieval => steps
            .filter(|(sight, token)| copied(sight, **token))
            .count() as f64,
        Kind::Enhanced | Kind::Reasoning => added(steps.map(|(sight, _)| f64::from(sight.mass))),
    };
    sum / needle.len() as f64
}

/// Where one head looked as one token was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sight {
    /// Position of the most attended token; the first of equals.
    pub top: usize,
    /// Attention on those of the N most attended tokens that lie in the needle of N tokens, 0 to 1.
    pub mass: f32,
}

impl Sight {
    /// What matters of one row of attention logits, over all positions; `None` if they are no numbers.
    pub fn new(logits: &[f32], needle: &Range<usize>) -> Option<Self> {
        let top = logits
            .iter()
            .enumerate()
            .fold(0, |top, (at, x)| if *x > logits[top] { at } else { top });
        let most = logits[top];
        let weight = |x: f32| f64::from(x - most).exp();
        let total: f64 = logits.iter().map(|&x| weight(x)).sum();
        if !total.is_finite() {
            return None;
        }
        let mut sorted = logits.to_vec();
        let rank = needle.len().clamp(1, logits.len()) - 1;
        let (_, least, _) = sorted.select_nth_unstable_by(rank, |a, b| b.total_cmp(a));
        let seen = logits[needle.clone()].iter().filter(|x| **x >= *least);
        let mass = added(seen.map(|&x| weight(x))) / total;
        Some(Self {
            top,
            mass: mass as f32,
        })
    }
}

/// Of nothing it is 0, where `sum` gives -0, which would be written to the score file.
fn added(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn retrieval_counts_copied_tokens() {
        let prompt = [10, 11, 12, 13, 14];
        let sight = |top| Sight { top, mass: 0.0 };
        // Copied; looked at the needle but wrote something else; looked beside the needle; copied.
        let sights = [sight(1), sight(2), sight(4), sight(3)];
        let score = score(
            Kind::Retrieval,
            &sights,
            &[11, 99, 14, 13],
            &prompt,
            &(1..4),
        );
        assert_eq!(score, 2.0 / 3.0);
    }

    #[test]
    fn enhanced_adds_the_mass_of_the_top_tokens_in_the_needle() {
        let row = |attention: [f32; 5]| Sight::new(&attention.map(f32::ln), &(1..3)).unwrap();
        // The two most attended tokens are 1 and 3: only 1 lies in the needle.
        let first = row([0.05, 0.5, 0.1, 0.3, 0.05]);
        assert_eq!(first.top, 1);
        assert!((first.mass - 0.5).abs() < 1e-6);
        let second = row([0.1, 0.3, 0.4, 0.1, 0.1]);
        assert!((second.mass - 0.7).abs() < 1e-6);
        for kind in [Kind::Enhanced, Kind::Reasoning] {
            let score = score(kind, &[first, second], &[0, 0], &[0; 5], &(1..3));
            assert!((score - 1.2 / 2.0).abs() < 1e-6);
        }
    }

    #[test]
    fn nothing_seen_is_zero_and_not_minus_zero() {
        // The needle is none of the two most attended tokens.
        let unseen = Sight::new(&[3.0, 2.0, 0.0, 0.0], &(2..4)).unwrap();
        assert!(unseen.mass.is_sign_positive());
        for (kind, sights) in Kind::ALL
            .map(|kind| [(kind, vec![unseen]), (kind, vec![])])
            .concat()
        {
            let score = score(kind, &sights, &[9], &[0; 4], &(2..4));
            assert!(
                score == 0.0 && score.is_sign_positive(),
                "{kind}: {score:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn sight_equals_the_definition(
            mut logits in prop::collection::vec(-9.0f32..9.0, 2..80),
            bounds in any::<[prop::sample::Index; 2]>(),
        ) {
            logits.sort_by(f32::total_cmp);
            logits.dedup();
            let len = logits.len();
            logits.rotate_left(bounds[0].index(len));
            let (a, b) = (bounds[0].index(len), bounds[1].index(len));
            let needle = a.min(b)..a.max(b) + 1;
            let sight = Sight::new(&logits, &needle).unwrap();

            let mut order: Vec<usize> = (0..len).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
            let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            let top_n = order[..needle.len()].iter().filter(|at| needle.contains(at));
            let mass: f64 = top_n.map(|at| f64::from(logits[*at]).exp() / total).sum();
            prop_assert_eq!(sight.top, order[0]);
            prop_assert!((f64::from(sight.mass) - mass).abs() < 1e-6);
        }
    }

    #[test]
    fn what_is_no_number_is_not_seen() {
        for (at, bad) in [(0, f32::NAN), (2, f32::NAN), (1, f32::INFINITY)] {
            let mut logits = [1.0, 0.0, 2.0];
            logits[at] = bad;
            assert_eq!(Sight::new(&logits, &(1..2)), None);
        }
        // A masked position is seen by nobody.
        assert!(Sight::new(&[1.0, f32::NEG_INFINITY], &(0..1)).is_some());
    }
}
