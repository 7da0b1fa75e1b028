//! Candle's tensors and memory as the kernels take them: addresses, strides, and a stream.

use super::ffi::{Address, Stream};
use candle_core::{
    CudaDevice, DType, Device, Result, Storage, Tensor, WithDType, cuda_backend::CudaDType,
};
use cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr};
use half::{bf16, f16};
use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

/// A tensor on the GPU whose rows the kernels can read: consecutive, and at multiples of 16 bytes.
pub struct Operand {
    /// Keeps the memory alive while kernels are being launched.
    tensor: Tensor,
    /// Elements from one index to the next of each dimension.
    pub strides: Vec<i64>,
    pub address: Address,
}

impl Operand {
    /// Copies the tensor only if its layout is one that the kernels do not take.
    pub fn new(tensor: &Tensor) -> Result<Self> {
        let (strides, offset) = {
            let layout = tensor.layout();
            (layout.stride().to_vec(), layout.start_offset())
        };
        let (rows, last) = strides.split_at(strides.len() - 1);
        let fits = last == [1]
            && rows
                .iter()
                .chain(&[offset])
                .all(|elements| elements % 8 == 0);
        let tensor = if fits {
            tensor.clone()
        } else {
            tensor.force_contiguous()?
        };
        let strides = tensor
            .stride()
            .iter()
            .map(|&elements| elements as i64)
            .collect();
        let address = address(&tensor)?;
        Ok(Self {
            tensor,
            strides,
            address,
        })
    }

    pub fn dtype(&self) -> DType {
        self.tensor.dtype()
    }
}

/// The address of a tensor's first element, of that type.
pub fn first<T: CudaDType + WithDType>(tensor: &Tensor) -> Result<Address> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        candle_core::bail!("headkv: expected a tensor on a CUDA device");
    };
    // Candle runs everything on the device's one stream, as the kernels do: its order is all the order needed.
    let stream = storage.device.cuda_stream();
    let (start, _) = storage.as_cuda_slice::<T>()?.device_ptr(&stream);
    Ok(start + (layout.start_offset() * size_of::<T>()) as u64)
}

/// The address of a tensor's first element, in bf16 or f16.
pub fn address(tensor: &Tensor) -> Result<Address> {
    match tensor.dtype() {
        DType::BF16 => first::<bf16>(tensor),
        DType::F16 => first::<f16>(tensor),
        other => candle_core::bail!(
            "headkv: no CUDA kernels for {other:?}; load the model in bf16 or f16"
        ),
    }
}

/// The kernels' number for an element type.
pub fn type_number(dtype: DType) -> i32 {
    i32::from(dtype == DType::F16)
}

/// The CUDA device of a tensor.
pub fn device_of(tensor: &Tensor) -> Result<CudaDevice> {
    match tensor.device() {
        Device::Cuda(device) => Ok(device.clone()),
        other => candle_core::bail!("headkv: expected a tensor on a CUDA device, found {other:?}"),
    }
}

/// The address of a slice's first element.
pub fn start<T>(slice: &CudaSlice<T>, device: &CudaDevice) -> Address {
    let stream = device.cuda_stream();
    let (start, _) = slice.device_ptr(&stream);
    start
}

/// Memory whose contents are whatever they were; at least one element, so that it has an address.
pub fn uninitialized<T: DeviceRepr>(device: &CudaDevice, elements: usize) -> Result<CudaSlice<T>> {
    // SAFETY: the element types used are plain numbers, valid whatever their bits, and every caller's kernel writes
    // what is read later.
    unsafe { device.alloc(elements.max(1)) }
}

/// Calls a launcher with the device's stream and turns its code into an error.
pub fn launch(device: &CudaDevice, what: &str, launcher: impl FnOnce(Stream) -> i32) -> Result<()> {
    let stream = device.cuda_stream();
    stream
        .context()
        .bind_to_thread()
        .map_err(candle_core::Error::wrap)?;
    match launcher(stream.cu_stream().cast()) {
        0 => Ok(()),
        1 => candle_core::bail!(
            "headkv: {what} does not support these sizes; head_dim must be 32, 64, 80, 96, 128 or 256"
        ),
        209 => candle_core::bail!(
            "headkv: {what} was not compiled for this GPU; set CUDA_COMPUTE_CAP and build again"
        ),
        code => candle_core::bail!("headkv: {what} failed with CUDA error {code}"),
    }
}

/// Runs `f` with scratch memory that all launches of a device share: they follow each other on one stream.
pub fn with_scratch<R>(
    device: &CudaDevice,
    bytes: usize,
    f: impl FnOnce(Address) -> Result<R>,
) -> Result<R> {
    static SCRATCH: LazyLock<Mutex<HashMap<candle_core::cuda_backend::DeviceId, CudaSlice<u8>>>> =
        LazyLock::new(Mutex::default);
    let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let held = scratch.get(&device.id()).map_or(0, CudaSlice::len);
    if held < bytes {
        scratch.insert(
            device.id(),
            uninitialized(device, bytes.next_power_of_two())?,
        );
    }
    f(scratch
        .get(&device.id())
        .map_or(0, |slice| start(slice, device)))
}
