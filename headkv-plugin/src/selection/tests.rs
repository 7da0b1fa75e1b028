//! Selection against its definitions, written down the slow way.

use super::*;
use crate::{ModelShape, Policy};
use proptest::prelude::*;
use std::{collections::BTreeSet, convert::Infallible};

const CANDIDATES: usize = 40;

/// Rows of scores; few different values, so that ties are the rule.
fn tied_rows(heads: usize) -> impl Strategy<Value = Vec<Vec<f32>>> {
    let score = prop::sample::select(vec![0.0f32, 0.125, 0.25, 0.5, 1.0, 2.0]);
    prop::collection::vec(prop::collection::vec(score, CANDIDATES), heads)
}

/// Rows of scores that hardly tie.
fn rows(heads: usize) -> impl Strategy<Value = Vec<Vec<f32>>> {
    let score = (0.0..1.0f32).prop_map(|s| s.powi(4));
    prop::collection::vec(prop::collection::vec(score, CANDIDATES), heads)
}

fn scores(rows: &[Vec<f32>]) -> Scores {
    Scores::new(CANDIDATES, rows.concat())
}

/// The best `count` positions: all of them sorted by falling score, earlier ones first among equals.
fn naive_best(row: &[f32], count: usize) -> BTreeSet<u32> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
    order.into_iter().take(count).map(|at| at as u32).collect()
}

/// Each head's part of its attention in its `mean` best positions.
fn naive_concentration(rows: &[Vec<f32>], mean: usize) -> Vec<f32> {
    // Position by position: another order of summing would break the ties of heads that are all but equal.
    let part = |row: &Vec<f32>| {
        let all: f64 = row.iter().map(|&s| f64::from(s)).sum();
        let best = naive_best(row, mean).into_iter();
        let held: f64 = best.map(|at| f64::from(row[at as usize])).sum();
        (held / all) as f32
    };
    rows.iter().map(part).collect()
}

