//! Page-locked host memory, which a GPU copies to and from while it computes.

use super::device::{device_of, uninitialized};
use candle_core::{
    CudaStorage, DType, Device, Result, Storage, Tensor, WithDType, cuda_backend::CudaDType,
    op::BackpropOp,
};
use cudarc::driver::{DeviceRepr, PinnedHostSlice};
use half::{bf16, f16};

/// A tensor of three dimensions in bf16 or f16, in page-locked host memory.
pub struct Locked {
    words: PinnedHostSlice<u16>,
    dims: (usize, usize, usize),
    dtype: DType,
}

impl Locked {
    /// Copies a tensor from its GPU, which does so when it comes to it: nobody waits.
    ///
    /// # Errors
    /// A tensor of another type or device, and memory that runs out.
    pub fn copy(x: &Tensor) -> Result<Self> {
        match x.dtype() {
            DType::BF16 => Self::copy_of::<bf16>(x),
            DType::F16 => Self::copy_of::<f16>(x),
            other => candle_core::bail!(
                "headkv: keys and values in {other:?}; load the model in bf16 or f16"
            ),
        }
    }

    fn copy_of<T: CudaDType + WithDType + DeviceRepr>(x: &Tensor) -> Result<Self> {
        let x = x.contiguous()?;
        let (device, dims) = (device_of(&x)?, x.dims3()?);
        let (storage, layout) = x.storage_and_layout();
        let (Storage::Cuda(storage), Some((from, to))) = (&*storage, layout.contiguous_offsets())
        else {
            candle_core::bail!("headkv: expected a contiguous tensor on a CUDA device");
        };
        let wrap = candle_core::Error::wrap;
        let elements = storage.as_cuda_slice::<T>()?.slice(from..to);
        // SAFETY: both types have 16 bits, all of which are values.
        let Some(elements) = (unsafe { elements.transmute::<u16>(to - from) }) else {
            candle_core::bail!("headkv: expected elements of 16 bits");
        };
        let stream = device.cuda_stream();
        // SAFETY: the copy writes all of it; readers wait for the copy.
        let words = unsafe { stream.context().alloc_pinned_with_flags(to - from, 0) };
        let mut words = words.map_err(wrap)?;
        stream.memcpy_dtoh(&elements, &mut words).map_err(wrap)?;
        Ok(Self {
            words,
            dims,
            dtype: x.dtype(),
        })
    }

    /// The tensor on a device: on a GPU that is when it comes to it, on the CPU once the copy here is complete.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn read(&self, device: &Device) -> Result<Tensor> {
        match self.dtype {
            DType::F16 => self.read_as::<f16>(device, f16::from_bits),
            _ => self.read_as::<bf16>(device, bf16::from_bits),
        }
    }

    fn read_as<T: CudaDType + WithDType + DeviceRepr>(
        &self,
        device: &Device,
        from_bits: fn(u16) -> T,
    ) -> Result<Tensor> {
        let wrap = candle_core::Error::wrap;
        let Device::Cuda(device) = device else {
            let words = self.words.as_slice().map_err(wrap)?;
            let elements: Vec<T> = words.iter().copied().map(from_bits).collect();
            return Tensor::from_vec(elements, self.dims, &Device::Cpu);
        };
        let mut elements = uninitialized::<T>(device, self.words.len())?;
        {
            let mut view = elements.slice_mut(..);
            // SAFETY: both types have 16 bits, all of which are values.
            let Some(mut view) = (unsafe { view.transmute_mut::<u16>(self.words.len()) }) else {
                candle_core::bail!("headkv: expected elements of 16 bits");
            };
            let stream = device.cuda_stream();
            stream.memcpy_htod(&self.words, &mut view).map_err(wrap)?;
        }
        let storage = CudaStorage::wrap_cuda_slice(elements, device.clone());
        let none = BackpropOp::none();
        Ok(Tensor::from_storage(
            Storage::Cuda(storage),
            self.dims,
            none,
            false,
        ))
    }
}
