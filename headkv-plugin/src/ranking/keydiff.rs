//! `keydiff`: how much a key differs from the mean key (KeyDiff, Park et al., arXiv 2504.15364):
//! `1 - cos(k_j, mean_t k_t / ‖k_t‖)`, so that no score is negative. It asks no query, so that it ranks a document before its questions are known.

use super::{Observed, Ranking};
use candle_core::{Result, Tensor};

pub struct KeyDiff;

impl Ranking for KeyDiff {
    fn scores(&self, prompt: &Observed<'_>) -> Result<Tensor> {
        let k = prompt.keys_f32()?;
        let unit = |x: &Tensor| -> Result<Tensor> {
            let norm = x.sqr()?.sum_keepdim(2)?.sqrt()?.maximum(1e-12)?;
            x.broadcast_div(&norm)
        };
        let k = unit(&k)?;
        let mean = unit(&k.mean_keepdim(1)?)?;
        let cosine = k.broadcast_mul(&mean)?.sum(2)?;
        prompt.per_query_head(&cosine.affine(-1.0, 1.0)?)
    }
}
