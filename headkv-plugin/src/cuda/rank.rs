//! What a prompt's positions are worth, on the GPU.

use super::{
    device::{Operand, device_of, first, launch, start, type_number, uninitialized},
    ffi,
};
use crate::{
    config::{Compression, Pooling, Reduce},
    ranking::{Kernel, Observed},
    selection::Scores,
};
use candle_core::{CudaDevice, DType, Result, Tensor};
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

/// Ranks the positions before the observation window by what they are worth to its queries, reduced and pooled: by their
/// attention ([`crate::attention::window_scores`], [`crate::selection::rank`]), or as the ranking of that kernel does. `sinks`
/// are the logits of the heads' sinks on the device, or null.
///
/// # Errors
/// Tensors that are not in bf16 or f16 on one CUDA device, shapes that do not fit, or a window as long as the prompt.
pub fn rank(
    prompt: &Observed<'_>,
    kernel: Option<Kernel>,
    config: &Compression,
    sinks: ffi::Address,
) -> Result<DeviceScores> {
    let scores = DeviceScores::new(prompt, config)?;
    let operands = [prompt.queries, prompt.keys, prompt.values].map(Operand::new);
    let [q, k, v] = operands;
    let (q, k, v) = (q?, k?, v?);
    // The kernel takes the address of a whole prompt's queries, of which it reads the window's.
    let before = scores.candidates as i64 * q.strides[1] * 2;
    let mut args = ffi::Rank {
        q: q.address.wrapping_sub(before as u64),
        k: k.address,
        v: v.address,
        q_head: q.strides[0],
        q_token: q.strides[1],
        k_head: k.strides[0],
        k_token: k.strides[1],
        v_head: v.strides[0],
        v_token: v.strides[1],
        rule: match kernel {
            None => 0,
            Some(Kernel::Drop) => 1,
        },
        ..scores.args(prompt, config, sinks)
    };
    // SAFETY: it only computes.
    let bytes = unsafe { ffi::headkv_rank_workspace(&args) };
    let workspace: CudaSlice<u8> = uninitialized(&scores.device, bytes)?;
    args.workspace = start(&workspace, &scores.device);
    // SAFETY: workspace and scores have the sizes that the kernel asks for; tests compare with the CPU's scores.
    launch(&scores.device, "ranking", |stream| unsafe {
        ffi::headkv_rank(&args, stream)
    })?;
    Ok(scores)
}

/// Reduces and pools what a ranking that is made of tensors gives, `(heads, tokens)`.
///
/// # Errors
/// As [`rank`], and scores of another shape.
pub fn pooled(
    prompt: &Observed<'_>,
    values: &Tensor,
    config: &Compression,
) -> Result<DeviceScores> {
    let scores = DeviceScores::new(prompt, config)?;
    let values = values.to_dtype(DType::F32)?.contiguous()?;
    let args = scores.args(prompt, config, 0);
    let (address, stride) = (first::<f32>(&values)?, scores.tokens as i64);
    // SAFETY: `values` has a row of `stride` scores for each head; tests compare with the CPU's scores.
    launch(&scores.device, "pooling", |stream| unsafe {
        ffi::headkv_pool(&args, address, stride, stream)
    })?;
    Ok(scores)
}

impl DeviceScores {
    /// Room for the scores of a prompt.
    fn new(prompt: &Observed<'_>, config: &Compression) -> Result<Self> {
        let (shape, q, k) = (prompt.shape, prompt.queries, prompt.keys);
        let (heads, window, head_dim) = q.dims3()?;
        let (kv_heads, tokens, _) = k.dims3()?;
        let stored = shape.stored_heads(config.granularity);
        let fits = (heads, kv_heads, head_dim) == (shape.heads, shape.kv_heads, k.dim(2)?)
            && heads % kv_heads == 0
            && k.dims() == prompt.values.dims();
        if !fits || window >= tokens || q.dtype() != k.dtype() {
            candle_core::bail!(
                "headkv: cannot rank keys {:?} by queries {:?} with {stored} stored heads",
                k.dims(),
                q.dims()
            );
        }
        let device = device_of(q)?;
        // SAFETY: it only computes.
        let stride = unsafe { ffi::headkv_score_stride(tokens as i32) as usize };
        let values = uninitialized(&device, stored * stride)?;
        Ok(Self {
            device,
            heads: stored,
            candidates: tokens - window,
            tokens,
            values,
            stride,
        })
    }

    /// What says how a prompt's scores are reduced and pooled.
    fn args(&self, prompt: &Observed<'_>, config: &Compression, sinks: ffi::Address) -> ffi::Rank {
        let (shape, pool) = (prompt.shape, config.pool());
        ffi::Rank {
            heads: shape.heads as i32,
            kv_heads: shape.kv_heads as i32,
            tokens: self.tokens as i32,
            head_dim: shape.head_dim as i32,
            dtype: type_number(prompt.keys.dtype()),
            window: (self.tokens - self.candidates) as i32,
            scale: shape.scale,
            softcap: shape.softcap.unwrap_or(0.0),
            sinks,
            share: (shape.heads / self.heads) as i32,
            share_max: i32::from(config.reduce == Reduce::Max),
            before: pool.before as i32,
            after: pool.after as i32,
            pool_max: i32::from(config.pooling == Pooling::Max),
            decay: pool.decay,
            scores: start(&self.values, &self.device),
            ..ffi::Rank::default()
        }
    }

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

    /// How many candidates each head keeps where all heads' compete for `total`, as [`crate::selection`] has it; waits for the
    /// device, for these numbers alone.
    ///
    /// # Errors
    /// As [`Self::to_host`].
    pub fn compete(&self, total: usize, floor: usize, weights: &[f64]) -> Result<Vec<usize>> {
        let floor = floor.min(self.candidates);
        let total = total.min(self.heads * self.candidates);
        let open = total.saturating_sub(self.heads * floor);
        if open == 0 {
            return Ok(vec![floor; self.heads]);
        }
        let device = &self.device;
        let weights: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
        let weights = device.clone_htod(&weights)?;
        // SAFETY: it only computes.
        let bytes = unsafe { ffi::headkv_compete_workspace(self.heads as i32) };
        let workspace: CudaSlice<u8> = uninitialized(device, bytes)?;
        let counts: CudaSlice<i32> = uninitialized(device, self.heads)?;
        let args = ffi::Compete {
            scores: start(&self.values, device),
            stride: self.stride as i64,
            heads: self.heads as i32,
            candidates: self.candidates as i32,
            weights: start(&weights, device),
            floor: floor as u32,
            open: open as u32,
            workspace: start(&workspace, device),
            counts: start(&counts, device),
        };
        // SAFETY: the workspace is as large as the kernel asks for, and there is a weight and a count for each head; tests
        // compare with the CPU's numbers.
        launch(device, "the competition of heads", |stream| unsafe {
            ffi::headkv_compete(&args, stream)
        })?;
        let counts = device.clone_dtoh(&counts)?;
        Ok(counts.into_iter().map(|n| n as usize).collect())
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
