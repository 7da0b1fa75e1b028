//! Linear layers on the GPU, fast for the few rows that a small batch's generated tokens are.

use super::{
    device::{Operand, address, device_of, launch, type_number},
    ffi,
};
use candle_core::{DType, Module, Result, Tensor};

/// Rows up to which the kernel multiplies, HEADKV_PRODUCT_ROWS of `headkv.h`; more are a matrix product.
const FEW: usize = 2;
/// Elements that the kernel reads at once.
const EACH: usize = 8;

/// A matrix of weights `(out, in)` that multiplies rows from the left.
pub struct Linear {
    weight: Tensor,
}

impl Linear {
    /// Takes `weight`, `(out, in)`, if it lies on a GPU as bf16 or f16 and its rows can be read; `None` if not. It is not copied.
    ///
    /// # Errors
    /// A tensor that is not a matrix.
    pub fn new(weight: &Tensor) -> Result<Option<Self>> {
        let (_, inputs) = weight.dims2()?;
        let known = matches!(weight.dtype(), DType::BF16 | DType::F16);
        let aligned = weight.layout().start_offset().is_multiple_of(EACH);
        let fits = inputs.is_multiple_of(EACH) && weight.is_contiguous() && aligned;
        let takes = weight.device().is_cuda() && known && fits;
        Ok(takes.then(|| Self {
            weight: weight.clone(),
        }))
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, inputs) = x.dims2()?;
        let (outputs, expected) = self.weight.dims2()?;
        if rows > FEW || rows == 0 || x.dtype() != self.weight.dtype() || inputs != expected {
            return x.matmul(&self.weight.t()?);
        }
        let device = device_of(x)?;
        let x = Operand::new(x)?;
        // SAFETY: the kernel writes every element.
        let out = unsafe { Tensor::empty((rows, outputs), x.dtype(), self.weight.device())? };
        let args = ffi::Product {
            weights: address(&self.weight)?,
            x: x.address,
            x_row: x.strides[0],
            out: address(&out)?,
            rows: rows as i32,
            outputs: outputs as i32,
            inputs: inputs as i32,
            dtype: type_number(x.dtype()),
        };
        // SAFETY: weights and rows are as long as the kernel reads, and `out` as long as it writes; tests compare with the CPU.
        launch(&device, "a linear layer", |stream| unsafe {
            ffi::headkv_product(&args, stream)
        })?;
        Ok(out)
    }
}
