//! `expected`: the attention that queries to come are expected to pay (ExpectedAttention, Devoto et al., arXiv 2510.00636).
//!
//! The prompt's queries without their positions have a mean `m` and a covariance `S`; turned to the positions that come next,
//! on average by `R`, and taken as normal, they pay `exp(k_j' R m / sqrt d + k_j' R S R' k_j / 2 d)` to a key. The score is
//! that, normalized over the prompt, times the value's norm. The first tokens, which queries attend to whatever they ask,
//! are left out of the mean and kept.

use super::{Needs, Observed, Ranking};
use candle_core::{D, Result, Tensor};

/// First tokens that are kept.
const SINKS: usize = 4;
/// Positions after the prompt that queries are expected at.
const FUTURE: usize = 512;

pub struct Expected;

impl Ranking for Expected {
    fn needs(&self) -> Needs {
        Needs {
            rotary: true,
            all_queries: true,
            ..Needs::default()
        }
    }

    fn scores(&self, prompt: &Observed<'_>) -> Result<Tensor> {
        let (queries, rotary) = (prompt.queries_without_position()?, prompt.rotary()?);
        let keys = prompt.keys_f32()?;
        let (kv_heads, tokens, head_dim) = keys.dims3()?;
        let group = prompt.shape.group();
        let sinks = SINKS.min(tokens.saturating_sub(1));
        let asked = queries.dim(1)?;
        let skipped = sinks.min(asked.saturating_sub(1));
        let queries = queries.narrow(1, skipped, asked - skipped)?;
        let mean = queries.mean_keepdim(1)?;
        let centred = queries.broadcast_sub(&mean)?.contiguous()?;
        let products = centred.transpose(1, 2)?.contiguous()?.matmul(&centred)?;
        let covariance = (products / (asked - skipped) as f64)?;
        let to_come = rotary.mean(tokens..tokens + FUTURE, head_dim, keys.device())?;
        let mean = mean.broadcast_matmul(&to_come)?;
        // q -> q R' turns a row; a covariance S of rows becomes R S R'.
        let covariance = covariance.broadcast_matmul(&to_come)?;
        let covariance = to_come.t()?.contiguous()?.broadcast_matmul(&covariance)?;
        let mean = mean.reshape((kv_heads, group, head_dim))?;
        let covariance = covariance.reshape((kv_heads, group, head_dim, head_dim))?;
        let scale = f64::from(prompt.shape.scale);
        // One query head of each group at a time: all at once would hold the keys once per query head.
        let logits = (0..group).map(|at| {
            let mean = mean.narrow(1, at, 1)?.transpose(1, 2)?.contiguous()?;
            let covariance = covariance.narrow(1, at, 1)?.squeeze(1)?.contiguous()?;
            let linear = (keys.matmul(&mean)?.squeeze(2)? * scale)?;
            let spread = (keys.matmul(&covariance)? * &keys)?.sum(2)?;
            linear + (spread * (scale * scale / 2.0))?
        });
        let logits = Tensor::stack(&logits.collect::<Result<Vec<_>>>()?, 1)?;
        let rest = logits.narrow(2, sinks, tokens - sinks)?;
        let powers = rest.broadcast_sub(&rest.max_keepdim(D::Minus1)?)?.exp()?;
        let attention = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
        let norms = prompt.values_f32()?.sqr()?.sum(2)?.sqrt()?;
        let norms = norms.narrow(1, sinks, tokens - sinks)?.unsqueeze(1)?;
        let scores = attention.broadcast_mul(&norms)?;
        let most = scores.max_keepdim(D::Minus1)?;
        let kept = most.broadcast_as((kv_heads, group, sinks))?;
        Tensor::cat(&[&kept.contiguous()?, &scores], 2)?.reshape((prompt.shape.heads, tokens))
    }
}
