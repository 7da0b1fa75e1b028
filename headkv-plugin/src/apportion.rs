//! Shares out a number of tokens in proportion to weights, none lost and none above a head's room.

use std::{cmp::Ordering, collections::BinaryHeap};

/// Splits `total` tokens over heads in proportion to `weights`, at most `room` to each.
///
/// This is Webster's divisor method: the next token goes to the head with the largest `weight / (2 tokens + 1)`. It
/// rounds as the original does where the sums allow it, spends `total` exactly (or all rooms, if they are less), and
/// never takes a token away when `total` or a weight grows. Heads of weight 0 get tokens only when all others are full.
pub fn apportion(weights: &[f64], total: usize, room: usize) -> Vec<usize> {
    let total = total.min(room.saturating_mul(weights.len()));
    let heaviest = weights.iter().copied().fold(0.0, f64::max);
    let rounded = |weight: f64, divisor: f64| ((weight / divisor).round() as usize).min(room);
    let spent = |divisor: f64| {
        weights
            .iter()
            .map(|&w| rounded(w, divisor))
            .fold(0, usize::saturating_add)
    };

    // Bisect for the smallest divisor that does not overspend: what it gives, the method gives.
    let (mut low, mut high) = (0.0, 4.0 * heaviest);
    for _ in 0..f64::MANTISSA_DIGITS {
        let middle = (low + high) / 2.0;
        if spent(middle) <= total {
            high = middle
        } else {
            low = middle
        }
    }
    // A little more, so that claims which tie are all left to the order below, and none is won by a quotient's rounding.
    let divisor = high * (1.0 + 1e-12);
    let mut tokens: Vec<usize> = weights.iter().map(|&w| rounded(w, divisor)).collect();
    let mut left = total - tokens.iter().sum::<usize>();

    // The few tokens that ties and the bisection's end leave go one by one.
    let mut claims: BinaryHeap<Claim> = (0..weights.len())
        .filter(|&h| weights[h] > 0.0)
        .map(|h| Claim::new(weights[h], tokens[h], h))
        .collect();
    while left > 0
        && let Some(Claim { head, .. }) = claims.pop()
    {
        if tokens[head] < room {
            tokens[head] += 1;
            left -= 1;
            claims.push(Claim::new(weights[head], tokens[head], head));
        }
    }
    // Only heads of weight 0 have room now: they share evenly.
    let open: Vec<usize> = (0..weights.len()).filter(|&h| weights[h] <= 0.0).collect();
    for (rank, &head) in open.iter().enumerate() {
        tokens[head] = left / open.len() + usize::from(rank < left % open.len());
    }
    tokens
}

/// A head's claim to the next token; the larger weight wins ties, then the lower index.
struct Claim {
    quotient: f64,
    weight: f64,
    head: usize,
}

impl Claim {
    fn new(weight: f64, tokens: usize, head: usize) -> Self {
        Self {
            quotient: weight / (2.0 * tokens as f64 + 1.0),
            weight,
            head,
        }
    }
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_quotient = self.quotient.total_cmp(&other.quotient);
        by_quotient
            .then(self.weight.total_cmp(&other.weight))
            .then(other.head.cmp(&self.head))
    }
}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Claim {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: one token at a time.
    fn one_by_one(weights: &[f64], total: usize, room: usize) -> Vec<usize> {
        let mut tokens = vec![0; weights.len()];
        for _ in 0..total {
            let open = (0..weights.len()).filter(|&h| tokens[h] < room && weights[h] > 0.0);
            let Some(best) = open.map(|h| Claim::new(weights[h], tokens[h], h)).max() else {
                break;
            };
            tokens[best.head] += 1;
        }
        tokens
    }

    #[test]
    fn many_small_claims_do_not_cost_a_large_one_its_order() {
        // Each small quota is 0.6 and rounds up, so the large head gets far less than its own quota.
        let mut weights = vec![0.6; 1000];
        weights.push(2000.0);
        let tokens = apportion(&weights, 2600, usize::MAX);
        assert_eq!(tokens.iter().sum::<usize>(), 2600);
        assert_eq!(tokens, one_by_one(&weights, 2600, usize::MAX));
    }

    proptest! {
        #[test]
        fn is_the_divisor_method(
            // Whole numbers among them: their claims tie.
            weights in prop::collection::vec(
                prop_oneof![Just(0.0), 0.01..9.0, (1..60u8).prop_map(f64::from)], 1..20,
            ),
            total in 0..400usize,
            room in 1..60usize,
        ) {
            let tokens = apportion(&weights, total, room);
            prop_assert_eq!(tokens.iter().sum::<usize>(), total.min(room * weights.len()));
            prop_assert!(tokens.iter().all(|&t| t <= room));
            let slow = one_by_one(&weights, total, room);
            for h in (0..weights.len()).filter(|&h| weights[h] > 0.0) {
                prop_assert_eq!(tokens[h], slow[h]);
            }
        }

        #[test]
        fn more_to_share_takes_from_nobody(
            weights in prop::collection::vec(0.0..9.0f64, 1..20), total in 0..200usize, room in 1..60usize,
        ) {
            let (less, more) = (apportion(&weights, total, room), apportion(&weights, total + 1, room));
            prop_assert!(less.iter().zip(&more).all(|(l, m)| l <= m));
        }
    }
}
