//! Positions and rotary embeddings: of a batch whose sequences stand at different positions, and of a hooked model on a GPU.

use std::{cell::RefCell, sync::OnceLock};

use candle_core::{DType, Result, Tensor, TensorId};

use super::pass;
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

/// Embeds a hooked model's queries and keys, `(batch, heads, tokens, head_dim)`, where they are: one launch, and no second
/// copy of a long prompt's. `None` leaves it to the runtime: on the CPU, and where nothing is hooked.
///
/// Upstream does so where there are as many key heads as query heads; its attention then wants them in another order.
pub(crate) fn rotate(
    cos: &Tensor,
    sin: &Tensor,
    [q, k]: [&Tensor; 2],
    offsets: &[usize],
    is_gpt_neox: bool,
) -> Result<Option<(Tensor, Tensor)>> {
    let (batch, _, tokens, _) = q.dims4()?;
    let one_type = [k.dtype(), cos.dtype(), sin.dtype()] == [q.dtype(); 3];
    // What cannot be tried is not trusted.
    if !(pass::runs()
        && q.device().is_cuda()
        && one_type
        && turns_alike(cos, sin, is_gpt_neox).unwrap_or(false))
    {
        return Ok(None);
    }
    let (cos, sin) = if batch == 1 {
        let rows = |table: &Tensor| table.narrow(0, offsets[0], tokens);
        (rows(cos)?, rows(sin)?)
    } else if tokens == 1 {
        let (cos, sin) = rotary_rows(cos, sin, offsets)?;
        (cos.squeeze(1)?, sin.squeeze(1)?)
    } else {
        let rows = |table: &Tensor| {
            let each = offsets.iter().map(|&at| table.narrow(0, at, tokens));
            Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)
        };
        (rows(cos)?, rows(sin)?)
    };
    // A view where tokens lie one after the other, as they come out of a product; a copy otherwise.
    let by_token = |x: &Tensor| x.transpose(1, 2)?.flatten(0, 1);
    let (turned_q, turned_k) = (by_token(q)?, by_token(k)?);
    mistralrs_quant::rotary::apply_rotary_inplace(&turned_q, &turned_k, &cos, &sin, is_gpt_neox)?;
    let by_head = |x: Tensor| {
        let (_, heads, elements) = x.dims3()?;
        x.reshape((batch, tokens, heads, elements))?.transpose(1, 2)
    };
    Ok(Some((by_head(turned_q)?, by_head(turned_k)?)))
}

/// Whether the kernel for embedding in place does what the runtime's other one does, for more query heads than key heads, which
/// upstream does not use it for: tried once for each of the two orders of elements.
fn turns_alike(cos: &Tensor, sin: &Tensor, is_gpt_neox: bool) -> Result<bool> {
    static ALIKE: [OnceLock<bool>; 2] = [OnceLock::new(), OnceLock::new()];
    let known = &ALIKE[usize::from(is_gpt_neox)];
    if let Some(alike) = known.get() {
        return Ok(*alike);
    }
    let (tokens, elements) = (cos.dim(0)?.min(5), 2 * cos.dim(1)?);
    let rows = |table: &Tensor| table.narrow(0, cos.dim(0)? - tokens, tokens);
    let (cos, sin) = (rows(cos)?, rows(sin)?);
    let random = |heads| {
        let x = Tensor::rand(-1f32, 1f32, (1, heads, tokens, elements), cos.device())?;
        x.to_dtype(cos.dtype())
    };
    let (q, k) = (random(6)?, random(2)?);
    let rope = match is_gpt_neox {
        true => candle_nn::rotary_emb::rope,
        false => candle_nn::rotary_emb::rope_i,
    };
    let mut alike = true;
    let by_token = |x: &Tensor| x.transpose(1, 2)?.contiguous()?.flatten(0, 1);
    let (turned_q, turned_k) = (by_token(&q)?, by_token(&k)?);
    mistralrs_quant::rotary::apply_rotary_inplace(&turned_q, &turned_k, &cos, &sin, is_gpt_neox)?;
    for (x, turned) in [(&q, turned_q), (&k, turned_k)] {
        let expected = by_token(&rope(x, &cos, &sin)?)?.to_dtype(DType::F32)?;
        let apart = (expected - turned.to_dtype(DType::F32)?)?
            .abs()?
            .max_all()?;
        // A bf16 has 8 bits, and the sum of two products of numbers up to 1 is at most 2.
        alike &= apart.to_scalar::<f32>()? <= 2.0 / 64.0;
    }
    if !alike {
        tracing::warn!("queries and keys are not embedded in place: the kernel for it does something else on this GPU");
    }
    Ok(*known.get_or_init(|| alike))
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
