//! Which positions a budget keeps: pooling, and the best-ranked candidates of each head.

use crate::{
    apportion::apportion,
    config::{Compression, Pool, Pooling, Reduce},
    methods::Budget,
};
use rayon::prelude::*;

/// Scores of a layer's candidates, one row per stored head.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    candidates: usize,
    /// `heads x candidates`.
    values: Vec<f32>,
}

impl Scores {
    /// Wraps `heads x candidates` amounts of attention, head by head.
    ///
    /// One that is not a finite number (a model's overflow) counts as none: it is never preferred to a real one, and
    /// pooling cannot spread it.
    pub fn new(candidates: usize, mut values: Vec<f32>) -> Self {
        debug_assert!(candidates > 0 && values.len().is_multiple_of(candidates));
        for value in values.iter_mut().filter(|value| !value.is_finite()) {
            *value = 0.0;
        }
        Self { candidates, values }
    }

    /// Number of heads.
    pub fn heads(&self) -> usize {
        self.values.len() / self.candidates
    }

    /// Positions before the window.
    pub fn candidates(&self) -> usize {
        self.candidates
    }

    /// One head's scores by position.
    pub fn row(&self, head: usize) -> &[f32] {
        &self.values[head * self.candidates..][..self.candidates]
    }

    /// The first `candidates` positions.
    pub fn first(self, candidates: usize) -> Self {
        let rows = self.values.chunks(self.candidates);
        Self {
            candidates,
            values: rows.flat_map(|row| &row[..candidates]).copied().collect(),
        }
    }

    /// The larger of both by head and position.
    pub fn maximum(mut self, other: &Self) -> Self {
        for (value, other) in self.values.iter_mut().zip(&other.values) {
            *value = value.max(*other);
        }
        self
    }

    /// The heads of all of them, which have as many candidates.
    pub fn together<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut candidates, mut values) = (1, Vec::new());
        for scores in all {
            candidates = scores.candidates;
            values.extend_from_slice(&scores.values);
        }
        Self { candidates, values }
    }

    /// One row per `group` of rows: their mean or maximum by position.
    pub fn reduced(self, group: usize, how: Reduce) -> Self {
        if group == 1 {
            return self;
        }
        let mut values = Vec::with_capacity(self.values.len() / group);
        for rows in self.values.chunks(group * self.candidates) {
            values.extend((0..self.candidates).map(|at| {
                let column = rows.iter().skip(at).step_by(self.candidates).copied();
                match how {
                    Reduce::Mean => column.sum::<f32>() / group as f32,
                    Reduce::Max => column.fold(f32::NEG_INFINITY, f32::max),
                }
            }));
        }
        Self {
            candidates: self.candidates,
            values,
        }
    }

    /// Pools each row over neighbouring positions (SnapKV, arXiv 2404.14469, section 4.2): by the largest within `pool`, or
    /// by the mean of `kernel` positions.
    pub fn pooled(self, pool: Pool, kernel: usize, pooling: Pooling) -> Self {
        // Of a long prompt that a GPU has ranked this is what the device waits for.
        let rows = self.values.par_chunks(self.candidates);
        let rows = rows.map(|row| match pooling {
            Pooling::Max => max_pool(row, pool),
            Pooling::Average => average_pool(row, kernel),
        });
        let rows: Vec<_> = rows.collect();
        Self {
            candidates: self.candidates,
            values: rows.concat(),
        }
    }
}

/// `pooled[j]` is the largest of `row[i] decay^|j - i|`, with the hit `i` at most `after` positions before `j`, and at most
/// `before` positions after it.
fn max_pool(row: &[f32], pool: Pool) -> Vec<f32> {
    let mut pooled = row.to_vec();
    for shift in 1..=pool.before.min(row.len() - 1) {
        let left = pool.decay.powi(shift as i32);
        for (to, from) in pooled.iter_mut().zip(&row[shift..]) {
            *to = to.max(from * left);
        }
    }
    for shift in 1..=pool.after.min(row.len() - 1) {
        let left = pool.decay.powi(shift as i32);
        for (to, from) in pooled[shift..].iter_mut().zip(row) {
            *to = to.max(from * left);
        }
    }
    pooled
}

