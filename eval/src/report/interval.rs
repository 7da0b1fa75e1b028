//! Bootstrap intervals: how much a mean would change with other prompts of the same kind.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Means that are drawn; every seed is the same, so that equal rows give equal intervals.
const DRAWS: usize = 1000;
/// Of fewer values a bootstrap says nothing.
const FEWEST: usize = 5;

/// A mean with the bounds between which 95 % of the drawn means lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The mean of the columns' means.
    pub mean: f64,
    /// The lower bound; none of fewer than five values.
    pub low: Option<f64>,
    /// The upper bound.
    pub high: Option<f64>,
}

impl Interval {
    /// Whether all of it lies above 0.
    pub fn above_zero(&self) -> bool {
        self.low.is_some_and(|low| low > 0.0)
    }

    /// Whether all of it lies below 0.
    pub fn below_zero(&self) -> bool {
        self.high.is_some_and(|high| high < 0.0)
    }
}

/// The mean over columns of each column's mean; values are drawn again within their column. Of differences by prompt it
/// is a paired bootstrap. None without values.
pub fn interval(columns: &[Vec<f64>]) -> Option<Interval> {
    let filled: Vec<&[f64]> = columns
        .iter()
        .map(Vec::as_slice)
        .filter(|values| !values.is_empty())
        .collect();
    if filled.is_empty() {
        return None;
    }
    let mean = |of: &mut dyn FnMut(&[f64]) -> f64| {
        filled.iter().map(|values| of(values)).sum::<f64>() / filled.len() as f64
    };
    let found = mean(&mut |values| values.iter().sum::<f64>() / values.len() as f64);
    let mut bounds = (None, None);
    if filled.iter().map(|values| values.len()).sum::<usize>() >= FEWEST {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut means: Vec<f64> = (0..DRAWS)
            .map(|_| {
                mean(&mut |values| {
                    let drawn =
                        (0..values.len()).map(|_| values[rng.random_range(0..values.len())]);
                    drawn.sum::<f64>() / values.len() as f64
                })
            })
            .collect();
        means.sort_by(f64::total_cmp);
        let cut = DRAWS / 40;
        bounds = (Some(means[cut]), Some(means[DRAWS - 1 - cut]));
    }
    Some(Interval {
        mean: found,
        low: bounds.0,
        high: bounds.1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(columns: &[Vec<f64>]) -> (f64, f64) {
        let found = interval(columns).unwrap();
        (found.low.unwrap(), found.high.unwrap())
    }

    /// Of n values that are 0 or 1 with a mean of p, the drawn means spread by sqrt(p (1 - p) / n).
    #[test]
    fn a_known_case() {
        let values: Vec<f64> = (0..400).map(|at| f64::from(at % 2)).collect();
        let (low, high) = bounds(std::slice::from_ref(&values));
        let (expected, error) = (1.96 * (0.25f64 / 400.0).sqrt(), 0.006);
        assert!((0.5 - low - expected).abs() < error, "{low}");
        assert!((high - 0.5 - expected).abs() < error, "{high}");
        // Two independent columns of that kind: their mean spreads less by a factor of sqrt(2).
        let (low, high) = bounds(&[values.clone(), values.clone()]);
        assert!((high - low - 2.0 * expected / 2f64.sqrt()).abs() < 2.0 * error);
        let same = std::slice::from_ref(&values);
        assert_eq!(interval(same), interval(same));
    }

    /// Methods that differ by as much on every prompt differ surely, however much prompts differ from each other.
    #[test]
    fn pairs_leave_out_what_prompts_have_in_common() {
        let prompts: Vec<f64> = (0..20).map(|at| f64::from(at * 5)).collect();
        let better: Vec<f64> = prompts.iter().map(|score| score + 2.0).collect();
        let (_, high) = bounds(std::slice::from_ref(&prompts));
        let (low, _) = bounds(std::slice::from_ref(&better));
        assert!(low < high, "alone they cannot be told apart");
        let differences = better.iter().zip(&prompts).map(|(a, b)| a - b).collect();
        let paired = interval(&[differences]).unwrap();
        assert!(paired.above_zero() && (paired.low, paired.high) == (Some(2.0), Some(2.0)));
    }

    #[test]
    fn few_values_have_no_bounds() {
        assert_eq!(interval(&[vec![], vec![]]), None);
        let few = interval(&[vec![1.0, 0.0], vec![], vec![1.0, 1.0]]).unwrap();
        assert_eq!((few.mean, few.low, few.high), (0.75, None, None));
        assert!(!few.above_zero() && !few.below_zero());
    }
}
