//! `compactor`: leverage, and the attention that a position gets from its surroundings, those after it included (Compactor,
//! Chari and Van Durme, arXiv 2507.08143).
//!
//! `z(leverage) + z(mean over 3 positions of ‖v_j‖ sum_i p_ij)`, each standardized over the prompt; `p` is the softmax within
//! chunks of 256 tokens, not causal. As it is used to keep little, the original's weight on leverage, the part that is
//! dropped, is taken as 1. The least score is taken off, so that none is negative.

use super::{Needs, Observed, Ranking, leverage::leverage};
use candle_core::{D, Result, Tensor};

/// Tokens that attend to each other.
const CHUNK: usize = 256;

pub struct Compactor;

impl Ranking for Compactor {
    fn needs(&self) -> Needs {
        Needs {
            rotary: true,
            all_queries: true,
            ..Needs::default()
        }
    }

    fn scores(&self, prompt: &Observed<'_>) -> Result<Tensor> {
        let unlike = prompt.per_query_head(&leverage(&prompt.keys_without_position()?)?)?;
        let norms = prompt.values_f32()?.sqr()?.sum(2)?.sqrt()?;
        let attended = (surroundings(prompt)? * prompt.per_query_head(&norms)?)?;
        let scores = (standard(&unlike)? + standard(&mean_of_3(&attended)?)?)?;
        scores.broadcast_sub(&scores.min_keepdim(D::Minus1)?)
    }
}

/// The attention that each position gets from all queries of its chunk, `(heads, tokens)`.
fn surroundings(prompt: &Observed<'_>) -> Result<Tensor> {
    let (queries, keys) = (prompt.all_queries()?, prompt.keys_f32()?);
    let (heads, asked, head_dim) = queries.dims3()?;
    let (kv_heads, tokens, _) = keys.dims3()?;
    if asked != tokens {
        candle_core::bail!("headkv: {asked} queries of {tokens} tokens; report this");
    }
    let (group, scale) = (heads / kv_heads, f64::from(prompt.shape.scale));
    let chunks = (0..tokens).step_by(CHUNK).map(|from| {
        let count = CHUNK.min(tokens - from);
        let q = queries.narrow(1, from, count)?.contiguous()?;
        let q = (q.reshape((kv_heads, group * count, head_dim))? * scale)?;
        let k = keys.narrow(1, from, count)?.transpose(1, 2)?.contiguous()?;
        let mut logits = q.matmul(&k)?;
        if let Some(cap) = prompt.shape.softcap.map(f64::from) {
            logits = ((logits / cap)?.tanh()? * cap)?;
        }
        let powers = logits
            .broadcast_sub(&logits.max_keepdim(D::Minus1)?)?
            .exp()?;
        let p = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
        p.reshape((heads, count, count))?.sum(1)
    });
    Tensor::cat(&chunks.collect::<Result<Vec<_>>>()?, 1)
}

/// The mean of a position and its neighbours; those outside the prompt count as zero.
fn mean_of_3(x: &Tensor) -> Result<Tensor> {
    let (heads, tokens) = x.dims2()?;
    let padded = x.pad_with_zeros(1, 1, 1)?;
    let shifted = |by| padded.narrow(1, by, tokens);
    let sum = ((shifted(0)? + shifted(1)?)? + shifted(2)?)?;
    (sum / 3.0)?.reshape((heads, tokens))
}

/// Less the mean, in standard deviations.
fn standard(x: &Tensor) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
    let deviation = centred.sqr()?.mean_keepdim(1)?.sqrt()?.maximum(1e-12)?;
    centred.broadcast_div(&deviation)
}
