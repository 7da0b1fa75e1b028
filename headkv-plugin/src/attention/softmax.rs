//! The online softmax: attention over one part of the keys, mergeable with that over another.
//!
//! Milakov and Gimelshein, "Online normalizer calculation for softmax" (arXiv 1805.02867); used for attention by
//! FlashAttention (arXiv 2205.14135).

/// Attention of `rows` queries over some keys: per row the largest logit, the sum of `exp(logit - largest)`, and the
/// values weighted by these, `(rows, head_dim)`, not yet divided by the sum.
#[derive(Clone, Debug)]
pub struct State {
    pub largest: Vec<f32>,
    pub sum: Vec<f32>,
    pub output: Vec<f32>,
}

impl State {
    /// Attention over no keys.
    pub fn empty(rows: usize, head_dim: usize) -> Self {
        Self {
            largest: vec![f32::MIN; rows],
            sum: vec![0.0; rows],
            output: vec![0.0; rows * head_dim],
        }
    }

    /// Attention over the keys of both.
    pub fn merge(&mut self, other: &Self) {
        let width = self.output.len() / self.sum.len();
        for row in 0..self.sum.len() {
            let most = self.largest[row].max(other.largest[row]);
            let (ours, theirs) = (
                (self.largest[row] - most).exp(),
                (other.largest[row] - most).exp(),
            );
            self.largest[row] = most;
            self.sum[row] = self.sum[row] * ours + other.sum[row] * theirs;
            let at = row * width..(row + 1) * width;
            for (x, y) in self.output[at.clone()].iter_mut().zip(&other.output[at]) {
                *x = *x * ours + y * theirs;
            }
        }
    }

    /// Row `row` of the attention's output, as factor and unscaled row; zero over no keys.
    pub fn finish(&self, row: usize) -> (f32, &[f32]) {
        let width = self.output.len() / self.sum.len();
        let factor = if self.sum[row] > 0.0 {
            1.0 / self.sum[row]
        } else {
            0.0
        };
        (factor, &self.output[row * width..][..width])
    }
}
