//! Causal attention of prompts, and of later parts of them over what came before.

use super::{
    device::{Operand, address, device_of, launch, type_number},
    ffi::{self, Address},
};
use crate::AttentionShape;
use candle_core::{Result, Tensor};

/// Causal attention of new tokens to those before them and themselves, on tensor cores.
///
/// `q` is `(batch, heads, tokens, head_dim)`, `k` and `v` `(batch, kv_heads, past + tokens, head_dim)`, bf16 or f16; query head
/// `h` reads KV head `h / (heads / kv_heads)`. Gives `(batch, heads, tokens, head_dim)`, laid out with the heads of a
/// token together, as the projection that follows wants them. `sinks` are the logits of `heads` sinks on the device, or null.
///
/// # Errors
/// Tensors that are not on one CUDA device, of another element type, or of a head_dim without a kernel.
pub fn prompt_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: &AttentionShape,
    sinks: Address,
) -> Result<Tensor> {
    let (batch, heads, tokens, head_dim) = q.dims4()?;
    let (kv_heads, all) = (k.dim(1)?, k.dim(2)?);
    if k.dims() != [batch, kv_heads, all, head_dim]
        || all < tokens
        || k.dims() != v.dims()
        || heads % kv_heads != 0
    {
        candle_core::bail!(
            "headkv: queries {:?} do not fit keys {:?} and values {:?}",
            q.dims(),
            k.dims(),
            v.dims()
        );
    }
    let device = device_of(q)?;
    // SAFETY: the kernel writes every element.
    let out = unsafe { Tensor::empty((batch, tokens, heads, head_dim), q.dtype(), q.device())? };
    let (q, k, v) = (Operand::new(q)?, Operand::new(k)?, Operand::new(v)?);
    if q.dtype() != k.dtype() || q.dtype() != v.dtype() {
        candle_core::bail!("headkv: queries, keys and values differ in element type");
    }
    let args = ffi::Prompt {
        q: q.address,
        k: k.address,
        v: v.address,
        out: address(&out)?,
        q_batch: q.strides[0],
        q_head: q.strides[1],
        q_token: q.strides[2],
        k_batch: k.strides[0],
        k_head: k.strides[1],
        k_token: k.strides[2],
        v_batch: v.strides[0],
        v_head: v.strides[1],
        v_token: v.strides[2],
        o_batch: (tokens * heads * head_dim) as i64,
        o_head: head_dim as i64,
        o_token: (heads * head_dim) as i64,
        batch: batch as i32,
        heads: heads as i32,
        kv_heads: kv_heads as i32,
        tokens: tokens as i32,
        head_dim: head_dim as i32,
        dtype: type_number(q.dtype()),
        scale: shape.scale,
        softcap: shape.softcap.unwrap_or(0.0),
        sinks,
        past: (all - tokens) as i32,
        window: shape.window.unwrap_or(0) as i32,
    };
    // SAFETY: the addresses are of live tensors with these shapes and strides; tests compare with the CPU's result.
    launch(&device, "prompt attention", |stream| unsafe {
        ffi::headkv_prompt(&args, stream)
    })?;
    out.transpose(1, 2)
}
