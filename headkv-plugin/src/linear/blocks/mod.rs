//! Linear layers whose weights stay quantized: ggml's blocks, multiplied by activations of eight bits.
//!
//! A block's weights are small whole numbers (codes) that share a scale and an offset: `weight = scale * code + offset`.
//! Activations become codes of eight bits too, 32 inputs with a scale of their own, so that a product is one of whole
//! numbers and is scaled once per block. Rounding the activations is the only error: of each it is at most half its
//! block's scale, a 254th of the block's largest absolute value.
//!
//! Blocks of eight outputs lie together, input by input in fours, which is what vector instructions add up at once. They
//! take what the file's take; those of the K formats, whose scales are unpacked, up to 4 % more.
//!
//! Formats: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md> and ggml's `ggml-common.h`.

mod activations;
mod codes;
mod formats;
mod isa;
mod product;
mod scales;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use candle_core::{
    CpuStorage, DType, Device, Module, Result, Storage, Tensor,
    quantized::{GgmlDType, QTensor},
};
use product::{Matrix, Store};

/// Outputs whose blocks lie together.
const PANEL: usize = 8;
/// Inputs that share a scale of their activations.
const PART: usize = 32;

/// A quantized matrix of weights `(out, in)` that multiplies rows from the left.
pub struct Quantized {
    matrix: Box<dyn Matrix>,
    dtype: GgmlDType,
    outputs: usize,
    inputs: usize,
}

impl Quantized {
    /// Takes `weight`, `(out, in)`, if it lies on the CPU in a format of blocks that is known here; `None` if not.
    ///
    /// # Errors
    /// A tensor that is not a matrix.
    pub fn new(weight: &QTensor) -> Result<Option<Self>> {
        if !weight.device().is_cpu() {
            return Ok(None);
        }
        let pack: fn(&[u8], usize, usize) -> Box<dyn Matrix> = match weight.dtype() {
            GgmlDType::Q4_0 => Store::<formats::Q4_0>::boxed,
            GgmlDType::Q4_1 => Store::<formats::Q4_1>::boxed,
            GgmlDType::Q5_0 => Store::<formats::Q5_0>::boxed,
            GgmlDType::Q5_1 => Store::<formats::Q5_1>::boxed,
            GgmlDType::Q8_0 => Store::<formats::Q8_0>::boxed,
            GgmlDType::Q2K => Store::<formats::Q2K>::boxed,
            GgmlDType::Q3K => Store::<formats::Q3K>::boxed,
            GgmlDType::Q4K => Store::<formats::Q4K>::boxed,
            GgmlDType::Q5K => Store::<formats::Q5K>::boxed,
            GgmlDType::Q6K => Store::<formats::Q6K>::boxed,
            _ => return Ok(None),
        };
        let (outputs, inputs) = weight.shape().dims2()?;
        if !inputs.is_multiple_of(weight.dtype().block_size()) {
            candle_core::bail!(
                "headkv: {inputs} inputs are no whole blocks; convert the file again"
            );
        }
        Ok(Some(Self {
            matrix: pack(&weight.data()?, outputs, inputs),
            dtype: weight.dtype(),
            outputs,
            inputs,
        }))
    }

    /// The format of the weights.
    pub fn dtype(&self) -> GgmlDType {
        self.dtype
    }

    /// Outputs and inputs.
    pub fn dims(&self) -> (usize, usize) {
        (self.outputs, self.inputs)
    }

    /// Bytes that the weights take.
    pub fn bytes(&self) -> usize {
        self.matrix.bytes()
    }

    /// The weights of the outputs `ids`, of any shape, in f32: its shape and `in`. An embedding.
    ///
    /// # Errors
    /// An id that is no output's, or ids that are not u32.
    pub fn rows(&self, ids: &Tensor) -> Result<Tensor> {
        let mut values = Vec::with_capacity(ids.elem_count() * self.inputs);
        for id in ids.flatten_all()?.to_vec1::<u32>()? {
            if id as usize >= self.outputs {
                candle_core::bail!("headkv: row {id} of a matrix of {} rows", self.outputs);
            }
            self.matrix.row(id as usize, &mut values);
        }
        let mut shape = ids.dims().to_vec();
        shape.push(self.inputs);
        Tensor::from_vec(values, shape, &Device::Cpu)
    }
}

impl Module for Quantized {
    /// `x`, `(rows, in)` in f32 or bf16, times the weights: `(rows, out)` in the same type. A row's product does not depend
    /// on the others.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, inputs) = x.dims2()?;
        if inputs != self.inputs {
            candle_core::bail!(
                "headkv: a linear layer for {} inputs got {inputs}",
                self.inputs
            );
        }
        let wide = x.to_dtype(DType::F32)?.contiguous()?;
        let (storage, layout) = wide.storage_and_layout();
        let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
            candle_core::bail!("headkv: a linear layer on the CPU got rows of another device");
        };
        let values = &values[layout.start_offset()..][..rows * inputs];
        let out = self.matrix.multiply(values, rows);
        Tensor::from_vec(out, (rows, self.outputs), &Device::Cpu)?.to_dtype(x.dtype())
    }
}
