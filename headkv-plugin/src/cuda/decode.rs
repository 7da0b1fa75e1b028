//! Attention of one new token of each sequence over ragged caches.

use super::{
    cache::RaggedCache,
    device::{Operand, address, launch, start, type_number, with_scratch},
    ffi,
};
use crate::AttentionShape;
use candle_core::{CudaDevice, Result, Tensor};
use cudarc::driver::{CudaSlice, sys::CUdevice_attribute};
use std::collections::HashMap;

/// The plans of a layer's last batch, by its part of at most `ffi::MAX_BATCH` sequences.
pub type Plans = HashMap<usize, Plan>;

/// How a batch's heads are cut into equal pieces of work, on the device.
///
/// It holds until a tail gets another block or the batch changes: lengths of tails travel with each launch.
pub struct Plan {
    heads: usize,
    /// The caches' numbers and how many blocks their tails had.
    batch: Vec<(u64, usize)>,
    /// `ffi::Item`s as bytes.
    items: CudaSlice<u8>,
    count: i32,
    slots: i32,
    /// Blocks that are done, by unit: zero between launches.
    arrived: CudaSlice<i32>,
}

impl Plan {
    fn new(
        caches: &[&mut RaggedCache],
        batch: Vec<(u64, usize)>,
        heads: usize,
        device: &CudaDevice,
    ) -> Result<Self> {
        let (mut units, mut segments) = (Vec::new(), Vec::new());
        let (mut head_dim, mut plan_slots) = (0, 0);
        for (sequence, cache) in caches.iter().enumerate() {
            let (stored_heads, share) = (cache.stored_heads(), heads / cache.stored_heads());
            let per_kv_head = stored_heads / cache.kv_heads;
            head_dim = cache.head_dim as i32;
            for stored in 0..stored_heads {
                let held = cache.segments(stored);
                for row in (0..share).step_by(ffi::MAX_ROWS) {
                    units.push(ffi::Unit {
                        sequence: sequence as i32,
                        head: (stored * share + row) as i32,
                        rows: (share - row).min(ffi::MAX_ROWS) as i32,
                        kv_head: (stored / per_kv_head) as i32,
                        appends: i32::from(stored % per_kv_head == 0 && row == 0),
                        first_segment: segments.len() as i32,
                        segments: held.len() as i32,
                    });
                }
                segments.extend(held);
            }
        }
        let stream = device.cuda_stream();
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let processors = stream
            .context()
            .attribute(attribute)
            .map_err(candle_core::Error::wrap)?;
        let mut cut = |items: &mut [ffi::Item]| {
            // SAFETY: units name segments of the slice, and at most `items.len()` items are written.
            unsafe {
                ffi::headkv_decode_plan(
                    units.as_ptr(),
                    units.len() as i32,
                    segments.as_ptr(),
                    head_dim,
                    processors,
                    items.as_mut_ptr(),
                    items.len() as i32,
                    &mut plan_slots,
                )
            }
        };
        let Ok(needed) = usize::try_from(cut(&mut [])) else {
            candle_core::bail!(
                "headkv: more tokens were generated than one launch can attend to; shorten the answer"
            );
        };
        let mut items = vec![ffi::Item([0; 96]); needed];
        let count = cut(&mut items);
        let bytes: Vec<u8> = items.iter().flat_map(|item| item.0).collect();
        Ok(Self {
            heads,
            batch,
            items: device.clone_htod(&bytes)?,
            count,
            slots: plan_slots,
            arrived: device.alloc_zeros(units.len())?,
        })
    }
}

/// Attention of one generated token per sequence to everything its cache holds, itself included.
///
/// `q` is `(batch, heads, 1, head_dim)`, `k` and `v` `(batch, kv_heads, 1, head_dim)`: they are appended to the caches,
/// in the same launch. Gives `(batch, heads, 1, head_dim)`. Nothing is allocated but the result, or uploaded, unless the
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
            &rows(q)?,
            &rows(k)?,
            &rows(v)?,
            shape,
            caches,
            plans.remove(&i),
            &rows(&out)?,
        )
        .map(|plan| plans.insert(i, plan))?;
    }
    Ok(out)
}

fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: &AttentionShape,
    caches: &mut [&mut RaggedCache],
    plan: Option<Plan>,
    out: &Tensor,
) -> Result<Plan> {
    let (_, heads, _, head_dim) = q.dims4()?;
    for cache in caches.iter_mut() {
        cache.reserve()?;
    }
    let batch: Vec<(u64, usize)> = caches
        .iter()
        .map(|cache| (cache.id, cache.blocks()))
        .collect();
    let device = caches[0].device.clone();
    let plan = match plan {
        Some(plan) if plan.heads == heads && plan.batch == batch => plan,
        _ => Plan::new(caches, batch, heads, &device)?,
    };
    let (mut tail, mut fresh) = ([0; ffi::MAX_BATCH], [0; ffi::MAX_BATCH]);
    for (at, cache) in caches.iter().enumerate() {
        (tail[at], fresh[at]) = cache.next();
    }
    let out_address = address(out)?;
    let (q, k, v) = (Operand::new(q)?, Operand::new(k)?, Operand::new(v)?);
    // SAFETY: it only computes.
    let bytes = unsafe { ffi::headkv_decode_partials(plan.slots, head_dim as i32) };
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
            items: start(&plan.items, &device),
            item_count: plan.count,
            slots: plan.slots,
            heads: heads as i32,
            head_dim: head_dim as i32,
            dtype: type_number(q.dtype()),
            arrived: start(&plan.arrived, &device),
            partials,
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
    Ok(plan)
}
