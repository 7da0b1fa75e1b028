//! Rotary embeddings of generated tokens, for a batch whose sequences stand at different positions.

use std::cell::RefCell;

use candle_core::{Result, Tensor, TensorId};

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
