//! Bootstrap intervals: how much a mean would change with other prompts of the same kind.
//!
//! What is drawn again are clusters: all answers about one needle (or riddle, or document), at whatever length and depth,
//! because they fail and succeed together. Drawing them one by one would promise more than they know.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::BTreeMap;

/// Means that are drawn; every seed is the same, so that equal rows give equal intervals.
const DRAWS: usize = 1000;
/// Of fewer clusters a bootstrap says nothing.
const FEWEST: usize = 5;

/// A mean with the bounds between which 95 % of the drawn means lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The mean of the columns' means.
    pub mean: f64,
    /// The lower bound; none of fewer than five clusters.
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

/// What a value is about: values of one cluster are drawn together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cluster {
    /// The data set: clusters are drawn again from those of the same one.
    pub dataset: String,
    /// The needle, riddle or document inside it.
    pub item: String,
}

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The value.
    pub score: f64,
    /// What it is about.
    pub cluster: Cluster,
}

/// The columns that a cluster has values in, with their sums and counts: of thousands of columns it is few.
type Sums = Vec<(usize, f64, f64)>;

/// Clusters that are drawn again among themselves.
struct Stratum {
    clusters: Vec<Sums>,
    /// Their columns, and whether several clusters share it.
    columns: Vec<(usize, bool)>,
}

impl Stratum {
    fn new(clusters: Vec<Sums>) -> Self {
        let mut owners: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, ..) in clusters.iter().flatten() {
            *owners.entry(*at).or_default() += 1;
        }
        let columns = owners.into_iter().map(|(at, owners)| (at, owners > 1));
        Self {
            columns: columns.collect(),
            clusters,
        }
    }
}

/// The mean over columns of each column's mean; clusters are drawn again among those of their data set, and data sets of
/// one cluster each among themselves. Of differences by prompt it is a paired bootstrap. None without values.
pub fn interval(columns: &[Vec<Value>]) -> Option<Interval> {
    let filled: Vec<&Vec<Value>> = columns.iter().filter(|column| !column.is_empty()).collect();
    if filled.is_empty() {
        return None;
    }
    let mut clusters: BTreeMap<&Cluster, Sums> = BTreeMap::new();
    for (at, column) in filled.iter().enumerate() {
        for Value { score, cluster } in *column {
            let sums = clusters.entry(cluster).or_default();
            match sums.last_mut() {
                Some((last, sum, count)) if *last == at => {
                    *sum += score;
                    *count += 1.0;
                }
                _ => sums.push((at, *score, 1.0)),
            }
        }
    }
    let count = clusters.len();
    let mut by_dataset: BTreeMap<&str, Vec<Sums>> = BTreeMap::new();
    for (cluster, sums) in clusters {
        by_dataset.entry(&cluster.dataset).or_default().push(sums);
    }
    let (single, mut strata): (Vec<_>, Vec<_>) = by_dataset
        .into_values()
        .partition(|clusters| clusters.len() == 1);
    // Each is a column, or several, of its own: how often it is drawn is its columns' weight.
    let single: Vec<Sums> = single.into_iter().flatten().collect();
    if !single.is_empty() {
        strata.push(single);
    }
    let all = strata.iter().flatten();
    let mean = mean_of(all, &vec![1.0; filled.len()])?;
    let mut bounds = (None, None);
    if count >= FEWEST {
        let strata: Vec<Stratum> = strata.into_iter().map(Stratum::new).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut means: Vec<f64> = (0..DRAWS)
            .filter_map(|_| draw(&strata, filled.len(), &mut rng))
            .collect();
        means.sort_by(f64::total_cmp);
        let cut = means.len() / 40;
        bounds = (
            means.get(cut).copied(),
            means.get(means.len().saturating_sub(1 + cut)).copied(),
        );
    }
    Some(Interval {
        mean,
        low: bounds.0,
        high: bounds.1,
    })
}

/// A mean of clusters drawn again.
fn draw(strata: &[Stratum], columns: usize, rng: &mut ChaCha8Rng) -> Option<f64> {
    let mut drawn = Vec::new();
    let mut weights = vec![0.0; columns];
    let mut times = vec![0.0f64; columns];
    for Stratum { clusters, columns } in strata {
        for _ in 0..clusters.len() {
            let sums = &clusters[rng.random_range(0..clusters.len())];
            for (at, ..) in sums {
                times[*at] += 1.0;
            }
            drawn.push(sums);
        }
        // A column that many clusters share counts once, one that a single cluster has as often as that was drawn.
        for &(at, shared) in columns {
            let times = std::mem::take(&mut times[at]);
            weights[at] += if shared { times.min(1.0) } else { times };
        }
    }
    mean_of(drawn.into_iter(), &weights)
}

