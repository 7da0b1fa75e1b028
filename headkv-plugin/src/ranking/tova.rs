//! `tova`: the attention of the last token, the mean over all heads (TOVA, Oren et al., arXiv 2401.06104).

use super::{Observed, Ranking};
use candle_core::{Result, Tensor};

pub struct Tova;

impl Ranking for Tova {
    fn scores(&self, prompt: &Observed<'_>) -> Result<Tensor> {
        let (heads, window, _) = prompt.queries.dims3()?;
        let p = prompt.probabilities()?;
        let tokens = p.dim(2)?;
        let last = p
            .reshape((heads, window, tokens))?
            .narrow(1, window - 1, 1)?;
        let mean = last.mean(0)?;
        mean.broadcast_as((heads, tokens))
    }
}
