//! `kvzip`: the most that any token of a repetition of the prompt attends to the position (KVzip, Kim et al., arXiv
//! 2505.23416, section 3): what is never looked at to say the text again is not needed to answer about it.
//!
//! It costs a second pass, in which the prompt's own text stands behind it and asks for it ([`crate::replay`]): until that is
//! over all layers hold the whole prompt. Softmax runs over everything that the repetition sees; the original's over the part
//! of the text that is repeated.

use super::{Needs, Observed, Ranking};
use crate::attention::window_peaks;
use candle_core::{DType, Result, Tensor};

/// Rows of the repetition whose probabilities are held at once.
const BLOCK: usize = 64;

pub struct KvZip;

impl Ranking for KvZip {
    fn needs(&self) -> Needs {
        Needs {
            replay: true,
            ..Needs::default()
        }
    }

    fn scores(&self, replay: &Observed<'_>) -> Result<Tensor> {
        let keys = replay.keys_f32()?;
        let (heads, asked, _) = replay.queries.dims3()?;
        let prompt = keys.dim(1)? - asked;
        let mut most: Option<Tensor> = None;
        for from in (0..asked).step_by(BLOCK) {
            let rows = BLOCK.min(asked - from);
            let queries = replay.queries.narrow(1, from, rows)?;
            let seen = keys.narrow(1, 0, prompt + from + rows)?;
            let peaks = peaks(&queries, &seen, replay)?.narrow(1, 0, prompt)?;
            most = Some(match most {
                Some(most) => most.maximum(&peaks)?,
                None => peaks,
            });
        }
        let Some(most) = most else {
            candle_core::bail!("headkv: a prompt without queries cannot be ranked");
        };
        let most = most.reshape((replay.shape.kv_heads, replay.shape.group(), prompt))?;
        let own = Tensor::zeros((heads, asked), most.dtype(), most.device())?;
        Tensor::cat(&[&replay.per_query_head(&most.max(1)?)?, &own], 1)
    }
}

/// The most that a row pays to each position, `(heads, tokens)`, the rows' own not looked at.
fn peaks(queries: &Tensor, keys: &Tensor, replay: &Observed<'_>) -> Result<Tensor> {
    let ((heads, rows, _), tokens) = (queries.dims3()?, keys.dim(1)?);
    if keys.device().is_cpu() {
        let flat = |x: &Tensor| x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        let peaks = window_peaks(&flat(queries)?, &flat(keys)?, replay.shape);
        return Tensor::from_vec(peaks, (heads, tokens - rows), keys.device());
    }
    let block = Observed::new(queries, keys, replay.values, replay.shape);
    let probabilities = block.probabilities()?.reshape((heads, rows, tokens))?;
    probabilities.max(1)
}
