//! Ranking a prompt's positions by its window's attention, on the GPU.

use super::{
    device::{Operand, device_of, launch, start, type_number, uninitialized},
    ffi,
};
use crate::{
    AttentionShape,
    config::{Compression, Pooling, Reduce},
    selection::Scores,
};
use candle_core::{CudaDevice, Result, Tensor};
use cudarc::driver::CudaSlice;

/// Scores of a layer's candidates on the device, one row per stored head.
pub struct DeviceScores {
    device: CudaDevice,
    heads: usize,
    candidates: usize,
    tokens: usize,
    /// `(heads, stride)`.
    values: CudaSlice<f32>,
    stride: usize,
}

/// Ranks the positions before the observation window: its queries' attention probabilities, summed, reduced and pooled.
///
/// The same rule as [`crate::attention::window_scores`] and [`crate::selection::rank`], in one read of K. `q` is
/// `(heads, window, head_dim)`, `k` `(kv_heads, tokens, head_dim)`.
///
/// # Errors
/// Tensors that are not in bf16 or f16 on one CUDA device, shapes that do not fit, or a window as long as the prompt.
pub fn rank(
    q: &Tensor,
    k: &Tensor,
    shape: &AttentionShape,
    config: &Compression,
) -> Result<DeviceScores> {
    let (heads, window, head_dim) = q.dims3()?;
    let (kv_heads, tokens, _) = k.dims3()?;
    let stored = shape.stored_heads(config.granularity);
    let fits = (heads, kv_heads, head_dim) == (shape.heads, shape.kv_heads, k.dim(2)?)
        && heads % kv_heads == 0;
    if !fits || window >= tokens || q.dtype() != k.dtype() {
        candle_core::bail!(
            "headkv: cannot rank keys {:?} by queries {:?} with {stored} stored heads",
            k.dims(),
            q.dims()
        );
    }
    let device = device_of(q)?;
    let (q, k) = (Operand::new(q)?, Operand::new(k)?);
    // SAFETY: these two only compute.
    let (stride, bytes) = unsafe {
        let (heads, tokens) = (heads as i32, tokens as i32);
        (
            ffi::headkv_score_stride(tokens) as usize,
            ffi::headkv_rank_workspace(heads, tokens, window as i32),
        )
    };
    let values: CudaSlice<f32> = uninitialized(&device, stored * stride)?;
    let workspace: CudaSlice<u8> = uninitialized(&device, bytes)?;
    let pool = config.pool();
    // The kernel takes the address of a whole prompt's queries, of which it reads the window's.
    let before = (tokens - window) as i64 * q.strides[1] * 2;
    let args = ffi::Rank {
        q: q.address.wrapping_sub(before as u64),
        k: k.address,
        q_head: q.strides[0],
        q_token: q.strides[1],
        k_head: k.strides[0],
        k_token: k.strides[1],
        heads: heads as i32,
        kv_heads: kv_heads as i32,
        tokens: tokens as i32,
        head_dim: head_dim as i32,
        dtype: type_number(q.dtype()),
        window: window as i32,
        scale: shape.scale,
        softcap: shape.softcap.unwrap_or(0.0),
        share: (heads / stored) as i32,
        share_max: i32::from(config.reduce == Reduce::Max),
        before: pool.before as i32,
        after: pool.after as i32,
        decay: pool.decay,
        pool_max: i32::from(config.pooling == Pooling::Max),
        workspace: start(&workspace, &device),
        scores: start(&values, &device),
    };
    // SAFETY: workspace and scores have the sizes that the kernel asks for; tests compare with the CPU's scores.
    launch(&device, "ranking", |stream| unsafe {
        ffi::headkv_rank(&args, stream)
    })?;
    let candidates = tokens - window;
    Ok(DeviceScores {
        device,
        heads: stored,
        candidates,
        tokens,
        values,
        stride,
    })
}

impl DeviceScores {
    /// Number of stored heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Positions before the window.
    pub fn candidates(&self) -> usize {
        self.candidates
    }

    /// Tokens of the prompt.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Copies the scores to the CPU, waiting for the device.
    ///
    /// # Errors
    /// A failure of the device, which can be an earlier kernel's.
    pub fn to_host(&self) -> Result<Scores> {
        let padded = self.device.clone_dtoh(&self.values)?;
        let rows = padded
            .chunks(self.stride)
            .take(self.heads)
            .flat_map(|row| &row[..self.candidates]);
        Ok(Scores::new(self.candidates, rows.copied().collect()))
    }

    /// Positions of each head's `counts` best candidates in ascending order, then those of the last `recent` tokens.
    pub(super) fn select(
        &self,
        counts: &[i32],
        recent: usize,
        offsets: &CudaSlice<i32>,
        total: usize,
    ) -> Result<CudaSlice<u32>> {
        let device = &self.device;
        let device_counts = device.clone_htod(counts)?;
        let positions: CudaSlice<u32> = uninitialized(device, total)?;
        let [scores, counts, offsets, to] = [
            start(&self.values, device),
            start(&device_counts, device),
            start(offsets, device),
            start(&positions, device),
        ];
        let [stride, heads, candidates, tokens] =
            [self.stride, self.heads, self.candidates, self.tokens];
        // SAFETY: counts are at most `candidates`, and offsets leave room for them; tests compare with the CPU's choice.
        launch(device, "selection", |stream| unsafe {
            let (heads, candidates, tokens) = (heads as i32, candidates as i32, tokens as i32);
            ffi::headkv_select(
                scores,
                stride as i64,
                heads,
                candidates,
                tokens,
                recent as i32,
                counts,
                offsets,
                to,
                stream,
            )
        })?;
        Ok(positions)
    }
}