/// The mean over `kernel` positions, those outside counting as zero. Summed left to right, as the original's pooling.
fn average_pool(row: &[f32], kernel: usize) -> Vec<f32> {
    let reach = kernel / 2;
    let mean = |at: usize| {
        let window = &row[at.saturating_sub(reach)..(at + reach + 1).min(row.len())];
        window.iter().sum::<f32>() / kernel as f32
    };
    (0..row.len()).map(mean).collect()
}

/// Turns the scores of the window's attention, one row per query head, into the ranking of the stored heads.
pub fn rank(window_scores: Scores, group: usize, config: &Compression) -> Scores {
    window_scores
        .reduced(group, config.reduce)
        .pooled(config.pool(), config.kernel, config.pooling)
}

/// The candidates that each of `heads` stored heads keeps, in ascending order, the window not among them.
///
/// `scores` is asked for only if the budget ranks.
pub(crate) fn select<E>(
    budget: &Budget,
    heads: usize,
    candidates: usize,
    scores: impl FnOnce() -> Result<Scores, E>,
) -> Result<Vec<Vec<u32>>, E> {
    Ok(match budget {
        Budget::All => vec![(0..candidates as u32).collect(); heads],
        Budget::Ends { first, last } => {
            let first = (*first).min(candidates) as u32;
            let last = (candidates.saturating_sub(*last) as u32).max(first);
            vec![(0..first).chain(last..candidates as u32).collect(); heads]
        }
        Budget::PerHead(kept) => best_of_each(&scores()?, kept),
        Budget::Competing {
            total,
            floor,
            weights,
        } => {
            let scores = scores()?;
            best_of_each(&scores, &compete(&scores, *total, *floor, weights))
        }
        Budget::Enough { total, loss } => {
            let scores = scores()?;
            best_of_each(&scores, &enough(&scores, *total, *loss))
        }
        Budget::Shared { mean, floor, exact } => {
            let scores = scores()?;
            best_of_each(&scores, &share(&scores, *mean, *floor, *exact))
        }
    })
}

/// Each head's `counts` best candidates in ascending order.
fn best_of_each(scores: &Scores, counts: &[usize]) -> Vec<Vec<u32>> {
    let heads = counts.par_iter().enumerate();
    heads
        .map(|(head, &count)| best(scores.row(head), count))
        .collect()
}

/// The `count` best positions of a row in ascending order; of equal scores the earlier position is better.
pub fn best(row: &[f32], count: usize) -> Vec<u32> {
    let mut order: Vec<u64> = row
        .iter()
        .enumerate()
        .map(|(at, &s)| rank_key(s, at))
        .collect();
    if count < order.len() {
        if count > 0 {
            order.select_nth_unstable(count - 1);
        }
        order.truncate(count);
    }
    let mut positions: Vec<u32> = order.into_iter().map(|key| key as u32).collect();
    positions.sort_unstable();
    positions
}

/// Each head's `counts` best candidates in ascending order, and the last `recent` of `tokens`.
pub(crate) fn best_and_recent(
    scores: &Scores,
    counts: &[usize],
    tokens: usize,
    recent: usize,
) -> Vec<Vec<u32>> {
    let mut kept = best_of_each(scores, counts);
    for positions in &mut kept {
        positions.extend((tokens - recent) as u32..tokens as u32);
    }
    kept
}

/// Orders by descending score, then ascending position.
fn rank_key(score: f32, at: usize) -> u64 {
    let bits = score.to_bits();
    // IEEE numbers order as integers once negative ones are flipped.
    let ascending = if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    };
    (u64::from(!ascending) << 32) | at as u64
}

