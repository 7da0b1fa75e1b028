//! The online softmax: attention over one part of the keys, mergeable with that over another.
//!
//! Milakov and Gimelshein, "Online normalizer calculation for softmax" (arXiv 1805.02867); used for attention by
//! FlashAttention (arXiv 2205.14135).

use super::exponential::{MASKED, largest, weights};
use pulp::Simd;
use std::f32::consts::LOG2_E;

/// Attention of `rows` queries over some keys: per row the largest logit (base 2), the sum of `2^(logit - largest)`, and
/// the values weighted by these, `(rows, width)`.
#[derive(Clone, Debug, Default)]
pub struct State {
    largest: Vec<f32>,
    sum: Vec<f32>,
    output: Vec<f32>,
}

impl State {
    /// Attention over no keys.
    pub fn empty(rows: usize, width: usize) -> Self {
        let mut state = Self::default();
        state.clear(rows, width);
        state
    }

    /// Forgets all keys.
    pub fn clear(&mut self, rows: usize, width: usize) {
        for (buffer, len, value) in [
            (&mut self.largest, rows, MASKED),
            (&mut self.sum, rows, 0.0),
            (&mut self.output, rows * width, 0.0),
        ] {
            buffer.clear();
            buffer.resize(len, value);
        }
    }

    fn width(&self) -> usize {
        self.output.len() / self.sum.len()
    }

    /// Takes in more keys of one row: turns their logits into weights, which the caller multiplies the values by, and
    /// scales the row's output to fit. The number of logits is a multiple of the vector's lanes.
    #[inline(always)]
    pub fn weigh<S: Simd>(&mut self, simd: S, row: usize, logits: &mut [f32]) {
        let most = largest(simd, logits);
        if most > self.largest[row] {
            let shrink = (self.largest[row] - most).exp2();
            self.largest[row] = most;
            self.sum[row] *= shrink;
            let width = self.width();
            self.output[row * width..][..width]
                .iter_mut()
                .for_each(|x| *x *= shrink);
        }
        self.sum[row] += weights(simd, logits, self.largest[row]);
    }

    /// The weighted values, `(rows, width)`.
    pub fn output(&mut self) -> &mut [f32] {
        &mut self.output
    }

    /// Attention over the keys of both.
    pub fn merge(&mut self, other: &Self) {
        let width = self.width();
        for row in 0..self.sum.len() {
            let most = self.largest[row].max(other.largest[row]);
            let (ours, theirs) = (
                (self.largest[row] - most).exp2(),
                (other.largest[row] - most).exp2(),
            );
            self.largest[row] = most;
            self.sum[row] = self.sum[row] * ours + other.sum[row] * theirs;
            let at = row * width..(row + 1) * width;
            for (x, y) in self.output[at.clone()].iter_mut().zip(&other.output[at]) {
                *x = *x * ours + y * theirs;
            }
        }
    }

    /// Takes in a sink of one row: a logit, in base e, that takes weight and brings no value.
    pub fn sink(&mut self, row: usize, logit: f32) {
        let width = self.width();
        let logit = logit * LOG2_E;
        let most = self.largest[row].max(logit);
        let shrink = (self.largest[row] - most).exp2();
        self.largest[row] = most;
        self.sum[row] = self.sum[row] * shrink + (logit - most).exp2();
        self.output[row * width..][..width]
            .iter_mut()
            .for_each(|x| *x *= shrink);
    }

    /// The attention's output, `(rows, width)`: the weighted values over the sum of the weights; zeros over no keys.
    pub fn finish(&mut self) -> &[f32] {
        let width = self.width();
        for (output, sum) in self.output.chunks_mut(width).zip(&self.sum) {
            // Not `sum > 0`: NaN must stay NaN.
            let factor = if *sum == 0.0 { 0.0 } else { 1.0 / sum };
            output.iter_mut().for_each(|x| *x *= factor);
        }
        &self.output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_key(logit: f32, value: f32) -> State {
        State {
            largest: vec![logit],
            sum: vec![1.0],
            output: vec![value],
        }
    }

    #[test]
    fn merging_weighs_by_the_logits() {
        let mut state = one_key(1.0, 6.0);
        state.merge(&one_key(0.0, 3.0));
        assert_eq!(state.finish(), [5.0]);
    }

    #[test]
    fn a_sink_takes_weight_and_brings_no_value() {
        // In base 2: as much weight as the key, then three times as much.
        for (sink, rest) in [(1.0, 0.5), (1.0 + 3f32.log2(), 0.25)] {
            let mut state = one_key(1.0, 6.0);
            state.sink(0, sink / LOG2_E);
            let output = state.finish()[0];
            assert!((output - 6.0 * rest).abs() < 1e-5, "{output}");
        }
        let mut state = State::empty(1, 1);
        state.sink(0, 5.0);
        assert_eq!(state.finish(), [0.0]);
    }

    #[test]
    fn the_empty_state_changes_nothing() {
        let mut state = State::empty(1, 1);
        state.merge(&State::empty(1, 1));
        assert_eq!(state.clone().finish(), [0.0]);
        state.merge(&one_key(-500.0, 2.0));
        state.merge(&State::empty(1, 1));
        assert_eq!(state.finish(), [2.0]);
    }
}
