//! `critical`: the window's attention times the norm of what the position would add to the layer's output (CriticalKV, Feng
//! et al., arXiv 2502.03805): `(s_j + 1e-4) ‖W_O v_j‖_1`, `s_j` the mean over the window and `W_O` the head's part of the
//! output projection.
//!
//! The published method takes half of a head's budget by `s_j` alone; here the product ranks all of it.

use super::{Needs, Observed, Ranking};
use candle_core::{DType, Result, Tensor};

/// What a position has that no query looks at: its value still counts.
const LEAST: f64 = 1e-4;
/// Positions whose outputs are held at once.
const BLOCK: usize = 1024;

pub struct Critical;

impl Ranking for Critical {
    fn needs(&self) -> Needs {
        Needs {
            outputs: true,
            ..Needs::default()
        }
    }

    fn scores(&self, prompt: &Observed<'_>) -> Result<Tensor> {
        let (heads, window, head_dim) = prompt.queries.dims3()?;
        let tokens = prompt.keys.dim(1)?;
        let group = prompt.shape.group();
        let attention = prompt.over_window(&prompt.probabilities()?)?;
        // In the model's own type: on a GPU this product is most of the cost.
        let values = prompt.values.contiguous()?;
        let weights = prompt.outputs()?.to_dtype(values.dtype())?;
        let norms = (0..heads).map(|head| {
            let of_head = weights
                .narrow(1, head * head_dim, head_dim)?
                .t()?
                .contiguous()?;
            let values = values.get(head / group)?;
            let blocks = (0..tokens).step_by(BLOCK).map(|from| {
                let outputs = values
                    .narrow(0, from, BLOCK.min(tokens - from))?
                    .matmul(&of_head)?;
                outputs.to_dtype(DType::F32)?.abs()?.sum(1)
            });
            Tensor::cat(&blocks.collect::<Result<Vec<_>>>()?, 0)
        });
        let norms = Tensor::stack(&norms.collect::<Result<Vec<_>>>()?, 0)?;
        (attention / window as f64)?.affine(1.0, LEAST)? * norms
    }
}
