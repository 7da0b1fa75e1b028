//! `value-norm`: the window's attention times the norm of what it would fetch (Guo et al., "Attention Score is not All
//! You Need for Token Importance Indicator", arXiv 2406.12335): `s_j ‖v_j‖`, `s_j` summed over the window.

use super::{Observed, Ranking};
use candle_core::{Result, Tensor};

pub struct ValueNorm;

impl Ranking for ValueNorm {
    fn scores(&self, prompt: &Observed<'_>) -> Result<Tensor> {
        let norms = prompt.values_f32()?.sqr()?.sum(2)?.sqrt()?;
        let attention = prompt.over_window(&prompt.probabilities()?)?;
        attention * prompt.per_query_head(&norms)?
    }
}