/// How many of the layer's best `heads x mean` weighted scores each head has.
fn naive_won(rows: &[Vec<f32>], weights: &[f32], mean: usize) -> Vec<usize> {
    let mut all: Vec<(f32, usize)> = Vec::new();
    for (h, row) in rows.iter().enumerate() {
        all.extend(row.iter().map(|s| (s * weights[h], h)));
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut won = vec![0; rows.len()];
    for (_, h) in &all[..rows.len() * mean] {
        won[*h] += 1;
    }
    won
}

/// A token at a time to the head with the largest `won / (2 tokens + 1)`, the more concentrated among equals, then the first.
fn naive_exact(won: &[usize], weights: &[f32], mean: usize, sure: usize) -> Vec<usize> {
    let mut tokens = vec![0usize; won.len()];
    for _ in 0..won.len() * (mean - sure) {
        let claim = |h: &usize| won[*h] as f64 / (2 * tokens[*h] + 1) as f64;
        let next = (0..won.len())
            .filter(|&h| tokens[h] < CANDIDATES - sure)
            .max_by(|a, b| {
                claim(a)
                    .total_cmp(&claim(b))
                    .then(won[*a].cmp(&won[*b]))
                    .then(weights[*a].total_cmp(&weights[*b]))
                    .then(b.cmp(a))
            });
        tokens[next.unwrap()] += 1;
    }
    tokens.into_iter().map(|t| t + sure).collect()
}

fn naive_pooled(row: &[f32], kernel: usize) -> Vec<f32> {
    let near = |at: usize| {
        let reach = kernel as isize / 2;
        (-reach..=reach)
            .filter_map(|shift| row.get((at as isize + shift) as usize))
            .copied()
            .fold(0.0, f32::max)
    };
    (0..row.len()).map(near).collect()
}

/// What a method keeps of a prompt of 48 tokens, heads and stored heads being the same.
fn kept(config: &Compression, rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    let model = ModelShape {
        layers: 1,
        heads: rows.len(),
        kv_heads: rows.len(),
        head_dim: 8,
    };
    let policy = Policy::new(config, model, None).unwrap();
    let tokens = CANDIDATES + config.window;
    let ranking = || Ok::<_, Infallible>(rank(scores(rows), 1, config));
    let budget = policy.budget(0, tokens).unwrap();
    let Ok(kept) = policy.select(&budget, tokens, ranking);
    kept
}

fn with_window(best: BTreeSet<u32>, window: usize) -> Vec<u32> {
    let window = CANDIDATES as u32..(CANDIDATES + window) as u32;
    best.into_iter().chain(window).collect()
}

proptest! {
    #[test]
    fn hits_reach_as_far_as_the_pool_says(
        rows in rows(1), before in 0..6usize, after in 0..30usize, decay in 0.0..1.0f32,
    ) {
        let pool = Pool { before, after, decay };
        let row = &rows[0];
        let pooled = scores(&rows).pooled(pool, 7, Pooling::Max);
        for j in 0..CANDIDATES {
            let reaches = |i: &usize| *i <= j && j - i <= after || *i > j && i - j <= before;
            let values = (0..CANDIDATES).filter(reaches).map(|i| row[i] * decay.powi(i.abs_diff(j) as i32));
            let expected = values.fold(0.0, f32::max);
            prop_assert!((pooled.row(0)[j] - expected).abs() <= 1e-6, "position {}", j);
        }
    }

    #[test]
    fn competing_heads_keep_their_floor_and_spend_the_total(
        rows in rows(3), total in 0..130usize, floor in 0..12usize, weights in prop::array::uniform3(0.1..3.0f64),
    ) {
        let budget = Budget::Competing { total, floor, weights: weights.to_vec() };
        let Ok(kept) = select(&budget, 3, CANDIDATES, || Ok::<_, Infallible>(scores(&rows)));
        let sum: usize = kept.iter().map(Vec::len).sum();
        prop_assert_eq!(sum, total.clamp(3 * floor, 3 * CANDIDATES));
        // No head would gain by another's last token beyond the floor.
        let value = |h: usize, at: &u32| rows[h][*at as usize] * weights[h] as f32;
        let last = (0..3).filter(|&h| kept[h].len() > floor).flat_map(|h| {
            let mut values: Vec<f32> = kept[h].iter().map(|at| value(h, at)).collect();
            values.sort_by(|a, b| b.total_cmp(a));
            values.into_iter().nth(kept[h].len() - 1)
        }).fold(f32::INFINITY, f32::min);
        for (h, kept) in kept.iter().enumerate() {
            let best = (0..CANDIDATES as u32).filter(|at| !kept.contains(at)).map(|at| value(h, &at)).fold(0.0, f32::max);
            prop_assert!(best <= last + 1e-6, "head {}: {} is dropped, {} kept", h, best, last);
        }
    }
}

proptest! {
    #[test]
    fn best_is_the_beginning_of_the_sorted_row(rows in tied_rows(1), count in 0..=CANDIDATES + 3) {
        let expected: Vec<u32> = naive_best(&rows[0], count).into_iter().collect();
        prop_assert_eq!(best(&rows[0], count), expected);
    }

    #[test]
    fn snapkv_keeps_the_best_pooled_and_the_window(rows in tied_rows(3), capacity in 13..47usize, reach in 0..4usize) {
        let config = Compression { kernel: 2 * reach + 1, ..Compression::new("snapkv", capacity) };
        for (kept, row) in kept(&config, &rows).into_iter().zip(&rows) {
            let expected = naive_best(&naive_pooled(row, config.kernel), capacity - 8);
            prop_assert_eq!(kept, with_window(expected, 8));
        }
    }

    #[test]
    fn streaming_keeps_both_ends(rows in rows(2), capacity in 13..47usize, sinks in 0..=5usize) {
        let config = Compression { sinks, ..Compression::new("streaming", capacity) };
        let tokens = CANDIDATES + 8;
        for kept in kept(&config, &rows) {
            let expected: Vec<u32> = (0..tokens)
                .filter(|&at| at < sinks || at >= tokens - (capacity - sinks))
                .map(|at| at as u32)
                .collect();
            prop_assert_eq!(kept, expected);
        }
    }

    #[test]
    fn adakv_shares_a_layers_budget(
        rows in rows(4), capacity in 13..47usize, floor in 0.0..=1.0f64, exact: bool,
    ) {
        let config = Compression {
            kernel: 1, floor, redistribute: exact, ..Compression::new("adakv", capacity)
        };
        let mean = capacity - 8;
        let weights = naive_concentration(&rows, mean);
        let won = naive_won(&rows, &weights, mean);
        let sure = (mean as f64 * floor) as usize;
        let counts = if exact {
            naive_exact(&won, &weights, mean, sure)
        } else {
            let mix = |won: &usize| (*won as f64 * (1.0 - floor) + sure as f64).round_ties_even() as usize;
            won.iter().map(mix).collect()
        };
        for ((kept, row), count) in kept(&config, &rows).into_iter().zip(&rows).zip(counts) {
            prop_assert_eq!(kept, with_window(naive_best(row, count), 8));
        }
    }

    #[test]
    fn what_is_no_number_is_kept_only_after_what_is_one(
        mut rows in rows(3),
        broken in prop::collection::btree_set(0..3 * CANDIDATES, 1..3 * CANDIDATES),
        bad in prop::sample::select(vec![f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        method in prop::sample::select(vec!["snapkv", "adakv", "pyramidkv"]),
        kernel in prop::sample::select(vec![1usize, 7]),
        average: bool,
    ) {
        for &at in &broken {
            rows[at / CANDIDATES][at % CANDIDATES] = bad;
        }
        let pooling = if average { Pooling::Average } else { Pooling::Max };
        let config = Compression { kernel, pooling, ..Compression::new(method, 20) };
        let kept = kept(&config, &rows);
        prop_assert_eq!(kept.iter().map(Vec::len).sum::<usize>(), 3 * 20);
        // Without pooling nothing else speaks for such a position.
        for (kept, row) in kept.iter().zip(&rows).filter(|_| kernel == 1) {
            let sound = |at: &u32| row.get(*at as usize).is_some_and(|s| s.is_finite() && *s > 0.0);
            let all = (0..CANDIDATES as u32).filter(sound).count();
            let candidates = kept.len() - config.window;
            prop_assert_eq!(kept.iter().filter(|at| sound(at)).count(), all.min(candidates));
        }
    }
}

#[test]
fn heads_without_attention_get_what_adakv_makes_sure() {
    let mut rows = vec![vec![0.0; CANDIDATES]; 2];
    rows[1] = (0..CANDIDATES).map(|at| at as f32).collect();
    for redistribute in [false, true] {
        let config = Compression {
            kernel: 1,
            redistribute,
            ..Compression::new("adakv", 18)
        };
        let lengths: Vec<usize> = kept(&config, &rows).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2 + 8, 18 + 8]);
    }
}
