//! `kvzip`: the most that any token of a repetition of the prompt attends to the position (KVzip, Kim et al., arXiv
//! 2505.23416, section 3): what is never looked at to say the text again is not needed to answer about it.
//!
//! It costs a second pass, in which the prompt's own text stands behind it and asks for it ([`crate::replay`]): until that is
//! over all layers hold the whole prompt. Softmax runs over everything that the repetition sees; the original's over the part
//! of the text that is repeated.

use super::{Needs, Observed, Ranking};
use candle_core::{D, Result, Tensor};

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
        let (keys, values) = (replay.keys_f32()?, replay.values);
        let (kv_heads, tokens, _) = keys.dims3()?;
        let asked = replay.queries.dim(1)?;
        let prompt = tokens - asked;
        let mut most: Option<Tensor> = None;
        for from in (0..asked).step_by(BLOCK) {
            let rows = BLOCK.min(asked - from);
            let queries = replay.queries.narrow(1, from, rows)?;
            let seen = keys.narrow(1, 0, prompt + from + rows)?;
            let block = Observed::new(&queries, &seen, values, replay.shape);
            let attention = block
                .probabilities()?
                .narrow(D::Minus1, 0, prompt)?
                .max(1)?;
            most = Some(match most {
                Some(most) => most.maximum(&attention)?,
                None => attention,
            });
        }
        let Some(most) = most else {
            candle_core::bail!("headkv: a prompt without queries cannot be ranked");
        };
        let own = Tensor::zeros((kv_heads, asked), most.dtype(), most.device())?;
        replay.per_query_head(&Tensor::cat(&[&most, &own], 1)?)
    }
}
