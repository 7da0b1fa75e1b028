//! `drop`: how far the outputs of the window's queries move if a position is dropped.
//!
//! Without position `j`, the output `o_i = sum_k p_ik v_k` of query `i` becomes `(o_i - p_ij v_j) / (1 - p_ij)`, which is
//! `p_ij / (1 - p_ij) (o_i - v_j)` away. The score is the sum over the window of the squared distances:
//! `sum_i (p_ij / (1 - p_ij))^2 ‖v_j - o_i‖^2`.

use super::{Kernel, Observed, Ranking};
use candle_core::{Result, Tensor};

/// The least part of a query's attention that stays when a position is dropped: keeps the quotient finite.
const LEAST: f64 = 1e-6;

pub struct Drop;

impl Ranking for Drop {
    fn scores(&self, prompt: &Observed<'_>) -> Result<Tensor> {
        let p = prompt.probabilities()?;
        let v = prompt.values_f32()?;
        let o = p.matmul(&v)?;
        // ‖v - o‖^2 = ‖v‖^2 - 2 v o + ‖o‖^2, never below 0 by rounding.
        let products = o.matmul(&v.transpose(1, 2)?)?;
        let distances = (products * -2.0)?
            .broadcast_add(&v.sqr()?.sum(2)?.unsqueeze(1)?)?
            .broadcast_add(&o.sqr()?.sum_keepdim(2)?)?
            .relu()?;
        let rest = p.affine(-1.0, 1.0)?.maximum(LEAST)?;
        prompt.over_window(&((p / rest)?.sqr()? * distances)?)
    }

    fn kernel(&self) -> Option<Kernel> {
        Some(Kernel::Drop)
    }
}
