//! Experts in MXFP4 on the CPU: upstream multiplies by them there, and loads them on GPUs only.

use std::sync::Arc;

use candle_core::{DType, Result};
use mistralrs_quant::{MXFP4Layer, QuantMethod, QuantMethodConfig, ShardedVarBuilder};

/// Elements that share a scale, in 16 bytes.
const BLOCK: usize = 32;

/// As `MXFP4Layer::packed_gptoss_linear`, on the CPU too.
pub(crate) fn packed_gptoss_linear(
    experts: usize,
    inputs: usize,
    outputs: usize,
    bias: bool,
    name: &str,
    vb: ShardedVarBuilder,
) -> Result<Arc<dyn QuantMethod>> {
    if !vb.device().is_cpu() {
        return MXFP4Layer::packed_gptoss_linear(experts, inputs, outputs, bias, name, vb);
    }
    let blocks = (experts, outputs, inputs / BLOCK, BLOCK / 2);
    let name_of = |part: &str| format!("{name}_{part}");
    let hints = Default::default;
    let packed = vb.get_with_hints_dtype(blocks, &name_of("blocks"), hints(), DType::U8)?;
    let scales = (experts, outputs, inputs / BLOCK);
    let scales = vb.get_with_hints_dtype(scales, &name_of("scales"), hints(), DType::U8)?;
    let bias = match bias {
        true => Some(vb.get((experts, outputs), &name_of("bias"))?),
        false => None,
    };
    let layer = <MXFP4Layer as QuantMethod>::new(QuantMethodConfig::MXFP4 {
        blocks: packed.reshape((experts, outputs, inputs / 2))?,
        scales,
        bias,
    })?;
    Ok(Arc::new(layer))
}
