//! Linear layers on the GPU, fast for the few rows that a batch's generated tokens are.
//!
//! A layer's queries, keys and values are products of the same rows, and so are a gate and what goes through it. Layers that
//! were seen to follow each other so ([`Siblings`]) are multiplied in one launch, or by one matrix product of their weights
//! together: small ones keep a GPU busy no longer than it takes to start them.

use super::{
    device::{Operand, address, device_of, launch, type_number},
    ffi,
};
use candle_core::{DType, Module, Result, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Elements that the kernels read at once.
const EACH: usize = 8;
/// Rows up to which layers are multiplied together; more keep the device busy with one.
const TOGETHER: usize = 256;
/// Outputs of a layer that is too small for a matrix product of its own.
const SMALL: usize = 2048;

/// A matrix of weights `(out, in)` that multiplies rows from the left.
pub struct Linear {
    matrix: Arc<Matrix>,
    siblings: Arc<Siblings>,
}

/// The linear layers of one model, and the rows that one of them multiplied last.
#[derive(Default)]
pub struct Siblings(Mutex<Option<Last>>);

/// A product, and those of the same rows that were computed with it and are not asked for yet.
struct Last {
    x: Tensor,
    first: Arc<Matrix>,
    others: Vec<(Arc<Matrix>, Tensor)>,
}

struct Matrix {
    weight: Mutex<Tensor>,
    followers: Mutex<Followers>,
}

/// The layers that multiply the same rows as this one, just after it.
#[derive(Default)]
struct Followers {
    matrices: Vec<Arc<Matrix>>,
    /// All weights in one, this one's first; theirs are its parts then.
    stacked: Option<Tensor>,
    /// Whether one of them once did not follow: it is not counted on again.
    unsteady: bool,
}

#[cfg(test)]
impl Siblings {
    /// Products that are computed and not asked for yet.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.0).as_ref().map_or(0, |last| last.others.len())
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether two tensors are the same elements in memory.
fn same(a: &Tensor, b: &Tensor) -> bool {
    let ((storage_a, a), (storage_b, b)) = (a.storage_and_layout(), b.storage_and_layout());
    let place = |layout: &candle_core::Layout| (layout.start_offset(), layout.stride().to_vec());
    std::ptr::eq(&*storage_a, &*storage_b) && a.shape() == b.shape() && place(a) == place(b)
}

impl Linear {
    /// Takes `weight`, `(out, in)`, if it lies on a GPU as bf16 or f16 and its rows can be read; `None` if not. It is not
    /// copied. `siblings` are all layers of its model.
    ///
    /// # Errors
    /// A tensor that is not a matrix.
    pub fn new(weight: &Tensor, siblings: &Arc<Siblings>) -> Result<Option<Self>> {
        let (_, inputs) = weight.dims2()?;
        let known = matches!(weight.dtype(), DType::BF16 | DType::F16);
        let aligned = weight.layout().start_offset().is_multiple_of(EACH);
        let fits = inputs.is_multiple_of(EACH) && weight.is_contiguous() && aligned;
        let takes = weight.device().is_cuda() && known && fits;
        Ok(takes.then(|| Self {
            matrix: Arc::new(Matrix {
                weight: weight.clone().into(),
                followers: Mutex::default(),
            }),
            siblings: siblings.clone(),
        }))
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let weight = lock(&self.matrix.weight).clone();
        let (rows, inputs) = x.dims2()?;
        let mut last = lock(&self.siblings.0);
        let fits = x.dtype() == weight.dtype() && inputs == weight.dim(1)?;
        if rows > TOGETHER || rows == 0 || !fits {
            *last = None;
            return x.contiguous()?.matmul(&weight.t()?);
        }
        if let Some(last) = last.as_mut().filter(|last| same(&last.x, x)) {
            let mut others = last.others.iter();
            if let Some(at) = others.position(|(matrix, _)| Arc::ptr_eq(matrix, &self.matrix)) {
                return Ok(last.others.swap_remove(at).1);
            }
            last.first.is_followed_by(&self.matrix)?;
            return product(x, &[weight]).map(|mut out| out.remove(0));
        }
        if let Some(last) = last.take().filter(|last| !last.others.is_empty()) {
            lock(&last.first.followers).disband();
        }
        let (out, others) = self.matrix.together(x, weight)?;
        *last = Some(Last {
            x: x.clone(),
            first: self.matrix.clone(),
            others,
        });
        Ok(out)
    }
}

impl Followers {
    fn disband(&mut self) {
        self.matrices.clear();
        // Its parts are the weights of their matrices still.
        (self.stacked, self.unsteady) = (None, true);
    }
}

impl Matrix {
    /// Notes that a layer multiplied the same rows after this one.
    fn is_followed_by(self: &Arc<Self>, other: &Arc<Self>) -> Result<()> {
        let mut followers = lock(&self.followers);
        let known = followers.matrices.iter().any(|it| Arc::ptr_eq(it, other));
        let full = 1 + followers.matrices.len() == ffi::PRODUCTS;
        let whole = lock(&other.weight).dim(0)?.is_multiple_of(EACH);
        if !(known || full || followers.unsteady || Arc::ptr_eq(self, other)) && whole {
            followers.matrices.push(other.clone());
            followers.stacked = None;
        }
        Ok(())
    }

    /// The product of `x`, `(rows, in)`, and those of the layers that follow, where it is worth while.
    #[allow(clippy::type_complexity)]
    fn together(&self, x: &Tensor, weight: Tensor) -> Result<(Tensor, Vec<(Arc<Self>, Tensor)>)> {
        let mut followers = lock(&self.followers);
        let outputs = |weight: &Tensor| weight.dims()[0];
        let others = followers.matrices.iter().map(|it| lock(&it.weight).clone());
        let weights: Vec<_> = std::iter::once(weight).chain(others).collect();
        let whole = outputs(&weights[0]).is_multiple_of(EACH);
        let small = weights.iter().any(|weight| outputs(weight) <= SMALL);
        let few = x.dim(0)? <= ffi::PRODUCT_ROWS;
        let mut products = if weights.len() == 1 || !whole || !(few || small) {
            return Ok((product(x, &weights[..1])?.remove(0), Vec::new()));
        } else if few {
            product(x, &weights)?
        } else {
            if followers.stacked.is_none() {
                followers.stacked = Some(self.stack(&followers.matrices, &weights)?);
            }
            let Some(stacked) = &followers.stacked else {
                candle_core::bail!("headkv: weights that were put together are gone");
            };
            let widths: Vec<_> = weights.iter().map(outputs).collect();
            split(&x.contiguous()?.matmul(&stacked.t()?)?, &widths)?
        };
        let first = products.remove(0);
        let others = followers.matrices.iter().cloned().zip(products);
        Ok((first, others.collect()))
    }

    /// Puts weights into one tensor, whose parts the matrices have from then on.
    fn stack(&self, others: &[Arc<Self>], weights: &[Tensor]) -> Result<Tensor> {
        let stacked = Tensor::cat(weights, 0)?;
        let mut from = 0;
        let matrices = std::iter::once(self).chain(others.iter().map(|it| &**it));
        for (matrix, weight) in matrices.zip(weights) {
            let outputs = weight.dim(0)?;
            *lock(&matrix.weight) = stacked.narrow(0, from, outputs)?;
            from += outputs;
        }
        Ok(stacked)
    }
}

/// `x`, `(rows, in)`, times each of the weights: in one launch if the rows are few.
fn product(x: &Tensor, weights: &[Tensor]) -> Result<Vec<Tensor>> {
    let (rows, inputs) = x.dims2()?;
    if rows > ffi::PRODUCT_ROWS {
        return weights
            .iter()
            .map(|weight| x.matmul(&weight.t()?))
            .collect();
    }
    let device = device_of(x)?;
    let x = Operand::new(x)?;
    let mut args = ffi::Product {
        x: x.address,
        x_row: x.strides[0],
        rows: rows as i32,
        inputs: inputs as i32,
        dtype: type_number(x.dtype()),
        ..ffi::Product::default()
    };
    let mut products = Vec::with_capacity(weights.len());
    for (at, weight) in weights.iter().enumerate() {
        let outputs = weight.dim(0)?;
        // SAFETY: the kernel writes every element.
        let out = unsafe { Tensor::empty((rows, outputs), x.dtype(), weight.device())? };
        args.weights[at] = address(weight)?;
        args.out[at] = address(&out)?;
        args.outputs[at] = outputs as i32;
        products.push(out);
    }
    // SAFETY: weights and rows are as long as the kernel reads, and products as long as it writes; tests compare with the CPU.
    launch(&device, "a linear layer", |stream| unsafe {
        ffi::headkv_product(&args, stream)
    })?;
    Ok(products)
}

/// The columns of `x`, `(rows, sum of widths)` and contiguous, as tensors of their own.
fn split(x: &Tensor, widths: &[usize]) -> Result<Vec<Tensor>> {
    let rows = x.dim(0)?;
    let mut args = ffi::Split {
        from: address(x)?,
        rows: rows as i32,
        ..ffi::Split::default()
    };
    let mut parts = Vec::with_capacity(widths.len());
    for (at, &width) in widths.iter().enumerate() {
        // SAFETY: the kernel writes every element.
        let part = unsafe { Tensor::empty((rows, width), x.dtype(), x.device())? };
        (args.to[at], args.widths[at]) = (address(&part)?, width as i32);
        parts.push(part);
    }
    // SAFETY: rows are as long as the widths together, multiples of 8, and parts as long as they are; tests compare with the CPU.
    launch(&device_of(x)?, "taking a product apart", |stream| unsafe {
        ffi::headkv_split(&args, stream)
    })?;
    Ok(parts)
}