/// How many positions each head keeps where all heads' positions compete for `total`, by score times weight, after each
/// head's own `floor` best.
pub(crate) fn compete(scores: &Scores, total: usize, floor: usize, weights: &[f64]) -> Vec<usize> {
    let (heads, candidates) = (scores.heads(), scores.candidates());
    let floor = floor.min(candidates);
    let total = total.min(heads * candidates);
    let mut kept = vec![floor; heads];
    let open = total.saturating_sub(heads * floor);
    if open == 0 {
        return kept;
    }
    let keys = weights.par_iter().enumerate().map(|(h, weight)| {
        let row = scores.row(h);
        let mut order: Vec<u64> = row
            .iter()
            .enumerate()
            .map(|(at, &s)| rank_key(s, at))
            .collect();
        if floor > 0 {
            order.select_nth_unstable(floor - 1);
        }
        let open = order[floor..].iter().map(|&key| {
            let at = key as u32 as usize;
            rank_key(row[at] * *weight as f32, h * candidates + at)
        });
        open.collect::<Vec<_>>()
    });
    let mut keys = keys.collect::<Vec<_>>().concat();
    keys.select_nth_unstable(open - 1);
    for key in &keys[..open] {
        kept[*key as u32 as usize / candidates] += 1;
    }
    kept
}

/// The fewest of each head's best positions without which no more than `loss` of its sum is left, all heads together `total`
/// at most: if they want more, in proportion.
fn enough(scores: &Scores, total: usize, loss: f64) -> Vec<usize> {
    let wanted = (0..scores.heads()).map(|head| {
        let mut row = scores.row(head).to_vec();
        row.sort_unstable_by(|a, b| b.total_cmp(a));
        // From the least: what may be dropped does not depend on how rounding adds up the rest.
        let all: f64 = row.iter().copied().map(f64::from).sum();
        let mut dropped = 0.0;
        let spared = row.iter().rev().take_while(|score| {
            dropped += f64::from(**score);
            dropped <= loss * all
        });
        row.len() - spared.count()
    });
    let wanted: Vec<usize> = wanted.collect();
    if wanted.iter().sum::<usize>() <= total {
        return wanted;
    }
    let claims: Vec<f64> = wanted.iter().map(|&tokens| tokens as f64).collect();
    apportion(&claims, total, scores.candidates())
}

/// Ada-KV's split of a layer's budget: heads keep as many tokens as they have among the layer's best, weighted by how
/// concentrated their attention is, mixed with an even floor.
fn share(scores: &Scores, mean: usize, floor: f64, exact: bool) -> Vec<usize> {
    let (heads, candidates) = (scores.heads(), scores.candidates());
    if mean >= candidates {
        return vec![candidates; heads];
    }
    let concentration: Vec<f32> = (0..heads)
        .map(|h| concentration(scores.row(h), mean))
        .collect();
    let mut keys = Vec::with_capacity(heads * candidates);
    for (h, weight) in concentration.iter().enumerate() {
        let row = scores.row(h).iter().enumerate();
        keys.extend(row.map(|(at, s)| rank_key(s * weight, h * candidates + at)));
    }
    keys.select_nth_unstable(heads * mean - 1);
    let mut won = vec![0usize; heads];
    for key in &keys[..heads * mean] {
        won[*key as u32 as usize / candidates] += 1;
    }

    let sure = (mean as f64 * floor) as usize;
    if !exact {
        let mix = |won: usize| (won as f64 * (1.0 - floor) + sure as f64).round_ties_even();
        let kept = won.into_iter().map(|won| mix(won) as usize);
        return kept.map(|kept| kept.min(candidates)).collect();
    }
    // Of heads that won the same number, the more concentrated one comes first.
    let mut order: Vec<usize> = (0..heads).collect();
    order.sort_by(|&a, &b| concentration[b].total_cmp(&concentration[a]));
    let claims: Vec<f64> = order.iter().map(|&h| won[h] as f64).collect();
    let shared = apportion(&claims, heads * (mean - sure), candidates - sure);
    let mut kept = vec![sure; heads];
    for (h, tokens) in order.into_iter().zip(shared) {
        kept[h] += tokens;
    }
    kept
}

/// The part of a head's attention that its `count` best positions hold; none where there is no attention.
fn concentration(row: &[f32], count: usize) -> f32 {
    let best = best(row, count);
    let held: f64 = best.iter().map(|&at| f64::from(row[at as usize])).sum();
    let all: f64 = row.iter().copied().map(f64::from).sum();
    let part = (held / all) as f32;
    if part.is_finite() { part } else { 0.0 }
}

#[cfg(test)]
mod tests;
