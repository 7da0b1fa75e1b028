//! How much two sets of head scores agree.

use headkv_plugin::HeadScores;

/// Agreement of two score files of one model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Pearson's correlation of the scores; not a number if one side is constant.
    pub pearson: f64,
    /// Spearman's correlation: Pearson's of the ranks, equal scores sharing their mean rank.
    pub spearman: f64,
    /// How many of the `top` best heads of both are the same.
    pub shared: usize,
    /// How many best heads were compared.
    pub top: usize,
}

/// Compares two files of the same shape.
pub fn compare(a: &HeadScores, b: &HeadScores, top: usize) -> Agreement {
    let (a, b) = (a.values(), b.values());
    let top = top.min(a.len());
    let (best, other) = (&order(a)[..top], &order(b)[..top]);
    Agreement {
        pearson: pearson(a, b),
        spearman: pearson(&ranks(a), &ranks(b)),
        shared: best.iter().filter(|head| other.contains(head)).count(),
        top,
    }
}

/// Heads, best first; equal ones in the file's order.
pub fn order(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |of: &dyn Fn(f64, f64) -> f64| {
        a.iter()
            .zip(b)
            .map(|(x, y)| of(x - mean_a, y - mean_b))
            .sum::<f64>()
    };
    sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt()
}

fn ranks(scores: &[f64]) -> Vec<f64> {
    let order = order(scores);
    let mut ranks = vec![0.0; scores.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let mean = first as f64 + (equal.len() - 1) as f64 / 2.0;
        equal.iter().for_each(|&head| ranks[head] = mean);
        first += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement(a: &[f64], b: &[f64], top: usize) -> Agreement {
        let scores = |x: &[f64]| HeadScores::new(1, x.len(), x.to_vec()).unwrap();
        compare(&scores(a), &scores(b), top)
    }

    #[test]
    fn known_values() {
        // Both figures as scipy.stats gives them.
        let found = agreement(&[1.0, 2.0, 3.0, 4.0, 5.0], &[5.0, 6.0, 7.0, 8.0, 7.0], 2);
        assert!((found.pearson - 0.832_050_294_337_843_6).abs() < 1e-12);
        assert!((found.spearman - 0.820_782_681_668_123_3).abs() < 1e-12);
        assert_eq!((found.shared, found.top), (1, 2));
    }

    #[test]
    fn a_monotonous_change_keeps_the_ranks() {
        let a = [0.1, 0.4, 0.2, 0.4, 0.0];
        let found = agreement(&a, &a.map(|x: f64| x.powi(3)), 10);
        assert!((found.spearman - 1.0).abs() < 1e-12 && found.pearson < 1.0);
        assert_eq!((found.shared, found.top), (5, 5));
        assert!(agreement(&a, &[1.0; 5], 1).pearson.is_nan());
    }
}
