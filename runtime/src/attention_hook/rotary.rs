//! Positions and rotary embeddings of a batch whose sequences stand at different positions.

use std::cell::RefCell;

use candle_core::{Result, Tensor, TensorId};

use crate::{kv_cache::EitherCache, layers_masker::PastKvLenCache};

/// The rows of a table's cosines and sines that a step asked for last.
struct Rows {
    table: TensorId,
    offsets: Vec<usize>,
    cos: Tensor,
    sin: Tensor,
}

thread_local! {
    /// Every layer of a step asks for the same rows.
    static LAST: RefCell<Option<Rows>> = const { RefCell::new(None) };
}

/// The cosines and sines of one position per sequence, `(batch, 1, elements)`, from tables `(positions, elements)`.
pub(crate) fn rotary_rows(
    cos: &Tensor,
    sin: &Tensor,
    offsets: &[usize],
) -> Result<(Tensor, Tensor)> {
    let known = LAST.with_borrow(|last| match last {
        Some(rows) if rows.table == cos.id() && rows.offsets == offsets => {
            Some((rows.cos.clone(), rows.sin.clone()))
        }
        _ => None,
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let at = offsets.iter().map(|&offset| offset as u32);
    let at = Tensor::from_iter(at, cos.device())?;
    let rows = |table: &Tensor| table.index_select(&at, 0)?.unsqueeze(1);
    let rows = (rows(cos)?, rows(sin)?);
    LAST.set(Some(Rows {
        table: cos.id(),
        offsets: offsets.to_vec(),
        cos: rows.0.clone(),
        sin: rows.1.clone(),
    }));
    Ok(rows)
}

/// Embeds each row of a batch apart, by the table of its own length: the longest sequence of a batch would decide for all.
/// `None` for a single row, and where there is one table.
pub(crate) fn by_row(
    q: &Tensor,
    k: &Tensor,
    tables: bool,
    embed: impl Fn(usize, &Tensor, &Tensor) -> Result<(Tensor, Tensor)>,
) -> Result<Option<(Tensor, Tensor)>> {
    let rows = q.dim(0)?;
    if !tables || rows == 1 {
        return Ok(None);
    }
    let embedded = (0..rows).map(|row| embed(row, &q.narrow(0, row, 1)?, &k.narrow(0, row, 1)?));
    let (q, k): (Vec<_>, Vec<_>) = embedded.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    Ok(Some((Tensor::cat(&q, 0)?, Tensor::cat(&k, 0)?)))
}

/// Positions of text in models that embed three, of an image's time, height and width: all alike, `(3, batch, tokens)`.
///
/// Upstream counts them from the beginning of the pass, and by the longest sequence of the batch.
pub(crate) fn text_positions(input_ids: &Tensor, offsets: &[usize]) -> Result<Tensor> {
    let (batch, tokens) = input_ids.dims2()?;
    let at = offsets.iter().flat_map(|&start| start..start + tokens);
    #[allow(clippy::cast_possible_wrap)]
    let at = Tensor::from_iter(at.map(|at| at as i64), input_ids.device())?;
    at.reshape((1, batch, tokens))?.repeat((3, 1, 1))
}

/// What came before a pass, for the mask of a model that asks the positions and not its cache.
pub(crate) struct Past<'a>(pub &'a EitherCache, pub &'a [usize]);

impl PastKvLenCache for Past<'_> {
    fn get_past_kv_len(&self) -> Result<usize> {
        self.1.get_past_kv_len()
    }

    fn is_hooked(&self) -> bool {
        match self.0 {
            EitherCache::Normal(_) => self.0.normal().0.is_hooked(),
            _ => false,
        }
    }
}
