//! How much of a GPU's memory tensors take.

use candle_core::{Device, Result};
use cudarc::driver::{result, sys::CUmemPool_attribute};

/// Bytes that tensors take on a GPU now, weights included; `None` for another device.
///
/// Candle allocates from the device's pool, which keeps freed memory for what comes next: the driver's own figures do not
/// tell it from memory in use.
///
/// # Errors
/// A failure of the device, which can be an earlier kernel's.
pub fn allocated_bytes(device: &Device) -> Result<Option<u64>> {
    let Device::Cuda(device) = device else {
        return Ok(None);
    };
    let stream = device.cuda_stream();
    stream.synchronize().map_err(candle_core::Error::wrap)?;
    let mut bytes = 0u64;
    // SAFETY: the pool is the device's own, and this attribute is a 64-bit number.
    unsafe {
        let pool = result::device::get_mem_pool(stream.context().cu_device())
            .map_err(candle_core::Error::wrap)?;
        result::mem_pool::get_attribute(
            pool,
            CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT,
            (&raw mut bytes).cast(),
        )
        .map_err(candle_core::Error::wrap)?;
    }
    Ok(Some(bytes))
}
