//! Attention of one new token of each sequence over ragged caches.

use super::{
    cache::RaggedCache,
    device::{Operand, address, launch, type_number, with_scratch},
    ffi::{self, Address},
    plan::{Plan, piece},
};
use crate::AttentionShape;
use candle_core::{CudaDevice, Result, Tensor};
use std::collections::HashMap;

/// The plans of a layer's last batch, by its part of at most `ffi::MAX_BATCH` sequences.
pub type Plans = HashMap<usize, Planned>;

/// What a layer's last batch was, and its pieces of work: they hold until a tail gets another block or the batch changes.
pub struct Planned {
    heads: usize,
    /// The caches' numbers and how many blocks their tails had.
    batch: Vec<(u64, usize)>,
    piece: i32,
    plan: Plan,
}

impl Planned {
    fn is_of(&self, caches: &[&mut RaggedCache], heads: usize) -> bool {
        let batch = caches.iter().map(|cache| (cache.id, cache.blocks()));
        self.heads == heads && self.batch.iter().copied().eq(batch)
    }

    /// The pieces of that batch, of which the caches keep their own.
    fn new(
        earlier: Option<Self>,
        caches: &mut [&mut RaggedCache],
        heads: usize,
        device: &CudaDevice,
    ) -> Result<Self> {
        let tokens = caches.iter().map(|cache| cache.work(heads)).sum();
        let piece = piece(tokens, earlier.as_ref().map(|plan| plan.piece), device)?;
        let cuts = caches.iter_mut().map(|cache| cache.cut(heads, piece));
        let cuts = cuts.collect::<Result<Vec<_>>>()?;
        let plan = Plan::new(earlier.map(|planned| planned.plan), &cuts, device)?;
        Ok(Self {
            heads,
            batch: caches
                .iter()
                .map(|cache| (cache.id, cache.blocks()))
                .collect(),
            piece,
            plan,
        })
    }
}

/// Attention of one generated token per sequence to everything its cache holds, itself included.
///
/// `q` is `(batch, heads, 1, head_dim)`, `k` and `v` `(batch, kv_heads, 1, head_dim)`: they are appended to the caches,
/// in the same launch. `sinks` are the logits of `heads` sinks on the device, or null. Gives `(batch, heads, 1, head_dim)`. Nothing is allocated but the result, or uploaded, unless the
/// batch has changed or a tail needs another block.
///
/// # Errors
/// Shapes, element types or devices that do not fit the caches, or memory that runs out; the caches are then unchanged.
pub fn decode_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: &AttentionShape,
    caches: &mut [&mut RaggedCache],
    plans: &mut Plans,
    sinks: Address,
) -> Result<Tensor> {
    let (batch, heads, tokens, head_dim) = q.dims4()?;
    let kv_heads = k.dim(1)?;
    if tokens != 1
        || batch != caches.len()
        || k.dims() != [batch, kv_heads, 1, head_dim]
        || k.dims() != v.dims()
    {
        candle_core::bail!(
            "headkv: queries {:?}, keys {:?} and values {:?} are not one token of each of {} sequences",
            q.dims(),
            k.dims(),
            v.dims(),
            caches.len()
        );
    }
    let fits = |cache: &RaggedCache| {
        (cache.kv_heads, cache.head_dim, cache.dtype) == (kv_heads, head_dim, q.dtype())
            && heads % cache.stored_heads() == 0
    };
    if let Some(at) = caches.iter().position(|cache| !fits(cache)) {
        candle_core::bail!(
            "headkv: the cache of sequence {at} has another shape or element type than its new token"
        );
    }
    // SAFETY: the kernel writes every element.
    let out = unsafe { Tensor::empty((batch, heads, 1, head_dim), q.dtype(), q.device())? };
    for (i, caches) in caches.chunks_mut(ffi::MAX_BATCH).enumerate() {
        let rows = |x: &Tensor| x.narrow(0, i * ffi::MAX_BATCH, caches.len());
        attend(
            [&rows(q)?, &rows(k)?, &rows(v)?],
            (shape, sinks),
            caches,
            plans.remove(&i),
            &rows(&out)?,
        )
        .map(|planned| plans.insert(i, planned))?;
    }
    Ok(out)
}

fn attend(
    [q, k, v]: [&Tensor; 3],
    (shape, sinks): (&AttentionShape, Address),
    caches: &mut [&mut RaggedCache],
    planned: Option<Planned>,
    out: &Tensor,
) -> Result<Planned> {
    let (_, heads, _, head_dim) = q.dims4()?;
    for cache in caches.iter_mut() {
        cache.reserve()?;
    }
    let device = caches[0].device.clone();
    let planned = match planned {
        Some(planned) if planned.is_of(caches, heads) => planned,
        earlier => Planned::new(earlier, caches, heads, &device)?,
    };
    let (items, arrived, item_count, slots) = planned.plan.arguments(&device);
    let (mut tail, mut fresh) = ([0; ffi::MAX_BATCH], [0; ffi::MAX_BATCH]);
    for (at, cache) in caches.iter().enumerate() {
        (tail[at], fresh[at]) = cache.next();
    }
    let out_address = address(out)?;
    let (q, k, v) = (Operand::new(q)?, Operand::new(k)?, Operand::new(v)?);
    // SAFETY: it only computes.
    let bytes = unsafe { ffi::headkv_decode_partials(slots, head_dim as i32) };
    with_scratch(&device, bytes, |partials| {
        let args = ffi::Decode {
            q: q.address,
            q_batch: q.strides[0],
            q_head: q.strides[1],
            k_new: k.address,
            v_new: v.address,
            k_batch: k.strides[0],
            k_head: k.strides[1],
            v_batch: v.strides[0],
            v_head: v.strides[1],
            out: out_address,
            items,
            item_count,
            slots,
            heads: heads as i32,
            head_dim: head_dim as i32,
            dtype: type_number(q.dtype()),
            arrived,
            partials,
            sinks,
            scale: shape.scale,
            softcap: shape.softcap.unwrap_or(0.0),
            tail,
            fresh,
        };
        // SAFETY: the plan's addresses are of these caches, whose blocks have room; tests compare with the CPU's result.
        launch(&device, "decode attention", |stream| unsafe {
            ffi::headkv_decode(&args, stream)
        })
    })?;
    for cache in caches {
        cache.tail += 1;
    }
    Ok(planned)
}