/// The weighted mean over columns of each column's mean; none if all are empty.
fn mean_of<'a>(clusters: impl Iterator<Item = &'a Sums>, weights: &[f64]) -> Option<f64> {
    let mut sums = vec![(0.0, 0.0); weights.len()];
    for (at, sum, count) in clusters.flatten() {
        sums[*at].0 += sum;
        sums[*at].1 += count;
    }
    let (mut total, mut weight) = (0.0, 0.0);
    for ((sum, count), of) in sums.into_iter().zip(weights) {
        if count > 0.0 {
            total += of * sum / count;
            weight += of;
        }
    }
    (weight > 0.0).then(|| total / weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of clusters of their own, in one data set.
    fn column(values: impl IntoIterator<Item = f64>) -> Vec<Value> {
        named("d", values)
    }

    fn named(dataset: &str, values: impl IntoIterator<Item = f64>) -> Vec<Value> {
        let value = |(at, score): (usize, f64)| Value {
            score,
            cluster: Cluster {
                dataset: dataset.into(),
                item: at.to_string(),
            },
        };
        values.into_iter().enumerate().map(value).collect()
    }

    fn bounds(columns: &[Vec<Value>]) -> (f64, f64) {
        let found = interval(columns).unwrap();
        (found.low.unwrap(), found.high.unwrap())
    }

    fn coins(count: usize) -> impl Iterator<Item = f64> {
        (0..count).map(|at| f64::from(at as u32 % 2))
    }

    /// Of n values that are 0 or 1 with a mean of p, the drawn means spread by sqrt(p (1 - p) / n).
    #[test]
    fn a_known_case() {
        let values = column(coins(400));
        let (low, high) = bounds(std::slice::from_ref(&values));
        let (expected, error) = (1.96 * (0.25f64 / 400.0).sqrt(), 0.006);
        assert!((0.5 - low - expected).abs() < error, "{low}");
        assert!((high - 0.5 - expected).abs() < error, "{high}");
        // Two independent columns of that kind: their mean spreads less by a factor of sqrt(2).
        let (low, high) = bounds(&[values.clone(), named("e", coins(400))]);
        assert!((high - low - 2.0 * expected / 2f64.sqrt()).abs() < 2.0 * error);
        // The same needles in a second column, with the same fate, tell nothing new.
        let (low, high) = bounds(&[values.clone(), values.clone()]);
        assert!((high - low - 2.0 * expected).abs() < 2.0 * error);
        let same = std::slice::from_ref(&values);
        assert_eq!(interval(same), interval(same));
    }

    #[test]
    fn depths_of_one_needle_are_drawn_together() {
        let needles = column(coins(40));
        let deep: Vec<_> = needles.iter().cycle().take(240).cloned().collect();
        let (once, six) = (bounds(&[needles]), bounds(&[deep]));
        assert_eq!(once, six, "six depths that agree are as good as one");
    }

    #[test]
    fn needles_that_are_a_data_set_each_are_drawn_among_themselves() {
        let columns: Vec<_> = (0..40)
            .map(|at| named(&format!("needle {at}"), [f64::from(at % 2)]))
            .collect();
        let (low, high) = bounds(&columns);
        let expected = 1.96 * (0.25f64 / 40.0).sqrt();
        assert!(
            (high - low - 2.0 * expected).abs() < 0.05,
            "{low} to {high}"
        );
    }

    /// Methods that differ by as much on every prompt differ surely, however much prompts differ from each other.
    #[test]
    fn pairs_leave_out_what_prompts_have_in_common() {
        let prompts = || (0..20).map(|at| f64::from(at * 5));
        let (_, high) = bounds(&[column(prompts())]);
        let (low, _) = bounds(&[column(prompts().map(|score| score + 2.0))]);
        assert!(low < high, "alone they cannot be told apart");
        let paired = interval(&[column([2.0; 20])]).unwrap();
        assert!(paired.above_zero() && (paired.low, paired.high) == (Some(2.0), Some(2.0)));
    }

    #[test]
    fn few_clusters_have_no_bounds() {
        assert_eq!(interval(&[vec![], vec![]]), None);
        let few = interval(&[column([1.0, 0.0]), vec![], named("e", [1.0, 1.0])]).unwrap();
        assert_eq!((few.mean, few.low, few.high), (0.75, None, None));
        assert!(!few.above_zero() && !few.below_zero());
        // Many depths of one needle are one needle.
        let one = vec![column([1.0])[0].clone(); 30];
        assert_eq!(interval(&[one]).unwrap().low, None);
    }
}
